"""Files written whole or not at all: a temporary file, fsync, rename."""

import errno
import itertools
import os
import re
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from support.errors import DatabaseError
from support.storage.errors import remedy, unwritable

NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
# A folder that may not be opened, or a file system that does not sync folders.
NO_FOLDER_SYNC = {*NO_HARD_LINKS, errno.EINVAL, errno.EBADF, errno.EACCES, errno.EISDIR}
# Our temporary files: a random name, or the claim of a result's name.
TEMPORARY = re.compile(r"\.(.+\.)?[0-9a-f]{32}\.tmp|\.(experiment|image|evaluation).*\.json\.tmp")
ABANDONED_SECONDS = 3600.0  # no file takes as long to write: its writer was killed


# --- Replacing ------------------------------------------------------------------------------------
def replace_file(path: Path, chunks: Iterable[str | bytes], setting: str = "DB_DIR") -> None:
    """Writes `chunks` (text as UTF-8) to a temporary file, syncs, and renames it to `path`.

    A reader sees the old file or the new one, whole. Where `path` is a link, the file that it leads
    to is replaced. Raises DatabaseError, naming the `setting` of the folder.
    """
    with unwritable(path, setting):
        target = _followed(path)
        make_folder(target.parent, setting)
        with _temporary_file(target.parent, _temporary_prefix(target), chunks) as temporary:
            with suppress(OSError):  # a new file gets the mode that the umask gives
                os.chmod(temporary, target.stat().st_mode)
            os.replace(temporary, target)
        sync_folder(target.parent, setting)


def remove_leftovers(path: Path) -> None:
    """Removes temporary files of `path` that killed writers left. With the writers' lock held."""
    with unwritable(path):
        target = _followed(path)
        for leftover in target.parent.glob(f"{_temporary_prefix(target)}*.tmp"):
            if TEMPORARY.fullmatch(leftover.name):
                leftover.unlink(missing_ok=True)


def _followed(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _temporary_prefix(path: Path) -> str:
    return f".{path.name}." if len(path.name) < 50 else "."  # a name has room for 255 bytes


@contextmanager
def _temporary_file(folder: Path, prefix: str, chunks: Iterable[str | bytes]) -> Iterator[Path]:
    """A new synced file with `chunks`; gone afterwards, unless it was renamed."""
    path = folder / f"{prefix}{uuid.uuid4().hex}.tmp"
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with os.fdopen(handle, "wb") as file:
            file.writelines(c.encode() if isinstance(c, str) else c for c in chunks)
            file.flush()
            os.fsync(file.fileno())
        yield path
    finally:
        path.unlink(missing_ok=True)


# --- Publishing -----------------------------------------------------------------------------------
def publish_file(folder: Path, stem: str, suffix: str, text: str) -> Path:
    """Writes a new file STEM.SUFFIX, or STEM_2.SUFFIX and so on where that exists.

    It is never there half written, and never replaces another.
    """
    with unwritable(folder, "RESULTS_DIR"):
        make_folder(folder, "RESULTS_DIR")
        remove_abandoned(folder)
        with _temporary_file(folder, ".", [text]) as temporary:
            return _move_to_free_name(temporary, folder, stem, suffix)


@lru_cache(maxsize=8)  # once a process
def remove_abandoned(folder: Path) -> None:
    """Removes old temporary files of programs that were killed, where files need no lock."""
    for path in folder.glob(".*.tmp"):
        with suppress(OSError):  # another user's, say: cleaning up is no reason to fail
            old = time.time() - path.lstat().st_mtime > ABANDONED_SECONDS
            if old and TEMPORARY.fullmatch(path.name):
                path.unlink()


def _move_to_free_name(temporary: Path, folder: Path, stem: str, suffix: str) -> Path:
    for number in itertools.count(1):
        path = folder / (f"{stem}{suffix}" if number == 1 else f"{stem}_{number}{suffix}")
        with suppress(FileExistsError):
            _move_unless_taken(temporary, path)
            sync_folder(folder, "RESULTS_DIR")
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
        _claim_and_move(temporary, path)  # memory sticks know no hard links


def _claim_and_move(temporary: Path, path: Path) -> None:
    """`_move_unless_taken` by a second file, which says that the name is about to be taken."""
    claim = path.with_name(f".{path.name}.tmp")
    claim.open("x").close()
    try:
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        os.replace(temporary, path)
    finally:
        claim.unlink(missing_ok=True)


# --- Folders --------------------------------------------------------------------------------------
def make_folder(folder: Path, setting: str = "DB_DIR") -> None:
    """Makes a folder and the parents that are missing, and syncs each parent of a new one.

    Raises OSError; DatabaseError, naming the `setting` of the folder, when a sync fails.
    """
    missing = []
    while not folder.exists():
        if folder.is_symlink():
            leads_to = f"it is a link to {folder.readlink()}, which is not there"
            raise FileNotFoundError(errno.ENOENT, leads_to, str(folder))
        missing.append(folder)
        folder = folder.parent
    _sync_once(folder.parent, setting)  # whoever made `folder` may have been killed before that
    for new in reversed(missing):
        new.mkdir(exist_ok=True)
        sync_folder(new.parent, setting)


@lru_cache(maxsize=64)
def _sync_once(folder: Path, setting: str) -> None:
    sync_folder(folder, setting)


def sync_folder(folder: Path, setting: str = "DB_DIR") -> None:
    """Makes a rename in `folder` durable, where its file system can (Windows does without).

    Raises DatabaseError, naming the `setting` of the folder, when the disk fails at that.
    """
    if os.name != "posix":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in NO_FOLDER_SYNC:
            raise DatabaseError(
                f"{folder} cannot be synced: {error.strerror}. What was written there is in place, "
                f"but may be lost if the power fails. {remedy(error, setting)}"
            ) from error
