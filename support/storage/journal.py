"""An append-only journal: one update per line, each with a checksum that continues the line before.

Its format, and what it promises, is described in docs/ARCHITECTURE.md.
"""

import os
import re
import uuid
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.storage.damage import (
    FORMAT_VERSION,
    DamagedFile,
    check_format,
    damaged,
    keep_corrupt_copy,
)
from support.storage.documents import Document
from support.storage.errors import open_regular, unreadable, unwritable
from support.storage.files import remove_leftovers, replace_file
from support.storage.strict_json import parse_json, to_json

JOURNAL_NAME = "journal.jsonl"
LINE_START = '{"crc32":"%08x","updates":'
LINE_START_LENGTH = len(LINE_START % 0)
STATED_CHECKSUM = re.compile(rb'{"crc32":"([0-9a-f]{8})"')
FILE_NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
FILE = re.compile(rf"(?:{FILE_NAME}/)?{FILE_NAME}")  # what an update may name: never a path outside

Updates = dict[str, dict[str, Any]]  # file, relative to the databases' folder -> key -> record


@dataclass(frozen=True)
class JournalHeader:
    """A journal's first line: its own name, and the compaction it follows.

    The keys on disk are "journal", "fold" and "next_fold".
    """

    journal: str
    compaction: str | None  # what captions.json was marked with when last written; None: not yet
    next_compaction: str  # what the next one will mark it with: a crash leaves one or the other

    @classmethod
    def new(cls, compaction: str | None, next_compaction: str | None = None) -> "JournalHeader":
        return cls(uuid.uuid4().hex, compaction, next_compaction or uuid.uuid4().hex)

    @classmethod
    def parse(cls, fields: dict[str, Any]) -> "JournalHeader":
        """The header in a JSON object. Raises ValueError for any other object."""
        known = set(fields) == {"journal", "fold", "next_fold"}
        if not known or not all(isinstance(value, str | None) for value in fields.values()):
            raise ValueError(f"not the fields of a journal's header: {sorted(fields)}")
        return cls(fields["journal"], fields["fold"], fields["next_fold"])

    def line(self) -> bytes:
        fields = {
            "format_version": FORMAT_VERSION,
            "journal": self.journal,
            "fold": self.compaction,
            "next_fold": self.next_compaction,
        }
        return (to_json(fields) + "\n").encode()


@dataclass(frozen=True)
class Position:
    """How far which journal has been read."""

    header: JournalHeader
    offset: int  # bytes
    last_line: int = 0  # where the last line read begins
    checksum: int = 0  # of that line, which the next one continues


class Journal:
    """Updates as lines {"crc32": ..., "updates": {file: {key: record}}} after the header's line.

    A line is whole or was never reported as done: what stands after the last line break is half an
    update that a crash cut off. A new journal has a new name, so that other processes notice. The
    object itself holds no state.
    """

    def __init__(self, path: Path):
        self.path = path

    def start(self, header: JournalHeader, updates: Iterable[Updates] = ()) -> Position:
        """Replaces the journal by a new one with `updates` only."""
        lines, checksum = [header.line()], 0
        for update in updates:
            line, checksum = _line(update, checksum)
            lines.append(line)
        remove_leftovers(self.path)
        replace_file(self.path, lines)
        length = sum(map(len, lines))
        return Position(header, length, length - len(lines[-1]) if checksum else 0, checksum)

    def header(self) -> JournalHeader:
        """The first line. Raises DamagedFile."""
        with unreadable(self.path), open_regular(self.path) as file:
            return self._parse_header(file.readline())

    def read(self) -> tuple[list[Updates], Position]:
        """All updates, and the position reached. Raises DamagedFile for a line with an error."""
        with unreadable(self.path), open_regular(self.path) as file:
            first = file.readline()
            start = Position(self._parse_header(first), len(first))
            updates, position = _parse_lines(file.read(), start)
        if None in updates:
            line = updates.index(None) + 2
            raise damaged(self.path, f"line {line} does not fit its checksum or is no update")
        return _whole(updates), position

    def read_after(self, position: Position) -> tuple[list[Updates], Position] | None:
        """The updates after `position`, and the position reached; None when it no longer exists.

        It no longer exists after a compaction, or after a line that had been read was taken back
        because its sync failed. Then everything must be read again.
        """
        # Opened once: a compaction may replace the file meanwhile.
        with unreadable(self.path), open_regular(self.path) as file:
            header = self._parse_header(file.readline())
            size = os.fstat(file.fileno()).st_size
            if header != position.header or size < position.offset:
                return None
            file.seek(position.last_line)
            expected = (LINE_START % position.checksum).encode()
            if position.last_line and file.read(LINE_START_LENGTH) != expected:
                return None
            file.seek(position.offset)
            updates, position = _parse_lines(file.read(), position)
        return None if None in updates else (_whole(updates), position)

    def apply(self, updates: Iterable[Updates], tables: Mapping[str, Document]) -> None:
        """Applies its updates to those of `tables`, by file name, that they are of.

        Raises DamagedFile for one that does not fit.
        """
        for update in updates:
            for name in (name for name in update if name in tables):
                try:
                    tables[name].update(update[name])
                except ValueError as error:
                    raise damaged(self.path, f"an update of {name}: {error}") from error

    def missing(self) -> str:
        return f"{self.path} is missing: updates that it alone held are lost"

    def size(self) -> int:
        """Bytes on disk."""
        with unreadable(self.path):
            return self.path.stat().st_size

    def append(self, update: Updates, position: Position) -> Position:
        """Appends and syncs one update at the end, `position`, or leaves the journal as it was.

        With the lock held.
        """
        line, checksum = _line(update, position.checksum)
        with unwritable(self.path):
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | getattr(os, "O_BINARY", 0))
            try:
                _write_all(descriptor, line)
                os.fsync(descriptor)
            except BaseException:
                with suppress(OSError):  # else the next writer cuts off the half line
                    os.ftruncate(descriptor, position.offset)
                raise
            finally:
                os.close(descriptor)
        return Position(position.header, position.offset + len(line), position.offset, checksum)

    def cut_half_line(self, position: Position) -> bool:
        """Removes half a line behind the last whole one at `position`; whether there was one.

        With the lock held.
        """
        if self.size() <= position.offset:
            return False
        with unwritable(self.path), self.path.open("r+b") as file:
            file.truncate(position.offset)
            os.fsync(file.fileno())  # or what is appended next could be torn into the old half
        return True

    def salvage(self) -> tuple[list[Updates], list[str]]:
        """The updates that can be read of a perhaps damaged journal, and what could not.

        With the lock held.
        """
        if not self.path.exists():
            return [], [self.missing()]
        try:
            return self.read()[0], []
        except DamagedFile:
            keep_corrupt_copy(self.path)
        with unreadable(self.path):
            lines = self.path.read_bytes().partition(b"\n")[2]
        parsed, position = _parse_lines(lines, Position(JournalHeader.new(None), 0))
        updates = _whole(parsed)
        lost = len(parsed) - len(updates) + (position.offset < len(lines))
        kept = f"{len(updates)} updates kept, {lost} could not be read."
        return updates, [f"{self.path} was damaged: {kept}"]

    def _parse_header(self, line: bytes) -> JournalHeader:
        try:
            first = parse_json(line)
            version = first.pop("format_version")
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise damaged(self.path, "its first line is not a journal's") from error
        check_format(self.path, version)
        try:
            return JournalHeader.parse(first)
        except ValueError as error:
            raise damaged(self.path, "its first line is not a journal's") from error


# --- Lines ----------------------------------------------------------------------------------------
def _line(update: Updates, before: int) -> tuple[bytes, int]:
    """An update's line, and its checksum, which continues that of the line before.

    So no line can be cut out unnoticed.
    """
    text = to_json(update).encode()
    checksum = zlib.crc32(text, before)
    return (LINE_START % checksum).encode() + text + b"}\n", checksum


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _parse_lines(data: bytes, start: Position) -> tuple[list[Updates | None], Position]:
    """The updates in the whole lines of `data`, which stands at `start`, and the position after.

    None stands for a line with an error.
    """
    updates: list[Updates | None] = []
    offset, last_line, checksum = start.offset, start.last_line, start.checksum
    lines = data.split(b"\n")[:-1]
    if lines and b"\0" in lines[-1]:
        del lines[-1]  # torn by a power failure: it was never reported, and no line holds zeros
    for line in lines:
        updates.append(_parse_line(line, checksum))
        stated = STATED_CHECKSUM.match(line)
        checksum = int(stated[1], 16) if stated else 0
        offset, last_line = offset + len(line) + 1, offset
    return updates, Position(start.header, offset, last_line, checksum)


def _parse_line(line: bytes, before: int) -> Updates | None:
    """The update in a line that follows one with the checksum `before`; None if damaged."""
    text = line[LINE_START_LENGTH:-1]
    expected = (LINE_START % zlib.crc32(text, before)).encode()
    if not line.startswith(expected) or not line.endswith(b"}"):
        return None
    try:
        update = parse_json(text)
    except ValueError:
        return None
    return update if _is_update(update) else None


def _is_update(update: Any) -> bool:
    if not isinstance(update, dict):
        return False
    return all(FILE.fullmatch(name) and isinstance(r, dict) for name, r in update.items())


def _whole(updates: Sequence[Updates | None]) -> list[Updates]:
    return [update for update in updates if update is not None]
