"""The manifest of a folder: the size and CRC-32 of each of its files, to find damage later.

It is written last. A file that is missing, cut, filled with zeros or changed in any byte is found;
files that were added are not.
"""

import json
import os
import zlib
from pathlib import Path

from support.storage.files import sync_folder

MANIFEST = ".manifest.json"  # hidden, so that it is no part of a model's fingerprint


def seal(folder: Path) -> None:
    """Sync all files in `folder` to the disk, then write its manifest."""
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        _sync(path)
        files[path.relative_to(folder).as_posix()] = [path.stat().st_size, _checksum(path)]
    (folder / MANIFEST).write_text(json.dumps({"files": files}, indent=0), encoding="utf-8")
    _sync(folder / MANIFEST)
    for path in (*folder.rglob("*"), folder):
        if path.is_dir():
            sync_folder(path)


def is_sealed(folder: Path) -> bool:
    """Whether `folder` was finished once; it may be damaged since."""
    return os.path.isfile(folder / MANIFEST)  # noqa: PTH113 - Path.is_file may raise


def find_damage(folder: Path) -> str | None:
    """What is wrong with a folder that was sealed; None for nothing.

    Reads all files: 0.1 s for 100 MB that the system still has in memory.
    """
    try:
        text = (folder / MANIFEST).read_text(encoding="utf-8")
        files: dict[str, list[int]] = json.loads(text)["files"]
        for name, (size, checksum) in files.items():
            found = (folder / name).stat().st_size
            if found != size:
                return f"{name} has {found} bytes, not {size}"
            if _checksum(folder / name) != checksum:
                return f"{name} is not what was written"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except OSError as error:
        return f"{Path(error.filename or MANIFEST).name} cannot be read ({error.strerror})"
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return f"{MANIFEST} cannot be parsed"
    return None if files else f"{MANIFEST} names no files"


def _checksum(path: Path) -> int:
    """CRC-32 of a file."""
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(2**20):
            checksum = zlib.crc32(block, checksum)
    return checksum


def _sync(path: Path) -> None:
    with path.open("rb+") as file:  # Windows syncs only what is open for writing
        os.fsync(file.fileno())
