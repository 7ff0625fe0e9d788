"""The evaluation's results for people: Markdown tables with intervals, and a plot."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.plots import plot_arms, plot_sweep
from experiments.recall import PLACES
from experiments.results import publish
from support.extra_scores import ExtraScores
from support.storage.files import replace_file

Headings = Mapping[str, tuple[str, str]]  # metric -> heading, format
Table = tuple[str, list[str], list[list[str]]]  # name, heads, rows
METRICS: Headings = {
    "bleu_1": ("BLEU-1", "{:.3f}"),
    "bleu_2": ("BLEU-2", "{:.3f}"),
    "bleu_3": ("BLEU-3", "{:.3f}"),
    "bleu_4": ("BLEU-4", "{:.3f}"),
    "meteor": ("METEOR", "{:.3f}"),
    "rouge_l": ("ROUGE-L", "{:.3f}"),
    "clip_score": ("CLIPScore", "{:.3f}"),
    "ref_clip_score": ("RefCLIPScore", "{:.3f}"),
    "text_cosine": ("text cosine", "{:.3f}"),
    "copied": ("copied", "{:.1%}"),
    "words": ("words", "{:.1f}"),
    "distinct_1": ("distinct-1", "{:.3f}"),
    "distinct_2": ("distinct-2", "{:.3f}"),
}
WITH_INTERVALS = ("cider", "cider_masked")  # the metrics whose differences are shown
ARM_NAMES = {
    "none": "no retrieval",
    "retrieved": "retrieved",
    "random": "random captions",
    "wrong": "wrong captions",
    "nearest": "copy of the nearest",
    "consensus": "consensus of the neighbours",
}
RECALL_NAMES = {
    "text_to_image": "text to image, by the image model",
    "image_to_text": "image to text, by the image model",
    "references": "text to image, by the image's other references",
}


def evaluation_table(outcome: Mapping[str, Any], extra: ExtraScores | None = None) -> str:
    """All tables as Markdown, each below its name."""
    lines: list[str] = []
    for name, heads, rows in evaluation_tables(outcome, extra):
        lines += ["", f"**{name}**", "", *_markdown(heads, rows)]
    return "\n".join([*lines[1:], "", _copies_line(outcome)]) + "\n"


def _copies_line(outcome: Mapping[str, Any]) -> str:
    """How many images have a near-copy in the gallery, in a sentence."""
    count = len(outcome["near_copies"])
    return f"Near-copies in the gallery: of {count or 'none'} of the {outcome['images']} images."


def evaluation_tables(outcome: Mapping[str, Any], extra: ExtraScores | None = None) -> list[Table]:
    """All tables of an evaluation that have rows."""
    found = _score_tables(outcome, outcome["scores"], "", extra)
    without = outcome["scores_without_near_copies"]
    if without is not None:
        left = outcome["images"] - len(outcome["near_copies"])
        which = f", without the images that have a near-copy in the gallery ({left} are left)"
        found += _score_tables(outcome, without, which, extra)
    found.append(_recall_table(outcome))
    gains = outcome["gains"]
    if gains is not None:
        found += [_bins_table(gains), _gains_table("helped", gains), _gains_table("harmed", gains)]
    return [table for table in found if table[2]]


def _score_tables(
    outcome: Mapping[str, Any], scores: Mapping[str, Any], which: str, extra: ExtraScores | None
) -> list[Table]:
    """The scores of each arm, and their differences from the baselines."""
    headings, titles = headings_of(extra), titles_of(outcome)
    columns = [metric for metric in headings if any(metric in row for row in scores.values())]
    rows = [
        [titles[arm], *(headings[metric][1].format(row[metric]["value"]) for metric in columns)]
        for arm, row in scores.items()
    ]
    model = outcome["clip_score_model"]
    circular = ": circular, the same model chose the neighbours" if model["circular"] else ""
    name = f"Scores of each arm{which} (CLIPScore by {model['name']}{circular})"
    return [
        (name, ["arm", *(headings[metric][0] for metric in columns)], rows),
        _intervals(scores, titles, columns, headings, which),
    ]


def _intervals(
    scores: Mapping[str, Any],
    titles: Mapping[str, str],
    columns: Sequence[str],
    headings: Headings,
    which: str,
) -> Table:
    """The differences from the baselines with their paired bootstrap intervals."""
    shown = [metric for metric in WITH_INTERVALS if metric in columns]
    pairs = [
        (metric, baseline)
        for metric in shown
        for baseline in ("none", "retrieved")
        if any(f"minus_{baseline}" in row[metric] for row in scores.values())
    ]
    rows = []
    for arm, row in scores.items():
        cells = [_interval(row[metric].get(f"minus_{baseline}")) for metric, baseline in pairs]
        rows.append([titles[arm], *cells])
    names = [f"{headings[metric][0]} minus {ARM_NAMES[baseline]}" for metric, baseline in pairs]
    what = "with paired bootstrap 95 % intervals: over the images, not trainings of the models"
    return f"Differences{which}, {what}", ["arm", *names], rows if pairs else []


def _recall_table(outcome: Mapping[str, Any]) -> Table:
    titles = {**titles_of(outcome), **RECALL_NAMES}
    by_caption = "text to image, by the caption of: "
    rows = []
    for name, recall in outcome["recall"].items():
        title = titles[name] if name in RECALL_NAMES else by_caption + titles[name]
        rows.append([title, *(f"{share:.1%}" for share in recall.values())])
    heads = ["query and result", *(f"recall@{k}" for k in PLACES)]
    return f"Retrieval among the {outcome['images']} images", heads, rows


def _bins_table(gains: Mapping[str, Any]) -> Table:
    rows = []
    for one in gains["by_similarity"]:
        bounds = f"{one['from']:.3f} to {one['to']:.3f}"
        rows.append([bounds, str(one["images"]), _interval(one)])
    heads = ["similarity of the nearest image", "images", "CIDEr, retrieved minus no retrieval"]
    return "Does retrieval help when something similar is there?", heads, rows


def _gains_table(kind: str, gains: Mapping[str, Any]) -> Table:
    rows = []
    for one in gains[kind]:
        nearest = one["nearest"] or {"similarity": float("nan"), "metadata": {"caption": ""}}
        texts = [one["without"], one["with"], nearest["metadata"]["caption"] or ""]
        number = str(one["experiment_index"])
        similarity = f"{nearest['similarity']:.3f}"
        rows.append([number, f"{one['difference']:+.3f}", *texts, similarity])
    heads = ["experiment", "CIDEr", "no retrieval", "retrieved", "nearest image", "similarity"]
    return f"Images that retrieval {kind} most", heads, rows


def page_parts(
    outcome: Mapping[str, Any], extra: ExtraScores | None, plot: Path
) -> tuple[list[Table], Headings, Mapping[str, str], bytes]:
    """What the page of an evaluation shows beside its captions."""
    tables = evaluation_tables(outcome, extra)
    return tables, headings_of(extra), titles_of(outcome), plot.read_bytes()


def card_parts(outcome: Mapping[str, Any], extra: ExtraScores | None) -> tuple[list[Table], bytes]:
    """What a notebook shows of an evaluation: its tables, and its plot as a PNG."""
    return evaluation_tables(outcome, extra), _plot(outcome, extra)


def headings_of(extra: ExtraScores | None) -> Headings:
    """The headings of all metrics, in the order of the columns."""
    cider = {"cider": ("CIDEr", "{:.3f}")}
    if extra is None:
        return {**cider, **METRICS}
    masked = {"cider_masked": (extra.masked_heading, "{:.3f}")}
    return {**cider, **masked, **METRICS, **extra.headings}


def titles_of(outcome: Mapping[str, Any]) -> dict[str, str]:
    """The arms as people call them; those of a sweep by their settings."""
    titles = {}
    for arm in outcome["scores"]:
        kind, *settings = arm.split(", ", 1)
        titles[arm] = ", ".join([ARM_NAMES.get(kind, kind), *settings])
    return titles


def _interval(cell: Mapping[str, float] | None) -> str:
    if cell is None:
        return ""
    return f"{cell['difference']:+.3f} [{cell['low']:+.3f}, {cell['high']:+.3f}]"


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(map(_cell, row)) + " |" for row in (heads, *rows)]
    columns = zip(*rows, strict=True)
    aligned = ["---:" if all(map(_is_number, column)) else "---" for column in columns]
    return [lines[0], "| " + " | ".join(aligned) + " |", *lines[1:]]


def _is_number(text: str) -> bool:
    return text[:1] in "+-.0123456789" or text == "nan"


def _cell(text: str) -> str:
    """A text that ends no cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


def save_evaluation(outcome: Mapping[str, Any], extra: ExtraScores | None = None) -> list[Path]:
    """Writes evaluation_{timestamp}.json, and beside it the tables (.md) and a plot (.png)."""
    path = publish("evaluation", outcome)
    table, plot = path.with_suffix(".md"), path.with_suffix(".png")
    replace_file(table, [evaluation_table(outcome, extra)], "RESULTS_DIR")
    replace_file(plot, [_plot(outcome, extra)], "RESULTS_DIR")
    return [path, table, plot]


def _plot(outcome: Mapping[str, Any], extra: ExtraScores | None) -> bytes:
    scores, headings = outcome["scores"], headings_of(extra)
    measured = next(iter(scores.values()))
    drawn = {metric: headings[metric][0] for metric in WITH_INTERVALS if metric in measured}
    if outcome["sweep"] is not None:
        return plot_sweep(scores, outcome["sweep"], drawn)
    return plot_arms(scores, titles_of(outcome), drawn)
