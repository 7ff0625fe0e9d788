"""Paths as users write them. Unlike pathlib's methods, these never raise for a bad path."""

import os
from pathlib import Path


def expand_home(path: str | Path) -> Path:
    """`path` with "~" replaced by the home folder; unchanged where there is none."""
    return Path(os.path.expanduser(path))  # noqa: PTH111


def absolute_path(path: str | Path) -> str:
    """The absolute path, with links followed as far as they lead."""
    return os.path.realpath(expand_home(path))
