"""Stage 3: the images most like a query, by cosine similarity; a text's words count too."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

import config
from support.errors import SettingError
from support.records import Neighbor, Sample


@dataclass(frozen=True)
class Candidate:
    """An image that may be found, with the captions it may give."""

    key: str  # content hash
    index: int  # the databases' number
    captions: tuple[str, ...]
    source: str  # "original" or "generated"
    original_index: int | None
    image: str

    def as_neighbor(
        self, similarity: float, caption: str | None = None, source: str | None = None
    ) -> Neighbor:
        """This image as found; by default with its first caption."""
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

    An image of `gallery` (content hashes) gives its original captions, any other image only what
    this system wrote for it: an experiment image never gives away its references. `generated` is
    config.USE_GENERATED_AS_CONTEXT by default.
    """
    generated = config.USE_GENERATED_AS_CONTEXT if generated is None else generated
    found = []
    for key, record in records.items():
        if key in gallery:
            captions, source = tuple(record["captions"]), "original"
        elif generated and record["generated"]:
            captions, source = (record["generated"]["caption"],), "generated"
        else:
            continue
        place = record["original_index"], record["image"]
        found.append(Candidate(key, record["index"], captions, source, *place))
    return found


def top_k(
    similarities: np.ndarray, indices: np.ndarray, k: int | None = None
) -> list[tuple[int, float]]:
    """Position and value of the `k` highest of `similarities` (M,), highest first.

    Cosine similarities: dot products of unit vectors. Where they are equal to six decimals (beyond
    that, they depend on the machine) the lower of `indices` (M,) goes first. -inf is never
    returned; fewer candidates give fewer results. `k` is config.TOP_K_SIMILAR by default.
    """
    k = config.TOP_K_SIMILAR if k is None else k
    if not isinstance(k, int) or k < 1:
        raise SettingError(f"TOP_K_SIMILAR (--top-k) is {k!r}; it must be a whole number from 1.")
    rounded = np.round(similarities.astype(np.float64), 6)
    order = np.lexsort((indices, -rounded))[:k]
    return [(int(i), float(rounded[i])) for i in order if rounded[i] > -np.inf]


# --- By image -------------------------------------------------------------------------------------
class Pool:
    """The images among which neighbors are found, as they stand when it is made.

    Later updates of the databases do not change it.
    """

    def __init__(self, found: Sequence[Candidate], rows: Mapping[str, int], matrix: np.ndarray):
        """`rows`: content hash -> row of `matrix` (N, D), float32 unit rows."""
        self._candidates = [c for c in found if c.key in rows and any(c.captions)]
        self._rows = np.array([rows[c.key] for c in self._candidates], dtype=np.int64)  # (M,)
        self._indices = np.array([c.index for c in self._candidates], dtype=np.int64)  # (M,)
        self._matrix = matrix

    def __len__(self) -> int:
        return len(self._candidates)

    def neighbors_of(self, samples: Sequence[Sample], vectors: np.ndarray) -> list[list[Neighbor]]:
        """The neighbors of each of `samples`, whose vectors are the rows of `vectors` (B, D)."""
        pairs = zip(samples, vectors, strict=True)
        return [self.neighbors(vector, sample.content_hash) for sample, vector in pairs]

    def neighbors(
        self, query: np.ndarray, exclude: str | None = None, k: int | None = None
    ) -> list[Neighbor]:
        """The `k` images most like `query` (D,), best first; without the content hash `exclude`."""
        best = top_k(self._allowed_similarities(query, exclude), self._indices, k)
        return [self._candidates[i].as_neighbor(similarity) for i, similarity in best]

    def least_similar(
        self, query: np.ndarray, exclude: str | None = None, k: int | None = None
    ) -> list[Neighbor]:
        """The `k` images least like `query` (D,), the least similar first."""
        similarities = self._allowed_similarities(query, exclude)
        opposite = np.where(np.isfinite(similarities), -similarities, -np.inf)
        worst = top_k(opposite, self._indices, k)
        return [self._candidates[i].as_neighbor(-value) for i, value in worst]

    def at_random(
        self, query: np.ndarray, exclude: str | None, k: int, seed: int
    ) -> list[Neighbor]:
        """`k` images drawn with `seed`."""
        similarities = self._allowed_similarities(query, exclude)
        allowed = np.flatnonzero(np.isfinite(similarities))
        drawn = np.random.default_rng(seed).permutation(allowed)[:k]
        return [self._candidates[i].as_neighbor(float(similarities[i])) for i in drawn]

    def _allowed_similarities(self, query: np.ndarray, exclude: str | None) -> np.ndarray:
        """(M,) cosine similarities, -inf for the image that is left out."""
        allowed = np.array([c.key != exclude for c in self._candidates], dtype=bool)
        return np.where(allowed, (self._matrix @ query)[self._rows], -np.inf)


# --- By text --------------------------------------------------------------------------------------
class SearchedCaption(NamedTuple):
    """A caption that a text may match, and its image."""

    image: Candidate
    caption: str
    source: str  # "original" or "generated"


class CaptionPool:
    """The captions among which images are searched by text."""

    def __init__(self, found: Sequence[Candidate], records: Mapping[str, dict[str, Any]]):
        self._captions: dict[str, list[SearchedCaption]] = {}  # content hash -> its captions
        for image in found:
            captions = [SearchedCaption(image, text, image.source) for text in image.captions]
            rewritten = records[image.key]["generated"]
            if rewritten and image.source == "original":
                captions.append(SearchedCaption(image, rewritten["caption"], "generated"))
            self._captions[image.key] = captions

    def texts(self) -> list[str]:
        """Every caption once."""
        texts: dict[str, None] = {}
        for captions in self._captions.values():
            texts.update((found.caption, None) for found in captions if found.caption)
        return list(texts)

    def search(
        self,
        text: str,
        query: np.ndarray,
        rows: Mapping[str, int],
        matrix: np.ndarray,
        k: int | None = None,
    ) -> list[Neighbor]:
        """The `k` images that fit `text`, embedded as `query` (D,), best first.

        `rows`: caption -> row of `matrix` (N, D), float32 unit rows. The
        similarity is a weighted mean of the cosine of the image's best caption and the share of the
        text's words in all its captions (config.SEARCH_WORD_WEIGHT): one vector may miss a name or
        one of several conditions, and several captions may say together what none says alone.
        """
        scores = matrix @ query  # (N,)
        best: list[SearchedCaption] = []  # of each image the caption most like the query
        texts: list[list[str]] = []  # of each image all captions
        for captions in self._captions.values():
            embedded = [found for found in captions if found.caption in rows]
            if embedded:
                best.append(max(embedded, key=lambda found: scores[rows[found.caption]]))
                texts.append([found.caption for found in captions])
        cosines = np.array([scores[rows[found.caption]] for found in best])
        weight = config.SEARCH_WORD_WEIGHT
        similarities = (1 - weight) * cosines + weight * word_coverage(text, texts)
        ranked = top_k(similarities, np.array([found.image.index for found in best]), k)
        return [
            best[i].image.as_neighbor(similarity, best[i].caption, best[i].source)
            for i, similarity in ranked
        ]


def word_coverage(text: str, captions: Sequence[Sequence[str]]) -> np.ndarray:
    """(N,) from 0 to 1: the weighted share of the words of `text` in each image's captions.

    A word counts by its inverse document frequency, log((N + 1) / (n + 0.5)) when n images have it
    (after Spärck Jones, https://doi.org/10.1108/eb026526); words that no image has do not count.
    """
    words = sorted(_words(text))
    has = np.zeros((len(captions), len(words)), dtype=bool)  # (N, W)
    for row, texts in enumerate(captions):
        known = _words(" ".join(texts))
        has[row] = [word in known for word in words]
    frequency = has.sum(axis=0)  # (W,)
    weights = np.where(frequency, np.log((len(captions) + 1) / (frequency + 0.5)), 0.0)
    return has @ weights / max(weights.sum(), 1e-9)


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()))
