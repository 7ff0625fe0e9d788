"""The images of a source as rows of Ray Data: a folder, Parquet files or a webdataset.

A row has `id` (a path, with its place in a table or archive), `image` (the file's bytes),
`captions`, and `error`, which says why there is no image.
"""

import json
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import config
from support.errors import PipelineError, SettingError
from support.log import log
from support.paths import absolute_path, expand_home
from support.sources.columns import CAPTION_COLUMNS, caption_columns, cell_texts, clean_captions
from support.sources.files import (
    IMAGE_SUFFIXES,
    files_below,
    is_inside,
    open_file,
    refuse_large,
    refuse_unreadable,
)
from support.sources.lists import find_lists
from support.sources.source import open_source

ROWS_AT_ONCE = 64  # of a table, in memory together


class Row(NamedTuple):
    """One image."""

    id: str
    image: bytes | None = None
    captions: Sequence[str] = ()
    error: str | None = None


Part = str | list[Row]  # a Parquet file or tar archive, or rows of image files to be read


def open_rows(parts: Sequence[Part]) -> Any:
    """The rows of a source's parts as a lazy ray.data.Dataset.

    Image files are only named: see `read_images`.
    """
    import ray
    from ray.data.block import BlockMetadata
    from ray.data.datasource import Datasource, ReadTask

    class Parts(Datasource):
        def estimate_inmemory_data_size(self) -> int | None:
            return None

        def get_read_tasks(self, *_: Any, **__: Any) -> list[ReadTask]:
            unknown = BlockMetadata(None, None, None, None)
            return [ReadTask(_reader(part), unknown) for part in parts]

    return ray.data.read_datasource(Parts(), override_num_blocks=len(parts))


def find_parts(source: str, size: int) -> list[Part]:
    """What tasks of Ray read of a source: Parquet files, or tar archives, or `size` images each.

    `source` is a local path or a URI of Arrow's file systems (s3://, gs://, hdfs://, ...). Raises
    SettingError where there is nothing to read.
    """
    files = _remote_files(source) if is_uri(source) else _local_files(source)
    for suffix in (".parquet", ".tar"):
        if found := [file for file in files if file.lower().endswith(suffix)]:
            if suffix == ".parquet":
                _check_columns(found[0])
            return list(found)
    images = [Row(file) for file in files if Path(file).suffix.lower() in IMAGE_SUFFIXES]
    rows = images if is_uri(source) else _listed(source)
    if not rows:
        raise SettingError(f"'{source}' holds no Parquet files, tar archives or images.")
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def is_uri(path: str) -> bool:
    """Whether a path is a URI, not one of this machine."""
    return "://" in path


def _local_files(source: str) -> list[str]:
    """The files of a local source; none where a list of captions says which are its images."""
    path = expand_home(source)
    refuse_unreadable(path, f"There is no file or folder '{source}'. Check the spelling.")
    files = files_below(path) if path.is_dir() else [path]
    has_list = any(file.parent == path for file in find_lists(files))
    return [] if has_list else [absolute_path(file) for file in files]


def _listed(source: str) -> list[Row]:
    """The images of a local folder with their captions; not where a link leads out of it."""
    folder, root = open_source(source), absolute_path(source)
    rows = [Row(folder.label(n), None, folder.captions(n)) for n in range(len(folder))]
    inside = [row for row in rows if is_inside(absolute_path(row.id), root)]
    if len(inside) < len(rows):
        log.warning("%d files lie outside %s, and are left out.", len(rows) - len(inside), root)
    return inside


def _remote_files(source: str) -> list[str]:
    from pyarrow.fs import FileSelector, FileType

    try:
        system, path = file_system(source)
        found = [system.get_file_info(path)]
        if found[0].type == FileType.NotFound:
            raise FileNotFoundError("there is no such file or folder")
        if found[0].type == FileType.Directory:
            found = system.get_file_info(FileSelector(path, recursive=True))
    except (OSError, ValueError) as error:
        raise SettingError(f"'{source}' cannot be read: {error}. Check the address.") from error
    scheme = source.split("://")[0]
    return sorted(f"{scheme}://{info.path}" for info in found if info.type == FileType.File)


def file_system(path: str) -> tuple[Any, str]:
    """The Arrow file system of a path or URI, and the path in it."""
    from pyarrow.fs import FileSystem, LocalFileSystem

    return FileSystem.from_uri(path) if is_uri(path) else (LocalFileSystem(), path)


# --- Read -----------------------------------------------------------------------------------------
def as_table(rows: Sequence[Row]) -> Any:
    """Rows as an Arrow table."""
    import pyarrow as pa

    kinds = pa.string(), pa.large_binary(), pa.list_(pa.string()), pa.string()
    schema = pa.schema(list(zip(Row._fields, kinds, strict=True)))
    return pa.Table.from_pylist([row._asdict() for row in rows], schema)


def as_rows(table: Any) -> list[Row]:
    """The rows of such a table."""
    return [Row(**row) for row in table.to_pylist()]


def read_images(table: Any) -> Any:
    """Rows with the bytes of the image files that they name, or why these cannot be read."""
    return as_table([_with_image(row) for row in as_rows(table)])


def _with_image(row: Row) -> Row:
    row = row._replace(captions=clean_captions(row.captions or ()))
    if row.image is not None or row.error is not None:
        return row
    try:
        return row._replace(image=_read_file(row.id))
    except (PipelineError, OSError) as error:
        return row._replace(error=str(error))


def _read_file(path: str) -> bytes:
    if not is_uri(path):
        with open_file(Path(path)) as local:
            return local.read()
    system, inside = file_system(path)
    with system.open_input_file(inside) as file:
        refuse_large(file.size(), path)
        return file.readall()


def _reader(part: Part) -> Any:
    """A function that yields a part's rows as tables; what is damaged ends with an error row."""

    def read() -> Iterator[Any]:
        if not isinstance(part, str):
            yield as_table(part)
            return
        try:
            read_rows = _read_table if part.lower().endswith(".parquet") else _read_archive
            yield from map(as_table, read_rows(part))
        except PipelineError as error:
            yield as_table([Row(part, error=str(error))])
        except Exception as error:  # noqa: BLE001 - Arrow, tarfile and remote stores raise many
            yield as_table([Row(part, error=f"{part} is damaged or cannot be read: {error}")])

    return read


def _check_columns(path: str) -> None:
    """Raises SettingError for a Parquet file without the columns that are needed.

    One that cannot be read is left to the workers, as all others are.
    """
    with suppress(OSError, ValueError), _open_table(path) as table:
        _columns(table, path)


def _open_table(path: str) -> Any:
    from pyarrow.parquet import ParquetFile

    system, inside = file_system(path)
    return ParquetFile(system.open_input_file(inside))


def _columns(table: Any, path: str) -> tuple[str, list[str]]:
    """The column of images of a Parquet file and those of captions."""
    image = _image_column(table.schema_arrow, path)
    others = [name for name in table.schema_arrow.names if name != image]
    return image, caption_columns(others, path)


def _read_table(path: str) -> Iterator[list[Row]]:
    """The rows of a Parquet file."""
    with _open_table(path) as table:
        image, texts = _columns(table, path)
        start = 0
        for batch in table.iter_batches(ROWS_AT_ONCE, columns=[image, *texts]):
            cells = enumerate(batch.to_pylist(), start)
            start += len(batch)
            yield [_table_row(f"{path}[{n}]", row.pop(image), row) for n, row in cells]


def _image_column(schema: Any, path: str) -> str:
    """config.IMAGE_COLUMN, or the one column of bytes or of the images of `datasets`."""
    bytes_inside = ("struct<bytes: binary", "binary", "large_binary")
    found = [field.name for field in schema if str(field.type).startswith(bytes_inside)]
    if config.IMAGE_COLUMN is not None:
        found = [name for name in schema.names if name == config.IMAGE_COLUMN]
    if len(found) != 1:
        raise SettingError(
            f"{path} has {len(found)} image columns among {schema.names}; one is needed. Name a "
            "column of bytes by IMAGE_COLUMN (--image-column)."
        )
    return found[0]


def _table_row(label: str, cell: Any, texts: dict[str, Any]) -> Row:
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    if isinstance(data, bytes):
        return Row(label, data, cell_texts(list(texts.values())))
    return Row(label, error=f"{label}: the row holds no bytes of an image")


def _read_archive(path: str) -> Iterator[list[Row]]:
    """The samples of a webdataset: files that differ in their suffix only, one after another."""
    system, inside = file_system(path)
    with tarfile.open(fileobj=system.open_input_stream(inside), mode="r|*") as tar:
        sample: dict[str, bytes] = {}
        before = ""
        for member in filter(tarfile.TarInfo.isfile, tar):
            folder, slash, name = member.name.rpartition("/")
            stem, _, suffix = name.partition(".")
            if folder + slash + stem != before:
                yield _sample(f"{path}/{before}", sample)
                sample, before = {}, folder + slash + stem
            refuse_large(member.size, f"{path}/{member.name}")
            sample[f".{suffix.lower()}"] = tar.extractfile(member).read()  # type: ignore[union-attr]
        yield _sample(f"{path}/{before}", sample)


def _sample(label: str, files: dict[str, bytes]) -> list[Row]:
    """The row of a webdataset's sample; none for one without an image."""
    images = [data for suffix, data in files.items() if suffix in IMAGE_SUFFIXES]
    fields = {"text": files.get(".txt", b"").decode("utf-8", "replace")}
    with suppress(ValueError, TypeError):  # other metadata than an object
        fields |= json.loads(files.get(".json", b"{}"))
    named = [name for name in fields if name.lower().startswith("caption")]
    named += [name for name in fields if name in CAPTION_COLUMNS]
    wanted = named if config.CAPTION_COLUMN is None else [config.CAPTION_COLUMN]
    texts = cell_texts([fields.get(name) for name in wanted])
    return [Row(label, images[0], texts)] if images else []
