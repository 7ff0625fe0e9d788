"""A failing disk: the old state stays, temporary files go, the message names file and remedy."""

import errno
import os
import resource
import subprocess

import pytest

from db_manager import DatabaseManager
from support.errors import DatabaseError
from support.storage.files import publish_file
from tests import attacks
from tests.test_attack_kill import attacked

pytestmark = pytest.mark.skipif(os.name != "posix", reason="forks processes")


@pytest.mark.long
@pytest.mark.parametrize(
    "error, kinds, words",
    [
        (
            errno.EIO,
            ("open", "write", "fsync", "replace"),
            "Check the folder's permissions and disk",
        ),
        (errno.ENOSPC, ("write", "fsync", "replace"), "Free some space there, or set DB_DIR"),
    ],
)
def test_an_error_at_a_step_is_named_and_leaves_the_old_state(fast_folder, error, kinds, words):
    # every second; all: benchmarks.kill
    found = attacked("sweep", fast_folder, error, ",".join(kinds), 2)
    assert found["problems"] == []
    assert set(found["statuses"]) == {"1"} and found["steps"] > 20
    files = ("journal.jsonl", "captions.json", "image_embeddings.json", "caption_embeddings.json")
    for text in found["errors"]:
        assert os.strerror(error) in text and words in text and "\n" not in text
    assert all(any(file in text for text in found["errors"]) for file in files)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 128 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def update_until_it_fails(folder) -> int:
    """How many images were captioned before the disk was full."""
    with (
        pytest.raises(DatabaseError, match=r"cannot be written: .*Free some space"),
        DatabaseManager(folder, "p") as db,
    ):
        for number in range(10_000):
            attacks.add(db, number)
    return number


def test_a_full_disk_loses_nothing_and_goes_on_when_there_is_space(small_disk, monkeypatch):
    monkeypatch.setattr("support.storage.store.JOURNAL_BYTES", 20_000)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(30_000))
    number = update_until_it_fails(small_disk / "db")
    assert number > 10 and attacks.leftovers(small_disk) == []
    ballast.unlink()
    assert attacks.check(small_disk / "db", number) is None
    with DatabaseManager(small_disk / "db", "p") as db:
        attacks.add(db, number)
    assert attacks.check(small_disk / "db", number + 1) is None
    with pytest.raises(DatabaseError, match=r"results cannot be written: No space.*RESULTS_DIR"):
        publish_file(small_disk / "results", "image", ".json", "x" * 200_000)
    assert list((small_disk / "results").iterdir()) == []


def test_a_limit_on_the_size_of_files_is_an_error_like_any_other(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))
    try:
        number = update_until_it_fails(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert number > 10 and attacks.leftovers(tmp_path) == []
    assert attacks.check(tmp_path, number) is None


def test_the_command_names_the_full_disk_with_status_1(command, small_disk):
    (small_disk / "ballast").write_bytes(bytes(120_000))
    done = command(db_dir=str(small_disk / "databases"))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert str(small_disk) in done.stderr and "Free some space there, or set DB_DIR" in done.stderr


def test_a_file_where_the_folder_should_be_is_named(tmp_path):
    (tmp_path / "databases").write_text("mine")
    with pytest.raises(DatabaseError, match=r"databases.*cannot be written.*DB_DIR"):
        DatabaseManager(tmp_path / "databases" / "photos", "photos")
    assert (tmp_path / "databases").read_text() == "mine"


def test_results_are_published_where_there_are_no_hard_links(tmp_path, monkeypatch):
    def no_links(*_):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    paths = [publish_file(tmp_path, "image", ".json", str(n)) for n in range(3)]
    assert [path.read_text() for path in paths] == ["0", "1", "2"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "image.json",
        "image_2.json",
        "image_3.json",
    ]


def test_a_folder_that_cannot_be_written_can_still_be_read(tmp_path):
    attacks.update_databases(tmp_path / "db")
    before = attacks.state(tmp_path / "db")
    subprocess.run(["mount", "--bind", str(tmp_path), str(tmp_path)], capture_output=True)
    mounted = subprocess.run(["mount", "-o", "remount,bind,ro", str(tmp_path)], capture_output=True)
    if mounted.returncode:
        pytest.skip("nothing can be mounted read-only here")
    try:
        assert attacks.state(tmp_path / "db") == before
        with pytest.raises(
            DatabaseError, match=r"cannot be written: Read-only file system.*DB_DIR"
        ):
            attacks.add(DatabaseManager(tmp_path / "db", "photos"), 99)
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)
