"""Open a data source by its name: a Hub dataset, a folder of images, or tables."""

from contextlib import AbstractContextManager
from io import BufferedIOBase
from pathlib import Path
from typing import Protocol

import config
from support.errors import SettingError
from support.hub.download import fetch
from support.hub.names import is_local
from support.log import log
from support.paths import expand_home
from support.sources.files import files_below, is_image_name, no_images, refuse_unreadable
from support.sources.folders import FolderSource
from support.sources.known import KnownHashes
from support.sources.lists import find_lists, read_lists
from support.sources.table_files import (
    is_table,
    load_hub_dataset,
    load_local_table,
    load_table_files,
    tables_among,
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

    def split(self, row: int) -> str | None:
        """The dataset's own split of a row: "train", "validation", "test", or another."""

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
    images; PipelineError for a file that is damaged.
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
    return _open_folder(path, known)


def _open_folder(folder: Path, known: KnownHashes) -> Source:
    """The rows of the tables in a folder; of its images where it holds a list, or no table."""
    files = files_below(folder)
    lists = find_lists(files)
    has_list = any(path.parent == folder for path in lists)
    tables = [] if has_list else [table for table in tables_among(files) if table not in lists]
    if tables:
        images = sum(map(is_image_name, files))
        try:
            source: Source = TableSource(load_table_files(tables, folder), known)
            if images:
                log.warning(
                    "%s holds tables, which are read; its %d images are not.", folder, images
                )
            return source
        except SettingError as error:
            if not images:
                raise
            log.warning("The tables in %s are left out: %s", folder, error)
    images_source = FolderSource(folder, read_lists(folder, lists), files, lists, known)
    if not len(images_source):
        raise no_images(folder, files)
    return images_source
