"""What may be found, kept up to date, is what a search built anew would find: written out here."""

import re
import unicodedata
from types import SimpleNamespace

import numpy as np
import pytest

from db_manager import DatabaseManager
from experiments.index import CaptionIndex, ImageIndex
from experiments.system import System
from similarity_search import CaptionPool, Pool
from support.candidates import candidates
from support.records import GeneratedCaption, ModelRef, Sample, SplitHashes
from tests.test_nearest import slow_top_k

CLIP = ModelRef("org/clip", "org/clip", "revision-1")
TEXT = ModelRef("org/text", "org/text", "revision-1")
WORDS = """a dog Dog cat cát CÁT snow on in the 犬 ﬁsh fish Straße STRASSE""".split()  # noqa: SIM905
D = 8


# --- The slow forms -------------------------------------------------------------------------------
def slow_words(text: str) -> set[str]:
    return set(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()))


def slow_coverage(text: str, captions: list[list[str]]) -> np.ndarray:
    """The weighted share of the words of `text` in each image's captions, all of them read."""
    words = sorted(slow_words(text))
    has = np.zeros((len(captions), len(words)), dtype=bool)
    for row, texts in enumerate(captions):
        known = slow_words(" ".join(texts))
        has[row] = [word in known for word in words]
    frequency = has.sum(axis=0)
    weights = np.where(frequency, np.log((len(captions) + 1) / (frequency + 0.5)), 0.0)
    return has @ weights / max(weights.sum(), 1e-9)


def slow_text_search(text, query, records, gallery, rows, matrix, weight, k):
    """(number, caption, source, similarity) of the best: every caption looked at."""
    scores, best, texts = matrix @ query, [], []
    for image in candidates(records, gallery, generated=True):
        shown = [(caption, image.source) for caption in image.captions]
        rewritten = records[image.key]["generated"]
        if rewritten and image.source == "original":
            shown.append((rewritten["caption"], "generated"))
        embedded = [one for one in shown if one[0] in rows]
        if embedded:
            caption, source = max(embedded, key=lambda one: scores[rows[one[0]]])
            best.append((image.index, caption, source))
            texts.append([caption for caption, _ in shown])
    cosines = np.array([scores[rows[caption]] for _, caption, _ in best])
    similarities = (1 - weight) * cosines + weight * slow_coverage(text, texts)
    ranked = slow_top_k(similarities, np.array([number for number, _, _ in best]), k)
    return [(*best[place], pytest.approx(similarity, abs=1e-6)) for place, similarity in ranked]


# --- Random databases -----------------------------------------------------------------------------
class Databases:
    """Databases in a folder that change at random, and two programs that have them open."""

    def __init__(self, folder, seed: int):
        self.random = np.random.default_rng(seed)
        self.folder = folder
        self.open_again()
        self.other = DatabaseManager(folder, "photos")

    def open_again(self):
        self.db = DatabaseManager(self.folder, "photos")
        self.images = self.db.image_vectors(CLIP, D, "pil")
        self.texts = self.db.caption_vectors(TEXT, D)

    def caption(self) -> str:
        return " ".join(self.random.choice(WORDS, self.random.integers(0, 4)))

    def vector(self, key: str | None = None) -> np.ndarray:
        """One of few, so that many are equal; of an image always the same, as by a model."""
        random = self.random if key is None else np.random.default_rng(int(key, 16))
        vector = np.zeros(D, np.float32)
        vector[random.integers(0, D, 2)] = 1
        return vector / np.linalg.norm(vector)

    def sample(self) -> Sample:
        number = int(self.random.integers(0, 25))
        captions = tuple(self.caption() for _ in range(self.random.integers(0, 3)))
        return Sample(f"{number:064x}", f"{number}.jpg", None, captions, number, "training", number)

    def change(self):
        """One update, by this program or another."""
        db = self.other if self.random.random() < 0.3 else self.db
        images = self.images if db is self.db else db.image_vectors(CLIP, D, "pil")
        kind = self.random.integers(0, 6)
        if kind == 0:
            db.sync_gallery([self.sample() for _ in range(3)])
        elif kind == 1:
            key = self.sample().content_hash
            db.add_vectors(images, {key: self.vector(key)})
        elif kind in (2, 3):
            made = GeneratedCaption(self.caption(), None, {})
            sample = self.sample()
            db.add_generated(sample, made, images, self.vector(sample.content_hash))
        elif kind == 4:
            shown = [text for r in db.captions.values() for text in r["captions"] if text][:9]
            table = self.texts if db is self.db else db.caption_vectors(TEXT, D)
            db.add_vectors(table, {text: self.vector() for text in shown})
        else:
            db.close()  # compacts: the other program reads everything again

    def gallery(self) -> SplitHashes:
        """Some images are of neither half: they have gone."""
        halves = range(0, 25, 2), range(1, 25, 4)
        return SplitHashes(*(frozenset(f"{n:064x}" for n in half) for half in halves))


@pytest.mark.parametrize("seed", range(8))
def test_an_index_kept_up_to_date_finds_what_one_made_anew_does(tmp_path, settings, seed):
    state = Databases(tmp_path, seed)
    gallery = state.gallery()
    system = System(SimpleNamespace(hashes=gallery), state.db)
    kept: list[tuple[Pool, list]] = []
    for _ in range(60):
        state.change()
        state.db.refresh()
        records, images, texts = state.db.captions, state.images, state.texts
        query, exclude = state.vector(), state.sample().content_hash
        for generated in (True, False):
            pool = system.pool(images, generated)
            anew = Pool.of(candidates(records, gallery, generated), images.rows, images.matrix)
            assert len(pool) == len(anew)
            assert pool.neighbors(query, exclude, 4) == anew.neighbors(query, exclude, 4)
            assert pool.least_similar(query, exclude, 4) == anew.least_similar(query, exclude, 4)
            assert pool.at_random(query, exclude, 4, 1) == anew.at_random(query, exclude, 4, 1)
        kept.append((pool, pool.neighbors(query, exclude, 4), query, exclude))
        for weight in (0.0, 0.15, 1.0):
            settings.SEARCH_WORD_WEIGHT = weight
            text = state.caption() or "dog"
            found = system.caption_pool(texts).search(text, query, texts.matrix, 5)
            expected = slow_text_search(
                text, query, records, gallery, texts.rows, texts.matrix, weight, 5
            )
            assert [(n.index, n.caption, n.source, n.similarity) for n in found] == expected
        captions = {c for image in candidates(records, gallery, True) for c in image.captions}
        missing = {c for c in captions if c and c not in texts.rows}
        assert missing <= set(system.caption_pool(texts).without_vector())
    for pool, found, query, exclude in kept:
        assert pool.neighbors(query, exclude, 4) == found  # as it stood when it was made


def test_nothing_is_built_anew_for_a_query(tmp_path, monkeypatch):
    state = Databases(tmp_path, 1)
    system = System(SimpleNamespace(hashes=state.gallery()), state.db)
    for _ in range(20):
        state.db.add_generated(
            state.sample(), GeneratedCaption("a dog", None, {}), state.images, state.vector()
        )
    system.pool(state.images), system.caption_pool(state.texts)
    looked_at, looks = [], ImageIndex._look_at
    monkeypatch.setattr(
        ImageIndex, "_look_at", lambda self, rows: looked_at.extend(rows) or looks(self, rows)
    )
    monkeypatch.setattr(CaptionPool, "put", lambda self, key: looked_at.append(key))
    monkeypatch.setattr(CaptionIndex, "_build", None)
    system.pool(state.images), system.caption_pool(state.texts)
    assert looked_at == []
    new = Sample("f" * 64, "new.jpg", None)
    made = GeneratedCaption("a cat", None, {})
    state.db.add_generated(new, made, state.images, state.vector())
    system.pool(state.images), system.caption_pool(state.texts)
    assert looked_at == [len(state.images) - 1, new.content_hash]


def test_an_index_of_captions_that_change_again_and_again_does_not_grow(tmp_path):
    state = Databases(tmp_path, 2)
    system = System(SimpleNamespace(hashes=state.gallery()), state.db)
    records = state.db.caption_table
    one = {
        "index": 0, "image": "a.jpg", "original_index": None, "captions": [],
        "generated": {"caption": "a dog"},
    }  # fmt: skip
    for _ in range(3000):
        records.update({"1" * 64: one})
        pool = system.caption_pool(state.texts)
    assert len(pool._keys) < 1100


def test_an_index_that_was_interrupted_is_made_anew(tmp_path, monkeypatch):
    state = Databases(tmp_path, 3)
    system = System(SimpleNamespace(hashes=state.gallery()), state.db)
    for _ in range(20):
        state.change()
    state.db.refresh()
    system.pool(state.images), system.caption_pool(state.texts)
    usual, put = ImageIndex._look_at, CaptionPool.put

    def stopped(*_):
        raise KeyboardInterrupt

    new = Sample("f" * 64, "new.jpg", None)
    made = GeneratedCaption("a quite new caption", None, {})
    state.db.add_generated(new, made, state.images, state.vector())
    monkeypatch.setattr(ImageIndex, "_look_at", stopped)
    monkeypatch.setattr(CaptionPool, "put", stopped)
    for ask in (lambda: system.pool(state.images), lambda: system.caption_pool(state.texts)):
        with pytest.raises(KeyboardInterrupt):
            ask()
    monkeypatch.setattr(ImageIndex, "_look_at", usual)
    monkeypatch.setattr(CaptionPool, "put", put)
    assert "a quite new caption" in system.caption_pool(state.texts).without_vector()
    anew = candidates(state.db.captions, state.gallery(), True)
    expected = Pool.of(anew, state.images.rows, state.images.matrix)
    assert len(system.pool(state.images, True)) == len(expected)


def test_no_query_finds_no_neighbors(tmp_path):
    state = Databases(tmp_path, 4)
    system = System(SimpleNamespace(hashes=state.gallery()), state.db)
    assert system.pool(state.images).neighbors_of([], np.zeros((0, D), np.float32)) == []
