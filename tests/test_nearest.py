"""The quick search for neighbors finds what the slow one does, which is written out here."""

import numpy as np
import pytest

from similarity_search import Pool, top_k
from support.candidates import Candidate
from support.records import Sample
from support.search import nearest

CASES = 1500


def slow_top_k(similarities: np.ndarray, indices: np.ndarray, k: int) -> list[tuple[int, float]]:
    """All candidates sorted: by similarity to six decimals, then by index."""
    rounded = np.round(similarities.astype(np.float64), 6)
    order = np.lexsort((indices, -rounded))[:k]
    return [(int(i), float(rounded[i])) for i in order if rounded[i] > -np.inf]


def slow_neighbors(found, rows, matrix, query, exclude, k) -> list[tuple[str, float]]:
    """Every candidate compared with the query, one by one."""
    usable = [c for c in found if c.key in rows and c.key != exclude]
    products = [matrix[rows[c.key]].astype(np.float64) @ query.astype(np.float64) for c in usable]
    best = slow_top_k(np.array(products), np.array([c.index for c in usable]), k)
    return [(usable[place].image, similarity) for place, similarity in best]


def unit_vectors(generator: np.random.Generator, count: int, kind: str) -> np.ndarray:
    """(count, 16) unit rows: any, few different ones with many ties, or many copies."""
    if kind == "any":
        vectors = generator.standard_normal((count, 16))
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    vectors = np.zeros((count, 16), np.float32)
    for row in vectors:
        places = generator.choice(16 if kind == "ties" else 5, 4, replace=False)
        row[places] = generator.choice([-0.5, 0.5], 4)
    return vectors


def random_pool(generator: np.random.Generator, kind: str):
    """Candidates in any order, some without a vector or a caption, and their matrix."""
    count = int(generator.integers(1, 60))
    matrix = unit_vectors(generator, count, kind)
    rows = {f"k{row}": row for row in generator.permutation(count)}
    found = []
    for index, place in enumerate(generator.permutation(count + 3)):
        captions = ("a dog",) if generator.random() < 0.9 else ("",)
        found.append(Candidate(f"k{place}", index, captions, "original", None, f"k{place}"))
    return found, rows, matrix


@pytest.fixture(params=[(1, 2), (7, 3), (64, 40), (nearest.BLOCK, nearest.HITS)])
def sizes(request, monkeypatch):
    """Small blocks, and few hits kept, so that small cases have many of both."""
    monkeypatch.setattr(nearest, "BLOCK", request.param[0])
    monkeypatch.setattr(nearest, "HITS", request.param[1])


@pytest.mark.parametrize("kind", ["any", "ties", "copies"])
def test_neighbors_are_those_of_the_slow_search(sizes, kind):
    generator = np.random.default_rng(3)
    for _ in range(CASES // 10):
        found, rows, matrix = random_pool(generator, kind)
        pool = Pool.of(found, rows, matrix)
        keys = [f"k{generator.integers(0, len(matrix) + 3)}" for _ in range(5)]
        queries = unit_vectors(generator, 5, kind)
        queries[0] = matrix[0]
        k = int(generator.integers(1, 12))
        samples = [Sample(key, key, None) for key in keys]
        batch = pool.neighbors_of(samples, queries, k)
        for query, key, together in zip(queries, keys, batch, strict=True):
            expected = slow_neighbors(found, rows, matrix, query, key, k)
            assert [(n.image, n.similarity) for n in together] == expected
            assert pool.neighbors(query, key, k) == together
            least = slow_neighbors(found, rows, matrix, -query, key, k)
            opposite = [(n.image, -n.similarity) for n in pool.least_similar(query, key, k)]
            assert opposite == least


@pytest.mark.parametrize("kind", ["any", "ties", "minus infinity"])
def test_top_k_is_that_of_the_slow_form(kind):
    generator = np.random.default_rng(4)
    for _ in range(CASES):
        count = int(generator.integers(0, 50))
        values = generator.standard_normal(count).astype(np.float32)
        if kind != "any":
            values = np.round(values * 2) / 2 + generator.choice([0, 2e-8], count)
        if kind == "minus infinity":
            values[generator.random(count) < 0.5] = -np.inf
        values, indices = values.astype(np.float32), generator.permutation(count)
        k = int(generator.integers(1, 12))
        assert top_k(values, indices, k) == slow_top_k(values, indices, k)


def test_random_neighbors_are_the_same_draw_without_the_excluded_one():
    generator = np.random.default_rng(5)
    for seed in range(100):
        found, rows, matrix = random_pool(generator, "any")
        usable = [c for c in found if c.key in rows]
        exclude = usable[0].key if usable else None
        allowed = [place for place, c in enumerate(usable) if c.key != exclude]
        drawn = np.random.default_rng(seed).permutation(allowed)[:4] if allowed else []
        pool = Pool.of(found, rows, matrix)
        got = pool.at_random(matrix[0], exclude, 4, seed)
        assert [n.image for n in got] == [usable[int(place)].image for place in drawn]


def test_a_neighbor_and_its_similarity_do_not_depend_on_the_batch():
    generator = np.random.default_rng(6)
    matrix = unit_vectors(generator, 5000, "any")
    found = [Candidate(f"k{n}", n, ("c",), "original", None, f"k{n}") for n in range(5000)]
    pool = Pool.of(found, {f"k{n}": n for n in range(5000)}, matrix)
    samples = [Sample(f"k{n}", "", None) for n in range(40)]
    alone = [pool.neighbors_of([s], matrix[n : n + 1])[0] for n, s in enumerate(samples)]
    for size in (2, 7, 40):
        parts = [
            pool.neighbors_of(samples[start : start + size], matrix[start : min(start + size, 40)])
            for start in range(0, 40, size)
        ]
        assert [found for part in parts for found in part] == alone
