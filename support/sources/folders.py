"""A folder of images with a list of captions, as a data source."""

import os
from collections.abc import Iterable
from contextlib import AbstractContextManager
from io import BufferedIOBase
from pathlib import Path

from support.log import log
from support.paths import RealPaths, absolute_path
from support.sources.files import files_below, is_image_name, log_others, open_inside
from support.sources.known import KnownHashes
from support.sources.lists import CaptionsByImage, list_in
from support.text import clean_text, first_few


class FolderSource:
    """Image files of a folder, in the order in which its list of captions first names them.

    Logs how many images of the folder the list does not name.
    """

    revision: str | None = None

    def __init__(self, folder: Path, captions: CaptionsByImage, known: KnownHashes):
        self._folder = Path(absolute_path(folder))
        self._names = list(captions)
        self._captions = list(captions.values())
        self._known = known
        _log_unlisted(self._folder, self._names, known.paths)

    def __len__(self) -> int:
        return len(self._names)

    def label(self, row: int) -> str:
        return clean_text(str(self._folder / self._names[row]))

    def captions(self, row: int) -> list[str]:
        return self._captions[row]

    def content_hash(self, row: int) -> str:
        path = os.path.join(self._folder, self._names[row])  # noqa: PTH118 - for every image
        return self._known.of_file(path, [str(self._folder)])

    def open(self, row: int) -> AbstractContextManager[BufferedIOBase]:
        return open_inside(self._folder / self._names[row], [str(self._folder)])


def _log_unlisted(folder: Path, names: Iterable[str], paths: RealPaths) -> None:
    """Logs which images of `folder` no name leads to, and how many other files it holds."""
    listed = {_real_path(os.path.join(folder, name), paths) for name in names}  # noqa: PTH118
    files = files_below(folder)
    images = [file for file in files if is_image_name(file)]
    known = {*images, list_in(folder), *(file for file in files if str(file) in listed)}
    log_others(folder, files, [file for file in files if file not in known])
    unlisted = [name for name in map(str, images) if _real_path(name, paths) not in listed]
    if unlisted:
        log.warning(
            "%d of %d images in %s are not in its list of captions, and are left out: %s",
            len(unlisted),
            len(images),
            folder,
            first_few(unlisted),
        )


def _real_path(path: str, paths: RealPaths) -> str:
    """The path without links; of a file that is not there, or can be none, as it is."""
    try:
        return paths.find(path)[0]
    except (OSError, ValueError):
        return path
