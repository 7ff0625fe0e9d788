"""Paths as users write them. Unlike pathlib's methods, these never raise for a bad path."""

import os
import stat
from pathlib import Path


def expand_home(path: str | Path) -> Path:
    """`path` with "~" replaced by the home folder; unchanged where there is none."""
    try:
        return Path(os.path.expanduser(path))  # noqa: PTH111
    except ValueError:  # a null character
        return Path(path)


def is_file_path(label: str) -> bool:
    """Whether what the databases call an image is the path of a file, and whole.

    A row of a table and an image in memory have none; a name that is no Unicode has lost what could
    not be kept: see clean_text.
    """
    return os.path.isabs(label) and "\N{REPLACEMENT CHARACTER}" not in label  # noqa: PTH117


def absolute_path(path: str | Path) -> str:
    """The absolute path, with links followed as far as they lead."""
    return os.path.realpath(expand_home(path))


class RealPaths:
    """Paths of many files without links, as they were when first looked at."""

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}  # the links of each folder are followed once
        self._found: dict[str, tuple[str, os.stat_result]] = {}

    def find(self, path: str) -> tuple[str, os.stat_result]:
        """The absolute path of a file, as `absolute_path` gives it, and the file's state.

        Raises OSError, and ValueError for what can be no path.
        """
        found = self._found.get(path)
        if found is None:
            found = self._found[path] = self._look(path)
        return found

    def _look(self, path: str) -> tuple[str, os.stat_result]:
        folder, name = os.path.split(path)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        real = os.path.join(self._folders[folder], name)  # noqa: PTH118 - for every image
        status = os.lstat(real)
        if stat.S_ISLNK(status.st_mode):
            real = os.path.realpath(real)
            status = os.stat(real)  # noqa: PTH116
        return real, status
