"""The commands that read or mend databases: status, forget, export, adopt. None needs a model."""

from argparse import Namespace
from pathlib import Path

import config
from dataset_loader import load_and_split_dataset
from db_manager import DatabaseManager, database_folder
from experiments.export import export
from experiments.forget import forget
from experiments.moved import adopt, has_databases
from experiments.status import status_lines
from support.errors import SettingError
from support.records import ResolvedNames
from support.sources.known import KNOWN_HASHES, KnownHashes


def keep_house(names: ResolvedNames, arguments: Namespace) -> list[str]:
    """Does what the command line asks for; lines that say what was done, or found."""
    if hasattr(arguments, "DATASET_NAME") and names.dataset != config.DATASET_NAME:
        raise SettingError(
            f"'{config.DATASET_NAME}' is no folder here and no dataset in the local cache, and "
            f"'{arguments.command}' does not turn to the demo instead. Check --dataset; for the "
            "demo, leave it out and give --mode demo."
        )
    if arguments.command == "adopt":
        return [adopt(names, arguments.old_folder)]
    folder = database_folder(names.label, names.database_suffix)
    _refuse_missing(folder, names.label)
    with DatabaseManager(folder, names.label, hasattr(arguments, "rebuild")) as db_manager:
        if names.own_dataset:
            _look_at_folder(names, db_manager)
        if arguments.command == "forget":
            return forget(db_manager, arguments.images)
        if arguments.command == "export":
            return export(db_manager, names, arguments.form, arguments.folder, arguments.overwrite)
        return list(status_lines(db_manager, names.label))


def _look_at_folder(names: ResolvedNames, db_manager: DatabaseManager) -> None:
    """Brings the databases up to date with a folder whose photos were added, moved or renamed."""
    known = KnownHashes(db_manager.folder / KNOWN_HASHES)
    dataset = load_and_split_dataset(names, known, split=False)
    known.save()
    db_manager.sync_gallery(dataset.get_training_data())


def _refuse_missing(folder: Path, label: str) -> None:
    if not has_databases(folder):
        raise SettingError(
            f"There are no databases of '{label}' yet ({folder}): a search or a run makes them. "
            "For another dataset, name it by --dataset, and the demo by --mode demo."
        )
