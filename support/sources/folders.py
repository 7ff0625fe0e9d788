"""A folder of images, with or without lists of captions, as a data source."""

import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from io import BufferedIOBase
from pathlib import Path

from support.paths import RealPaths, absolute_path
from support.sources.files import is_image_name, log_others, open_inside
from support.sources.known import KnownHashes
from support.text import clean_text


class FolderSource:
    """Image files of a folder and its subfolders: those with captions first, in their order.

    `captions` are theirs by file name from `folder`; `files` are all files below it, and `lists`
    those that the captions come from. Logs how many other files there are.
    """

    revision: str | None = None

    def __init__(
        self,
        folder: Path,
        captions: Mapping[str, list[str]],
        files: Sequence[Path],
        lists: Collection[Path],
        known: KnownHashes,
    ):
        self._folder = Path(absolute_path(folder))
        self._known = known
        listed = _real_paths(self._folder, captions, known.paths)
        images: list[Path] = []
        others: list[Path] = []
        for file in files:
            # A file that a list names is one of its images, whatever its suffix.
            is_listed = bool(listed) and _real_path(str(file), known.paths) in listed
            if not is_listed and file not in lists:
                (images if is_image_name(file) else others).append(file)
        log_others(folder, files, others)
        self._names = [*captions, *(os.path.relpath(image, folder) for image in images)]
        self._captions = list(captions.values())

    def __len__(self) -> int:
        return len(self._names)

    def label(self, row: int) -> str:
        return clean_text(str(self._folder / self._names[row]))

    def captions(self, row: int) -> list[str]:
        return self._captions[row] if row < len(self._captions) else []

    def content_hash(self, row: int) -> str:
        path = os.path.join(self._folder, self._names[row])  # noqa: PTH118 - for every image
        return self._known.of_file(path, [str(self._folder)])

    def open(self, row: int) -> AbstractContextManager[BufferedIOBase]:
        return open_inside(self._folder / self._names[row], [str(self._folder)])


def _real_paths(folder: Path, names: Collection[str], paths: RealPaths) -> set[str]:
    return {_real_path(os.path.join(folder, name), paths) for name in names}  # noqa: PTH118


def _real_path(path: str, paths: RealPaths) -> str:
    """The path without links; of a file that is not there, or can be none, as it is."""
    try:
        return paths.find(path)[0]
    except (OSError, ValueError):
        return path
