"""Open a data source by its name: a Hub dataset, a folder of images, or tables."""

from contextlib import AbstractContextManager
from io import BufferedIOBase
from typing import Protocol

import config
from support.errors import SettingError
from support.hub.download import fetch
from support.hub.names import is_local
from support.paths import expand_home
from support.sources.files import refuse_unreadable
from support.sources.folders import FolderSource
from support.sources.known import KnownHashes
from support.sources.lists import read_list
from support.sources.table_files import (
    find_tables,
    is_table,
    load_hub_dataset,
    load_local_table,
    load_table_files,
)
from support.sources.tables import TableSource


class Source(Protocol):
    """Rows of images with captions."""

    revision: str | None  # Hub commit; None for a local one

    def __len__(self) -> int: ...

    def label(self, row: int) -> str:
        """Path or dataset row, for people."""

    def captions(self, row: int) -> list[str]:
        """The captions of a row, as they are written there."""

    def content_hash(self, row: int) -> str:
        """The SHA-256 of the image file's bytes. Raises as `open` does."""

    def open(self, row: int) -> AbstractContextManager[BufferedIOBase]:
        """The image file, to be read; nothing is decoded.

        Raises ImageError, also while it is read; OutsideFolderError for a file that the dataset
        must not name.
        """


def open_source(name: str, known: KnownHashes | None = None) -> Source:
    """The rows of a Hub dataset, of a local folder of images, or of parquet and arrow files.

    `known` are hashes of its images from earlier runs, and collects those of this one.
    Raises SettingError for a path that is not there or must not be read, or a folder without
    captions; PipelineError for a file that is damaged.
    """
    known = known or KnownHashes()
    if not is_local(name):
        folder = fetch(name, "dataset", config.DATASET_REVISION)
        return TableSource(load_hub_dataset(name, folder), known, folder.name)
    path = expand_home(name)
    refuse_unreadable(
        path, f"DATASET_NAME is '{name}', but there is no such file or folder. Check the spelling."
    )
    if is_table(path):
        return TableSource(load_local_table(path), known)
    if not path.is_dir():
        raise SettingError(
            f"DATASET_NAME is '{name}', a file that is no table: name a .parquet or .arrow file, "
            "or a folder."
        )
    captions = read_list(path)
    if captions is not None:
        return FolderSource(path, captions, known)
    tables = find_tables(path)
    if tables:
        return TableSource(load_table_files(tables, path), known)
    raise SettingError(
        f"The folder '{path}' holds no captions. It needs captions.txt (lines 'image,caption'), "
        "metadata.csv or metadata.jsonl (with a file_name column) beside its images, or .parquet "
        f"or .arrow files. To caption photos without captions: python main.py --image '{path}'"
    )
