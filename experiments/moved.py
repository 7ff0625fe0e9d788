"""Folders of photos that were moved: their databases are found under the old name, and taken on."""

import os
import shlex
import shutil
import uuid
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
from support.storage.errors import unwritable
from support.storage.journal import JOURNAL_NAME


def databases_of_folders_that_are_gone() -> Iterator[tuple[Path, str]]:
    """Databases in DB_DIR whose dataset was a folder that is not there, with its path."""
    for captions in sorted(configured_folder(config.DB_DIR).glob(f"*/{config.CAPTION_DB}")):
        label = read_header(captions).get("dataset")
        if isinstance(label, str) and os.path.isabs(label) and not os.path.lexists(label):  # noqa: PTH117
            yield captions.parent, label


def tell_of_moved(names: ResolvedNames, db_manager: DatabaseManager, dataset: SplitHashes) -> None:
    """Says so where photos of a dataset are in the databases of a folder that is gone.

    As long as the dataset's own hold no generated captions, for then they can be replaced.
    """
    gone = list(databases_of_folders_that_are_gone()) if names.own_dataset else []
    if not gone or any(record["generated"] for record in db_manager.captions.values()):
        return
    for other, label in gone:
        if other == db_manager.folder or other != database_folder(label, names.database_suffix):
            continue
        try:
            known = DatabaseManager(other, label).captions
        except DatabaseError:
            continue
        if shared := sum(map(dataset.holds, known)):
            command = ["python", "main.py", "adopt", label, "--dataset", config.DATASET_NAME]
            command += [] if config.MODE == "auto" else ["--mode", config.MODE]
            command += [] if config.DB_DIR == "databases" else ["--db-dir", config.DB_DIR]
            log.warning(
                "%d of these photos are in the databases of %s, a folder that is not there any "
                "more. If it was moved here, go on with its captions and vectors: %s",
                shared,
                label,
                shlex.join(command),
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
    if not has_databases(source):
        known = [path for _, path in databases_of_folders_that_are_gone()]
        hint = f" There are some of: {', '.join(known)}." if known else ""
        raise SettingError(f"There are no databases of '{old}' ({source}).{hint}")
    if os.path.lexists(label):
        raise SettingError(f"'{old}' is still there, and its databases belong to it.")
    with unwritable(target):
        _put_in_place(source, target, names.label)
    with DatabaseManager(target, names.label) as manager:
        manager.forget(())  # writes the documents, with the new name in their header
        count = len(manager.captions)
    return f"{names.label} goes on with the databases of {label}: {count:,} images."


def has_databases(folder: Path) -> bool:
    """Whether a folder holds databases; after a program was stopped, perhaps a journal alone."""
    return any((folder / name).exists() for name in (config.CAPTION_DB, JOURNAL_NAME))


def _put_in_place(source: Path, target: Path, label: str) -> None:
    """Renames the databases in `source`; what was in their place is removed when that is done."""
    if not os.path.lexists(target):
        source.rename(target)
        return
    if has_databases(target):
        _refuse_to_lose(DatabaseManager(target, label))
    aside = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    target.rename(aside)
    source.rename(target)
    shutil.rmtree(aside)


def _refuse_to_lose(manager: DatabaseManager) -> None:
    """Raises SettingError for databases that hold more than what is computed again."""
    written = sum(bool(record["generated"]) for record in manager.captions.values())
    manager.close(compact=False)
    if written:
        raise SettingError(
            f"{manager.folder} holds {written:,} captions that this program wrote at the new "
            "place. Two databases are not merged: keep these, or move that folder away."
        )
