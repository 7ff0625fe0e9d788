"""The evaluation's results for people: a Markdown table with intervals, and a plot."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.results import publish
from support.extra_scores import ExtraScores
from support.storage.files import replace_file

Headings = Mapping[str, tuple[str, str]]  # metric -> heading, format
METRICS: Headings = {
    "bleu_1": ("BLEU-1", "{:.3f}"),
    "bleu_2": ("BLEU-2", "{:.3f}"),
    "bleu_3": ("BLEU-3", "{:.3f}"),
    "bleu_4": ("BLEU-4", "{:.3f}"),
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


def evaluation_table(outcome: Mapping[str, Any], extra: ExtraScores | None = None) -> str:
    """The scores as a Markdown table, one arm per row, and the CIDEr differences with intervals."""
    parts = [_markdown(*table[1:]) for table in score_tables(outcome, extra)]
    return "\n".join([*parts[0], "", *parts[1]]) + "\n"


def score_tables(
    outcome: Mapping[str, Any], extra: ExtraScores | None = None
) -> list[tuple[str, list[str], list[list[str]]]]:
    """Both tables: name, heads and rows."""
    scores, headings = outcome["scores"], headings_of(extra)
    columns = [metric for metric in headings if any(metric in row for row in scores.values())]
    rows = []
    for arm, row in scores.items():
        cells = [headings[metric][1].format(row[metric]["value"]) for metric in columns]
        rows.append([ARM_NAMES[arm], *cells])
    heads = ["arm", *(headings[metric][0] for metric in columns)]
    intervals = "Differences, with paired bootstrap 95 % intervals"
    return [
        ("Scores of each arm", heads, rows),
        (intervals, *_intervals(scores, columns, headings)),
    ]


def page_parts(
    outcome: Mapping[str, Any], extra: ExtraScores | None, plot: Path
) -> tuple[list[Any], Headings, Mapping[str, str], bytes]:
    """What the page of an evaluation shows beside its captions."""
    return score_tables(outcome, extra), headings_of(extra), ARM_NAMES, plot.read_bytes()


def card_parts(outcome: Mapping[str, Any], extra: ExtraScores | None) -> tuple[list[Any], bytes]:
    """What a notebook shows of an evaluation: its tables, and its plot as a PNG."""
    return score_tables(outcome, extra), _plot(outcome, extra)


def headings_of(extra: ExtraScores | None) -> Headings:
    """The headings of all metrics, in the order of the columns."""
    cider = {"cider": ("CIDEr", "{:.3f}")}
    if extra is None:
        return {**cider, **METRICS}
    masked = {"cider_masked": (extra.masked_heading, "{:.3f}")}
    return {**cider, **masked, **METRICS, **extra.headings}


def _intervals(
    scores: Mapping[str, Any], columns: Sequence[str], headings: Headings
) -> tuple[list[str], list[list[str]]]:
    """Heads and rows: the differences from the baselines with their paired bootstrap intervals."""
    shown = [metric for metric in WITH_INTERVALS if metric in columns]
    pairs = [(metric, baseline) for metric in shown for baseline in ("none", "retrieved")]
    rows = []
    for arm, row in scores.items():
        cells = [_interval(row[metric].get(f"minus_{baseline}")) for metric, baseline in pairs]
        rows.append([ARM_NAMES[arm], *cells])
    names = [f"{headings[metric][0]} minus {ARM_NAMES[baseline]}" for metric, baseline in pairs]
    return ["arm", *names], rows


def _interval(cell: Mapping[str, float] | None) -> str:
    if cell is None:
        return ""
    return f"{cell['difference']:+.3f} [{cell['low']:+.3f}, {cell['high']:+.3f}]"


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(row) + " |" for row in (heads, *rows)]
    lines.insert(1, "| --- |" + " ---: |" * (len(heads) - 1))
    return lines


def save_evaluation(outcome: Mapping[str, Any], extra: ExtraScores | None = None) -> list[Path]:
    """Writes evaluation_{timestamp}.json, and beside it the tables (.md) and a plot (.png)."""
    path = publish("evaluation", outcome)
    table, plot = path.with_suffix(".md"), path.with_suffix(".png")
    replace_file(table, [evaluation_table(outcome, extra)], "RESULTS_DIR")
    replace_file(plot, [_plot(outcome, extra)], "RESULTS_DIR")
    return [path, table, plot]


def _plot(outcome: Mapping[str, Any], extra: ExtraScores | None) -> bytes:
    """Each arm's CIDEr minus that of no retrieval, with 95 % intervals, as a PNG."""
    from matplotlib.figure import Figure

    scores = outcome["scores"]
    shown = [metric for metric in WITH_INTERVALS if metric in next(iter(scores.values()))]
    size = (5.2 * len(shown), 0.5 * len(scores) + 1.3)
    figure = Figure(figsize=size, layout="constrained")
    plots = figure.subplots(1, len(shown), squeeze=False)[0]
    for axes, metric in zip(plots, shown, strict=True):
        _plot_metric(axes, metric, scores)
        axes.set_xlabel(f"{headings_of(extra)[metric][0]}: difference from no retrieval")
    image = io.BytesIO()
    figure.savefig(image, dpi=130, format="png")
    return image.getvalue()


def _plot_metric(axes: Any, metric: str, scores: Mapping[str, Any]) -> None:
    zero = {"difference": 0.0, "low": 0.0, "high": 0.0}
    for place, row in enumerate(scores.values()):
        change = row[metric].get("minus_none") or zero  # no retrieval itself, or where it is absent
        interval = [change["low"], change["high"]]
        axes.plot(interval, [place, place], color="#3b6ea5", linewidth=2)
        axes.plot(change["difference"], place, "o", color="#3b6ea5")
        at = {"xycoords": ("axes fraction", "data"), "va": "center"}
        axes.annotate(f"{row[metric]['value']:.2f}", (1.02, place), **at)
    axes.axvline(0, color="#888888", linewidth=1)
    axes.set_yticks(range(len(scores)), [ARM_NAMES[arm] for arm in scores])
    axes.invert_yaxis()
