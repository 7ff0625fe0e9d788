"""A folder of images with a list of captions, as a data source."""

from pathlib import Path

from support.sources.files import read_file
from support.sources.lists import CaptionsByImage
from support.text import clean_text


class FolderSource:
    """Image files of a folder, in the order in which its list of captions first names them."""

    revision: str | None = None

    def __init__(self, folder: Path, captions: CaptionsByImage):
        self._folder = folder
        self._names = list(captions)
        self._captions = list(captions.values())

    def __len__(self) -> int:
        return len(self._names)

    def label(self, row: int) -> str:
        return clean_text(str(self._folder / self._names[row]))

    def captions(self, row: int) -> list[str]:
        return self._captions[row]

    def read_bytes(self, row: int) -> bytes:
        return read_file(self._folder / self._names[row])
