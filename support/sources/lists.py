"""Lists of captions beside images: captions.txt, metadata.csv, metadata.jsonl."""

import csv
import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import config
from support.errors import PipelineError, SettingError
from support.sources.columns import IMAGE_COLUMNS, caption_columns, cell_texts
from support.text import first_few

log = logging.getLogger("captioning")

CaptionsByImage = dict[str, list[str]]  # file name, as the list writes it -> captions


def read_list(folder: Path) -> CaptionsByImage | None:
    """The captions in the list that `folder` holds; None where it holds none."""
    readers = {
        "captions.txt": _read_lines,
        "metadata.csv": _read_csv,
        "metadata.jsonl": _read_jsonl,
    }
    for name, read in readers.items():
        if (folder / name).is_file():
            return read(folder / name)
    return None


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
        return _by_image(list(csv.DictReader(io.StringIO(_read_text(path), newline=""))), path)


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
    for row in rows:
        if row.get(image_column):
            texts = captions.setdefault(str(row[image_column]), [])
            for column in wanted:
                texts += cell_texts(row.get(column))
    return captions


def _lines(path: Path) -> list[str]:
    """The lines of a text, split at line breaks only.

    str.splitlines would also split at characters that may stand inside a caption.
    """
    return [line.rstrip("\n") for line in io.StringIO(_read_text(path), newline=None)]


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SettingError(
            f"{path} is not UTF-8 text (byte {error.start}). Save it as UTF-8."
        ) from error
    except OSError as error:
        raise PipelineError(f"{path} cannot be read: {error.strerror}.") from error
