"""Documents read line by line hold what they hold when they are parsed as a whole."""

import json
import random

import numpy as np
import pytest

from db_manager import DatabaseManager, slug
from support.errors import DatabaseError
from support.records import GeneratedCaption
from support.storage import lines, store
from support.storage.captions import CaptionTable
from support.storage.documents import Document
from support.storage.lines import OtherForm, open_lines
from support.storage.vectors import VectorTable, encode_vector, read_vectors
from tests.test_db_manager import CLIP, fill, opened, sample, vector

HEADERS = {
    "captions": {"content": "captions", "dataset": "photos"},
    "vectors": {"content": "image_embeddings", "model": "m", "revision": "r", "dimension": 8},
}
KEYS = ["a", 'a "quoted": "key"', "\\", "개", "\u2028", "", "x" * 5000]


def table(kind: str, path) -> CaptionTable | VectorTable:
    return (CaptionTable if kind == "captions" else VectorTable)(path, HEADERS[kind])


def records(kind: str, keys: list[str]) -> dict:
    if kind == "vectors":
        return {key: encode_vector(vector(number)) for number, key in enumerate(keys)}
    made = {"caption": "made", "mode": "hub"}
    fields = {"image": "a.jpg", "original_index": None, "captions": ["a", "b"], "generated": made}
    return {key: {"index": number, **fields} for number, key in enumerate(keys)}


def held(table) -> dict:
    if isinstance(table, CaptionTable):
        return table.records
    return {key: table.matrix[row].tolist() for key, row in table.rows.items()}


def saved(kind: str, path, keys: list[str]):
    made = table(kind, path)
    made.update(records(kind, keys))
    made.save()
    return made


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(lines, "LINES_AT_ONCE", 3)


@pytest.mark.parametrize("count", range(len(KEYS) + 1))
@pytest.mark.parametrize("kind", HEADERS)
def test_what_was_saved_is_read_line_by_line(small_blocks, monkeypatch, tmp_path, kind, count):
    made = saved(kind, tmp_path / "t.json", KEYS[:count])
    assert json.loads((tmp_path / "t.json").read_text("utf-8"))["header"]["count"] == count
    monkeypatch.setattr(Document, "_load_whole", None)
    read = table(kind, tmp_path / "t.json")
    read.load()
    assert held(read) == held(made)


@pytest.mark.parametrize("kind", HEADERS)
def test_another_layout_is_read_as_a_whole(tmp_path, kind):
    path = tmp_path / "t.json"
    made = saved(kind, path, KEYS)
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")), indent=2), "utf-8")
    with pytest.raises(OtherForm), open_lines(path):
        pass
    read = table(kind, path)
    read.load()
    assert held(read) == held(made)


def damaged(data: bytes, generator: random.Random) -> bytes:
    """`data` with something changed, cut, doubled or exchanged, or whole lines of it."""
    start, length = generator.randrange(len(data)), generator.randrange(1, 40)
    rows = data.split(b"\n")
    row = generator.randrange(len(rows))
    other = generator.randrange(len(rows))
    return [
        data[:start] + bytes([generator.choice(b'"{},: \nA=\\\xff0')]) + data[start + 1 :],
        data[:start],
        data[:start] + data[start + length :],
        data[:start] + data[start : start + length] + data[start:],
        b"\n".join(rows[:row] + rows[row + 1 :]),
        b"\n".join([*rows[:row], rows[other], *rows[row:]]),
        data.replace(b'"count": 7', b'"count": %d' % generator.choice([6, 8, -1, 10**15])),
        data.replace(b'"dimension": 8', b'"dimension": %d' % generator.choice([0, 7, 10**9])),
        data.replace(b'"format_version": 1', b'"format_version": true'),
    ][generator.randrange(9)]


def outcome(load, read) -> object:
    try:
        load()
    except DatabaseError as error:
        return str(error).partition(" is damaged: ")[2].partition(" A copy")[0] or str(error)
    return held(read)


@pytest.mark.parametrize("kind", HEADERS)
def test_damage_ends_as_when_the_whole_is_parsed(small_blocks, tmp_path, kind):
    path, generator = tmp_path / "t.json", random.Random(0)
    saved(kind, path, KEYS)
    whole = path.read_bytes()
    ends = set()
    for _ in range(1000):
        path.write_bytes(damaged(whole, generator))
        read, slow = table(kind, path), table(kind, path)
        expected = outcome(slow._load_whole, slow)
        assert outcome(read.load, read) == expected
        ends.add(str(expected))
    assert len(ends) > 20  # many kinds of damage, and some that changes nothing


# --- Large documents and their journal ------------------------------------------------------------
def test_large_documents_are_not_written_again_for_one_caption(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "CURRENT_BYTES", 100)
    path = tmp_path / slug("org/clip") / "image_embeddings.json"
    with opened(tmp_path) as db:
        fill(db)
    before = path.read_bytes()
    with opened(tmp_path) as db:
        new = sample(99, role="experiment")
        images = db.image_vectors(CLIP, 8, "pil")
        db.add_generated(new, GeneratedCaption("made", "p", {}), images, vector(99))
    assert path.read_bytes() == before
    keys, matrix = read_vectors(path)
    assert np.array_equal(matrix[keys.index(new.content_hash)], vector(99)) and len(keys) == 9
    read = dict(zip(keys, matrix.tolist(), strict=True))
    monkeypatch.setattr(store, "JOURNAL_BYTES", 100)
    with opened(tmp_path) as db:
        db.add_vectors(db.image_vectors(CLIP, 8, "pil"), {new.content_hash: vector(99)})
    keys, matrix = read_vectors(path)  # compacted: the journal had grown long
    assert path.read_bytes() != before and dict(zip(keys, matrix.tolist(), strict=True)) == read


def test_each_file_is_read_once_when_the_databases_are_opened(tmp_path, monkeypatch):
    with opened(tmp_path) as db:
        fill(db)
    read, load = [], Document.load
    monkeypatch.setattr(Document, "load", lambda self: read.append(self.path.name) or load(self))
    db = DatabaseManager(tmp_path, "photos")
    db.image_vectors(CLIP, 8, "pil")
    db.image_vectors(CLIP, 8, "pil")
    db.refresh()
    assert read == ["captions.json", "image_embeddings.json"]


def test_vectors_are_read_with_their_journal_by_any_name_of_the_file(tmp_path, monkeypatch):
    db = opened(tmp_path / "d")
    fill(db)  # all in the journal
    path = tmp_path / "d" / slug("org/clip") / "image_embeddings.json"
    (tmp_path / "link.json").symlink_to(path)
    monkeypatch.chdir(path.parent)
    for name in (path, str(path), path.name, "../../link.json"):
        assert len(read_vectors(name)[0]) == 8


@pytest.mark.parametrize("kind", HEADERS)
def test_a_table_whose_file_became_damaged_stays_as_it_was(tmp_path, kind):
    path = tmp_path / "t.json"
    made = saved(kind, path, KEYS)
    made.load()
    before, loads = dict(held(made)), made.loads
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DatabaseError):
        made.load()
    assert held(made) == before and made.loads == loads
