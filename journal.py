"""How the databases are updated: by one process at a time, into a journal with one update a line."""

import json
import os
import re
import socket
import time
import uuid
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from records import DatabaseError
from safe_files import (
    FORMAT_VERSION,
    DamagedFile,
    check_format,
    damaged,
    keep_corrupt_copy,
    parse_json,
    remove_leftovers,
    replace_file,
    to_json,
    unreadable,
    unwritable,
)

LOCK_SECONDS = 30
LINE_START = '{"crc32":"%08x","updates":'
LINE_START_LENGTH = len(LINE_START % 0)
STATED = re.compile(rb'{"crc32":"([0-9a-f]{8})"')
FILE_NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
FILE = re.compile(rf"(?:{FILE_NAME}/)?{FILE_NAME}")  # what an update may name: never a path that leads elsewhere

Updates = dict[str, dict[str, Any]]  # file, relative to the databases' folder -> key -> record


@dataclass(frozen=True)
class Head:
    """A journal's first line: its own name, and the fold it follows."""

    journal: str
    fold: str | None  # what captions.json was marked with when it was last written; None: there is none yet
    next_fold: str  # what the next fold will mark it with: a crash in its midst leaves one or the other

    @classmethod
    def new(cls, fold: str | None, next_fold: str | None = None) -> "Head":
        return cls(uuid.uuid4().hex, fold, next_fold or uuid.uuid4().hex)

    def line(self) -> bytes:
        return (to_json({"format_version": FORMAT_VERSION, **vars(self)}) + "\n").encode()


@dataclass(frozen=True)
class Place:
    """Up to where which journal has been read."""

    head: Head
    position: int
    last: int = 0  # where the last line read begins
    checksum: int = 0  # of that line, which the next one continues


class Journal:
    """Updates as lines {"crc32": ..., "updates": {file: {key: record}}} after a first line that names the journal.

    A line is whole or was never reported as done: what stands after the last line break is half an update that a crash
    cut off. A new journal has a new name, so that other processes notice. The object itself holds no state.
    """

    def __init__(self, path: Path):
        self.path = path

    def start(self, head: Head, updates: Iterable[Updates] = ()) -> Place:
        """Replaces the journal by a new one with `updates` only."""
        lines, checksum = [head.line()], 0
        for update in updates:
            line, checksum = _line(update, checksum)
            lines.append(line)
        remove_leftovers(self.path)
        replace_file(self.path, (line.decode() for line in lines))
        length = sum(map(len, lines))
        return Place(head, length, length - len(lines[-1]) if checksum else 0, checksum)

    def head(self) -> Head:
        with unreadable(self.path), self.path.open("rb") as file:
            return self._parse_head(file.readline())

    def read(self) -> tuple[list[Updates], Place]:
        """All updates, and the place reached. Raises DamagedFile for a line that does not fit its checksum."""
        with unreadable(self.path), self.path.open("rb") as file:
            first = file.readline()
            place = Place(self._parse_head(first), len(first))
            updates, place = _parse_lines(file.read(), place)
        if None in updates:
            raise damaged(self.path, f"line {updates.index(None) + 2} does not fit its checksum or is no update")
        return updates, place

    def read_after(self, place: Place) -> tuple[list[Updates], Place] | None:
        """The updates after `place`, and the place reached; None when `place` is no more, and all is to be read anew.

        So it is when the journal was folded, or a line that had been read was taken back because its sync failed.
        """
        with unreadable(self.path), self.path.open("rb") as file:  # opened once: a fold may replace it meanwhile
            head = self._parse_head(file.readline())
            if head != place.head or os.fstat(file.fileno()).st_size < place.position:
                return None
            file.seek(place.last)
            if place.last and file.read(LINE_START_LENGTH) != (LINE_START % place.checksum).encode():
                return None
            file.seek(place.position)
            updates, place = _parse_lines(file.read(), place)
        return None if None in updates else (updates, place)

    def missing(self) -> str:
        return f"{self.path} is missing: updates that it alone held are lost"

    def size(self) -> int:
        with unreadable(self.path):
            return self.path.stat().st_size

    def append(self, update: Updates, place: Place) -> Place:
        """Appends and syncs one update at the journal's end, `place`, or leaves it as it was. With the lock held."""
        line, checksum = _line(update, place.checksum)
        with unwritable(self.path):
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | getattr(os, "O_BINARY", 0))
            try:
                _write_all(descriptor, line)
                os.fsync(descriptor)
            except BaseException:
                with suppress(OSError):  # else the half line is cut off by the next writer
                    os.ftruncate(descriptor, place.position)
                raise
            finally:
                os.close(descriptor)
        return Place(place.head, place.position + len(line), place.position, checksum)

    def cut_half_line(self, place: Place) -> bool:
        """Whether there was, behind the last whole line at `place`, half a line to remove. With the lock held."""
        if self.size() <= place.position:
            return False
        with unwritable(self.path):
            os.truncate(self.path, place.position)
        return True

    def salvage(self) -> tuple[list[Updates], list[str]]:
        """The updates that can be read of a perhaps damaged journal, and what could not. With the lock held."""
        if not self.path.exists():
            return [], [self.missing()]
        try:
            return self.read()[0], []
        except DamagedFile:
            keep_corrupt_copy(self.path)
        lines = self.path.read_bytes().partition(b"\n")[2]
        parsed, place = _parse_lines(lines, Place(Head.new(None), 0))
        updates = [update for update in parsed if update is not None]
        lost = len(parsed) - len(updates) + (place.position < len(lines))
        return updates, [f"{self.path} was damaged: {len(updates)} updates kept, {lost} could not be read."]

    def _parse_head(self, line: bytes) -> Head:
        try:
            first = parse_json(line)
            version = first.pop("format_version")
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise damaged(self.path, "its first line is not a journal's") from error
        check_format(self.path, version)
        if set(first) != set(Head.__annotations__) or not all(isinstance(v, str | None) for v in first.values()):
            raise damaged(self.path, "its first line is not a journal's")
        return Head(**first)


def _line(update: Updates, before: int) -> tuple[bytes, int]:
    """An update's line and its checksum, which continues that of the line `before`: none can be cut out unnoticed."""
    text = to_json(update).encode()
    checksum = zlib.crc32(text, before)
    return (LINE_START % checksum).encode() + text + b"}\n", checksum


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _parse_lines(data: bytes, place: Place) -> tuple[list[Updates | None], Place]:
    """The updates in the whole lines of `data`, which stands at `place`, and the place after them."""
    updates, position, last, checksum = [], place.position, place.last, place.checksum
    for line in data.split(b"\n")[:-1]:
        updates.append(_parse_line(line, checksum))
        stated = STATED.match(line)
        checksum = int(stated[1], 16) if stated else 0
        position, last = position + len(line) + 1, position
    return updates, Place(place.head, position, last, checksum)


def _parse_line(line: bytes, before: int) -> Updates | None:
    """The update in a line that follows one with the checksum `before`; None when it is not whole or does not."""
    text = line[LINE_START_LENGTH:-1]
    if not line.startswith((LINE_START % zlib.crc32(text, before)).encode()) or not line.endswith(b"}"):
        return None
    try:
        update = parse_json(text)
    except ValueError:
        return None
    return update if _is_update(update) else None


def _is_update(update: Any) -> bool:
    return isinstance(update, dict) and all(
        FILE.fullmatch(name) and isinstance(records, dict) for name, records in update.items()
    )


class WriterLock:
    """Held by one process at a time, for an update. The system frees it when its process ends, however it ends."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._lock = FileLock(folder / "lock")
        self._note = folder / "lock-holder.json"

    @contextmanager
    def held(self, wait: float | None = None) -> Iterator[None]:
        """Waits up to `wait` (LOCK_SECONDS) for the lock. Raises DatabaseError, saying who holds it."""
        wait = LOCK_SECONDS if wait is None else wait
        if not self._acquired(wait):
            raise DatabaseError(
                f"The databases in {self._folder} are being written by {self._holder()}; waited {wait} s. Try again "
                "when it has finished."
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
        held = self._acquired(0)
        try:
            yield held
        finally:
            if held:
                self._lock.release()

    def _acquired(self, wait: float) -> bool:
        with unwritable(Path(self._lock.lock_file)):
            try:
                self._lock.acquire(timeout=wait)
            except Timeout:  # an OSError
                return False
        return True

    def _sign(self) -> None:
        """Leaves who holds the lock, for the message that a waiting process shows."""
        who = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        with unwritable(self._note):
            self._note.write_text(json.dumps(who), encoding="utf-8")

    def _holder(self) -> str:
        try:
            who = json.loads(self._note.read_text(encoding="utf-8"))
            return f"process {who['pid']} on {who['host']} since {who['since']}"
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"
