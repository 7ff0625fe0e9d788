"""Hashes of image files that were computed before: known again by path, size and times."""

import hashlib
import os
import re
import time
from collections.abc import Sequence
from io import BufferedIOBase
from pathlib import Path
from typing import Any, NamedTuple

from support.errors import DatabaseError
from support.log import log
from support.paths import RealPaths
from support.sources.files import OutsideFolderError, is_inside, open_inside
from support.storage.damage import FORMAT_VERSION
from support.storage.errors import read_regular, unreadable
from support.storage.files import remove_abandoned, replace_file
from support.storage.strict_json import parse_json, to_json

# A file may change once more without another time, where clocks are coarse. So what was hashed so
# soon after a change is hashed again: Git's rule for "racily clean" entries.
SETTLED_NS = 2 * 10**9
KNOWN_HASHES = "known_hashes.json"  # beside the databases
SAVED_SECONDS = 30.0  # how much hashing a stopped program may lose
DIGEST = re.compile(r"[0-9a-f]{64}")


class Stamp(NamedTuple):
    """What changes when a file does."""

    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> "Stamp":
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    def is_settled(self) -> bool:
        """Whether the file has been as it is for long enough."""
        return time.time_ns() - max(self.mtime_ns, self.ctime_ns) > SETTLED_NS


class KnownHashes:
    """SHA-256 of the image files of a dataset, kept in a file between runs.

    `path` is that file; None keeps nothing. With `verify` everything is hashed again.
    """

    def __init__(self, path: Path | None = None, verify: bool = False):
        self._path = path
        self._before = _read(path) if path and not verify else {}
        self._now: dict[str, Any] = {}  # what this run has looked at
        self._saved = time.monotonic()
        self.paths = RealPaths()

    def of_file(self, path: str, roots: Sequence[str]) -> str:
        """The SHA-256 of the image file `path`. Raises as `open_inside` does."""
        try:
            real, status = self.paths.find(path)
        except (OSError, ValueError):  # opening it says what is wrong
            real, status = path, None
        if status and not any(is_inside(real, root) for root in roots):
            raise OutsideFolderError(path if path == real else f"{path} ({real})")
        known = self._before.get(real)
        if status and known and _is_unchanged(known, status):
            self._now[real] = known
            return known[-1]
        with open_inside(Path(path), roots) as file:
            stamp = Stamp.of(os.fstat(file.fileno()))
            settled, digest = stamp.is_settled(), digest_of(file)
            if settled and stamp == Stamp.of(os.fstat(file.fileno())):
                self._now[real] = [*stamp, digest]
        self._save_now_and_then()
        return digest

    def holds(self, path: str, digest: str) -> bool:
        """Whether the file `path` has this SHA-256, by its size and times alone."""
        try:
            real, status = self.paths.find(path)
        except (OSError, ValueError):
            return False
        known = self._before.get(real)
        return known is not None and _is_unchanged(known, status) and known[-1] == digest

    def of_rows(self, name: str, files: Sequence[str], count: int) -> list[str | None]:
        """The SHA-256 of the images in `count` rows of a table, where it is known.

        The table is read from `files`. What is put into the list is kept.
        """
        stamps = [Stamp.of(os.stat(file)) for file in files]  # noqa: PTH116 - as `datasets` gives them
        described = [[file, *stamp] for file, stamp in zip(files, stamps, strict=True)]
        known = self._before.get(name)
        hashes: list[str | None] = [None] * count
        if known and known[0] == described and len(known[1]) == count:
            hashes = list(known[1])
        if files and all(stamp.is_settled() for stamp in stamps):
            self._now[name] = [described, hashes]
        return hashes

    def save(self) -> None:
        """Keeps what this run has looked at, if anything is new, and holds it no longer.

        A warning says so where it cannot be written: the next run hashes again.
        """
        if self._now != self._before:
            self._write(self._now)
        self.forget()

    def forget(self) -> None:
        """Holds nothing any longer: for a million images it takes a gigabyte."""
        self._before, self._now, self.paths = {}, {}, RealPaths()

    def _save_now_and_then(self) -> None:
        """What was hashed is kept though the program is stopped before it has seen everything."""
        if time.monotonic() - self._saved > SAVED_SECONDS:
            self._write({**self._before, **self._now})
            self._saved = time.monotonic()

    def _write(self, known: dict[str, Any]) -> None:
        if self._path is None:
            return
        content = {"format_version": FORMAT_VERSION, "known": known}
        remove_abandoned(self._path.parent)
        try:
            replace_file(self._path, [to_json(content) + "\n"])
        except DatabaseError as error:
            log.warning("%s", error)


def _is_unchanged(known: list, status: os.stat_result) -> bool:
    size, modified, changed = status.st_size, status.st_mtime_ns, status.st_ctime_ns
    return known[0] == size and known[1] == modified and known[2] == changed


def digest_of(file: BufferedIOBase) -> str:
    """The SHA-256 of an open file; it is never in memory as a whole."""
    return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path: Path) -> dict[str, Any]:
    """What a file keeps; nothing, with a warning, if it cannot be read."""
    if not path.exists():
        return {}
    try:
        with unreadable(path):
            content = parse_json(read_regular(path))
        known = content["known"]
        if content["format_version"] == FORMAT_VERSION and all(map(_is_entry, known.values())):
            return known
        reason = "it has another format"
    except (DatabaseError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = str(error)
    log.warning("%s is of no use, and made anew: %s", path, reason)
    return {}


def _is_entry(entry: Any) -> bool:
    """Whether an entry is one of a file, [size, mtime, ctime, hash], or of a table."""
    if not isinstance(entry, list):
        return False
    if len(entry) == 4:
        return all(type(number) is int for number in entry[:3]) and _is_digest(entry[3])
    hashes = entry[1] if len(entry) == 2 and isinstance(entry[0], list) else None
    return isinstance(hashes, list) and all(h is None or _is_digest(h) for h in hashes)


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and DIGEST.fullmatch(value) is not None
