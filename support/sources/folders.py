"""A folder of images with a list of captions, as a data source."""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from io import BufferedIOBase
from pathlib import Path

from support.log import log
from support.paths import absolute_path
from support.sources.files import files_below, is_image_name, log_others, open_inside
from support.sources.lists import CaptionsByImage, list_in
from support.text import clean_text, first_few


class FolderSource:
    """Image files of a folder, in the order in which its list of captions first names them.

    Logs how many images of the folder the list does not name.
    """

    revision: str | None = None

    def __init__(self, folder: Path, captions: CaptionsByImage):
        self._folder = Path(absolute_path(folder))
        self._names = list(captions)
        self._captions = list(captions.values())
        _log_unlisted(self._folder, self._names)

    def __len__(self) -> int:
        return len(self._names)

    def label(self, row: int) -> str:
        return clean_text(str(self._folder / self._names[row]))

    def captions(self, row: int) -> list[str]:
        return self._captions[row]

    def read_bytes(self, row: int) -> bytes:
        with self.open(row) as file:
            return file.read()

    def open(self, row: int) -> AbstractContextManager[BufferedIOBase]:
        return open_inside(self._folder / self._names[row], [str(self._folder)])


def _log_unlisted(folder: Path, names: Iterable[str]) -> None:
    """Logs which images of `folder` no name leads to, and how many other files it holds."""
    listed = {_real_path(folder / name) for name in names}
    files = files_below(folder)
    images = [file for file in files if is_image_name(file)]
    known = {*images, list_in(folder), *(file for file in files if str(file) in listed)}
    log_others(folder, files, [file for file in files if file not in known])
    unlisted = [str(file) for file in images if absolute_path(file) not in listed]
    if unlisted:
        log.warning(
            "%d of %d images in %s are not in its list of captions, and are left out: %s",
            len(unlisted),
            len(images),
            folder,
            first_few(unlisted),
        )


def _real_path(path: Path) -> str:
    try:
        return absolute_path(path)
    except ValueError:  # a null character or a lone surrogate
        return ""
