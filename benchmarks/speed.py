"""How fast the program is beside its limits: `python -m benchmarks.speed [PART ...]`.

Prints a table: what was measured, ours, the limit or peer, their ratio with its spread. Both sides
take turns in one process, so that a busy machine slows both. Parts: neighbors.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
from PIL import Image

from similarity_search import Candidate, Pool
from support.records import Sample

DIMENSION = 512  # of CLIP B/32
K = 5
SIZES = (8_000, 100_000, 1_000_000)
QUERIES = 400  # experiments of Flickr8k
BLOCK_ROWS = 16_384  # of the matrix product that the batch is measured against
ROUNDS = 7


class Line(NamedTuple):
    """A line of the table: medians in ms, the median ratio, and the ratios' lowest and highest."""

    work: str
    ours: float
    limit: float
    ratio: float
    spread: tuple[float, float]


def main() -> None:
    """Measures the parts named on the command line, all by default, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="all by default")
    parser.add_argument("--largest", type=int, default=SIZES[-1], help="images at most")
    arguments = parser.parse_args()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, numpy {np.__version__}, medians of {ROUNDS}"
    )
    print("| work | ours, ms | limit, ms | ratio | lowest to highest |")
    print("| --- | ---: | ---: | ---: | --- |")
    for part in arguments.parts or PARTS:
        for line in PARTS[part](arguments.largest):
            low, high = line.spread
            print(
                f"| {line.work} | {line.ours:.1f} | {line.limit:.1f} | {line.ratio:.2f} "
                f"| {low:.2f} to {high:.2f} |",
                flush=True,
            )


def compare(work: str, ours: Callable[[], object], limit: Callable[[], object]) -> Line:
    """Both in turn, ROUNDS times after a first round that does not count."""
    times = []
    for _ in range(ROUNDS + 1):
        times.append((_milliseconds(ours), _milliseconds(limit)))
    ratios = [first / second for first, second in times[1:]]
    mine, theirs = (statistics.median(column) for column in zip(*times[1:], strict=True))
    return Line(work, mine, theirs, statistics.median(ratios), (min(ratios), max(ratios)))


def _milliseconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return 1000 * (time.perf_counter() - start)


def neighbors(largest: int) -> Iterator[Line]:
    """Neighbors of one image and of a batch, in a pool that has been made."""
    for size in (size for size in SIZES if size <= largest):
        matrix = _unit_vectors(size)
        pool = _pool(matrix)
        query, batch = matrix[7], matrix[:QUERIES].copy()
        samples = [
            Sample(str(row), "", partial(Image.new, "RGB", (1, 1))) for row in range(QUERIES)
        ]

        yield compare(
            f"neighbors of one of {size:,} / X @ q + argpartition",
            partial(pool.neighbors, query, "7", K),
            partial(_one_product, matrix, query),
        )
        yield compare(
            f"neighbors of {QUERIES} of {size:,} / one matrix product in blocks",
            partial(pool.neighbors_of, samples, batch, K),
            partial(_products_in_blocks, matrix, batch),
        )


def _one_product(matrix: np.ndarray, query: np.ndarray) -> np.ndarray:
    similarities = matrix @ query
    return np.argpartition(similarities, len(similarities) - K)[-K:]


def _products_in_blocks(matrix: np.ndarray, batch: np.ndarray) -> None:
    for start in range(0, len(matrix), BLOCK_ROWS):
        batch @ matrix[start : start + BLOCK_ROWS].T


def _unit_vectors(count: int) -> np.ndarray:
    vectors = np.random.default_rng(0).standard_normal((count, DIMENSION), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def _pool(matrix: np.ndarray) -> Pool:
    """A pool of all rows, a twentieth of which may not be found, as experiments may not."""
    found = []
    for row in range(len(matrix)):
        if row % 20:
            found.append(Candidate(str(row), row, ("a dog",), "original", row, ""))
    return Pool.of(found, {str(row): row for row in range(len(matrix))}, matrix)


PARTS: dict[str, Callable[[int], Iterator[Line]]] = {"neighbors": neighbors}


if __name__ == "__main__":
    main()
