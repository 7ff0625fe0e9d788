"""Tables as a data source: parquet and arrow files, and datasets of the Hub."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import config
from support.errors import ImageError, PipelineError, SettingError
from support.hub.errors import errors_explained
from support.sources.columns import caption_columns, cell_texts
from support.sources.files import read_file

TABLE_SUFFIXES = (".parquet", ".arrow")
SPLIT_ORDER = {"train": 0, "validation": 1, "test": 2}


class Split(NamedTuple):
    """One split of a dataset, its images left undecoded."""

    name: str
    images: Any  # datasets.Dataset with the one column "image": bytes, or {"bytes", "path"}
    captions: Any  # datasets.Dataset with the caption columns


class TableSource:
    """Rows of one or more `datasets.Dataset`s."""

    def __init__(self, splits: dict[str, Any], revision: str | None = None):
        self.revision = revision  # Hub commit
        self._splits = [_undecoded(name, table) for name, table in splits.items()]
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
        return cell_texts(list(split.captions[place].values()))

    def read_bytes(self, row: int) -> bytes:
        split, place = self._places[row]
        image = split.images[place]["image"]
        image = {"bytes": image} if isinstance(image, bytes) else image or {}
        if image.get("bytes") is not None:
            return image["bytes"]
        if image.get("path"):
            return read_file(Path(image["path"]))
        raise ImageError(f"{self.label(row)}: the row holds no image")


# --- Opening --------------------------------------------------------------------------------------
def load_hub_dataset(name: str, folder: Path) -> dict[str, Any]:
    """The splits of a Hub dataset from the folder of its files, unpacked at the first use."""
    from datasets import disable_progress_bars, enable_progress_bars, load_dataset

    (enable_progress_bars if config.SHOW_PROGRESS else disable_progress_bars)()
    with errors_explained(name, "dataset"):
        splits = load_dataset(str(folder))
    return _choose_split(dict(splits), name)


def is_table(path: Path) -> bool:
    """Whether `path` is a parquet or arrow file, or a folder that `save_to_disk` wrote."""
    saved = (path / "state.json").exists() or (path / "dataset_dict.json").exists()
    return path.suffix in TABLE_SUFFIXES or saved


def load_local_table(path: Path) -> dict[str, Any]:
    """The splits of a table file, or of a folder that `save_to_disk` wrote."""
    from datasets import Dataset, load_from_disk

    if path.is_file():
        return load_tables([path])
    loaded = load_from_disk(str(path))
    splits = {path.name: loaded} if isinstance(loaded, Dataset) else dict(loaded)
    return _choose_split(splits, str(path))


def load_tables(files: Sequence[Path]) -> dict[str, Any]:
    """Parquet or arrow files, each a split named by its stem."""
    from datasets import Dataset

    folder, suffix = files[0].parent, files[0].suffix
    read = Dataset.from_parquet if suffix == ".parquet" else Dataset.from_file
    try:
        return _choose_split({file.stem: read(str(file)) for file in files}, str(folder))
    except (OSError, ValueError) as error:
        raise PipelineError(f"{folder}: the {suffix} files cannot be read: {error}") from error


def _choose_split(splits: dict[str, Any], name: str) -> dict[str, Any]:
    """The split that config names, or all, in the usual order."""
    wanted = config.DATASET_SPLIT
    if wanted is not None and wanted not in splits:
        raise SettingError(
            f"DATASET_SPLIT is '{wanted}', but '{name}' has: {sorted(splits)}; None joins them all."
        )
    ordered = sorted(splits, key=lambda split: (SPLIT_ORDER.get(split, len(SPLIT_ORDER)), split))
    return {split: splits[split] for split in ordered if wanted in (None, split)}


# --- Columns --------------------------------------------------------------------------------------
def _undecoded(name: str, table: Any) -> Split:
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
    captions = table.select_columns(caption_columns(others, f"the split '{name}'"))
    return Split(name, images, captions)


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
