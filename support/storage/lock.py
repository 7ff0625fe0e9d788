"""One writer at a time: a file lock that the system frees when its process ends."""

import errno
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from support.errors import DatabaseError
from support.log import log
from support.storage.errors import read_regular, unwritable

LOCK_SECONDS = 30.0  # how long a writer waits for another's update
LONG_WORK_SECONDS = 1800.0  # and for work that grows with the databases, such as a compaction


RUNNERS = 8  # programs that share a run; any more work where another one does


class WriterLock:
    """Held by one process at a time, for an update."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._lock = FileLock(folder / "lock")
        self._note = folder / "lock-holder.json"

    @contextmanager
    def held(self, wait: float | None = None) -> Iterator[None]:
        """Waits up to `wait` (LOCK_SECONDS) for the lock. DatabaseError says who holds it.

        While the holder has announced long work, the wait is LONG_WORK_SECONDS.
        """
        self._wait(LOCK_SECONDS if wait is None else wait)
        try:
            if self._lock.lock_counter == 1:
                self._sign()
            yield
        finally:
            self._lock.release()

    @contextmanager
    def held_if_free(self) -> Iterator[bool]:
        """Whether the lock is held now; without waiting."""
        held = self._acquire(0)
        try:
            yield held
        finally:
            if held:
                self._lock.release()

    def announce(self, work: str) -> None:
        """Tells waiting processes that the holder is at `work`, which may take minutes."""
        self._sign(work)

    def _wait(self, wait: float) -> None:
        start = time.monotonic()
        while not self._acquire(wait):
            waited = time.monotonic() - start
            work = self._note_of_holder().get("work")
            if work is None or waited > LONG_WORK_SECONDS:
                raise DatabaseError(
                    f"The databases in {self._folder} are being written by {self._holder()}; "
                    f"waited {waited:.0f} s. Try again when it has finished."
                )
            log.warning("Waiting for %s: %s.", self._holder(), work)

    def _acquire(self, wait: float) -> bool:
        with unwritable(Path(self._lock.lock_file)):
            try:
                self._lock.acquire(timeout=wait)
            except Timeout:  # an OSError
                return False
        return True

    def _sign(self, work: str | None = None) -> None:
        """Notes who holds the lock, for the message that a waiting process shows."""
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        who = {"pid": os.getpid(), "host": socket.gethostname(), "since": since, "work": work}
        with unwritable(self._note):
            if self._note.exists() and not self._note.is_file():  # a pipe might never take it
                raise OSError(errno.EINVAL, "Not a file", str(self._note))
            self._note.write_text(json.dumps(who), encoding="utf-8")

    def _holder(self) -> str:
        who = self._note_of_holder()
        if not {"pid", "host", "since"} <= set(who):
            return "another process"
        return f"process {who['pid']} on {who['host']} since {who['since']}"

    def _note_of_holder(self) -> dict[str, Any]:
        try:
            note = json.loads(read_regular(self._note))
        except (OSError, ValueError, RecursionError):
            return {}  # being written, or damaged: it is only for people
        return note if isinstance(note, dict) else {}


@contextmanager
def runner_number(folder: Path) -> Iterator[int]:
    """The lowest number that no other program at work on a run in `folder` has, from 0."""
    for number in range(RUNNERS):
        lock = FileLock(folder / f"runner-{number}.lock")
        with unwritable(Path(lock.lock_file)):
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
        try:
            yield number
        finally:
            lock.release()
        return
    yield RUNNERS
