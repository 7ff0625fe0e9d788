"""Stage 3: the images most like a query, by cosine similarity; a text's words count too."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import islice
from numbers import Integral

import numpy as np

import config
from support.candidates import Candidate, Record, Scope, as_candidate, searched_captions
from support.errors import SettingError
from support.records import Neighbor, Sample, SplitHashes
from support.search.growing import GrowingArray
from support.search.nearest import (
    exact_products,
    nearest_rows,
    nearest_values,
    products_with,
    ranks_within,
)
from support.search.words import WordIndex, words_of
from support.sources.own import has_gone


def top_k(
    similarities: np.ndarray, indices: np.ndarray, k: int | None = None
) -> list[tuple[int, float]]:
    """Position and value of the `k` highest of `similarities` (M,), highest first.

    Cosine similarities: dot products of unit vectors. Where they are equal to six decimals (beyond
    that, they depend on the machine) the lower of `indices` (M,) goes first. -inf is never
    returned; fewer candidates give fewer results. `k` is config.TOP_K_SIMILAR by default.
    """
    k = checked_k(k)
    near = nearest_values(similarities, k)
    rounded = np.round(similarities[near].astype(np.float64), 6)
    order = np.lexsort((indices[near], -rounded))[:k]
    return list(zip(near[order].tolist(), rounded[order].tolist(), strict=True))


def checked_k(k: int | None) -> int:
    """`k`, by default config.TOP_K_SIMILAR. Raises SettingError."""
    k = config.TOP_K_SIMILAR if k is None else k
    if not isinstance(k, Integral) or k < 1:
        raise SettingError(f"TOP_K_SIMILAR (--top-k) is {k!r}; it must be a whole number from 1.")
    return min(int(k), sys.maxsize >> 8)  # room for what is looked at beside


def _there(
    ranked: Callable[[int], list[list[tuple[int, float]]]],
    has_gone: Callable[[int], bool],
    k: int | None,
) -> list[list[tuple[int, float]]]:
    """The first `k` of each ranking whose files have not gone; `ranked` gives so many as asked for.

    Only as many are looked at as it takes.
    """
    wanted = k = checked_k(k)
    there = cache(lambda place: not has_gone(place))
    while True:
        rankings = ranked(wanted)
        best = [list(islice((p for p in one if there(p[0])), k)) for one in rankings]
        ended = (len(one) < wanted for one in rankings)
        if all(len(one) == k or end for one, end in zip(best, ended, strict=True)):
            return best
        wanted *= 4


# --- By image -------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Pool:
    """The images among which neighbors are found, as they stand when it is made.

    Later updates of the databases do not change it.
    """

    rows: Mapping[str, int]  # content hash -> row of `matrix`
    matrix: np.ndarray  # (N, D) float32, unit rows
    visible: np.ndarray  # (N,) bool: which rows are found
    numbers: np.ndarray  # (N,) the databases' number of the image of each row
    neighbor: Callable[[int, float], Neighbor]  # of a row and its similarity
    has_gone: Callable[[int], bool] = lambda _: False  # whether the file of a row is missing

    @classmethod
    def of(cls, images: Iterable[Candidate], rows: Mapping[str, int], matrix: np.ndarray) -> "Pool":
        """A pool of those of `images` that have a row, whether their files are there or not."""
        by_row = {rows[image.key]: image for image in images if image.key in rows}
        numbers, visible = np.zeros(len(matrix), np.int64), np.zeros(len(matrix), bool)
        numbers[list(by_row)] = [image.index for image in by_row.values()]
        visible[list(by_row)] = True
        return cls(rows, matrix, visible, numbers, lambda row, s: by_row[row].as_neighbor(s))

    def __len__(self) -> int:
        return int(self.visible.sum())

    def neighbors_of(
        self, samples: Sequence[Sample], vectors: np.ndarray, k: int | None = None
    ) -> list[list[Neighbor]]:
        """The `k` images most like each of `samples`, best first; never a sample itself.

        `vectors` (B, D) are theirs. What is found does not depend on the batch.
        """
        keys = [sample.content_hash for sample in samples]
        found = self._nearest(vectors, keys, k)
        return [[self.neighbor(row, value) for row, value in best] for best in found]

    def neighbors(
        self, query: np.ndarray, exclude: str | None = None, k: int | None = None
    ) -> list[Neighbor]:
        """The `k` images most like `query` (D,), best first; without the content hash `exclude`."""
        (found,) = self._nearest(query[None], [exclude], k)
        return [self.neighbor(row, similarity) for row, similarity in found]

    def least_similar(
        self, query: np.ndarray, exclude: str | None = None, k: int | None = None
    ) -> list[Neighbor]:
        """The `k` images least like `query` (D,), the least similar first."""
        (found,) = self._nearest(-query[None], [exclude], k)
        return [self.neighbor(row, -similarity) for row, similarity in found]

    def at_random(
        self, query: np.ndarray, exclude: str | None, k: int, seed: int
    ) -> list[Neighbor]:
        """`k` images drawn with `seed`."""
        allowed = self._in_order[self._in_order != self.rows.get(exclude or "", -1)]
        drawn = np.random.default_rng(seed).permutation(allowed)[:k]
        similarities = exact_products(query[None], self.matrix, np.zeros_like(drawn), drawn)
        found = zip(drawn.tolist(), similarities.tolist(), strict=True)
        return [self.neighbor(row, similarity) for row, similarity in found]

    @cached_property
    def _hidden(self) -> np.ndarray:
        """(H,) the rows that are not found."""
        return np.flatnonzero(~self.visible)

    @cached_property
    def _in_order(self) -> np.ndarray:
        """(M,) the rows that are found, by their images' numbers: the same on every machine."""
        found = np.flatnonzero(self.visible)
        return found[np.argsort(self.numbers[found])]

    def _nearest(
        self, queries: np.ndarray, exclude: Sequence[str | None], k: int | None
    ) -> list[list[tuple[int, float]]]:
        """Row and similarity of the `k` images nearest to each of `queries` (B, D), as `top_k`.

        Only of what is found it is looked whether the file is still there.
        """
        return _there(lambda count: self._ranked(queries, exclude, count), self.has_gone, k)

    def _ranked(
        self, queries: np.ndarray, exclude: Sequence[str | None], k: int
    ) -> list[list[tuple[int, float]]]:
        """`_nearest`, with those whose files have gone."""
        excluded = np.array([self.rows.get(key or "", -1) for key in exclude], np.int64)
        which, rows = nearest_rows(self.matrix, queries, k, self._hidden, excluded)
        similarities = np.round(exact_products(queries, self.matrix, which, rows), 6)
        order = np.lexsort((self.numbers[rows], -similarities, which))
        order = order[ranks_within(which) < k]  # `which` is sorted, so it stays as it is
        best: list[list[tuple[int, float]]] = [[] for _ in exclude]
        for of, row, similarity in zip(
            which[order].tolist(), rows[order].tolist(), similarities[order].tolist(), strict=True
        ):
            best[of].append((row, similarity))
        return best


# --- By text --------------------------------------------------------------------------------------
class CaptionPool:
    """The captions among which images are searched by text, kept up to date.

    Each image has a place for as long as its record stays as it is; then it gets a new one at the
    end.
    """

    def __init__(
        self, records: Mapping[str, Record], dataset: SplitHashes, rows: Mapping[str, int]
    ):
        """The databases' caption `records`; `rows`: caption -> row of the matrix of vectors."""
        self._records, self._dataset, self._rows = records, dataset, rows
        self._words = WordIndex()
        self._places: dict[str, int] = {}  # key -> place, of the images that may be found
        self._keys: list[str] = []  # by place, as all that follows
        self._numbers = GrowingArray(np.int64)  # of the databases
        self._found = GrowingArray(np.bool_)  # whether the image may be found
        self._starts = GrowingArray(np.int64)  # of its captions in the two below
        self._captions: list[str] = []
        self._caption_rows = GrowingArray(np.int64)  # of the matrix; -1 for one without a vector
        self._without: list[int] = []  # captions that had no vector when last looked for
        for key in records:
            self.put(key)
        self._words.pack()

    def put(self, key: str) -> None:
        """Adds an image with its captions, in place of those it had."""
        self._remove(key)
        record = self._records[key]
        captions = searched_captions(key, record, self._dataset)
        if captions:
            place, first = len(self._keys), len(self._captions)
            self._places[key] = place
            self._keys.append(key)
            self._numbers.extend([record["index"]])
            self._found.extend([True])
            self._starts.extend([first])
            self._captions += captions
            self._caption_rows.extend([-1] * len(captions))
            self._without += range(first, len(self._captions))
            self._words.add(place, captions)

    def _remove(self, key: str) -> None:
        place = self._places.pop(key, None)
        if place is not None:
            self._found.values[place] = False

    def is_half_empty(self) -> bool:
        """Whether so many images have changed places that it had better be made anew."""
        return len(self._keys) > 2 * len(self._places) + 1000

    def without_vector(self) -> list[str]:
        """Each caption once that has no vector yet."""
        self._find_rows()
        return list(dict.fromkeys(self._captions[n] for n in self._without if self._captions[n]))

    def _find_rows(self) -> None:
        rows = [self._rows.get(self._captions[n], -1) for n in self._without]
        self._caption_rows.values[self._without] = rows
        self._without = [n for n, row in zip(self._without, rows, strict=True) if row < 0]

    def search(
        self,
        text: str,
        query: np.ndarray,
        matrix: np.ndarray,
        k: int | None = None,
        without: Sequence[str] = (),
        within: Scope | None = None,
    ) -> list[Neighbor]:
        """The `k` images that fit `text`, embedded as `query` (D,), best first.

        `matrix` (N, D) are the captions' float32 unit vectors. The similarity is a weighted mean of
        the cosine of the image's best caption and the share of the text's words in all its captions
        (config.SEARCH_WORD_WEIGHT): one vector may miss a name or one of several conditions, and
        several captions may say together what none says alone. The share of the words in each text
        of `without` is subtracted; in `query` those texts are subtracted already. Only images
        `within` are searched.
        """
        if not self._places:
            return []
        self._find_rows()
        scores = np.append(products_with(query, matrix), np.float32(-np.inf))  # of row -1 too
        scores = scores[self._caption_rows.values]  # (C,)
        best = np.maximum.reduceat(scores, self._starts.values)  # (P,)
        found, weight = self._found.values & (best > -np.inf), config.SEARCH_WORD_WEIGHT
        if within is not None:
            found &= self._within(within)
        best[~found] = 0
        words = self._coverage(text, found)
        for avoided in without:
            words -= self._coverage(avoided, found)
        similarities = (1 - weight) * best + weight * words
        similarities[~found] = -np.inf
        ranked = self._nearest_there(similarities, k)
        return [self._as_neighbor(place, similarity, scores) for place, similarity in ranked]

    def _within(self, scope: Scope) -> np.ndarray:
        """(P,) bool: which images are in `scope`."""
        records = self._records
        inside = (key in self._places and scope(key, records[key]) for key in self._keys)
        return np.fromiter(inside, bool, len(self._keys))

    def _nearest_there(self, similarities: np.ndarray, k: int | None) -> list[tuple[int, float]]:
        """`top_k` of the images (P,) whose files are there; only what is found is looked at."""

        def ranked(count: int) -> list[list[tuple[int, float]]]:
            return [top_k(similarities, self._numbers.values, count)]

        return _there(ranked, self._has_gone, k)[0]

    def _has_gone(self, place: int) -> bool:
        key = self._keys[place]
        return has_gone(key, self._records[key])

    def _coverage(self, text: str, found: np.ndarray) -> np.ndarray:
        """(P,) from 0 to 1: the weighted share of the words of `text` in each image's captions.

        A word counts by its inverse document frequency, log((N + 1) / (n + 0.5)) when n of the N
        images that may be `found` have it (after Spärck Jones, https://doi.org/10.1108/eb026526);
        words that no image has do not count.
        """
        coverage, weights = np.zeros(len(found)), 0.0
        for word in sorted(words_of(text)):
            places = self._words.places(word)
            frequency = int(found[places].sum())
            if frequency:
                weight = np.log((found.sum() + 1) / (frequency + 0.5))
                coverage[places] += weight
                weights += weight
        return coverage / max(weights, 1e-9)

    def _as_neighbor(self, place: int, similarity: float, scores: np.ndarray) -> Neighbor:
        """An image with that of its captions which fits best."""
        key, start = self._keys[place], int(self._starts.values[place])
        image = as_candidate(key, self._records[key], self._dataset)
        end = self._starts.values[place + 1] if place + 1 < len(self._keys) else len(scores)
        number = int(scores[start:end].argmax())
        source = image.source if number < len(image.captions) else "generated"
        return image.as_neighbor(similarity, self._captions[start + number], source)
