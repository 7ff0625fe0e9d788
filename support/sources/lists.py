"""Lists of captions beside images: captions.txt, metadata.csv, .jsonl and .parquet."""

import csv
import io
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import config
from support.errors import PipelineError, SettingError
from support.log import log
from support.sources.columns import (
    IMAGE_COLUMNS,
    SPLIT_COLUMN,
    caption_columns,
    cell_texts,
    split_name,
)
from support.text import first_few

# The first of these that a folder holds is read.
LIST_NAMES = ("captions.txt", "metadata.csv", "metadata.jsonl", "metadata.parquet")
KARPATHY = re.compile(r"dataset_\w+\.json")  # splits by Karpathy: dataset_flickr8k.json and so on
MAX_LIST_BYTES = 256 * 2**20  # lists are kept in memory; those of Flickr30k and COCO have 15 and 40


@dataclass
class ListedImages:
    """What lists say of images, by file name as they write it."""

    captions: dict[str, list[str]] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)  # of those for which they name one

    def add(self, name: str, texts: Iterable[str], split: Any = None) -> None:
        """Adds captions of an image, and its split where there is one."""
        self.captions.setdefault(name, []).extend(texts)
        if isinstance(split, str) and split.strip():
            self.splits[name] = split_name(split)


def find_lists(files: Iterable[Path]) -> list[Path]:
    """The lists among all files of a folder and its subfolders, and Karpathy's JSON beside them."""
    files = [file for file in files if file.name in LIST_NAMES or KARPATHY.fullmatch(file.name)]
    parents = sorted({file.parent for file in files}, key=lambda parent: parent.parts)
    lists = [path for path in map(_list_in, parents) if path is not None]
    return lists + [file for file in files if KARPATHY.fullmatch(file.name)]


def read_lists(folder: Path, lists: Iterable[Path]) -> ListedImages:
    """What the lists of `folder` and its subfolders say, by file names from `folder`.

    As the imagefolder convention has it, a list names files from its own folder. Where Karpathy's
    JSON lies beside another list, its splits alone are taken. Raises SettingError for a list that
    is not what its name says, PipelineError for one that cannot be read; in a subfolder, where it
    may be anything, such a one is left out with a warning.
    """
    listed, read = ListedImages(), set()
    for path in lists:
        is_karpathy = path.name not in _READERS
        try:
            found = _read_karpathy(path) if is_karpathy else _READERS[path.name](path)
        except PipelineError as error:
            if path.parent == folder and not is_karpathy:
                raise
            log.warning("%s Left out.", error)
            continue
        below = os.path.relpath(path.parent, folder)
        for name, texts in found.captions.items():
            place = name if path.parent == folder else os.path.normpath(Path(below, name))
            taken = [] if is_karpathy and path.parent in read else texts
            listed.add(place, taken, found.splits.get(name))
        read.add(path.parent)
    return listed


def _read_karpathy(path: Path) -> ListedImages:
    """{"images": [{"filename": …, "split": …, "sentences": [{"raw": …}]}]}."""
    _is_file(path)
    with _reading(path):
        data = path.read_bytes()
    listed = ListedImages()
    try:
        for image in json.loads(data)["images"]:
            name = os.path.join(str(image.get("filepath") or ""), str(image["filename"]))  # noqa: PTH118
            texts = [str(sentence["raw"]) for sentence in image.get("sentences", [])]
            listed.add(name, texts, image["split"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SettingError(f"{path} holds no splits as Karpathy's do: {error!r}.") from error
    return listed


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


def _read_lines(path: Path) -> ListedImages:
    """`image,caption` lines, with or without a header.

    Commas inside an unquoted caption belong to it.
    """
    listed = ListedImages()
    without_comma = []
    for number, line in enumerate(_lines(path), 1):
        with _csv_errors(path):
            fields = next(csv.reader([line]), [])
        if number == 1 and fields and fields[0].strip().lower() in IMAGE_COLUMNS:
            continue
        if len(fields) > 1:
            listed.add(fields[0].strip(), [",".join(fields[1:])])
        elif line.strip():
            without_comma.append(f"line {number}")
    if without_comma:
        log.warning("%s: not 'image,caption', and left out: %s", path, first_few(without_comma))
    return listed


def _read_csv(path: Path) -> ListedImages:
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


def _read_jsonl(path: Path) -> ListedImages:
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


def _read_parquet(path: Path) -> ListedImages:
    import pyarrow
    import pyarrow.parquet

    try:
        columns = pyarrow.parquet.read_schema(path).names
        image_column = _image_column(columns, path)
        wanted = [image_column, *_caption_columns(columns, path)]
        wanted += [SPLIT_COLUMN] if SPLIT_COLUMN in columns else []
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


def _by_image(rows: list[dict[str, Any]], path: Path, head: Sequence[str] = ()) -> ListedImages:
    """The captions of each image named in the rows of a metadata file with the columns `head`."""
    columns = [column for column in head if column]
    for row in rows:
        columns += [column for column in row if column and column not in columns]
    listed = ListedImages()
    if not columns:  # an empty file
        return listed
    image_column, wanted = _image_column(columns, path), _caption_columns(columns, path)
    unnamed = 0
    for row in rows:
        if not row.get(image_column):
            unnamed += 1
            continue
        texts = [text for column in wanted for text in cell_texts(row.get(column))]
        listed.add(str(row[image_column]), texts, row.get(SPLIT_COLUMN))
    if unnamed:
        log.warning("%s: %d rows name no image file and are left out.", path, unnamed)
    return listed


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
    others = [name for name in columns if name not in (*IMAGE_COLUMNS, SPLIT_COLUMN)]
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
