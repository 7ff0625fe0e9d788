"""Stage 3: the images most like a query, by cosine similarity; a text's words count too."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import config
from records import Neighbor, SettingError


@dataclass(frozen=True)
class Candidate:
    """An image that may be found, with the captions it may give."""

    key: str  # content hash
    index: int  # the databases' number
    captions: tuple[str, ...]
    source: str  # "original" or "generated"
    original_index: int | None
    image: str

    def as_neighbor(self, similarity: float, caption: str | None = None, source: str | None = None) -> Neighbor:
        return Neighbor(
            index=self.index,
            similarity=similarity,
            captions=self.captions,
            caption=self.captions[0] if caption is None else caption,
            original_index=self.original_index,
            source=source or self.source,
            image=self.image,
        )


def candidates(
    records: Mapping[str, dict[str, Any]], gallery: frozenset[str], generated: bool | None = None
) -> list[Candidate]:
    """Those of the databases' caption `records` that may be found or give context.

    An image of `gallery` (content hashes) gives its original captions, any other image only what this system wrote for
    it: an experiment image never gives away its references. `generated` is config.USE_GENERATED_AS_CONTEXT by default.
    """
    generated = config.USE_GENERATED_AS_CONTEXT if generated is None else generated
    found = []
    for key, record in records.items():
        original = key in gallery
        if original or (generated and record["generated"]):
            captions = record["captions"] if original else [record["generated"]["caption"]]
            source = "original" if original else "generated"
            found.append(
                Candidate(key, record["index"], tuple(captions), source, record["original_index"], record["image"])
            )
    return found


class Pool:
    """The images among which neighbors are searched, as they stand when it is made: later updates do not change it."""

    def __init__(self, found: Sequence[Candidate], rows: Mapping[str, int], matrix: np.ndarray):
        """`rows` says which row of `matrix` (N, D), float32 unit rows, belongs to which content hash."""
        self._candidates = [candidate for candidate in found if candidate.key in rows and any(candidate.captions)]
        self._rows = np.array([rows[candidate.key] for candidate in self._candidates], dtype=np.int64)  # (M,)
        self._indices = np.array([candidate.index for candidate in self._candidates], dtype=np.int64)  # (M,)
        self._matrix = matrix

    def __len__(self) -> int:
        return len(self._candidates)

    def neighbors(self, query: np.ndarray, exclude: str | None = None, k: int | None = None) -> list[Neighbor]:
        """The `k` images most like `query` (D,), best first; without the one whose content hash is `exclude`."""
        best = top_k(self._allowed_similarities(query, exclude), self._indices, k)
        return [self._candidates[i].as_neighbor(similarity) for i, similarity in best]

    def strangers(self, query: np.ndarray, exclude: str | None = None, k: int | None = None) -> list[Neighbor]:
        """The `k` images least like `query` (D,), the least like it first."""
        similarities = self._allowed_similarities(query, exclude)
        worst = top_k(np.where(np.isfinite(similarities), -similarities, -np.inf), self._indices, k)
        return [self._candidates[i].as_neighbor(-opposite) for i, opposite in worst]

    def at_random(self, query: np.ndarray, exclude: str | None, k: int, seed: int) -> list[Neighbor]:
        """`k` images drawn with `seed`."""
        similarities = self._allowed_similarities(query, exclude)
        allowed = np.flatnonzero(np.isfinite(similarities))
        drawn = np.random.default_rng(seed).permutation(allowed)[:k]
        return [self._candidates[i].as_neighbor(float(similarities[i])) for i in drawn]

    def _allowed_similarities(self, query: np.ndarray, exclude: str | None) -> np.ndarray:
        """(M,) cosine similarities, -inf for the image that is left out."""
        allowed = np.array([candidate.key != exclude for candidate in self._candidates], dtype=bool)
        return np.where(allowed, (self._matrix @ query)[self._rows], -np.inf)


def top_k(similarities: np.ndarray, indices: np.ndarray, k: int | None = None) -> list[tuple[int, float]]:
    """Position and value of the `k` (config.TOP_K_SIMILAR) highest of `similarities` (M,), highest first.

    Cosine similarities: dot products of unit vectors. Where they are equal to six decimals (beyond that, they depend on
    the machine) the lower of `indices` (M,) goes first. -inf is never returned; fewer candidates give fewer results.
    """
    k = config.TOP_K_SIMILAR if k is None else k
    if not isinstance(k, int) or k < 1:
        raise SettingError(f"TOP_K_SIMILAR (--top-k) is {k!r}; it must be a whole number from 1.")
    rounded = np.round(similarities.astype(np.float64), 6)
    order = np.lexsort((indices, -rounded))[:k]
    return [(int(i), float(rounded[i])) for i in order if rounded[i] > -np.inf]


class CaptionPool:
    """The captions among which images are searched by text."""

    def __init__(self, found: Sequence[Candidate], records: Mapping[str, dict[str, Any]]):
        self._entries: list[tuple[Candidate, str, str]] = []  # image, caption, source
        for candidate in found:
            self._entries.extend((candidate, caption, candidate.source) for caption in candidate.captions)
            rewritten = records[candidate.key]["generated"]
            if rewritten and candidate.source == "original":
                self._entries.append((candidate, rewritten["caption"], "generated"))

    def texts(self) -> list[str]:
        """Every caption once."""
        return list(dict.fromkeys(caption for _, caption, _ in self._entries if caption))

    def search(
        self, text: str, query: np.ndarray, rows: Mapping[str, int], matrix: np.ndarray, k: int | None = None
    ) -> list[Neighbor]:
        """The `k` images that fit `text`, embedded as `query` (D,), best first; `rows` of `matrix` are by caption.

        Their similarity is a weighted mean of the cosine of the best caption and the share of the text's words that all
        captions of the image hold (config.SEARCH_WORD_WEIGHT). One vector lets a name, or one of several conditions,
        go; and several captions may together tell what none tells alone.
        """
        scores = matrix @ query  # (N,)
        best: dict[str, tuple[float, Candidate, str, str]] = {}
        told: dict[str, list[str]] = {}
        for candidate, caption, source in self._entries:
            told.setdefault(candidate.key, []).append(caption)
            if caption in rows and (candidate.key not in best or scores[rows[caption]] > best[candidate.key][0]):
                best[candidate.key] = (scores[rows[caption]], candidate, caption, source)
        found = list(best.values())
        cosines, weight = np.array([entry[0] for entry in found]), config.SEARCH_WORD_WEIGHT
        similarities = (1 - weight) * cosines + weight * word_coverage(text, [told[key] for key in best])
        ranked = top_k(similarities, np.array([entry[1].index for entry in found]), k)
        return [found[i][1].as_neighbor(similarity, found[i][2], found[i][3]) for i, similarity in ranked]


def word_coverage(text: str, captions: Sequence[Sequence[str]]) -> np.ndarray:
    """(N,) from 0 to 1: the share of the words of `text` that stand in the captions of each of N images.

    A word counts by its inverse document frequency, log((N + 1) / (n + 0.5)) when n images have it (after Spärck Jones,
    https://doi.org/10.1108/eb026526); words that no image has do not count.
    """
    words = sorted(_words(text))
    has = np.array([[word in known for word in words] for known in map(_words, map(" ".join, captions))], dtype=bool)
    has = has.reshape(len(captions), len(words))  # (N, W)
    frequency = has.sum(axis=0)
    weights = np.where(frequency, np.log((len(captions) + 1) / (frequency + 0.5)), 0.0)
    return has @ weights / max(weights.sum(), 1e-9)


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()))
