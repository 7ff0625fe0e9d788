"""Rows of tables as a data source."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BufferedIOBase, BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import config
from support.errors import ImageError, SettingError
from support.log import log
from support.sources.columns import SPLIT_COLUMN, caption_columns, cell_texts, split_name
from support.sources.files import open_inside
from support.sources.known import KnownHashes, digest_of

ROWS_AT_ONCE = 1000  # whose captions are read together


class Tables(NamedTuple):
    """Splits of a dataset as `datasets.Dataset`s, and where the files that they name may be."""

    splits: Mapping[str, Any]
    folder: Path  # relative paths of images count from it
    roots: Sequence[str]  # images must be inside one of these: absolute, without links


class Split(NamedTuple):
    """One split of a dataset, its images left undecoded."""

    name: str
    images: Any  # datasets.Dataset with the one column "image": bytes, path, or both in a dict
    captions: Any | None  # datasets.Dataset with the caption columns; None without any
    hashes: list[str | None]  # of the images, where they are known
    own_splits: list[Any] | None  # of the rows, where the table has a column "split"


class TableSource:
    """Rows of one or more `datasets.Dataset`s."""

    def __init__(self, tables: Tables, known: KnownHashes, revision: str | None = None):
        self.revision = revision  # Hub commit
        self._folder, self._roots, self._known = tables.folder, tables.roots, known
        self._splits = [_undecoded(name, table, known) for name, table in tables.splits.items()]
        self._cells_at_once: tuple[Any, dict[str, list]] = (None, {})
        self._places: list[tuple[Split, int]] = []
        for split in self._splits:
            self._places += [(split, row) for row in range(len(split.images))]

    def __len__(self) -> int:
        return len(self._places)

    def label(self, row: int) -> str:
        split, place = self._places[row]
        return f"{split.name}[{place}]"

    def captions(self, row: int) -> list[str]:
        split, place = self._places[row]
        if split.captions is None:
            return []
        start = place - place % ROWS_AT_ONCE
        if self._cells_at_once[0] != (split.name, start):
            self._cells_at_once = (split.name, start), _columns(split.captions, start)
        columns = self._cells_at_once[1]
        if not columns:  # a row among them is damaged: which one?
            return cell_texts(list(self._cells(split.captions, row, place).values()))
        return cell_texts([cells[place - start] for cells in columns.values()])

    def split(self, row: int) -> str | None:
        split, place = self._places[row]
        own = split.own_splits[place] if split.own_splits else None
        return split_name(own if isinstance(own, str) else split.name)

    def content_hash(self, row: int) -> str:
        split, place = self._places[row]
        known = split.hashes[place]
        if known is not None:
            return known
        data, path = self._image(row)
        if data is None and path:
            return self._known.of_file(str(self._folder / path), self._roots)
        with self.open(row) as file:
            split.hashes[place] = digest = digest_of(file)
        return digest

    def _image(self, row: int) -> tuple[bytes | None, str | None]:
        """The image's bytes, or else its path, as the table holds them. Raises ImageError."""
        split, place = self._places[row]
        cell = self._cells(split.images, row, place)["image"]
        image = cell if isinstance(cell, dict) else {}
        data = cell if isinstance(cell, bytes) else image.get("bytes")
        return data, cell if isinstance(cell, str) else image.get("path")

    @contextmanager
    def open(self, row: int) -> Iterator[BufferedIOBase]:
        data, path = self._image(row)
        if data is not None:
            yield BytesIO(data)
        elif path:
            with open_inside(self._folder / path, self._roots) as file:
                yield file
        else:
            raise ImageError(f"{self.label(row)}: the row holds no image")

    def _cells(self, table: Any, row: int, place: int) -> dict[str, Any]:
        """The cells of a row. Raises ImageError where its part of a file is damaged."""
        try:
            return table[place]
        except Exception as error:  # Arrow raises several kinds
            raise ImageError(f"{self.label(row)}: the row is damaged: {error}") from error


def _columns(table: Any, start: int) -> dict[str, list]:
    """The columns of some rows of a table; empty if one of them is damaged."""
    try:
        return table[start : start + ROWS_AT_ONCE]
    except Exception as error:  # noqa: BLE001 - Arrow raises several kinds
        log.debug("rows from %d: %s", start, error)
        return {}


# --- Columns --------------------------------------------------------------------------------------
def _undecoded(name: str, table: Any, known: KnownHashes) -> Split:
    from datasets import Image as ImageFeature

    column = config.IMAGE_COLUMN or _image_column(table, name)
    if column not in table.column_names:
        raise SettingError(f"IMAGE_COLUMN is '{column}', but {name} has: {table.column_names}.")
    images = table.select_columns([column])
    if isinstance(table.features[column], ImageFeature):
        images = images.cast_column(column, ImageFeature(decode=False))
    if column != "image":
        images = images.rename_column(column, "image")
    others = [other for other in table.column_names if other != column]
    named = caption_columns(others, f"the split '{name}'")
    captions = table.select_columns(named) if named else None
    files = [entry["filename"] for entry in table.cache_files]
    hashes = known.of_rows(f"{name}, {column}", files, len(table))
    own_splits = table[SPLIT_COLUMN][:] if SPLIT_COLUMN in others else None
    return Split(name, images, captions, hashes, own_splits)


def _image_column(table: Any, name: str) -> str:
    """The one image column: an image feature, or bytes in files that other programs wrote."""
    from datasets import Image as ImageFeature

    features = table.features.items()
    found = [column for column, feature in features if isinstance(feature, ImageFeature)]
    found = found or [column for column, feature in features if _holds_bytes(feature)]
    if len(found) != 1:
        raise SettingError(
            f"{name} has {len(found)} image columns among {table.column_names}; one is needed. Set "
            "IMAGE_COLUMN."
        )
    return found[0]


def _holds_bytes(feature: Any) -> bool:
    fields = feature.get("bytes") if isinstance(feature, dict) else feature
    return getattr(fields, "dtype", None) in ("binary", "large_binary")
