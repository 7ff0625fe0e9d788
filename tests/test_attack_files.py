"""Corrupt and foreign database files: an error with its remedy, or a reported repair."""

import json
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from db_manager import DatabaseManager
from support.errors import DatabaseError
from tests import attacks, fuzz

VECTORS = "org--clip/image_embeddings.json"


@pytest.fixture(scope="module")
def target():
    # hundreds of databases: nothing here is about syncing
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield fuzz.Target(Path(folder))


@pytest.mark.parametrize("name", fuzz.FILES)
def test_truncated_at_every_percent_of_the_length(target, name, caplog):
    whole = attacks.state(target.whole)
    length = (target.whole / name).stat().st_size
    for percent in range(100):
        caplog.clear()
        size = length * percent // 100
        outcome = target.attack(name, lambda data, size=size: data[:size])
        # the tail is as a crash leaves it: cut off, and said
        if name == "journal.jsonl" and outcome == "read":
            assert (
                "ended in half an update" in caplog.text
                or (target.whole / name).read_bytes()[size - 1 : size] == b"\n"
            )
        else:
            assert outcome == "refused", percent
        found = attacks.state(target.folder)["captions"]
        assert all(
            found[key] == record for key, record in whole["captions"].items() if key in found
        )


WRONG = {
    "a byte order mark and nothing else": lambda text: "\ufeff",
    "a field too many": lambda text: text.replace('"image": ', '"colour": 1, "image": ', 1),
    "a field too few": lambda text: text.replace('"original_index": 100, ', "", 1),
    "a wrong type": lambda text: text.replace('"index": 0', '"index": "0"', 1),
    "a number twice": lambda text: text.replace('"index": 1,', '"index": 0,', 1),
    "a number beyond all": lambda text: text.replace('"index": 0', '"index": 1e999', 1),
    "a wrong count": lambda text: text.replace('"count": ', '"count": 1', 1),
    "nested too deeply": lambda text: "[" * 100_000,
    "bad base64": lambda text: text.replace('": "', '": "*', 1) if '"dtype"' in text else "",
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("name", ["captions.json", VECTORS])
def test_wrong_content_is_refused_and_rebuilt(target, name, wrong):
    text = (target.whole / name).read_text(encoding="utf-8")
    changed = WRONG[wrong](text)
    if changed == text:
        pytest.skip("not in this file")
    assert target.attack(name, lambda _: changed.encode()) == "refused"


def test_a_byte_order_mark_before_sound_content_does_no_harm(target):
    assert target.attack("captions.json", lambda data: b"\xef\xbb\xbf" + data) == "read"


def test_a_file_that_an_editor_rewrote_with_indents_is_read(target):
    assert (
        target.attack("captions.json", lambda data: json.dumps(json.loads(data), indent=4).encode())
        == "read"
    )


@pytest.mark.parametrize(
    "row", [[float("nan")] * 8, [float("inf")] + [0.0] * 7, [0.0] * 8, [1.0] * 8, [1.0] + [0.0] * 8]
)
def test_vectors_of_nan_zero_or_another_dimension_are_refused(target, row):
    import numpy as np

    from support.storage.vectors import encode_vector

    def damage(data: bytes) -> bytes:
        document = json.loads(data)
        document["records"][attacks.sample(100).content_hash] = encode_vector(
            np.array(row, np.float32)
        )
        return json.dumps(document).encode()

    assert target.attack(VECTORS, damage) == "refused"


@pytest.mark.parametrize("name", fuzz.FILES)
def test_a_newer_format_is_refused_and_left_alone_even_by_rebuild(target, tmp_path, name):
    shutil.copytree(target.whole, tmp_path / "db")
    path = tmp_path / "db" / name
    newer = path.read_bytes().replace(b'"format_version": 1', b'"format_version": 2')
    path.write_bytes(newer)
    for rebuild in (False, True):
        with pytest.raises(DatabaseError, match="newer version of the program"):
            db = DatabaseManager(tmp_path / "db", "photos", rebuild)
            db.image_vectors(attacks.CLIP, attacks.DIMENSION, "pil")
            db.caption_vectors(attacks.TEXT, attacks.DIMENSION)
    assert path.read_bytes() == newer and not list(path.parent.glob("*.corrupt*"))


@pytest.fixture
def two_times(tmp_path):
    """Databases as they stood before and after later updates, each with a compaction."""
    for name, count in (("earlier", 3), ("later", 6)):
        if name == "later":
            shutil.copytree(tmp_path / "earlier", tmp_path / "later")
        attacks.update_databases(tmp_path / name, count=count)
        with DatabaseManager(tmp_path / name, "photos") as db:
            attacks.add(db, 70 + count)
    return tmp_path


@pytest.mark.parametrize(
    "file, older", [("captions.json", "captions.json"), ("journal.jsonl", "journal.jsonl")]
)
def test_captions_and_journal_of_two_times_are_refused_and_rebuild_says_so(
    two_times, caplog, file, older
):
    shutil.copy(two_times / "earlier" / older, two_times / "later" / file)
    with pytest.raises(
        DatabaseError, match=r"captions\.json and journal\.jsonl do not belong together.*--rebuild"
    ):
        DatabaseManager(two_times / "later", "photos")
    with DatabaseManager(two_times / "later", "photos", rebuild=True) as db:
        assert len(db.captions) >= 7
    assert "updates between them may be missing" in caplog.text
    DatabaseManager(two_times / "later", "photos")


def test_missing_captions_are_refused_and_a_missing_journal_is_reported(two_times, caplog):
    (two_times / "later" / "captions.json").unlink()
    with pytest.raises(DatabaseError, match=r"captions\.json is missing.*--rebuild"):
        DatabaseManager(two_times / "later", "photos")
    DatabaseManager(two_times / "later", "photos", rebuild=True).close()
    assert "captions.json is missing" in caplog.text
    (two_times / "earlier" / "journal.jsonl").unlink()
    assert len(DatabaseManager(two_times / "earlier", "photos").captions) == 7
    assert "journal.jsonl is missing: updates that it alone held are lost" in caplog.text


def test_a_line_cut_out_of_the_journal_is_noticed(target):
    def without_a_line(data: bytes) -> bytes:
        lines = data.splitlines(keepends=True)
        return b"".join(lines[:1] + lines[2:])

    assert len((target.whole / "journal.jsonl").read_bytes().splitlines()) > 2
    assert target.attack("journal.jsonl", without_a_line) == "refused"


def test_the_updates_of_deleted_vectors_are_not_mixed_into_those_of_another_revision(tmp_path):
    db = DatabaseManager(tmp_path, "photos")
    attacks.add(db, 1)
    db.close(compact=False)
    (tmp_path / VECTORS).unlink()
    table = DatabaseManager(tmp_path, "photos").image_vectors(
        attacks.NEW_CLIP, attacks.DIMENSION, "pil"
    )
    assert len(table) == 0


def test_damage_in_the_vectors_of_a_model_not_in_use_stops_nobody_and_loses_nothing(tmp_path):
    db = DatabaseManager(tmp_path, "photos")
    attacks.add(db, 1)
    db.close(compact=False)
    sound = (tmp_path / VECTORS).read_bytes()
    (tmp_path / VECTORS).write_bytes(sound[:30])
    with DatabaseManager(tmp_path, "photos") as other:
        other.sync_gallery([attacks.sample(9)])
    (tmp_path / VECTORS).write_bytes(sound)
    assert attacks.sample(1).content_hash in attacks.state(tmp_path)["images"]


def test_an_earlier_copy_of_a_damaged_file_is_not_overwritten(tmp_path):
    attacks.update_databases(tmp_path)
    for content in (b"first", b"second", b"second"):
        (tmp_path / "captions.json").write_bytes(content)
        with pytest.raises(DatabaseError, match="copy is kept"):
            DatabaseManager(tmp_path, "photos")
    copies = {path.name: path.read_bytes() for path in tmp_path.glob("*.corrupt*")}
    assert copies == {"captions.json.corrupt": b"first", "captions.json.corrupt2": b"second"}


def attack_with(target: fuzz.Target, examples: int) -> None:
    """Attacks databases with so many damages, the same at every call."""

    @settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        database=None,
    )
    @given(damage=fuzz.damages())
    def attack(damage) -> None:
        target.attack(*damage)

    attack()


@pytest.mark.parametrize("examples", [20, pytest.param(300, marks=pytest.mark.long)])
def test_whatever_the_files_hold_the_answer_is_a_reading_or_a_named_error(target, examples):
    attack_with(target, examples)
