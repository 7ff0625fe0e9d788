"""Folders of photos that were moved: their databases are found under the old name, and taken on."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import config
from db_manager import DatabaseManager, database_folder
from support.errors import DatabaseError, SettingError
from support.log import log
from support.paths import absolute_path
from support.records import ResolvedNames, SplitHashes
from support.settings import configured_folder
from support.storage.documents import read_header


def databases_of_folders_that_are_gone() -> Iterator[tuple[Path, str]]:
    """Databases in DB_DIR whose dataset was a folder that is not there, with its path."""
    for captions in sorted(configured_folder(config.DB_DIR).glob(f"*/{config.CAPTION_DB}")):
        label = read_header(captions).get("dataset")
        if isinstance(label, str) and os.path.isabs(label) and not os.path.lexists(label):  # noqa: PTH117
            yield captions.parent, label


def tell_of_moved(names: ResolvedNames, folder: Path, dataset: SplitHashes) -> None:
    """Says so where photos of a dataset without databases are in those of a folder that is gone."""
    if not names.own_dataset or (folder / config.CAPTION_DB).exists():
        return
    for other, label in databases_of_folders_that_are_gone():
        if other != database_folder(label, names.database_suffix):
            continue
        try:
            known = DatabaseManager(other, label).captions
        except DatabaseError:
            continue
        if shared := sum(map(dataset.holds, known)):
            log.warning(
                "%d of these photos are in the databases of %s, a folder that is not there any "
                "more. If it was moved here, go on with its captions and vectors: "
                "python main.py adopt '%s' --dataset '%s'",
                shared,
                label,
                label,
                config.DATASET_NAME,
            )


def adopt(names: ResolvedNames, old: str) -> str:
    """Gives the databases of the folder `old` to the dataset of `names`; says what was done.

    Databases that the dataset has already are replaced, unless they hold generated captions. Raises
    SettingError.
    """
    if not names.own_dataset:
        raise SettingError("adopt is for a folder that was moved: name its new place by --dataset.")
    label = absolute_path(old)
    source = database_folder(label, names.database_suffix)
    target = database_folder(names.label, names.database_suffix)
    if label == names.label:
        raise SettingError(f"'{old}' is the dataset itself; name the folder it was moved from.")
    if not (source / config.CAPTION_DB).exists():
        known = [path for _, path in databases_of_folders_that_are_gone()]
        hint = f" There are some of: {', '.join(known)}." if known else ""
        raise SettingError(f"There are no databases of '{old}' ({source}).{hint}")
    if os.path.lexists(label):
        raise SettingError(f"'{old}' is still there, and its databases belong to it.")
    if (target / config.CAPTION_DB).exists():
        _remove_recomputable(target, names.label)
    source.rename(target)
    count = len(DatabaseManager(target, names.label).captions)
    return f"{names.label} goes on with the databases of {label}: {count:,} images."


def _remove_recomputable(folder: Path, label: str) -> None:
    """Removes databases that hold nothing but what is computed again. Raises SettingError else."""
    manager = DatabaseManager(folder, label)
    with manager.locked():
        written = sum(bool(record["generated"]) for record in manager.captions.values())
        if written:
            raise SettingError(
                f"{folder} holds {written:,} captions that this program wrote for '{label}' at its "
                "new place. Two databases are not merged: keep these, or move that folder away."
            )
        manager.close(compact=False)
        shutil.rmtree(folder)
