"""Neighbors of images, and search by text."""

from argparse import Namespace
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import main as pipeline
from benchmarks import full_models
from benchmarks.speed.made import Databases, key_of, unit_vectors
from benchmarks.speed.measure import Line, alone, beside
from experiments.query import WAYS
from experiments.system import System
from support.records import Neighbor, Sample
from support.storage.vectors import VectorTable

K = 5
PAUSE = 0.2  # seconds
QUERIES = 400  # experiments of Flickr8k
BLOCK_ROWS = 16_384  # of the matrix product that the batch is measured against
TEXTS = ("a black dog on the beach", "two old women in the snow", "a child with a red ball")


def neighbors(arguments: Namespace, folder: Path) -> Iterator[Line]:
    """Neighbors of one image and of 400, as run_experiment and --all ask for them."""
    for size in (s for s in (8_000, 100_000, 1_000_000) if s <= arguments.largest):
        databases = Databases(folder / f"neighbors-{size}", size)
        system, vectors = databases.system, databases.images
        query = vectors.matrix[7].copy()
        yield beside(
            f"neighbors of one of {size:,}",
            "X @ q + argpartition",
            partial(_ask, system, vectors, query),
            partial(one_product, vectors.matrix, query),
            "<= 1.2" if size > 8_000 else "<= 10 ms",
            rounds=15,
            pause=PAUSE,
        )
        yield from _batch(databases, size)


def _ask(system: System, vectors: VectorTable, query: np.ndarray) -> list[Neighbor]:
    return system.pool(vectors).neighbors(query, key_of(7), K)


def _batch(databases: Databases, size: int) -> Iterator[Line]:
    system, vectors = databases.system, databases.images
    batch = vectors.matrix[:QUERIES].copy()
    picture = partial(Image.new, "RGB", (1, 1))
    samples = [Sample(key_of(row), "", picture) for row in range(QUERIES)]
    work = f"neighbors of {QUERIES} of {size:,}"

    def ours() -> Any:
        return system.pool(vectors).neighbors_of(samples, batch, K)

    product = partial(products_in_blocks, vectors.matrix, batch)
    yield beside(work, "one matrix product, in blocks", ours, product, "<= 1.3")
    try:
        import faiss
    except ImportError:
        print("faiss is not installed (pip install faiss-cpu==1.15.1): its lines are left out.")
        return
    index = faiss.IndexFlatIP(vectors.matrix.shape[1])
    index.add(vectors.matrix)
    yield beside(work, "faiss IndexFlatIP", ours, lambda: index.search(batch, K), "<= 1.1")


def one_product(matrix: np.ndarray, query: np.ndarray) -> np.ndarray:
    """The rows nearest to a query, as numpy finds them."""
    similarities = matrix @ query
    return np.argpartition(similarities, len(similarities) - K)[-K:]


def products_in_blocks(matrix: np.ndarray, batch: np.ndarray) -> None:
    """The products of a batch of queries with all rows, and nothing made of them."""
    for start in range(0, len(matrix), BLOCK_ROWS):
        batch @ matrix[start : start + BLOCK_ROWS].T


def whole(arguments: Namespace, folder: Path) -> Iterator[Line]:
    """search_images for a text, as a notebook asks: the text embedded, searched for, and found."""
    clip, text = full_models.clip_b32(folder / "clip"), full_models.bge_base(folder / "bge")
    for images, reach in ((8_000, "<= 60 ms"), (100_000, "<= 300 ms")):
        if images > arguments.largest:
            continue
        databases = Databases(folder / f"whole-{images}", images, 5, clip, text, 768)
        for by in WAYS:
            ask = partial(pipeline.search_images, TEXTS[0], *databases.system, by=by)
            ask()  # loads the models, and makes the index
            yield alone(f"search {images:,} photos for a text, by {by}", ask, reach, rounds=15)


def text(arguments: Namespace, folder: Path) -> Iterator[Line]:
    """Search by text, the query embedded; the index is made at the first one of a process."""
    for images, spare in ((8_000, 5.0), (100_000, 30.0)):
        if images > arguments.largest:
            continue
        databases = Databases(folder / f"text-{images}", images, each=5)
        system, vectors = databases.system, databases.texts
        queries = unit_vectors(len(TEXTS), seed=2)
        system.caption_pool(vectors).search(TEXTS[0], queries[0], vectors.matrix, K)

        def ours(s: Any = system, v: Any = vectors, q: Any = queries) -> None:
            for words, query in zip(TEXTS[1:], q[1:], strict=True):
                s.caption_pool(v).search(words, query, v.matrix, K)

        def product(v: Any = vectors, q: Any = queries) -> None:
            for query in q[1:]:
                v.matrix @ query

        work = f"search by text, {len(vectors):,} captions, 2 queries"
        line = beside(work, "X @ q", ours, product, "", pause=PAUSE)
        assert line.theirs is not None
        yield line._replace(reach=f"<= {2 * line.theirs + 2 * spare:.0f} ms")
