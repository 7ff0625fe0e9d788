"""One writer at a time: a file lock that the system frees when its process ends."""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from support.errors import DatabaseError
from support.storage.errors import unwritable

LOCK_SECONDS = 30.0


class WriterLock:
    """Held by one process at a time, for an update."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._lock = FileLock(folder / "lock")
        self._note = folder / "lock-holder.json"

    @contextmanager
    def held(self, wait: float | None = None) -> Iterator[None]:
        """Waits up to `wait` (LOCK_SECONDS) for the lock. DatabaseError says who holds it."""
        wait = LOCK_SECONDS if wait is None else wait
        if not self._acquire(wait):
            raise DatabaseError(
                f"The databases in {self._folder} are being written by {self._holder()}; waited "
                f"{wait:g} s. Try again when it has finished."
            )
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

    def _acquire(self, wait: float) -> bool:
        with unwritable(Path(self._lock.lock_file)):
            try:
                self._lock.acquire(timeout=wait)
            except Timeout:  # an OSError
                return False
        return True

    def _sign(self) -> None:
        """Notes who holds the lock, for the message that a waiting process shows."""
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        who = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
        with unwritable(self._note):
            self._note.write_text(json.dumps(who), encoding="utf-8")

    def _holder(self) -> str:
        try:
            who = json.loads(self._note.read_text(encoding="utf-8"))
            return f"process {who['pid']} on {who['host']} since {who['since']}"
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"
