"""Lists of captions beside images: captions.txt, metadata.csv, metadata.jsonl."""

import csv
import io
import json
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import config
from support.errors import PipelineError, SettingError
from support.log import log
from support.sources.columns import IMAGE_COLUMNS, caption_columns, cell_texts
from support.text import first_few

LIST_NAMES = ("captions.txt", "metadata.csv", "metadata.jsonl")  # the first there is, is read
CaptionsByImage = dict[str, list[str]]  # file name, as the list writes it -> captions
MAX_LIST_BYTES = 256 * 2**20  # lists are kept in memory; those of Flickr30k and COCO have 15 and 40


def read_list(folder: Path) -> CaptionsByImage | None:
    """The captions in the list that `folder` holds; None where it holds none.

    Raises SettingError for one that is not what its name says or larger than MAX_LIST_BYTES, and
    PipelineError for one that cannot be read.
    """
    readers = {
        "captions.txt": _read_lines,
        "metadata.csv": _read_csv,
        "metadata.jsonl": _read_jsonl,
    }
    path = list_in(folder)
    return None if path is None else readers[path.name](path)


def list_in(folder: Path) -> Path | None:
    """The list that is read of those in `folder`."""
    return next((folder / name for name in LIST_NAMES if _is_file(folder / name)), None)


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
        return _by_image(list(csv.DictReader(_open_text(path, newline=""))), path)


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


def _by_image(rows: list[dict[str, Any]], path: Path) -> CaptionsByImage:
    """The captions of each image named in the rows of a metadata file."""
    columns: list[str] = []
    for row in rows:
        columns += [column for column in row if column and column not in columns]
    image_column = config.IMAGE_COLUMN or next(
        (name for name in IMAGE_COLUMNS if name in columns), None
    )
    if image_column not in columns:
        raise SettingError(
            f"{path} has no column of image files (file_name); it has: {columns}. Set IMAGE_COLUMN."
        )
    wanted = caption_columns(columns, str(path))
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
