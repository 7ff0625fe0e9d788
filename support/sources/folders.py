"""A folder of images, with or without lists of captions, as a data source."""

import os
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from io import BufferedIOBase
from pathlib import Path

import config
from support.errors import SettingError
from support.paths import RealPaths, absolute_path
from support.sources.columns import SPLIT_NAMES, split_name
from support.sources.files import is_image_name, log_others, open_inside
from support.sources.known import KnownHashes
from support.sources.lists import ListedImages
from support.text import clean_text


class FolderSource:
    """Image files of a folder and its subfolders: those with captions first, in their order.

    What is `listed` of them is by file name from `folder`; `files` are all files below it, and
    `lists` those that say it. A split is the one that a list names, or else the folder's of that
    name. Logs how many other files there are. Raises SettingError for a config.DATASET_SPLIT that
    is not there.
    """

    revision: str | None = None

    def __init__(
        self,
        folder: Path,
        listed: ListedImages,
        files: Sequence[Path],
        lists: Collection[Path],
        known: KnownHashes,
    ):
        self._folder = Path(absolute_path(folder))
        self._known = known
        paths = _real_paths(self._folder, listed.captions, known.paths)
        images: list[Path] = []
        others: list[Path] = []
        for file in files:
            # A file that a list names is one of its images, whatever its suffix.
            is_listed = bool(paths) and _real_path(str(file), known.paths) in paths
            if not is_listed and file not in lists:
                (images if is_image_name(file) else others).append(file)
        log_others(folder, files, others)
        names = [*listed.captions, *(os.path.relpath(image, folder) for image in images)]
        self._captions, self._splits = listed.captions, listed.splits
        self._names = _of_split(names, self._split_of, folder)

    def __len__(self) -> int:
        return len(self._names)

    def label(self, row: int) -> str:
        return clean_text(str(self._folder / self._names[row]))

    def captions(self, row: int) -> list[str]:
        return self._captions.get(self._names[row], [])

    def split(self, row: int) -> str | None:
        return self._split_of(self._names[row])

    def _split_of(self, name: str) -> str | None:
        top, inside, _ = name.replace(os.sep, "/").removeprefix("./").partition("/")
        return self._splits.get(name, SPLIT_NAMES.get(top.lower()) if inside else None)

    def content_hash(self, row: int) -> str:
        path = os.path.join(self._folder, self._names[row])  # noqa: PTH118 - for every image
        return self._known.of_file(path, [str(self._folder)])

    def open(self, row: int) -> AbstractContextManager[BufferedIOBase]:
        return open_inside(self._folder / self._names[row], [str(self._folder)])


def _of_split(names: list[str], split_of: Callable[[str], str | None], folder: Path) -> list[str]:
    """The names of the split that config names, or all."""
    if config.DATASET_SPLIT is None:
        return names
    wanted = split_name(config.DATASET_SPLIT)
    found = [name for name in names if split_of(name) == wanted]
    if not found:
        splits = sorted({split for name in names if (split := split_of(name))})
        raise SettingError(
            f"DATASET_SPLIT is '{config.DATASET_SPLIT}', but '{folder}' has: {splits}; None joins "
            "them all."
        )
    return found


def _real_paths(folder: Path, names: Collection[str], paths: RealPaths) -> set[str]:
    return {_real_path(os.path.join(folder, name), paths) for name in names}  # noqa: PTH118


def _real_path(path: str, paths: RealPaths) -> str:
    """The path without links; of a file that is not there, or can be none, as it is."""
    try:
        return paths.find(path)[0]
    except (OSError, ValueError):
        return path
