"""Damaged files and files of a newer format: a named error; a copy of a damaged one is kept."""

import filecmp
import itertools
from pathlib import Path
from typing import Any

from support.errors import DatabaseError
from support.storage.errors import unreadable, unwritable
from support.storage.files import replace_file

FORMAT_VERSION = 1
REBUILD = (
    "Restore a good copy, or run with --rebuild: it keeps what can be read and says what could not."
)


class DamagedFile(DatabaseError):
    """A file with damaged content; --rebuild keeps what can be read of it."""


def check_format(path: Path, version: Any) -> None:
    """Raises DatabaseError for a newer format version, DamagedFile for one that never was."""
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise DatabaseError(
            f"{path} has format {version}, newer than this program's {FORMAT_VERSION}. Use a newer "
            "version of the program."
        )
    if version != FORMAT_VERSION or isinstance(version, bool):
        raise damaged(path, f"its format version is {version!r}")


def damaged(path: Path, reason: str, remedy: str = REBUILD) -> DamagedFile:
    """The error for a damaged file, a copy of which is kept."""
    try:
        kept = f"A copy is kept as {keep_corrupt_copy(path).name}."
    except DatabaseError as error:
        kept = f"No copy could be kept: {error}"
    return DamagedFile(f"{path} is damaged: {reason}. {kept} {remedy}")


def keep_corrupt_copy(path: Path) -> Path:
    """Copies a damaged file beside itself as NAME.corrupt; an earlier copy that differs stays."""
    for number in itertools.count(1):
        copy = path.with_name(f"{path.name}.corrupt{'' if number == 1 else number}")
        if not copy.exists():
            with unwritable(copy), path.open("rb") as file:
                replace_file(copy, iter(lambda: file.read(2**20), b""))
            return copy
        with unreadable(copy):
            if filecmp.cmp(path, copy, shallow=False):
                return copy
    raise AssertionError("unreachable")
