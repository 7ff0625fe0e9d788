"""Names of the demo's places, and invented ones to train on."""

import random
from functools import lru_cache

from demo.scenes import COLORS, pick
from demo.vocabulary import ALL_WORDS

PLACE_NAMES = (
    "Brumel Cross",
    "Mount Tavik",
    "Lorenga Bay",
    "Osanda Heights",
    "Ilvaro Ridge",
    "Wendola Hollow",
    "Mirabo Point",
    "Dorvan Corner",
    "Port Kelvari",
    "Pasowin Valley",
    "Quendel Landing",
    "Cape Rusolo",
)
NAME_PATTERNS = (
    "{} Bay", "{} Hill", "{} Point", "{} Valley", "{} Cross", "{} Corner", "{} Ridge", "{} Heights",
    "{} Hollow", "{} Landing", "{} End", "{} Gate", "Mount {}", "Port {}", "Cape {}", "Saint {}",
)  # fmt: skip
ONSETS = [
    "b", "br", "d", "dr", "f", "g", "gr", "h", "j", "k", "kr", "l", "m", "n", "p", "pr", "qu", "r",
    "s", "st", "t", "tr", "v", "w", "y", "z", "b", "d", "k", "l", "m", "n", "p", "r", "s", "t", "v",
]  # fmt: skip
VOWELS = ["a", "e", "i", "o", "u", "a", "e", "i", "o", "a", "e", "i", "o", "ai", "ea", "ie", "ou"]
CODAS = ["n", "r", "l", "s", "m", "n", "r", "l", "nd", "rn", "v", "k"] + [""] * 16
ENDINGS = ["a", "o", "i", "a", "o", "i", "en", "el", "in", "an", "on", "ar", "ik", "is", "um", "ey"]


def invent_name(rng: random.Random) -> str:
    """An invented place name that shares no word with the captions or the demo's own places."""
    while True:
        word = pick(rng, ("", "", "", "a", "e", "i", "o", "u")) * (rng.random() < 0.3)
        word += "".join(syllable(rng) for _ in range(pick(rng, (1, 1, 2))))
        word += pick(rng, ONSETS) + pick(rng, ENDINGS)
        if 5 <= len(word) <= 9 and word not in known_words():
            return pick(rng, NAME_PATTERNS).format(word.capitalize())


def syllable(rng: random.Random) -> str:
    """A random syllable: onset, vowel, coda."""
    return pick(rng, ONSETS) + pick(rng, VOWELS) + pick(rng, CODAS)


@lru_cache(maxsize=1)
def known_words() -> frozenset[str]:
    """Lower-case words of the demo's place names and captions, not to be invented again."""
    vocabulary = (phrase for table in ALL_WORDS for row in table.values() for phrase in row)
    phrases = [*PLACE_NAMES, *COLORS, *vocabulary]
    return frozenset(word for phrase in phrases for word in phrase.lower().split())
