"""A gallery of 100,000 and 1,000,000 images in a Milvus server here: python -m benchmarks.scale

It starts the server of the PyPI package `milvus` in an environment of its own. Vectors lie in
clusters, as those of photos do; the queries are near some of them.
"""

import argparse
import hashlib
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import config
from benchmarks.speed.made import CLIP, DIMENSION, TEXT
from scale.entries import Entry, number_of
from scale.gallery import Gallery
from scale.identity import Address, Sizes
from tests.scale_servers import MilvusServer

QUERIES, BLOCK = 200, 10_000
PER_CLUSTER, SPREAD = 100, 0.6  # images of a cluster; their distance from its centre


def blocks(count: int) -> Iterator[np.ndarray]:
    """(BLOCK, DIMENSION) float32, unit rows, in the order of `keys`; the same at every call."""
    centres = np.random.default_rng(1).normal(size=(count // PER_CLUSTER, DIMENSION))
    centres = unit(centres.astype(np.float32))
    for start in range(0, count, BLOCK):
        random = np.random.default_rng(start)
        chosen = random.integers(0, len(centres), BLOCK)
        noise = random.normal(size=(BLOCK, DIMENSION)).astype(np.float32)
        yield unit(centres[chosen] + SPREAD * unit(noise))


def unit(vectors: np.ndarray) -> np.ndarray:
    """(N, D) rows of unit length."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def key_of(number: int) -> str:
    """The key of an image, as a content hash looks."""
    return hashlib.sha256(str(number).encode()).hexdigest()


def make_queries(count: int) -> np.ndarray:
    """(QUERIES, DIMENSION) float32, unit rows, near images of the gallery."""
    first = next(blocks(count))[:QUERIES]
    noise = np.random.default_rng(2).normal(size=first.shape).astype(np.float32)
    return unit(first + 0.3 * unit(noise))


def true_neighbors(count: int, queries: np.ndarray) -> list[set[str]]:
    """The keys of the exact neighbors of each query."""
    best: list[list[tuple[float, int]]] = [[] for _ in queries]
    for number, block in enumerate(blocks(count)):
        products = queries @ block.T  # (QUERIES, BLOCK)
        for found, row in zip(best, products, strict=True):
            near = np.argpartition(-row, config.TOP_K_SIMILAR)[: config.TOP_K_SIMILAR]
            found += [(float(row[n]), number * BLOCK + int(n)) for n in near]
            found[:] = sorted(found, reverse=True)[: config.TOP_K_SIMILAR]
    return [{key_of(number) for _, number in found} for found in best]


def insert(gallery: Gallery, count: int) -> None:
    """Puts `count` images into a gallery."""
    for start, block in enumerate(blocks(count)):
        for part in range(0, BLOCK, 1000):
            keys = [key_of(start * BLOCK + n) for n in range(part, part + 1000)]
            rows = zip(keys, block[part : part + 1000], strict=True)
            gallery.put([Entry(k, v, f"/{k}", number_of(k), ["a"]) for k, v in rows], {})


def wait_for_index(gallery: Gallery) -> None:
    """Returns when the server has indexed all that was inserted.

    Its smallest segments get no index, and "pending" counts rows twice that are being compacted.
    """
    client: Any = gallery._client
    client.flush(gallery._images)
    while True:
        state = client.describe_index(gallery._images, "vector")
        if state["indexed_rows"] > 0.99 * state["total_rows"]:
            return
        time.sleep(1)


def client_memory() -> float:
    """The peak memory of this process in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def measure(url: str, count: int, ann: bool, queries: np.ndarray, true: list[set[str]]) -> str:
    """A line of the table for one gallery."""
    address = Address(url, f"bench_{count}_{'hnsw' if ann else 'flat'}", CLIP, TEXT)
    gallery = Gallery(address)
    gallery.create(Sizes(DIMENSION, DIMENSION, None), ann)
    start = time.monotonic()
    insert(gallery, count)
    inserted = time.monotonic()
    wait_for_index(gallery)
    indexed = time.monotonic()
    opened = Gallery(address)
    opened.open()
    connected = time.monotonic()
    right, seconds = 0, []
    opened.neighbors(queries[:1], [None], ["original"])
    for query, keys in zip(queries, true, strict=True):
        began = time.monotonic()
        (found,) = opened.neighbors(query[None], [None], ["original"])
        seconds.append(time.monotonic() - began)
        right += len(keys & {hit.key for hit in found})
    recall = right / (len(queries) * config.TOP_K_SIMILAR)
    for collection in (gallery._images, gallery._captions):
        gallery._client.drop_collection(collection)  # the next gallery has the memory to itself
    times = f"{inserted - start:.0f} s | {indexed - inserted:.0f} s | {connected - indexed:.2f} s"
    speed = f"{1000 * statistics.median(seconds):.1f} ms | {recall:.4f} | {client_memory():.0f} MB"
    return f"| {count:,} | {'HNSW' if ann else 'FLAT'} | {times} | {speed} |"


def main() -> None:
    """Prints the table, line by line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", nargs="*", type=int, default=[100_000, 1_000_000])
    print("| images | index | insert | then indexed after | open | query | recall@5 | client |")
    print("| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        server = MilvusServer(Path(folder))
        for count in parser.parse_args().sizes:
            queries = make_queries(count)
            true = true_neighbors(count, queries)
            for ann in (True, False):
                print(measure(server.url, count, ann, queries, true), flush=True)
        server.kill()


if __name__ == "__main__":
    main()
