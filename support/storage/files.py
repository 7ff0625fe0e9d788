"""Files written whole or not at all: a temporary file, fsync, rename."""

import errno
import itertools
import os
import tempfile
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from support.storage.errors import unwritable

NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


def replace_file(path: Path, chunks: Iterable[str]) -> None:
    """Writes `chunks` to a temporary file, syncs, and renames it to `path`.

    A reader sees the old file or the new one, whole.
    """
    with unwritable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(
            prefix=_temporary_prefix(path), suffix=".tmp", dir=path.parent
        )
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
                file.writelines(chunks)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        sync_folder(path.parent)


def remove_leftovers(path: Path) -> None:
    """Removes temporary files of `path` that killed writers left. With the writers' lock held."""
    with unwritable(path):
        for leftover in path.parent.glob(f"{_temporary_prefix(path)}*.tmp"):
            leftover.unlink(missing_ok=True)


def _temporary_prefix(path: Path) -> str:
    return f".{path.name}." if len(path.name) < 50 else "."  # a name has room for 255 bytes


def publish_file(folder: Path, stem: str, suffix: str, text: str) -> Path:
    """Writes a new file STEM.SUFFIX, or STEM_2.SUFFIX and so on where that exists.

    It is never there half written, and never replaces another.
    """
    with unwritable(folder, "RESULTS_DIR"):
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{uuid.uuid4().hex}.tmp"
        try:
            with temporary.open("x", encoding="utf-8", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            return _move_to_free_name(temporary, folder, stem, suffix)
        finally:
            temporary.unlink(missing_ok=True)


def _move_to_free_name(temporary: Path, folder: Path, stem: str, suffix: str) -> Path:
    for number in itertools.count(1):
        path = folder / (f"{stem}{suffix}" if number == 1 else f"{stem}_{number}{suffix}")
        with suppress(FileExistsError):
            _move_unless_taken(temporary, path)
            sync_folder(folder)
            return path
    raise AssertionError("unreachable")


def _move_unless_taken(temporary: Path, path: Path) -> None:
    """Gives a file the name `path`. Raises FileExistsError where that is taken."""
    if os.name != "posix":
        temporary.rename(path)  # fails on Windows where the name is taken
        return
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in NO_HARD_LINKS:
            raise
        path.open("x").close()  # claims the name; memory sticks know no hard links
        os.replace(temporary, path)


def sync_folder(folder: Path) -> None:
    """Makes a rename in `folder` durable; Windows cannot open folders and needs no such step."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
