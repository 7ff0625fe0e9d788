"""What a caption of a demo scene gets right, judged by the scene's references."""

import re
from collections.abc import Sequence

from demo.names import PLACE_NAMES
from demo.reading import read_mentions

_ANY_NAME = r"\b(?:" + "|".join(PLACE_NAMES) + r")\b"
_NAMED = re.compile(r"(?:\b(?:at|of|to) )?" + _ANY_NAME, re.IGNORECASE)


def scene_scores(caption: str, references: Sequence[str]) -> dict[str, float]:
    """Shares from 0 to 1 of what the references mention and `caption` names rightly; NaN where they mention none.

    `place`: the proper name; `things`: things with their colours; `kinds`: things whatever their colour; `colors`: the
    colours of the things that it names; `time` and `ground`.
    """
    said, truths = read_mentions(caption), [read_mentions(reference) for reference in references]
    things = frozenset().union(*(truth.things for truth in truths))
    color_of = {kind: color for color, kind in things}
    named = {kind: color for color, kind in said.things if kind in color_of}
    return {
        "place": float(place_name(caption) == next(filter(None, map(place_name, references)), None)),
        "things": _share(len(said.things & things), len(things)),
        "kinds": _share(len(said.kinds & set(color_of)), len(color_of)),
        "colors": _share(sum(color_of[kind] == color for kind, color in named.items()), len(named)),
        "time": _agrees(said.time, [truth.time for truth in truths]),
        "ground": _agrees(said.ground, [truth.ground for truth in truths]),
    }


def place_name(caption: str) -> str | None:
    """The demo's place that a caption names, None when it names none, or several."""
    named = place_names(caption)
    return named.pop() if len(named) == 1 else None


def place_names(caption: str) -> set[str]:
    """The demo's places that a caption names, right to the letter: "Port Kelvarii" names none."""
    return set(re.findall(_ANY_NAME, caption))


def mask_places(caption: str) -> str:
    """`caption` without the proper names of the demo's places, nor the "at" before them: naming none costs nothing."""
    return " ".join(_NAMED.sub("", caption).split())


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def _agrees(said: str | None, truths: list[str | None]) -> float:
    truth = next(filter(None, truths), None)
    return float("nan") if truth is None else float(said == truth)
