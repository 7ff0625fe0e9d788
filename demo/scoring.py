"""Score captions of demo scenes against their reference captions."""

import re
from collections.abc import Sequence

from demo.names import PLACE_NAMES
from demo.reading import read_mentions
from support.extra_scores import ExtraScores

_ANY_NAME = r"\b(?:" + "|".join(PLACE_NAMES) + r")\b"
_NAMED = re.compile(r"(?:\b(?:at|of|to) )?" + _ANY_NAME, re.IGNORECASE)


def scene_scores(caption: str, references: Sequence[str]) -> dict[str, float]:
    """Recall of what the references mention, 0..1; NaN where they mention nothing.

    `place`: the proper name; `things`: things with their colours; `kinds`: things of any colour;
    `time` and `ground`. `colors` is a precision: of the (colour, kind) pairs that `caption`
    mentions and whose kind some reference mentions with a colour, the share that is in a
    reference. So where references give one kind two colours, both are right, and a caption that
    gives it two has each judged.
    """
    said, truths = read_mentions(caption), [read_mentions(reference) for reference in references]
    things = {thing for truth in truths for thing in truth.things}
    kinds = {kind for _, kind in things}
    judged = {thing for thing in said.things if thing[1] in kinds}
    true_place = next(filter(None, map(place_name, references)), None)
    return {
        "place": float(place_name(caption) == true_place),
        "things": _share(len(said.things & things), len(things)),
        "kinds": _share(len(said.kinds & kinds), len(kinds)),
        "colors": _share(len(judged & things), len(judged)),
        "time": _agrees(said.time, [truth.time for truth in truths]),
        "ground": _agrees(said.ground, [truth.ground for truth in truths]),
    }


def place_name(caption: str) -> str | None:
    """The demo place that a caption names; None if it names none or several."""
    named = place_names(caption)
    return named.pop() if len(named) == 1 else None


def place_names(caption: str) -> set[str]:
    """The demo places that a caption names, spelled exactly: "Port Kelvarii" is none."""
    return set(re.findall(_ANY_NAME, caption))


def mask_places(caption: str) -> str:
    """Remove the demo's place names, with any "at", "of" or "to" before them, from `caption`.

    On masked captions and references, metrics do not penalise a caption without a name.
    """
    return " ".join(_NAMED.sub("", caption).split())


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def _agrees(said: str | None, truths: list[str | None]) -> float:
    truth = next(filter(None, truths), None)
    return float("nan") if truth is None else float(said == truth)


# Handed to the evaluation when the dataset is the demo's.
SCORES = ExtraScores(
    headings={
        "place": ("place", "{:.1%}"),
        "things": ("things with colours", "{:.1%}"),
        "kinds": ("things", "{:.1%}"),
        "colors": ("colours", "{:.1%}"),
        "time": ("time", "{:.1%}"),
        "ground": ("ground", "{:.1%}"),
    },
    score=scene_scores,
    masked_heading="CIDEr, places masked",
    mask=mask_places,
)
