"""Parse captions of demo scenes: what they mention, by the grammar of captions.py."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from demo.scenes import COLORS, PLACES
from demo.vocabulary import GROUND_WORDS, KIND_WORDS, SIZE_WORDS, TIME_WORDS, WordTable


@dataclass(frozen=True)
class Mentions:
    """What a caption mentions, in canonical words; `things` holds (color, kind)."""

    things: frozenset[tuple[str, str]]
    kinds: frozenset[str]
    time: str | None
    ground: str | None
    landmark: str | None


def canonical_by_word(table: WordTable) -> dict[str, str]:
    """Invert {canonical: words} into {word: canonical}."""
    return {word: canonical for canonical, words in table.items() for word in words}


KIND_OF = canonical_by_word(KIND_WORDS) | {"person": "person", "someone": "person"}
GROUND_OF, TIME_OF = canonical_by_word(GROUND_WORDS), canonical_by_word(TIME_WORDS)
LANDMARK_OF = {place.landmark.split()[0]: place.landmark for place in PLACES}
SIZE_NAMES = frozenset(canonical_by_word(SIZE_WORDS))


def read_mentions(caption: str) -> Mentions:
    """Parse `caption`: every kind with the colour just before it, the first time and so on."""
    words = [word for word in re.findall(r"[a-z]+", caption.lower()) if word not in SIZE_NAMES]
    kinds = [
        (before, KIND_OF[word])
        for before, word in zip(["", *words], words, strict=False)
        if word in KIND_OF
    ]

    def first(canonical: Mapping[str, str]) -> str | None:
        return next((canonical[word] for word in words if word in canonical), None)

    return Mentions(
        frozenset(pair for pair in kinds if pair[0] in COLORS),
        frozenset(kind for _, kind in kinds),
        first(TIME_OF),
        first(GROUND_OF),
        first(LANDMARK_OF),
    )
