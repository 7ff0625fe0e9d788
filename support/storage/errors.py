"""Errors of the disk, named: what cannot be read or written, why, and what to do."""

import errno
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import DEFAULT_BUFFER_SIZE
from pathlib import Path
from typing import BinaryIO

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


def open_regular(path: Path, buffer: int = DEFAULT_BUFFER_SIZE) -> BinaryIO:
    """The file, opened for reading. Raises OSError for a pipe or a device: one might never end."""
    if not stat.S_ISREG(path.stat().st_mode):
        kind = "Is a directory" if path.is_dir() else "Not a file"
        raise OSError(errno.EISDIR if path.is_dir() else errno.EINVAL, kind, str(path))
    return path.open("rb", buffer)


def read_regular(path: Path) -> bytes:
    """The bytes of a file. Raises OSError for a pipe or a device."""
    with open_regular(path) as file:
        return file.read()


@contextmanager
def unreadable(path: Path) -> Iterator[None]:
    """Turns an OSError while reading into a DatabaseError that names the file and what to do."""
    try:
        yield
    except OSError as error:
        raise DatabaseError(
            f"{path} cannot be read: {error.strerror or error}. {CHECK_DISK}."
        ) from error
    except MemoryError as error:
        raise DatabaseError(
            f"{path} cannot be read: it is larger than the memory. Move it away, or use a larger "
            "machine."
        ) from error
