"""Several processes at once: no lost update, no wait for a dead one, consistent reads."""

import os
import signal
import threading
import time

import pytest

from db_manager import DatabaseManager
from tests import attacks
from tests.helpers import run_python
from tests.test_attack_kill import attacked

pytestmark = pytest.mark.skipif(os.name != "posix", reason="forks processes")


@pytest.mark.long
def test_twenty_processes_with_fifty_updates_each_leave_a_thousand_entries(tmp_path):
    found = attacked("crowd", tmp_path, 20, 50)
    assert found["problems"] == [] and found["statuses"] == [0] * 20
    assert found["entries"] == 1000


HOLD = """
import os, sys, pathlib, time
from db_manager import DatabaseManager
db = DatabaseManager(pathlib.Path(sys.argv[1]), "photos")
with db._store.lock.held():
    print("held", flush=True)
    time.sleep(60) if sys.argv[2] == "stay" else os.kill(os.getpid(), 9)
"""


def test_the_lock_of_a_process_that_was_killed_does_not_block(tmp_path):
    killed = run_python("-c", HOLD, str(tmp_path), "die")
    assert killed.returncode == -signal.SIGKILL and "held" in killed.stdout
    start = time.monotonic()
    with DatabaseManager(tmp_path, "photos") as db:
        attacks.add(db, 1)
    assert time.monotonic() - start < 5


def test_a_reader_waits_for_no_lock_and_closing_waits_for_no_other_writer(tmp_path):
    attacks.update_databases(tmp_path)
    writer, reader = DatabaseManager(tmp_path, "photos"), DatabaseManager(tmp_path, "photos")
    attacks.add(writer, 50)
    held, free = threading.Event(), threading.Event()

    def hold() -> None:
        with reader._store.lock.held():
            held.set()
            free.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        held.wait()
        start = time.monotonic()
        reader.refresh()
        gallery = [
            attacks.sample(n, captions=(attacks.caption(n), "a dog")) for n in range(100, 103)
        ]
        DatabaseManager(tmp_path, "photos").sync_gallery(gallery)
        writer.close()
        assert time.monotonic() - start < 1
        assert attacks.sample(50).content_hash in reader.captions
    finally:
        free.set()
        thread.join()
    assert attacks.check(tmp_path, 0) is None


def test_a_compaction_between_two_looks_of_a_reader_is_no_damage(tmp_path):
    """The journal may be replaced by a shorter, equally long, or longer one while it is read."""
    writer, reader = DatabaseManager(tmp_path, "photos"), DatabaseManager(tmp_path, "photos")
    for number in range(30):
        attacks.add(writer, number)
        if number % 7 == 3:
            reader.refresh()
            with writer._store.lock.held():
                writer._store._catch_up()
                writer._store._compact()
        if number % 3 == 0:
            reader.refresh()
            assert set(reader.captions) == set(writer.captions)


def test_an_update_that_was_taken_back_after_a_reader_saw_it_is_forgotten(tmp_path):
    writer, reader = DatabaseManager(tmp_path, "photos"), DatabaseManager(tmp_path, "photos")
    attacks.add(writer, 1)
    size = writer._store.journal.size()
    attacks.add(writer, 2)
    reader.refresh()
    os.truncate(writer._store.journal.path, size)  # as after a failed sync
    third = DatabaseManager(tmp_path, "photos")
    attacks.add(third, 3)
    reader.refresh()
    assert (
        set(reader.captions)
        == set(third.captions)
        == {attacks.sample(n).content_hash for n in (1, 3)}
    )


@pytest.mark.parametrize("where", ["read_after", "apply"])
def test_an_interruption_while_reading_what_others_wrote_loses_nothing(
    tmp_path, monkeypatch, where
):
    first, second = DatabaseManager(tmp_path, "photos"), DatabaseManager(tmp_path, "photos")
    attacks.add(first, 1)

    def interrupted(*_):
        raise KeyboardInterrupt

    store = second._store
    monkeypatch.setattr(store.journal, where, interrupted)
    with pytest.raises(KeyboardInterrupt):
        second.refresh()
    monkeypatch.undo()
    attacks.add(second, 2)
    second.close()
    for number in (1, 2):
        assert attacks.sample(number).content_hash in attacks.state(tmp_path)["captions"]


@pytest.mark.long
def test_a_long_run_keeps_memory_handles_and_time_flat(tmp_path):
    # tenths; 5,000 updates: python -m benchmarks.long_run
    marks = attacked("long_run", tmp_path, 2000)["marks"]
    early, late = marks[2:5], marks[-3:]
    assert late[-1]["kib"] < 1.05 * early[0]["kib"]
    assert {mark["handles"] for mark in marks} == {marks[0]["handles"]}
    assert min(mark["s"] for mark in late) < 1.5 * min(mark["s"] for mark in early)
