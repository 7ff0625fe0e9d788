"""Images are hashed once: what has not changed is known again, what has is hashed again."""

import hashlib
import json
import logging
import os
import random
import shutil
import time
from contextlib import contextmanager

import pytest

from dataset_loader import load_and_split_dataset
from main import open_system
from support.errors import DatabaseError, ImageError
from support.sources import known as module
from support.sources.known import KnownHashes
from support.sources.source import open_source
from tests import attacks
from tests.helpers import picture
from tests.test_damaged_tables import table


@contextmanager
def caught_log():
    """The messages that are logged meanwhile."""
    lines, log = [], logging.getLogger("captioning")
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    log.addHandler(handler)
    try:
        yield lines
    finally:
        log.removeHandler(handler)


@pytest.fixture
def settled(monkeypatch):
    """Files count as settled at once."""
    monkeypatch.setattr(module, "SETTLED_NS", -(10**18))


@pytest.fixture
def hashed(monkeypatch) -> list[str]:
    """The digests that are computed."""
    digests, compute = [], hashlib.file_digest

    def noted(file, name):
        digest = compute(file, name)
        digests.append(digest.hexdigest())
        return digest

    monkeypatch.setattr(hashlib, "file_digest", noted)
    return digests


def digests(dataset: str, path, **options) -> list[str | None]:
    """The hashes of all rows of a dataset, with what `path` keeps of earlier ones."""
    known = KnownHashes(path, **options)
    source, found = open_source(dataset, known), []
    for row in range(len(source)):
        try:
            found.append(source.content_hash(row))
        except ImageError:
            found.append(None)
    known.save()
    return found


def test_what_has_not_changed_is_not_hashed_again(settings, photos, tmp_path, settled, hashed):
    first = digests(str(photos), tmp_path / "k.json")
    assert len(hashed) == len(first) == 12
    assert digests(str(photos), tmp_path / "k.json") == first and len(hashed) == 12
    assert digests(str(photos), tmp_path / "k.json", verify=True) == first and len(hashed) == 24


def test_what_was_changed_just_now_is_hashed_again(settings, photos, tmp_path, hashed):
    for _ in range(2):
        digests(str(photos), tmp_path / "k.json")
    assert len(hashed) == 24  # it may change once more within the clock's resolution
    status = (photos / "p00.png").stat()
    old = module.Stamp(1, status.st_mtime_ns - 10**10, status.st_ctime_ns - 10**10)
    assert old.is_settled() and not module.Stamp.of(status).is_settled()
    future = module.Stamp(1, time.time_ns() + 10**12, 0)
    assert not future.is_settled()


def test_another_content_of_the_same_size_and_time_is_noticed(
    settings, photos, tmp_path, settled, hashed
):
    digests(str(photos), tmp_path / "k.json")
    path = photos / "p03.png"
    status, data = path.stat(), bytearray(path.read_bytes())
    data[-1] ^= 1
    time.sleep(0.02)  # file systems count time in ticks
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    hashed.clear()
    found = digests(str(photos), tmp_path / "k.json")
    assert hashed == [hashlib.sha256(data).hexdigest()] and found[3] == hashed[0]


def change(photos, generator: random.Random) -> None:
    """Something that people do to a folder of photos."""
    name, other = (f"p{generator.randrange(12):02}.png" for _ in range(2))
    path = photos / name
    kind = generator.randrange(6)
    if kind == 0:
        picture(generator.randrange(10**6)).save(path)
    elif kind == 1:
        path.unlink(missing_ok=True)
    elif kind == 2 and (photos / other).exists():
        shutil.copy2(photos / other, path.with_suffix(".new"))  # with its times
        path.with_suffix(".new").replace(path)
    elif kind == 3 and path.is_file() and (photos / other).is_file() and name != other:
        path.replace(photos / "x")
        (photos / other).replace(path)
        (photos / "x").replace(photos / other)
    elif kind == 4 and path.is_file() and not path.is_symlink():
        path.replace(photos / "elsewhere.bin")
        path.symlink_to(photos / "elsewhere.bin")
    elif kind == 5 and path.exists():
        os.utime(path, (10**9, 10**9))


@pytest.mark.parametrize("seed", range(5))
def test_hashes_are_those_of_reading_everything(settings, photos, tmp_path, settled, hashed, seed):
    generator = random.Random(seed)
    read = 0
    for _ in range(25):
        for _ in range(generator.randrange(3)):
            change(photos, generator)
        time.sleep(0.01)
        slow = digests(str(photos), None)
        hashed.clear()
        assert digests(str(photos), tmp_path / "k.json") == slow
        read += len(hashed)
    assert 12 < read < 25 * 12 / 2


def test_a_link_that_leads_out_is_refused_though_it_was_known(settings, photos, tmp_path, settled):
    outside = tmp_path / "outside.png"
    picture(99).save(outside)
    assert None not in digests(str(photos), tmp_path / "k.json")
    (photos / "p05.png").unlink()
    (photos / "p05.png").symlink_to(outside)
    content = json.loads((tmp_path / "k.json").read_text())
    status = outside.stat()
    stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    content["known"][str(outside)] = [*stamp, "0" * 64]
    (tmp_path / "k.json").write_text(json.dumps(content))
    assert digests(str(photos), tmp_path / "k.json")[5] is None


# --- Tables ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("form", ["parquet", "saved"])
def test_rows_of_tables_are_hashed_once(settings, tmp_path, settled, hashed, form):
    def write(count):
        if form == "parquet":
            table(count).to_parquet(str(tmp_path / "t.parquet"))
            return str(tmp_path / "t.parquet")
        shutil.rmtree(tmp_path / "saved", ignore_errors=True)
        table(count).save_to_disk(tmp_path / "saved")
        return str(tmp_path / "saved")

    dataset = write(8)
    hashed.clear()
    first = digests(dataset, tmp_path / "k.json")
    assert hashed == first
    assert digests(dataset, tmp_path / "k.json") == first == hashed
    dataset = write(9)
    hashed.clear()
    assert digests(dataset, tmp_path / "k.json") == hashed and len(hashed) == 9


# --- The file that keeps them ---------------------------------------------------------------------
@pytest.mark.parametrize(
    "content",
    [b"", b'{"format_version": 1, "kno', b"[]", b'{"format_version": 2, "known": {}}']
    + [
        b'{"format_version": 1, "known": {"/x": %s}}' % value
        for value in (b"1", b"[1]", b"[1,2,3,4]", b'[1,2,3,"../x"]', b'[[], ["x"]]')
    ],
)
def test_a_damaged_file_is_named_and_made_anew(
    settings, photos, tmp_path, settled, hashed, caplog, content
):
    first = digests(str(photos), tmp_path / "k.json")
    (tmp_path / "k.json").write_bytes(content)
    hashed.clear()
    assert digests(str(photos), tmp_path / "k.json") == first == hashed
    assert f"{tmp_path / 'k.json'} is of no use, and made anew" in caplog.text
    hashed.clear()
    assert digests(str(photos), tmp_path / "k.json") == first and not hashed


def test_commands_keep_hashes_beside_the_databases(tiny_settings, settled, hashed):
    tiny_settings.EXPERIMENT_SAMPLES = 3
    system = open_system()
    assert len(hashed) == 12 and (system.db_manager.folder / "known_hashes.json").exists()
    assert len(open_system().dataset_loader.get_training_data()) == 9
    assert len(hashed) == 12
    open_system(verify=True)
    assert len(hashed) == 24
    load_and_split_dataset()  # in a notebook, alone: nothing is kept
    assert len(hashed) == 36


def test_the_flag_hashes_everything_again(command, settled, hashed):
    for flags, expected in (([], 12), ([], 0), (["--verify"], 12)):
        hashed.clear()
        assert command("search", "a dog", *flags).returncode == 0
        assert len(hashed) == expected


def test_what_was_hashed_is_kept_when_the_program_is_stopped(
    settings, photos, tmp_path, settled, hashed, monkeypatch
):
    monkeypatch.setattr(module, "SAVED_SECONDS", -1.0)
    source = open_source(str(photos), KnownHashes(tmp_path / "k.json"))
    for row in range(7):  # and then, say, a power failure
        source.content_hash(row)
    hashed.clear()
    digests(str(photos), tmp_path / "k.json")
    assert len(hashed) == 5


def test_a_file_that_changes_while_it_is_hashed_is_not_settled(tmp_path, monkeypatch):
    picture(1).save(tmp_path / "a.png")
    monkeypatch.setattr(module, "SETTLED_NS", 10**8)
    usual = module.digest_of

    def slow(file):
        time.sleep(0.2)  # longer than it takes to be settled
        return usual(file)

    monkeypatch.setattr(module, "digest_of", slow)
    known = KnownHashes(tmp_path / "k.json")
    known.of_file(str(tmp_path / "a.png"), [str(tmp_path)])
    assert known._now == {}


def test_programs_that_start_at_once_do_not_disturb_each_other(photos, tmp_path):
    def program():
        import config

        config.SHOW_PROGRESS = False
        module.SETTLED_NS = -(10**18)
        for round_ in range(60):
            known = KnownHashes(tmp_path / "k.json", verify=round_ % 2 == 0)
            for path in sorted(photos.glob("*.png"))[: 4 + round_ % 8]:
                known.of_file(str(path), [str(photos)])
            with caught_log() as lines:
                known.save()
            assert not lines, lines

    children = [attacks.forked(program) for _ in range(3)]
    assert [attacks.exit_status(child) for child in children] == [0, 0, 0]


def test_hashes_that_cannot_be_kept_cost_no_command(command, settled, monkeypatch):
    def full(path, chunks, *_):
        if "known_hashes" in str(path):
            raise DatabaseError(f"{path} cannot be written: No space left on device.")
        return usual(path, chunks, *_)

    usual = module.replace_file
    monkeypatch.setattr(module, "replace_file", full)
    done = command("search", "a dog")
    assert done.returncode == 0 and "known_hashes.json cannot be written" in done.stderr


def test_hashes_are_held_only_while_a_dataset_is_opened(settings, photos, tmp_path, settled):
    known = KnownHashes(tmp_path / "k.json")
    known.of_file(str(photos / "p00.png"), [str(photos)])
    known.save()
    assert not known._before and not known._now and not known.paths._found


def test_rows_that_could_not_be_hashed_at_first_are_kept_later(tmp_path, settled):
    table().to_parquet(str(tmp_path / "t.parquet"))
    for expected in ([None], ["a" * 64]):
        known = KnownHashes(tmp_path / "k.json")
        hashes = known.of_rows("t", [str(tmp_path / "t.parquet")], 1)
        hashes[0] = expected[0]
        known.save()
    again = KnownHashes(tmp_path / "k.json").of_rows("t", [str(tmp_path / "t.parquet")], 1)
    assert again == ["a" * 64]
