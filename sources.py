"""Where images and captions come from: a folder with a list of captions, or parquet, arrow and Hub tables."""

import csv
import io
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import config
import hub
from hub_errors import errors_explained
from image_files import read_file
from records import ImageError, PipelineError, SettingError, clean_text, first_few

log = logging.getLogger("captioning")

TABLE_SUFFIXES = {".parquet": "parquet", ".arrow": "arrow"}
CAPTION_COLUMNS = ("text", "sentence", "sentences", "raw")  # after those that begin with "caption"
IMAGE_COLUMNS = ("file_name", "image", "filename", "image_name", "path")
SPLIT_ORDER = {"train": 0, "validation": 1, "test": 2}


def open_source(name: str) -> "FolderSource | TableSource":
    """Rows of a Hub dataset, of a local folder of images, or of parquet and arrow files."""
    if not hub.is_local(name):
        folder = hub.fetch(name, "dataset", config.DATASET_REVISION)
        return TableSource(_load_hub_dataset(name, folder), revision=folder.name)
    path = Path(name).expanduser()
    if not path.exists():
        raise SettingError(f"DATASET_NAME is '{name}', but there is no such file or folder. Check the spelling.")
    if path.suffix in TABLE_SUFFIXES or (path / "state.json").exists() or (path / "dataset_dict.json").exists():
        return TableSource(_load_local_table(path))
    for list_name, read in (
        ("captions.txt", _read_lines),
        ("metadata.csv", _read_csv),
        ("metadata.jsonl", _read_jsonl),
    ):
        if (path / list_name).is_file():
            return FolderSource(path, read(path / list_name))
    for suffix in TABLE_SUFFIXES:
        files = sorted(path.rglob(f"*{suffix}"))
        if files:
            return TableSource(_load_tables(files))
    raise SettingError(
        f"The folder '{path}' holds no captions. It needs captions.txt (lines 'image,caption'), metadata.csv or "
        "metadata.jsonl (with a file_name column) beside its images, or .parquet or .arrow files. "
        f"To caption photos without captions: python main.py --image '{path}'"
    )


class FolderSource:
    """Image files of a folder, in the order in which its list of captions first names them."""

    revision = None

    def __init__(self, folder: Path, captions: dict[str, list[str]]):
        self._folder = folder
        self._names = list(captions)
        self._captions = list(captions.values())

    def __len__(self) -> int:
        return len(self._names)

    def label(self, row: int) -> str:
        return clean_text(str(self._folder / self._names[row]))

    def captions(self, row: int) -> list[str]:
        return self._captions[row]

    def read_bytes(self, row: int) -> bytes:
        return read_file(self._folder / self._names[row])


class TableSource:
    """Rows of one or more `datasets.Dataset`s, their images left undecoded."""

    def __init__(self, splits: dict[str, Any], revision: str | None = None):
        self.revision = revision  # Hub commit
        self._splits = [_undecoded(name, table) for name, table in splits.items()]
        self._places = [
            (split, row) for split in range(len(self._splits)) for row in range(len(self._splits[split][1]))
        ]

    def __len__(self) -> int:
        return len(self._places)

    def label(self, row: int) -> str:
        split, place = self._places[row]
        return f"{self._splits[split][0]}[{place}]"

    def captions(self, row: int) -> list[str]:
        split, place = self._places[row]
        captions = self._splits[split][2]
        return [text for value in captions[place].values() for text in _texts(value)]

    def read_bytes(self, row: int) -> bytes:
        split, place = self._places[row]
        image = self._splits[split][1][place]["image"]
        image = {"bytes": image} if isinstance(image, bytes) else image or {}
        if image.get("bytes") is not None:
            return image["bytes"]
        if image.get("path"):
            return read_file(Path(image["path"]))
        raise ImageError(f"{self.label(row)}: the row holds no image")


# --- Lists of captions beside images ---------------------------------------------------------------------------
def _read_lines(path: Path) -> dict[str, list[str]]:
    """`image,caption` lines, with or without a header; commas inside an unquoted caption belong to it."""
    captions: dict[str, list[str]] = {}
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


def _read_csv(path: Path) -> dict[str, list[str]]:
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


def _read_jsonl(path: Path) -> dict[str, list[str]]:
    rows = []
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise SettingError(f"{path}, line {number} is not JSON: {error}.") from error
        if not isinstance(row, dict):
            raise SettingError(f"{path}, line {number} is not a JSON object like {{'file_name': …, 'text': …}}.")
        rows.append(row)
    return _by_image(rows, path)


def _by_image(rows: list[dict[str, Any]], path: Path) -> dict[str, list[str]]:
    """The captions of each image named in the rows of a metadata file."""
    columns = list(dict.fromkeys(column for row in rows for column in row if column))
    image_column = config.IMAGE_COLUMN or next((name for name in IMAGE_COLUMNS if name in columns), None)
    if image_column not in columns:
        raise SettingError(f"{path} has no column of image files (file_name); it has: {columns}. Set IMAGE_COLUMN.")
    wanted = caption_columns(columns, str(path))
    captions: dict[str, list[str]] = {}
    for row in rows:
        if row.get(image_column):
            texts = captions.setdefault(str(row[image_column]), [])
            texts.extend(text for column in wanted for text in _texts(row.get(column)))
    return captions


def _lines(path: Path) -> list[str]:
    """The lines of a text; unlike str.splitlines, only line breaks part them, not what may stand inside a caption."""
    return [line.rstrip("\n") for line in io.StringIO(_read_text(path), newline=None)]


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SettingError(f"{path} is not UTF-8 text (byte {error.start}). Save it as UTF-8.") from error
    except OSError as error:
        raise PipelineError(f"{path} cannot be read: {error.strerror}.") from error


def caption_columns(columns: Sequence[str], where: str) -> list[str]:
    """The columns that hold captions: config.CAPTION_COLUMN, or those recognised by name."""
    if config.CAPTION_COLUMN is not None:
        if config.CAPTION_COLUMN not in columns:
            raise SettingError(f"CAPTION_COLUMN is '{config.CAPTION_COLUMN}', but {where} has: {list(columns)}.")
        return [config.CAPTION_COLUMN]
    named = [column for column in columns if column.lower().startswith("caption")]
    named = named or [column for column in columns if column.lower() in CAPTION_COLUMNS][:1]
    if not named:
        raise SettingError(
            f"{where} has no caption column that is recognised; it has: {list(columns)}. Set CAPTION_COLUMN."
        )
    return named


def _texts(value: Any) -> list[str]:
    """The strings in a cell: one caption, a list of them, or records with a `raw` field. Anything else has none."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return _texts(value.get("raw"))
    return [text for item in value for text in _texts(item)] if isinstance(value, list) else []


# --- Tables: the Hub, parquet, arrow ---------------------------------------------------------------------------
def _load_hub_dataset(name: str, folder: Path) -> dict[str, Any]:
    """The splits of a Hub dataset from the folder of its files, unpacked at the first use."""
    from datasets import disable_progress_bars, enable_progress_bars, load_dataset

    (enable_progress_bars if config.SHOW_PROGRESS else disable_progress_bars)()
    with errors_explained(name, "dataset"):
        splits = load_dataset(str(folder))
    return _choose_split(dict(splits), name)


def _load_local_table(path: Path) -> dict[str, Any]:
    from datasets import Dataset, load_from_disk

    if path.is_file():
        return _load_tables([path])
    loaded = load_from_disk(str(path))
    splits = {path.name: loaded} if isinstance(loaded, Dataset) else dict(loaded)
    return _choose_split(splits, str(path))


def _load_tables(files: list[Path]) -> dict[str, Any]:
    """Parquet or arrow files, each a split named by its stem."""
    from datasets import Dataset

    read = Dataset.from_parquet if files[0].suffix == ".parquet" else Dataset.from_file
    try:
        return _choose_split({file.stem: read(str(file)) for file in files}, str(files[0].parent))
    except (OSError, ValueError) as error:
        raise PipelineError(f"{files[0].parent}: the {files[0].suffix} files cannot be read: {error}") from error


def _choose_split(splits: dict[str, Any], name: str) -> dict[str, Any]:
    """The split that config names, or all, in the usual order."""
    wanted = config.DATASET_SPLIT
    if wanted is not None and wanted not in splits:
        raise SettingError(f"DATASET_SPLIT is '{wanted}', but '{name}' has: {sorted(splits)}; None joins them all.")
    ordered = sorted(splits, key=lambda split: (SPLIT_ORDER.get(split, len(SPLIT_ORDER)), split))
    return {split: splits[split] for split in ordered if wanted in (None, split)}


def _undecoded(name: str, table: Any) -> tuple[str, Any, Any]:
    """A split as its name, its images as bytes or paths under the column "image", and its caption columns."""
    from datasets import Image as ImageFeature

    column = config.IMAGE_COLUMN or _image_column(table, name)
    if column not in table.column_names:
        raise SettingError(f"IMAGE_COLUMN is '{column}', but {name} has: {table.column_names}.")
    images = table.select_columns([column])
    if isinstance(table.features[column], ImageFeature):
        images = images.cast_column(column, ImageFeature(decode=False))
    wanted = caption_columns([other for other in table.column_names if other != column], f"the split '{name}'")
    captions = table.select_columns(wanted)
    return name, images if column == "image" else images.rename_column(column, "image"), captions


def _image_column(table: Any, name: str) -> str:
    """The one image column: an image feature, or, in files that other programs wrote, bytes or a struct of bytes."""
    from datasets import Image as ImageFeature

    features = table.features.items()
    found = [column for column, feature in features if isinstance(feature, ImageFeature)]
    found = found or [column for column, feature in features if _holds_bytes(feature)]
    if len(found) != 1:
        raise SettingError(
            f"{name} has {len(found)} image columns among {table.column_names}; one is needed. Set IMAGE_COLUMN."
        )
    return found[0]


def _holds_bytes(feature: Any) -> bool:
    fields = feature.get("bytes") if isinstance(feature, dict) else feature
    return getattr(fields, "dtype", None) in ("binary", "large_binary")
