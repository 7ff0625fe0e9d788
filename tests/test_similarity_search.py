"""Stage 3: cosine top-k, what may be found, and what never."""

import numpy as np
import pytest

from similarity_search import CaptionPool, Pool, top_k
from support.candidates import candidates
from support.errors import SettingError
from support.records import SplitHashes


def unit(*rows) -> np.ndarray:
    vectors = np.array(rows, dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def record(index: int, captions=(), generated=None) -> dict:
    made = {"caption": generated} if generated else None
    return {
        "index": index,
        "image": f"{index}.jpg",
        "original_index": index,
        "captions": list(captions),
        "generated": made,
    }


RECORDS = {
    "a": record(0, ["a red dog"]),
    "b": record(1, ["a blue cat", "a cat"]),
    "c": record(2, ["its reference"], generated="a dog by the system"),  # an experiment image
    "d": record(3, ["another reference"]),  # an experiment image, not captioned yet
    "e": record(4, ["a dog"], generated="a dog, written anew"),
}
GALLERY = SplitHashes(frozenset("abe"), frozenset("cd"))
ROWS = {key: row for row, key in enumerate(RECORDS)}
MATRIX = unit([1, 0, 0], [0.8, 0.6, 0], [0.9, 0.1, 0], [1, 0, 0], [0, 1, 0])


def names(neighbors) -> list[int]:
    return [neighbor.index for neighbor in neighbors]


def test_neighbors_come_nearest_first_with_their_cosine():
    pool = Pool.of(candidates(RECORDS, GALLERY, generated=False), ROWS, MATRIX)
    found = pool.neighbors(unit([1, 0.1, 0])[0])
    assert names(found) == [0, 1, 4]
    expected = MATRIX[[0, 1, 4]] @ unit([1, 0.1, 0])[0]
    assert [n.similarity for n in found] == pytest.approx(expected.tolist(), abs=1e-6)


def test_the_query_itself_is_left_out_and_k_is_kept(settings):
    pool = Pool.of(candidates(RECORDS, GALLERY), ROWS, MATRIX)
    assert names(pool.neighbors(MATRIX[0], exclude="a", k=2)) == [2, 1]
    settings.TOP_K_SIMILAR = 1
    assert names(pool.neighbors(MATRIX[0], exclude="a")) == [2]
    assert len(pool.neighbors(MATRIX[0], k=99)) == 4
    for wrong in (0, -1, 2.5):
        with pytest.raises(SettingError, match="--top-k"):
            pool.neighbors(MATRIX[0], k=wrong)


def test_equal_scores_are_ordered_by_index_even_where_the_last_bits_differ():
    scores = np.array([0.5, 0.5 + 2e-8, 0.9, 0.5 - 2e-8], dtype=np.float32)
    assert [i for i, _ in top_k(scores, np.array([30, 20, 40, 10]), 4)] == [2, 3, 1, 0]


def test_an_experiment_image_never_gives_its_references():
    found = {c.key: (c.captions, c.source) for c in candidates(RECORDS, GALLERY, generated=True)}
    assert found == {
        "a": (("a red dog",), "original"),
        "b": (("a blue cat", "a cat"), "original"),
        "c": (("a dog by the system",), "generated"),
        "e": (("a dog",), "original"),
    }


def test_generated_captions_are_context_only_when_wanted(settings):
    settings.USE_GENERATED_AS_CONTEXT = False
    assert [c.key for c in candidates(RECORDS, GALLERY)] == ["a", "b", "e"]


def test_a_pool_stays_as_it_was_when_it_was_made():
    records, rows = dict(RECORDS), dict(ROWS)
    pool = Pool.of(candidates(records, GALLERY), rows, MATRIX)
    before = names(pool.neighbors(MATRIX[0]))
    records["f"], rows["f"] = record(5, ["new"]), 0
    assert names(pool.neighbors(MATRIX[0])) == before


def test_text_search_sees_both_kinds_of_captions_and_says_which():
    texts = {"a red dog": [1, 0], "a blue cat": [0, 1], "a cat": [0.1, 1], "a dog": [0.9, 0.1]}
    texts |= {"a dog by the system": [0.8, 0.3], "a dog, written anew": [0.95, 0.05]}
    matrix, rows = unit(*texts.values()), {text: row for row, text in enumerate(texts)}
    assert set(CaptionPool(RECORDS, GALLERY, {}).without_vector()) == set(texts)
    pool = CaptionPool(RECORDS, GALLERY, rows)
    assert not pool.without_vector()
    found = pool.search("zzz", unit([1, 0])[0], matrix, 4)
    assert [(n.index, n.caption, n.source) for n in found] == [
        (0, "a red dog", "original"),
        (4, "a dog, written anew", "generated"),
        (2, "a dog by the system", "generated"),
        (1, "a cat", "original"),
    ]


def test_an_empty_pool_finds_nothing():
    assert Pool.of([], {}, np.zeros((0, 3), np.float32)).neighbors(MATRIX[0]) == []
    empty = CaptionPool({}, SplitHashes(frozenset()), {})
    assert empty.search("a dog", MATRIX[0], np.zeros((0, 3), np.float32)) == []


def test_text_search_finds_a_name_and_conditions_shown_by_different_captions(settings):
    """What one vector cannot: the cosines are all equal here."""
    shown = {
        "a": ["a red dog", "at night"],
        "b": ["a red dog", "at noon"],
        "c": ["a bird", "Ngọc at night"],
    }
    records = {key: record(index, captions) for index, (key, captions) in enumerate(shown.items())}
    rows = {
        text: row
        for row, text in enumerate(
            dict.fromkeys(c for captions in shown.values() for c in captions)
        )
    }
    matrix = unit(*[[1, 0]] * len(rows))
    pool = CaptionPool(records, SplitHashes(frozenset(shown)), rows)

    def order(text):
        return [n.index for n in pool.search(text, matrix[0], matrix)]

    assert order("red dog night")[0] == 0 and order("ngọc")[0] == 2 and order("noon")[0] == 1
    assert all(0 <= n.similarity <= 1 for n in pool.search("a red dog at noon", matrix[0], matrix))
    settings.SEARCH_WORD_WEIGHT = 0
    assert order("ngọc") == [0, 1, 2]
