"""Open a data source by its name: a Hub dataset, a folder of images, or tables."""

from typing import Protocol

import config
from support.errors import SettingError
from support.hub.download import fetch
from support.hub.names import is_local
from support.paths import expand_home
from support.sources.folders import FolderSource
from support.sources.lists import read_list
from support.sources.tables import (
    TABLE_SUFFIXES,
    TableSource,
    is_table,
    load_hub_dataset,
    load_local_table,
    load_tables,
)


class Source(Protocol):
    """Rows of images with captions."""

    revision: str | None  # Hub commit; None for a local one

    def __len__(self) -> int: ...

    def label(self, row: int) -> str:
        """Path or dataset row, for people."""

    def captions(self, row: int) -> list[str]:
        """The captions of a row, as they are written there."""

    def read_bytes(self, row: int) -> bytes:
        """The bytes of the image file. Raises ImageError."""


def open_source(name: str) -> Source:
    """The rows of a Hub dataset, of a local folder of images, or of parquet and arrow files.

    Raises SettingError for a path that is not there, or a folder without captions.
    """
    if not is_local(name):
        folder = fetch(name, "dataset", config.DATASET_REVISION)
        return TableSource(load_hub_dataset(name, folder), revision=folder.name)
    path = expand_home(name)
    if not path.exists():
        raise SettingError(
            f"DATASET_NAME is '{name}', but there is no such file or folder. Check the spelling."
        )
    if is_table(path):
        return TableSource(load_local_table(path))
    captions = read_list(path)
    if captions is not None:
        return FolderSource(path, captions)
    for suffix in TABLE_SUFFIXES:
        files = sorted(path.rglob(f"*{suffix}"))
        if files:
            return TableSource(load_tables(files))
    raise SettingError(
        f"The folder '{path}' holds no captions. It needs captions.txt (lines 'image,caption'), "
        "metadata.csv or metadata.jsonl (with a file_name column) beside its images, or .parquet "
        f"or .arrow files. To caption photos without captions: python main.py --image '{path}'"
    )
