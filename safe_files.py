"""Reading and writing files so that none is ever half there: strict JSON, whole replacement, named errors."""

import errno
import filecmp
import itertools
import json
import math
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from records import DatabaseError, clean_text

FORMAT_VERSION = 1
LONE_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")  # or half of a pair, which is no harm
DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class DamagedFile(DatabaseError):
    """A database file whose content is not what it should be; --rebuild keeps what can be read of it."""


# --- JSON ------------------------------------------------------------------------------------------------------
def to_json(value: Any, indent: int | None = None) -> str:
    """`value` as JSON, readable in any script; what UTF-8 cannot hold (lone surrogates) becomes U+FFFD."""
    return clean_text(json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent))


def parse_json(data: bytes) -> Any:
    """The value of a UTF-8 JSON text. Raises ValueError for anything that `to_json` could not have written."""
    try:
        value = json.loads(data, parse_constant=_refuse, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return json.loads(to_json(value)) if LONE_SURROGATE.search(data) else value


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not allowed")


def _finite(text: str) -> float:
    return value if math.isfinite(value := float(text)) else _refuse(text)


def check_format(path: Path, version: Any) -> None:
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise DatabaseError(
            f"{path} has format {version}, newer than this program's {FORMAT_VERSION}. Use a newer version of the "
            "program."
        )
    if version != FORMAT_VERSION:
        raise damaged(path, f"its format version is {version!r}")


# --- Writing ---------------------------------------------------------------------------------------------------
def replace_file(path: Path, chunks: Iterable[str]) -> None:
    """Writes `chunks` beside `path`, syncs, and renames: whoever reads sees the old file or the new one, whole."""
    with unwritable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=_temporary_prefix(path), suffix=".tmp", dir=path.parent)
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
    """Removes what killed writers of `path` left beside it. The caller holds the lock that such writers hold."""
    with unwritable(path):
        for leftover in path.parent.glob(f"{_temporary_prefix(path)}*.tmp"):
            leftover.unlink(missing_ok=True)


def _temporary_prefix(path: Path) -> str:
    return f".{path.name}." if len(path.name) < 50 else "."  # a name has room for 255 bytes


def publish_file(folder: Path, stem: str, suffix: str, text: str) -> Path:
    """Writes a new file STEM.SUFFIX, or STEM_2.SUFFIX and so on where that exists; never half, never over another."""
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
        path.open("x").close()  # takes the name; memory sticks know no hard links
        os.replace(temporary, path)


def sync_folder(folder: Path) -> None:
    """Makes a rename in `folder` last; Windows cannot open folders and needs no such step."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


# --- Errors ----------------------------------------------------------------------------------------------------
@contextmanager
def unwritable(path: Path, setting: str = "DB_DIR") -> Iterator[None]:
    """Turns an OSError while writing into a DatabaseError that names the file and what to do."""
    try:
        yield
    except OSError as error:
        remedy = "Free some space there" if error.errno in DISK_FULL else "Check the folder's permissions and disk"
        raise DatabaseError(
            f"{path} cannot be written: {error.strerror or error}. {remedy}, or set {setting} to another folder. "
            "What was there before is unchanged."
        ) from error


@contextmanager
def unreadable(path: Path) -> Iterator[None]:
    """Turns an OSError while reading into a DatabaseError that names the file and what to do."""
    try:
        yield
    except OSError as error:
        raise DatabaseError(
            f"{path} cannot be read: {error.strerror or error}. Check the folder's permissions and disk."
        ) from error


def damaged(path: Path, reason: str) -> DamagedFile:
    """The error for a damaged file, a copy of which is kept."""
    try:
        kept = f"A copy is kept as {keep_corrupt_copy(path).name}."
    except DatabaseError as error:
        kept = f"No copy could be kept: {error}"
    return DamagedFile(
        f"{path} is damaged: {reason}. {kept} Put back a sound file, or run with --rebuild: it keeps what can be read "
        "and says what could not."
    )


def keep_corrupt_copy(path: Path) -> Path:
    """Copies a damaged file beside itself as NAME.corrupt; an earlier copy of other content stays."""
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
