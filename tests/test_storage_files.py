"""Files as they lie on the disk: permissions, links, what killed writers left, new folders."""

import contextlib
import errno
import gc
import json
import os
import stat
import threading
import time
import weakref
from pathlib import Path

import pytest

from db_manager import DatabaseManager
from support.errors import DatabaseError
from support.storage import files, lock
from support.storage.files import make_folder, publish_file, replace_file
from support.storage.strict_json import parse_json
from tests import attacks

pytestmark = pytest.mark.skipif(os.name != "posix", reason="permissions, links and folder syncs")


@pytest.fixture
def umask():
    """Sets the umask for one test."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def modes(folder: Path) -> set[str]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {oct(stat.S_IMODE(path.stat().st_mode)) for path in paths}


# --- Permissions ----------------------------------------------------------------------------------
@pytest.mark.parametrize("mask, mode", [(0o077, "0o600"), (0o002, "0o664"), (0o022, "0o644")])
def test_files_have_the_permissions_that_the_umask_gives(tmp_path, umask, mask, mode):
    umask(mask)
    attacks.update_databases(tmp_path / "db")
    publish_file(tmp_path / "results", "image", ".json", "{}")
    assert modes(tmp_path) == {mode}


def test_a_replaced_file_keeps_the_permissions_that_its_owner_gave_it(tmp_path, umask):
    attacks.update_databases(tmp_path)
    (tmp_path / "captions.json").chmod(0o640)
    with DatabaseManager(tmp_path, "photos") as db:
        attacks.add(db, 50)
    assert stat.S_IMODE((tmp_path / "captions.json").stat().st_mode) == 0o640


def test_files_are_written_where_permissions_cannot_be_changed(tmp_path, monkeypatch):
    """As on some network file systems and memory sticks."""
    attacks.update_databases(tmp_path)

    def refused(*_, **__):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "chmod", refused)
    monkeypatch.setattr(os, "fchmod", refused)
    with DatabaseManager(tmp_path, "photos") as db:
        attacks.add(db, 50)
    assert attacks.check(tmp_path, 4) is None


# --- Links ----------------------------------------------------------------------------------------
def test_databases_that_are_links_stay_links(tmp_path):
    db, real = tmp_path / "db", tmp_path / "real"
    attacks.update_databases(db)
    real.mkdir()
    for name in ("captions.json", "journal.jsonl", "org--clip/image_embeddings.json"):
        (db / name).rename(real / Path(name).name)
        (db / name).symlink_to(real / Path(name).name)
    with DatabaseManager(db, "photos") as manager:
        attacks.add(manager, 50)
    for name in ("captions.json", "journal.jsonl", "org--clip/image_embeddings.json"):
        assert (db / name).is_symlink()
    assert attacks.caption(50) in (real / "captions.json").read_text("utf-8")
    assert attacks.check(db, 4) is None and not attacks.leftovers(tmp_path)


def test_a_folder_that_is_a_dangling_link_is_named(tmp_path):
    (tmp_path / "results").symlink_to(tmp_path / "unmounted" / "results")
    with pytest.raises(DatabaseError, match=r"it is a link to .*unmounted.*RESULTS_DIR"):
        publish_file(tmp_path / "results", "image", ".json", "{}")
    assert not (tmp_path / "unmounted").exists()


OLD, NEW = f".{'0' * 32}.tmp", f".{'1' * 32}.tmp"


# --- What killed writers left ---------------------------------------------------------------------
def test_temporary_files_of_killed_programs_are_removed_from_the_results(tmp_path):
    for name, age in ((OLD, 2), (NEW, 0)):
        (tmp_path / name).write_text("half")
        then = time.time() - age * files.ABANDONED_SECONDS
        os.utime(tmp_path / name, (then, then))
    publish_file(tmp_path, "image", ".json", "{}")
    assert {path.name for path in tmp_path.iterdir()} == {NEW, "image.json"}


def test_temporary_files_of_killed_programs_are_removed_from_the_databases(tmp_path):
    attacks.update_databases(tmp_path)
    (tmp_path / f".captions.json.{OLD[1:]}").write_text("half")
    with DatabaseManager(tmp_path, "photos") as db:
        attacks.add(db, 50)
    assert not attacks.leftovers(tmp_path)


# --- Syncs ----------------------------------------------------------------------------------------
@pytest.fixture
def synced(monkeypatch) -> list[Path]:
    """The folders that were synced."""
    folders, sync = [], files.sync_folder
    monkeypatch.setattr(files, "sync_folder", lambda path, *_: folders.append(path) or sync(path))
    return folders


def test_the_parent_of_each_new_folder_is_synced(tmp_path, synced):
    make_folder(tmp_path / "a" / "b" / "c")
    assert synced[-3:] == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]


def test_the_parent_of_a_folder_that_a_killed_program_made_is_synced_once(tmp_path, synced):
    (tmp_path / "a").mkdir()
    for _ in range(2):
        make_folder(tmp_path / "a")
    assert synced == [tmp_path]


def test_a_name_is_taken_once_where_there_are_no_hard_links(tmp_path, monkeypatch):
    def no_links(*_):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", no_links)
    move = os.replace

    def killed(source, target):
        move(source, target) if source.suffix != ".tmp" else os._exit(9)

    def program() -> None:
        os.replace = killed
        publish_file(tmp_path, "image", ".json", "{}")

    assert attacks.exit_status(attacks.forked(program)) == 9
    assert not list(tmp_path.glob("image*"))  # not even an empty file
    publish_file(tmp_path, "image", ".json", "{}")
    assert [path.read_text() for path in tmp_path.glob("image*")] == ["{}"]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EACCES])
def test_a_file_system_that_does_not_sync_folders_is_used_all_the_same(
    tmp_path, monkeypatch, number
):
    fail_folder_syncs(monkeypatch, number)
    replace_file(tmp_path / "a.json", ["new"])
    assert publish_file(tmp_path, "image", ".json", "{}").read_text() == "{}"
    assert (tmp_path / "a.json").read_text() == "new"


def test_a_disk_that_fails_at_syncing_a_folder_is_no_claim_that_nothing_changed(
    tmp_path, monkeypatch
):
    (tmp_path / "a.json").write_text("old")
    fail_folder_syncs(monkeypatch, errno.EIO)
    with pytest.raises(DatabaseError, match="is in place, but may be lost") as error:
        replace_file(tmp_path / "a.json", ["new"])
    assert "unchanged" not in str(error.value)
    assert (tmp_path / "a.json").read_text() == "new"


def fail_folder_syncs(monkeypatch, number: int) -> None:
    fsync = os.fsync

    def failing(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", failing)


# --- Waiting for a compaction ---------------------------------------------------------------------
def test_a_writer_waits_for_a_compaction_longer_than_for_an_update(tmp_path, monkeypatch, caplog):
    attacks.update_databases(tmp_path)
    monkeypatch.setattr(lock, "LOCK_SECONDS", 0.2)
    compacting, waiting = DatabaseManager(tmp_path, "photos"), DatabaseManager(tmp_path, "photos")
    attacks.add(compacting, 50)
    begun, save = threading.Event(), type(compacting._captions).save

    def slowly(table) -> None:
        begun.set()
        time.sleep(1)
        save(table)

    monkeypatch.setattr(type(compacting._captions), "save", slowly)
    thread = threading.Thread(target=compacting.close)
    thread.start()
    begun.wait()
    attacks.add(waiting, 51)
    thread.join()
    assert f"Waiting for process {os.getpid()}" in caplog.text
    assert "compacting the journal" in caplog.text
    assert attacks.check(tmp_path, 4) is None


def test_a_compaction_without_end_is_not_waited_for_for_ever(tmp_path, monkeypatch):
    attacks.update_databases(tmp_path)
    monkeypatch.setattr(lock, "LOCK_SECONDS", 0.1)
    monkeypatch.setattr(lock, "LONG_WORK_SECONDS", 0.3)
    db, other = DatabaseManager(tmp_path, "photos"), DatabaseManager(tmp_path, "photos")
    with db.locked():
        db._store.lock.announce("compacting the journal")
        with pytest.raises(DatabaseError, match=r"being written by process .*; waited"):
            attacks.add(other, 60)


@pytest.mark.parametrize("note", [b"", b"[]", b"{", b'{"pid": 1}', b"\xff", b"[" * 100_000])
def test_a_damaged_note_of_who_holds_the_lock_is_no_error(tmp_path, monkeypatch, note):
    db, other = DatabaseManager(tmp_path, "photos"), DatabaseManager(tmp_path, "photos")
    monkeypatch.setattr(lock, "LOCK_SECONDS", 0.1)
    with db.locked():
        (tmp_path / "lock-holder.json").write_bytes(note)
        with pytest.raises(DatabaseError, match="being written by another process"):
            attacks.add(other, 1)
    attacks.add(other, 1)
    assert json.loads((tmp_path / "lock-holder.json").read_bytes())["pid"] == os.getpid()


# --- Memory ---------------------------------------------------------------------------------------
def test_databases_that_are_opened_again_do_not_stay_in_memory(tmp_path):
    attacks.update_databases(tmp_path)
    opened = []
    for _ in range(3):
        db = DatabaseManager(tmp_path, "photos")
        attacks.add(db, 50)
        opened.append((weakref.ref(db), weakref.ref(db._store), weakref.ref(db._captions)))
    del db
    gc.collect()
    assert [ref() for refs in opened for ref in refs] == [None] * 9
    assert attacks.check(tmp_path, 4) is None


def test_what_is_still_open_is_compacted_when_the_program_ends(tmp_path):
    def program() -> None:
        import atexit

        db = DatabaseManager(tmp_path, "photos")
        attacks.add(db, 1)
        atexit._run_exitfuncs()

    assert attacks.exit_status(attacks.forked(program)) == 0
    assert attacks.caption(1) in (tmp_path / "captions.json").read_text("utf-8")


# --- Vectors of an older version of a model -------------------------------------------------------
def test_outdated_vectors_are_made_anew_where_that_was_asked_for(tmp_path, caplog):
    attacks.update_databases(tmp_path)
    with pytest.raises(DatabaseError, match="does not fit"):
        DatabaseManager(tmp_path, "photos").image_vectors(attacks.NEW_CLIP, 8, "pil")
    with DatabaseManager(tmp_path, "photos", renew=True) as db:
        assert len(db.image_vectors(attacks.NEW_CLIP, 8, "pil")) == 0
        assert len(db.caption_vectors(attacks.TEXT, 8)) > 0
    assert caplog.text.count("another version of its model") == 1
    assert attacks.caption(3) in (tmp_path / "captions.json").read_text("utf-8")


# --- What is no file ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "name",
    [
        "captions.json",
        "journal.jsonl",
        "org--clip/image_embeddings.json",
        "org--text/caption_embeddings.json",
        "lock-holder.json",
    ],
)
def test_a_pipe_in_place_of_a_file_is_named_and_not_waited_for(tmp_path, name):
    attacks.update_databases(tmp_path)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with (
        pytest.raises(DatabaseError, match=rf"{Path(name).name} cannot be (read|written): Not a"),
        DatabaseManager(tmp_path, "photos") as db,
    ):
        attacks.add(db, 60)


def test_a_dimension_that_is_no_number_is_damage(tmp_path):
    attacks.update_databases(tmp_path)
    path = tmp_path / "org--clip" / "image_embeddings.json"
    path.write_text(path.read_text("utf-8").replace('"dimension": 8', '"dimension": true'), "utf-8")
    with pytest.raises(DatabaseError, match="is damaged: its dimension is True"):
        DatabaseManager(tmp_path, "photos").image_vectors(attacks.CLIP, 8, "pil")
    db = DatabaseManager(tmp_path, "photos", rebuild=True)
    assert len(db.image_vectors(attacks.CLIP, 8, "pil")) == 0


def test_files_that_are_not_ours_and_folders_stay(tmp_path):
    then = time.time() - 2 * files.ABANDONED_SECONDS
    (tmp_path / ".draft.tmp").write_text("mine")
    (tmp_path / ".x.tmp").mkdir()
    for name in (".draft.tmp", ".x.tmp"):
        os.utime(tmp_path / name, (then, then))
    publish_file(tmp_path, "image", ".json", "{}")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {".draft.tmp", ".x.tmp", "image.json"}


@pytest.mark.parametrize(
    "name", ["captions.json", "journal.jsonl", "org--clip/image_embeddings.json"]
)
@pytest.mark.parametrize("rebuild", [False, True])
def test_a_file_larger_than_the_memory_is_named(tmp_path, name, rebuild):
    attacks.update_databases(tmp_path)
    os.truncate(tmp_path / name, 2**41)
    with pytest.raises(DatabaseError, match=rf"{Path(name).name} cannot be read: .*the memory"):
        DatabaseManager(tmp_path, "photos", rebuild).image_vectors(attacks.CLIP, 8, "pil")


def test_json_that_is_nested_deeply_around_half_a_character_is_no_value():
    for depth in range(900, 1000, 5):
        text = b"[" * depth + b'"\\ud800"' + b"]" * depth
        with contextlib.suppress(ValueError):
            parse_json(text)
