"""Which texts hold which words, kept up to date: texts are added, and never read again."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from support.search.growing import GrowingArray


def words_of(text: str) -> set[str]:
    """The words of a text, in any script, without case and typographic variants."""
    plain = text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()
    return set(re.findall(r"\w+", plain))


class WordIndex:
    """Words, and the numbers of the texts that hold them."""

    def __init__(self) -> None:
        self._places: dict[str, GrowingArray] = {}
        self._new: defaultdict[str, list[int]] = defaultdict(list)  # not yet in _places

    def add(self, place: int, texts: Iterable[str]) -> None:
        """Adds the words of `texts`, which together have the number `place`; each number once."""
        for word in words_of(" ".join(texts)):
            self._new[word].append(place)

    def pack(self) -> None:
        """Makes the first look-up of common words quick after many texts were added."""
        for word in list(self._new):
            self.places(word)

    def places(self, word: str) -> np.ndarray:
        """(n,) the numbers of the texts that hold `word`, in the order in which they were added."""
        new = self._new.pop(word, None)
        if new:
            self._places.setdefault(word, GrowingArray(np.int64)).extend(new)
        return self._places[word].values if word in self._places else np.empty(0, np.int64)
