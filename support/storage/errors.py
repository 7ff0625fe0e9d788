"""Errors of files, named: unreadable, unwritable, damaged (a copy is kept), of a newer format."""

import errno
import filecmp
import itertools
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.errors import DatabaseError

FORMAT_VERSION = 1
DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class DamagedFile(DatabaseError):
    """A database file with damaged content; --rebuild keeps what can be read of it."""


@contextmanager
def unwritable(path: Path, setting: str = "DB_DIR") -> Iterator[None]:
    """Turns an OSError while writing into a DatabaseError that names the file and what to do."""
    try:
        yield
    except OSError as error:
        remedy = "Check the folder's permissions and disk"
        if error.errno in DISK_FULL:
            remedy = "Free some space there"
        raise DatabaseError(
            f"{path} cannot be written: {error.strerror or error}. {remedy}, or set {setting} to "
            "another folder. What was there before is unchanged."
        ) from error


@contextmanager
def unreadable(path: Path) -> Iterator[None]:
    """Turns an OSError while reading into a DatabaseError that names the file and what to do."""
    try:
        yield
    except OSError as error:
        raise DatabaseError(
            f"{path} cannot be read: {error.strerror or error}. Check the folder's permissions and "
            "disk."
        ) from error


def check_format(path: Path, version: Any) -> None:
    """Raises DatabaseError for a newer format version, DamagedFile for one that never was."""
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise DatabaseError(
            f"{path} has format {version}, newer than this program's {FORMAT_VERSION}. Use a newer "
            "version of the program."
        )
    if version != FORMAT_VERSION:
        raise damaged(path, f"its format version is {version!r}")


def damaged(path: Path, reason: str) -> DamagedFile:
    """The error for a damaged file, a copy of which is kept."""
    try:
        kept = f"A copy is kept as {keep_corrupt_copy(path).name}."
    except DatabaseError as error:
        kept = f"No copy could be kept: {error}"
    return DamagedFile(
        f"{path} is damaged: {reason}. {kept} Restore a good copy, or run with --rebuild: it keeps "
        "what can be read and says what could not."
    )


def keep_corrupt_copy(path: Path) -> Path:
    """Copies a damaged file beside itself as NAME.corrupt; an earlier copy that differs stays."""
    for number in itertools.count(1):
        copy = path.with_name(f"{path.name}.corrupt{'' if number == 1 else number}")
        if not copy.exists():
            _copy_whole(path, copy)
            return copy
        with unreadable(copy):
            if filecmp.cmp(path, copy, shallow=False):
                return copy
    raise AssertionError("unreachable")


def _copy_whole(path: Path, copy: Path) -> None:
    with unwritable(copy):
        temporary = copy.with_name(f".{uuid.uuid4().hex}.tmp")
        try:
            shutil.copyfile(path, temporary)
            os.replace(temporary, copy)
        finally:
            temporary.unlink(missing_ok=True)
