"""Tables opened: parquet and arrow files, and datasets of the Hub."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import config
from support.errors import PipelineError, SettingError
from support.hub.errors import errors_explained
from support.paths import absolute_path
from support.sources.files import APPLE_DOUBLE, files_below
from support.sources.tables import Tables

TABLE_SUFFIXES = (".parquet", ".arrow")
REPLACE = "Put a whole copy there."
SPLIT_ORDER = {"train": 0, "validation": 1, "test": 2}


# --- Found ----------------------------------------------------------------------------------------
def is_table(path: Path) -> bool:
    """Whether `path` is a parquet or arrow file, or a folder that `save_to_disk` wrote."""
    if os.path.isfile(path):  # noqa: PTH113 - Path.is_file may raise
        return path.suffix.lower() in TABLE_SUFFIXES
    return any(os.path.exists(path / name) for name in ("state.json", "dataset_dict.json"))  # noqa: PTH110


def tables_among(files: Sequence[Path]) -> list[Path]:
    """The parquet files among `files`; without any, the arrow files."""
    for suffix in TABLE_SUFFIXES:
        found = _with_suffix(files, suffix)
        if found:
            return found
    return []


def _with_suffix(files: Iterable[Path], *suffixes: str) -> list[Path]:
    found = [file for file in files if file.suffix.lower() in suffixes]
    return [file for file in found if not file.name.startswith(APPLE_DOUBLE)]


# --- Opened ---------------------------------------------------------------------------------------
def load_hub_dataset(name: str, folder: Path) -> Tables:
    """The splits of a Hub dataset from the folder of its files, unpacked at the first use.

    Raises HubError, or PipelineError naming a damaged file.
    """
    from datasets import load_dataset
    from datasets.config import HF_DATASETS_CACHE

    remedy = "Delete it and run again: it is downloaded anew."
    with _loading(name, _with_suffix(files_below(folder), *TABLE_SUFFIXES), remedy):
        splits = dict(load_dataset(str(folder)))
        _validate(splits)
    # The files of the folder are links to ../../blobs; `datasets` unpacks archives into its own.
    roots = [absolute_path(folder.parent.parent), absolute_path(HF_DATASETS_CACHE)]
    return Tables(_choose_split(splits, name), folder, roots)


def load_local_table(path: Path) -> Tables:
    """The splits of a table file, or of a folder that `save_to_disk` wrote.

    Raises PipelineError, naming the file, for a damaged one.
    """
    from datasets import Dataset, load_from_disk

    if path.is_file():
        return load_table_files([path], path.parent)
    with _loading(str(path), _with_suffix(files_below(path), ".arrow", ".json")):
        loaded = load_from_disk(str(path))
        splits = {path.name: loaded} if isinstance(loaded, Dataset) else dict(loaded)
        _validate(splits)
    return Tables(_choose_split(splits, str(path)), path, [absolute_path(path)])


def load_table_files(files: Sequence[Path], folder: Path) -> Tables:
    """Parquet or arrow files in `folder`, each a split named by its stem.

    Raises PipelineError, naming the file, for a damaged one.
    """
    from datasets import Dataset

    stems = Counter(file.stem for file in files)
    splits = {}
    for file in files:
        name = file.stem
        if stems[name] > 1:  # in several subfolders
            name = file.relative_to(folder).with_suffix("").as_posix()
        read = Dataset.from_parquet if file.suffix.lower() == ".parquet" else Dataset.from_file
        with _loading(str(file), [file]):
            splits[name] = read(str(file))
            _validate({name: splits[name]})
    return Tables(_choose_split(splits, str(folder)), folder, [absolute_path(folder)])


def _choose_split(splits: dict[str, Any], name: str) -> dict[str, Any]:
    """The split that config names, or all, in the usual order."""
    wanted = config.DATASET_SPLIT
    if wanted is not None and wanted not in splits:
        raise SettingError(
            f"DATASET_SPLIT is '{wanted}', but '{name}' has: {sorted(splits)}; None joins them all."
        )
    ordered = sorted(splits, key=lambda split: (SPLIT_ORDER.get(split, len(SPLIT_ORDER)), split))
    return {split: splits[split] for split in ordered if wanted in (None, split)}


# --- Damage ---------------------------------------------------------------------------------------
@contextmanager
def _loading(name: str, files: Sequence[Path], remedy: str = REPLACE) -> Iterator[None]:
    """Loads a dataset quietly; of an error, names which of `files` is damaged, and the `remedy`."""
    for file in files:
        if file.exists() and not file.is_file():  # reading a pipe might never end
            raise _damaged(absolute_path(file), "not a file", remedy)
    with errors_explained(name, "dataset"), _quiet():
        try:
            yield
        except PipelineError:
            raise
        except Exception as error:  # `datasets` and Arrow have many kinds
            for file in files:
                reason = _damage(file)
                if reason:
                    raise _damaged(absolute_path(file), reason, remedy) from error
            raise


def _damaged(file: str, reason: str, remedy: str) -> PipelineError:
    return PipelineError(f"{file} is damaged or cannot be read: {reason}. {remedy}")


def _damage(file: Path) -> str:
    """Why a table or a JSON file cannot be read; "" if it can."""
    import pyarrow.parquet
    from datasets import Dataset

    try:
        if file.suffix.lower() == ".parquet":
            with pyarrow.parquet.ParquetFile(file) as parquet:
                if not parquet.metadata.num_rows or not parquet.metadata.num_columns:
                    return "it has no rows or no columns"
                for batch in parquet.iter_batches():
                    batch.validate(full=True)
        elif file.suffix.lower() == ".arrow":
            Dataset.from_file(str(file)).data.validate(full=True)
        else:
            json.loads(file.read_bytes())
    except Exception as error:  # noqa: BLE001 - it is the answer
        return (str(error).splitlines() or [""])[0].rstrip(".") or type(error).__name__
    return ""


def _validate(splits: dict[str, Any]) -> None:
    """Raises PipelineError for a table whose rows point outside it: reading one ends the process.

    Looks at texts and at where images begin, not into the images.
    """
    from datasets.config import HF_DATASETS_CACHE

    for table in splits.values():
        try:
            table.data.validate(full=True)
        except Exception as error:
            files = [entry["filename"] for entry in table.cache_files]
            file = absolute_path(files[0]) if files else "A table"
            remedy = REPLACE
            if file.startswith(absolute_path(HF_DATASETS_CACHE)):
                remedy = f"Delete {Path(file).parent} and run again: it is unpacked anew."
            raise _damaged(file, str(error), remedy) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the messages of `datasets`, and without its progress bars where config says so."""
    from datasets import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from datasets.utils import logging

    verbosity = logging.get_verbosity()
    hide_bars = not (config.SHOW_PROGRESS or are_progress_bars_disabled())
    logging.set_verbosity(logging.CRITICAL)  # errors are raised too
    if hide_bars:
        disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if hide_bars:
            enable_progress_bars()
