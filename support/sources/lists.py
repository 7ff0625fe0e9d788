"""Lists of captions beside images: captions.txt, metadata.csv, .jsonl and .parquet."""

import csv
import io
import json
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import config
from support.errors import PipelineError, SettingError
from support.log import log
from support.sources.columns import IMAGE_COLUMNS, caption_columns, cell_texts
from support.text import first_few

# The first of these that a folder holds is read.
LIST_NAMES = ("captions.txt", "metadata.csv", "metadata.jsonl", "metadata.parquet")
CaptionsByImage = dict[str, list[str]]  # file name, as the list writes it -> captions
MAX_LIST_BYTES = 256 * 2**20  # lists are kept in memory; those of Flickr30k and COCO have 15 and 40


def find_lists(files: Iterable[Path]) -> list[Path]:
    """The lists among all files of a folder and its subfolders: one for each of these."""
    parents = {file.parent for file in files if file.name in LIST_NAMES}
    lists = (_list_in(parent) for parent in sorted(parents, key=lambda parent: parent.parts))
    return [path for path in lists if path is not None]


def read_lists(folder: Path, lists: Iterable[Path]) -> CaptionsByImage:
    """The captions in the lists of `folder` and its subfolders, by file names from `folder`.

    As the imagefolder convention has it, a list names files from its own folder. Raises
    SettingError for one that is not what its name says, PipelineError for one that cannot be read;
    in a subfolder, where it may be anything, such a one is left out with a warning.
    """
    captions: CaptionsByImage = {}
    for path in lists:
        try:
            found = _READERS[path.name](path)
        except PipelineError as error:
            if path.parent == folder:
                raise
            log.warning("%s Left out.", error)
            continue
        below = os.path.relpath(path.parent, folder)
        for name, texts in found.items():
            place = name if path.parent == folder else os.path.normpath(Path(below, name))
            captions.setdefault(place, []).extend(texts)
    return captions


def _list_in(folder: Path) -> Path | None:
    """The list that is read of those in `folder`."""
    found = (folder / name for name in LIST_NAMES if _is_file(folder / name))
    return next((path for path in found if path.suffix != ".parquet" or _names_files(path)), None)


def _names_files(path: Path) -> bool:
    """Whether a parquet file lists image files, rather than holding the images."""
    import pyarrow
    import pyarrow.parquet

    try:
        schema = pyarrow.parquet.read_schema(path)
    except (pyarrow.ArrowException, OSError):
        return False  # read as a table, it is named as damaged
    return any(field.name in IMAGE_COLUMNS and _is_text(field.type) for field in schema)


def _is_text(kind: Any) -> bool:
    """Whether a column of an Arrow type holds texts."""
    from pyarrow import types

    if types.is_dictionary(kind):
        return _is_text(kind.value_type)
    checks = types.is_string, types.is_large_string, types.is_string_view
    return any(check(kind) for check in checks)


def _read_lines(path: Path) -> CaptionsByImage:
    """`image,caption` lines, with or without a header.

    Commas inside an unquoted caption belong to it.
    """
    captions: CaptionsByImage = {}
    without_comma = []
    for number, line in enumerate(_lines(path), 1):
        with _csv_errors(path):
            fields = next(csv.reader([line]), [])
        if number == 1 and fields and fields[0].strip().lower() in IMAGE_COLUMNS:
            continue
        if len(fields) > 1:
            captions.setdefault(fields[0].strip(), []).append(",".join(fields[1:]))
        elif line.strip():
            without_comma.append(f"line {number}")
    if without_comma:
        log.warning("%s: not 'image,caption', and left out: %s", path, first_few(without_comma))
    return captions


def _read_csv(path: Path) -> CaptionsByImage:
    with _csv_errors(path):
        reader = csv.DictReader(_open_text(path, newline=""))
        return _by_image(list(reader), path, reader.fieldnames or ())


@contextmanager
def _csv_errors(path: Path) -> Iterator[None]:
    limit = csv.field_size_limit(2**31 - 1)  # a caption may be long
    try:
        yield
    except csv.Error as error:
        raise SettingError(f"{path} is not CSV: {error}.") from error
    finally:
        csv.field_size_limit(limit)


def _read_jsonl(path: Path) -> CaptionsByImage:
    rows = []
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise SettingError(f"{path}, line {number} is not JSON: {error}.") from error
        if not isinstance(row, dict):
            raise SettingError(
                f"{path}, line {number} is not a JSON object like {{'file_name': …, 'text': …}}."
            )
        rows.append(row)
    return _by_image(rows, path)


def _read_parquet(path: Path) -> CaptionsByImage:
    import pyarrow
    import pyarrow.parquet

    try:
        columns = pyarrow.parquet.read_schema(path).names
        image_column = _image_column(columns, path)
        wanted = [image_column, *_caption_columns(columns, path)]
        rows = pyarrow.parquet.read_table(path, columns=wanted).to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise SettingError(f"{path} cannot be read: {error}. Put a whole copy there.") from error
    return _by_image(rows, path, wanted)


_READERS = {
    "captions.txt": _read_lines,
    "metadata.csv": _read_csv,
    "metadata.jsonl": _read_jsonl,
    "metadata.parquet": _read_parquet,
}


def _by_image(rows: list[dict[str, Any]], path: Path, head: Sequence[str] = ()) -> CaptionsByImage:
    """The captions of each image named in the rows of a metadata file with the columns `head`."""
    columns = [column for column in head if column]
    for row in rows:
        columns += [column for column in row if column and column not in columns]
    if not columns:  # an empty file
        return {}
    image_column, wanted = _image_column(columns, path), _caption_columns(columns, path)
    captions: CaptionsByImage = {}
    unnamed = 0
    for row in rows:
        if not row.get(image_column):
            unnamed += 1
            continue
        texts = captions.setdefault(str(row[image_column]), [])
        for column in wanted:
            texts += cell_texts(row.get(column))
    if unnamed:
        log.warning("%s: %d rows name no image file and are left out.", path, unnamed)
    return captions


def _image_column(columns: Sequence[str], path: Path) -> str:
    """The column of image files. Raises SettingError without one."""
    known = (name for name in IMAGE_COLUMNS if name in columns)
    named = config.IMAGE_COLUMN or next(known, None)
    if named is None or named not in columns:
        raise SettingError(
            f"{path} has no column of image files (file_name); it has: {list(columns)}. Set "
            "IMAGE_COLUMN."
        )
    return named


def _caption_columns(columns: Sequence[str], path: Path) -> list[str]:
    others = [column for column in columns if column not in IMAGE_COLUMNS]
    return caption_columns(others, str(path))


def _lines(path: Path) -> Iterator[str]:
    """The lines of a text, split at line breaks only.

    str.splitlines would also split at characters that may stand inside a caption.
    """
    return (line.rstrip("\n") for line in _open_text(path))


def _open_text(path: Path, newline: str | None = None) -> io.TextIOWrapper:
    """The text of a list, checked to be UTF-8."""
    with _reading(path):
        data = path.read_bytes()
    try:
        data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SettingError(
            f"{path} is not UTF-8 text (byte {error.start}). Save it as UTF-8."
        ) from error
    return io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", newline=newline)


def _is_file(path: Path) -> bool:
    """Whether there is a list to read. Raises SettingError for one that is too large."""
    try:
        with _reading(path):
            status = path.stat()
    except PipelineError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return False
        raise
    if status.st_size > MAX_LIST_BYTES:
        raise SettingError(
            f"{path} has {status.st_size:,} bytes; a list of captions may have up to "
            f"{MAX_LIST_BYTES:,}. Split the dataset into several folders, or save it as parquet."
        )
    return stat.S_ISREG(status.st_mode)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PipelineError(f"{path} cannot be read: {error.strerror}.") from error
