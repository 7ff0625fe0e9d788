"""Folders that the demo fills at first use, and verifies and mends at every later one.

A folder is made in another beside it, sealed with a manifest, synced and renamed, all under a lock.
A folder without a manifest, as earlier versions of the program made, is made anew.
"""

import errno
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from demo.manifest import find_damage, seal
from support.errors import PipelineError
from support.log import log
from support.storage.errors import CHECK_DISK, DISK_FULL
from support.storage.files import sync_folder

Fill = Callable[[Path], None]  # writes the files to an empty folder

LOCK_SECONDS = 600.0  # scenes are drawn in seconds; slow disks and processors may take minutes
NOT_WRITABLE = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP
}  # fmt: skip
NEEDED = "The demo needs 130 MB"
WORK_FOLDER = re.compile(r"\..+\.tmp")
# Earlier versions worked in these without a lock: only age tells that nobody does any more.
OLD_WORK_FOLDER = re.compile(r"(scenes-\d+|text-[0-9a-f]{12})-[a-z0-9_]{8}")
OLD_SECONDS = 24 * 3600.0


def ensure_filled(name: str, folders: Sequence[Path], fill: Fill) -> Path:
    """The folder `name` in the first of `folders` that holds it undamaged.

    Where none does, `fill` makes it in the first that can be written. Other processes never see it
    half filled, and those that need it at the same time wait. Raises PipelineError where nothing
    can be written, or the disk is full; then nothing half made is left.
    """
    for folder in folders:
        if find_damage(folder / name) is None:
            _remove_leftovers_unless_locked(folder)
            return folder / name
    refused: dict[Path, str] = {}
    for folder in folders:
        with _errors_named(folder, name, refused):
            made = _make(folder, name, fill)
            if refused:
                log.warning("%s cannot be written; %s was made instead.", _listed(refused), made)
            return made
    raise PipelineError(
        f"The demo's folder {name} can be made in none of these: {_listed(refused)}. {NEEDED} in "
        "one of them: change its permissions, or set XDG_CACHE_HOME to a folder that can be "
        "written."
    )


@contextmanager
def _errors_named(folder: Path, name: str, refused: dict[Path, str]) -> Iterator[None]:
    """Notes in `refused` that `folder` cannot be written; PipelineError for other disk errors."""
    try:
        yield
    except BrokenPipeError:  # of the progress bar, not of the disk
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno not in NOT_WRITABLE:
            remedy = f"Free some space there. {NEEDED}" if error.errno in DISK_FULL else CHECK_DISK
            raise PipelineError(f"{folder / name} cannot be made: {reason}. {remedy}.") from error
        refused[folder] = reason


def _listed(refused: Mapping[Path, str]) -> str:
    return ", ".join(f"{folder} ({reason})" for folder, reason in refused.items())


def can_write(folder: Path) -> bool:
    """Whether permissions allow to write to `folder`, or to create it."""
    existing = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)


# --- Making ---------------------------------------------------------------------------------------
def _make(folder: Path, name: str, fill: Fill) -> Path:
    """The folder `name` in `folder`, made unless another process has just done so."""
    target = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder, target):
        damage = find_damage(target)
        if damage is None:
            return target
        if os.path.lexists(target):
            log.warning("%s is damaged: %s. It is made anew.", target, damage)
        _remove_leftovers(folder)
        work = Path(tempfile.mkdtemp(prefix=f".{name}-", suffix=".tmp", dir=folder))
        try:
            fresh = work / name
            fresh.mkdir()  # mkdtemp makes folders that only their owner can read
            fill(fresh)
            seal(fresh)
            _publish(fresh, target, work / "damaged")
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return target


@contextmanager
def _locked(folder: Path, target: Path) -> Iterator[None]:
    """Holds the lock of `folder`. The system frees it when the process ends in any way."""
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=LOCK_SECONDS)
    except Timeout as error:
        raise PipelineError(
            f"Another process is making {target}; waited {LOCK_SECONDS:g} s. End it if it hangs, "
            "or try again when it has finished."
        ) from error
    try:
        yield
    finally:
        lock.release()


def _publish(fresh: Path, target: Path, damaged: Path) -> None:
    """Moves a finished folder into place; one that it replaces goes to `damaged`."""
    if os.path.lexists(target):
        os.replace(target, damaged)
    os.replace(fresh, target)
    sync_folder(target.parent)


# --- What killed processes leave ------------------------------------------------------------------
def _remove_leftovers_unless_locked(folder: Path) -> None:
    """Removes leftovers where no process is at work; in a read-only folder, they stay."""
    with suppress(OSError):  # among them Timeout
        if _leftovers(folder):
            with FileLock(folder / "lock").acquire(timeout=0):
                _remove_leftovers(folder)


def _remove_leftovers(folder: Path) -> None:
    """Removes what killed processes left. With the lock held: then no other is at work."""
    for path in _leftovers(folder):
        shutil.rmtree(path, ignore_errors=True)


def _leftovers(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if _is_leftover(path)]


def _is_leftover(path: Path) -> bool:
    if OLD_WORK_FOLDER.fullmatch(path.name):
        with suppress(FileNotFoundError):  # removed by the process that worked there
            return time.time() - path.stat().st_mtime > OLD_SECONDS
    return WORK_FOLDER.fullmatch(path.name) is not None
