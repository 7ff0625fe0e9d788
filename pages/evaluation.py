"""What the page of an evaluation shows: the scores, and the arms of each image side by side."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from pages.many import Card, Run, nearest_first
from pages.render import clean
from pages.single import file_name

Headings = Mapping[str, tuple[str, str]]  # metric -> heading, format
Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]  # name, heads, rows
EvaluationParts = tuple[Sequence[Table], Headings, Mapping[str, str], bytes]
# Of each arm of an image.
SHOWN = ("cider", "cider_masked", "meteor", "rouge_l", "clip_score", "ref_clip_score", "copied")
SORTED = ("cider", "cider_masked", "meteor", "rouge_l", "clip_score", "ref_clip_score", "words")


def evaluation_run(
    outcome: Mapping[str, Any],
    tables: Sequence[Table],
    headings: Headings,
    arm_names: Mapping[str, str],
    plot: bytes,
) -> Run:
    """An evaluation as a run of cards; `plot` is a PNG."""
    rows = outcome["captions"]
    arms = list(outcome["scores"])
    measured = rows[0]["arms"][arms[0]]["scores"] if rows else {}
    shown = [metric for metric in SHOWN if metric in measured]
    cards = [_card(row, arms, shown, headings, arm_names) for row in rows]
    models = ", ".join(model["name"] for model in outcome["models"].values())
    copies = len(outcome["near_copies"])
    return Run(
        title=_title(outcome["sweep"]),
        kicker=f"{outcome['dataset']}, mode {outcome['mode']}",
        summary=f"{outcome['images']} images under {len(arms)} arms, "
        f"near-copies in the gallery: {copies}. Models: {models}.",
        cards=cards,
        sorts=nearest_first(cards),
        measures={
            headings[metric][0]: {
                arm_names[arm]: [row["arms"][arm]["scores"][metric] for row in rows] for arm in arms
            }
            for metric in SORTED
            if metric in measured
        },
        metrics=[headings[metric][0] for metric in shown],
        scores=plain_tables(tables),
        **plot_of(plot),
    )


def _title(sweep: Mapping[str, Any] | None) -> str:
    if sweep is None:
        return "Evaluation: does retrieval help?"
    return f"Evaluation: captions by {' and '.join(sweep['settings'])}"


def plain_tables(tables: Sequence[Table]) -> list[dict[str, Any]]:
    """Tables as templates take them."""
    return [
        clean({"name": name, "heads": list(heads), "rows": [list(row) for row in rows]})
        for name, heads, rows in tables
    ]


def plot_of(plot: bytes) -> dict[str, str]:
    """A PNG of an evaluation, and what it shows."""
    return {
        "plot": "data:image/png;base64," + base64.b64encode(plot).decode(),
        "plot_alt": "CIDEr minus that of no retrieval, with intervals, as in the table.",
    }


def _card(
    row: Mapping[str, Any],
    arms: Sequence[str],
    shown: Sequence[str],
    headings: Headings,
    arm_names: Mapping[str, str],
) -> Card:
    main = "retrieved" if "retrieved" in row["arms"] else arms[0]
    return Card(
        title=f"Experiment {row['experiment_index']}: {file_name(row['image'])}",
        image=row["image"],
        key=row["content_hash"],
        caption=row["arms"][main]["caption"],
        references=row["references"],
        neighbors=row["similar_images"],
        prompt=row["arms"][main]["prompt"],
        arms=[
            (
                arm_names[arm],
                row["arms"][arm]["caption"],
                [_cell(headings[m][1], row["arms"][arm]["scores"][m]) for m in shown],
            )
            for arm in arms
        ],
    )


def _cell(form: str, value: float | None) -> str:
    return "" if value is None else form.format(value)
