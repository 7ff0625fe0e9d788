"""Exact search for the rows nearest to queries: matrix products in blocks, in bounded memory."""

import os
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np

from support.threads import in_threads

BLOCK = 4 * 2**20  # products held at once, 16 MB: large enough for a fast matrix product
EXACT_AT_ONCE = 2**10  # rows that are copied in float64
HITS = 2**20  # rows kept before those that others have outdone are dropped
PART = 2 * 2**20  # numbers of a matrix that are worth a thread of their own
MOST_PARTS = 8  # the memory, not the processor, is what they wait for
# More than float32 products of unit vectors differ between machines, and between sizes of a block.
MARGIN = 4e-6


def nearest_rows(
    matrix: np.ndarray,
    queries: np.ndarray,
    k: int,
    hidden: np.ndarray | None = None,
    excluded: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """For each of `queries` (B, D) the rows of `matrix` (N, D) that may be its `k` nearest.

    (C,) numbers of queries, ascending, and (C,) rows: at least the nearest, and few others, because
    dot products of float32 unit vectors decide up to MARGIN.
    `hidden` (H,) are rows that no query finds, `excluded` (B,) a row for each query, -1 for none.
    """
    hits = _Hits(len(queries), k)
    size = max(1, BLOCK // max(1, len(queries)))
    for start in range(0, len(matrix), size):
        block = _products(queries, matrix[start : start + size])  # (B, n)
        if hidden is not None:
            first, last = np.searchsorted(hidden, (start, start + size))
            block[:, hidden[first:last] - start] = -np.inf
        if excluded is not None:
            here = np.flatnonzero((excluded >= start) & (excluded < start + block.shape[1]))
            block[here, excluded[here] - start] = -np.inf
        hits.add(block, start)
    return hits.rows()


def _products(queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(B, n) dot products; of one query as matrix times vector, which is faster."""
    return products_with(queries[0], rows)[None] if len(queries) == 1 else queries @ rows.T


def products_with(query: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(n,) dot products of one query (D,) with `rows` (n, D), all float32.

    In threads of our own, each with a product in one thread: numpy's BLAS library keeps its threads
    spinning for a while after a product, and the model that embeds the next query would have to
    share the processor with them (a search by text then took three times as long).
    """
    parts = min(os.cpu_count() or 1, MOST_PARTS, max(1, rows.size // PART))
    edges = np.linspace(0, len(rows), parts + 1, dtype=np.int64).tolist()
    products = np.empty(len(rows), np.float32)

    def compute(part: tuple[int, int]) -> None:
        start, end = part
        np.dot(rows[start:end], query, out=products[start:end])

    with _blas().limit(limits=1):
        in_threads(compute, list(pairwise(edges)))
    return products


@lru_cache(maxsize=1)
def _blas() -> Any:
    """The control of numpy's BLAS library."""
    from threadpoolctl import ThreadpoolController  # sets an environment variable when imported

    return ThreadpoolController().select(internal_api="openblas")


class _Hits:
    """The rows that are near enough so far, as parallel arrays: query, row, similarity."""

    def __init__(self, queries: int, k: int):
        self._k = k
        self._limits = np.full(queries, -np.inf, np.float32)  # the k-th best so far, or less
        self._found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._count = 0

    def add(self, block: np.ndarray, start: int) -> None:
        """Adds the rows of a block (B, n), which begins at the row `start`."""
        if not self._found and block.shape[1] > self._k:
            place = block.shape[1] - self._k
            self._limits = np.partition(block, place, axis=1)[:, place]
        # Never -inf, which is what hidden rows have.
        limits = np.maximum(self._limits - MARGIN, np.finfo(np.float32).min)
        places = np.flatnonzero(block >= limits[:, None])
        queries, columns = np.divmod(places, block.shape[1])
        self._found.append((queries, columns + start, block.ravel()[places]))
        self._count += len(places)
        if self._count > HITS:
            self._prune()

    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Queries and rows."""
        self._prune()
        queries, rows, _ = self._found[0]
        return queries, rows

    def _prune(self) -> None:
        """Keeps for each query the rows that may be among its k best."""
        empty = np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32)
        parts = zip(empty, *self._found, strict=True)
        queries, rows, values = (np.concatenate(part) for part in parts)
        order = np.lexsort((-values, queries))
        queries, rows, values = queries[order], rows[order], values[order]
        kth = ranks_within(queries) == self._k - 1
        self._limits[queries[kth]] = values[kth]
        keep = values >= (self._limits - MARGIN)[queries]
        self._found = [(queries[keep], rows[keep], values[keep])]
        self._count = int(keep.sum())


def nearest_values(values: np.ndarray, k: int) -> np.ndarray:
    """(C,) the places of `values` (M,) that may be among the `k` highest up to MARGIN; not -inf."""
    if k < len(values):
        place = len(values) - k
        values = np.where(values >= np.partition(values, place)[place] - MARGIN, values, -np.inf)
    return np.flatnonzero(values > -np.inf)


def ranks_within(groups: np.ndarray) -> np.ndarray:
    """(C,) the place of each element among those of its group; `groups` (C,) is sorted."""
    return np.arange(len(groups)) - np.searchsorted(groups, groups)


def exact_products(
    queries: np.ndarray, matrix: np.ndarray, which: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    """(C,) float64 dot products of the queries `which` (C,) with the `rows` (C,) of `matrix`.

    `queries` (B, D) and `matrix` (N, D) are float32. The same for a pair whatever is computed
    beside it, to many more than six decimals.
    """
    products = np.empty(len(rows))
    for start in range(0, len(rows), EXACT_AT_ONCE):
        some = slice(start, start + EXACT_AT_ONCE)
        left = queries[which[some]].astype(np.float64)
        products[some] = np.einsum("cd,cd->c", left, matrix[rows[some]].astype(np.float64))
    return products
