"""The images of a source as rows of Ray Data: a folder, Parquet files or a webdataset.

A row has `id` (a path, with its place in a table or archive), `image` (the file's bytes),
`captions`, and `error`, which says why there is no image.
"""

import json
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import config
from scale.places import file_system, is_uri, suffix_of
from support.errors import ImageError, PipelineError, SettingError
from support.sources.columns import CAPTION_COLUMNS, caption_columns, cell_texts, clean_captions
from support.sources.files import IMAGE_SUFFIXES, open_file, refuse_large
from support.text import clean_text, first_few

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
    except Exception as error:  # noqa: BLE001 - remote stores raise many
        return row._replace(error=str(error) or type(error).__name__)


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
            read_rows = _read_table if suffix_of(part) == ".parquet" else _read_archive
            yield from map(as_table, read_rows(part))
        except PipelineError as error:
            yield as_table([Row(part, error=str(error))])
        except Exception as error:  # noqa: BLE001 - Arrow, tarfile and remote stores raise many
            yield as_table([Row(part, error=f"{part} is damaged or cannot be read: {error}")])

    return read


def check_columns(path: str) -> None:
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
        if not found:
            raise SettingError(
                f"IMAGE_COLUMN (--image-column) is '{config.IMAGE_COLUMN}', but {path} has: "
                f"{schema.names}."
            )
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
    times: Counter[str] = Counter()
    with tarfile.open(fileobj=system.open_input_stream(inside), mode="r|*") as tar:
        members = (member for member in tar if member.isfile() and not _is_hidden(member))
        for name, group in groupby(members, lambda member: _split_name(member)[0]):
            times[name] += 1
            again = f"[{times[name]}]" if times[name] > 1 else ""
            yield _sample(clean_text(f"{path}/{name}{again}"), _contents(tar, group))


def _is_hidden(member: tarfile.TarInfo) -> bool:
    return member.name.rpartition("/")[2].startswith(".")


def _split_name(member: tarfile.TarInfo) -> tuple[str, str]:
    """The name of a file's sample, and its suffix: what follows the first dot."""
    folder, slash, name = member.name.rpartition("/")
    stem, dot, suffix = name.partition(".")
    return folder + slash + stem, (dot + suffix).lower()


def _contents(tar: tarfile.TarFile, members: Iterable[tarfile.TarInfo]) -> dict[str, bytes]:
    """Suffix -> content of the files of a sample; those that are too large are left out."""
    files = {}
    for member in members:
        with suppress(ImageError):
            refuse_large(member.size, member.name)
            files[_split_name(member)[1]] = tar.extractfile(member).read()  # type: ignore[union-attr]
    return files


def _sample(label: str, files: dict[str, bytes]) -> list[Row]:
    """The row of a webdataset's sample; none for one without an image."""
    images = [suffix for suffix in files if suffix in IMAGE_SUFFIXES]
    # Else one with dots in its name, such as photo.2024.jpg.
    images = images or [suffix for suffix in files if Path(suffix).suffix in IMAGE_SUFFIXES]
    if len(images) > 1 and images[0] not in IMAGE_SUFFIXES:
        named = f"{label}: {len(images)} images differ in what follows the first dot only"
        return [Row(label, error=f"{named}. Name them without other dots: {first_few(images)}")]
    texts = clean_captions(_sample_texts(files))
    return [Row(label, files[suffix], texts) for suffix in images[:1]]


def _sample_texts(files: dict[str, bytes]) -> list[str]:
    """The captions of a sample: what its metadata calls so, or its text."""
    fields: dict[str, Any] = {}
    with suppress(ValueError, RecursionError):
        metadata = json.loads(files.get(".json", b"{}"))
        fields = metadata if isinstance(metadata, dict) else {}
    if ".txt" in files:
        fields["text"] = files[".txt"].decode("utf-8", "replace")
    named = [name for name in fields if name.lower().startswith("caption")]
    named = named or [name for name in fields if name.lower() in CAPTION_COLUMNS][:1]
    wanted = named if config.CAPTION_COLUMN is None else [config.CAPTION_COLUMN]
    return cell_texts([fields.get(name) for name in wanted])
