"""Errors of the disk, named: what cannot be read or written, why, and what to do."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.errors import DatabaseError

DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
CHECK_DISK = "Check the folder's permissions and disk"


def remedy(error: OSError, setting: str) -> str:
    """What to do when a folder, which `setting` names, cannot be written."""
    first = "Free some space there" if error.errno in DISK_FULL else CHECK_DISK
    return f"{first}, or set {setting} to another folder."


@contextmanager
def unwritable(path: Path, setting: str = "DB_DIR") -> Iterator[None]:
    """Turns an OSError while writing into a DatabaseError that names the file and what to do."""
    try:
        yield
    except OSError as error:
        raise DatabaseError(
            f"{path} cannot be written: {error.strerror or error}. {remedy(error, setting)} What "
            "was there before is unchanged."
        ) from error


@contextmanager
def unreadable(path: Path) -> Iterator[None]:
    """Turns an OSError while reading into a DatabaseError that names the file and what to do."""
    try:
        yield
    except OSError as error:
        raise DatabaseError(
            f"{path} cannot be read: {error.strerror or error}. {CHECK_DISK}."
        ) from error
