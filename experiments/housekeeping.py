"""The commands that read or mend databases: status, forget, export, adopt. None needs a model."""

from argparse import Namespace
from pathlib import Path

import config
from db_manager import DatabaseManager, database_folder
from experiments.export import export
from experiments.forget import forget
from experiments.moved import adopt
from experiments.status import status_lines
from support.errors import SettingError
from support.records import ResolvedNames
from support.storage.journal import JOURNAL_NAME


def keep_house(names: ResolvedNames, arguments: Namespace) -> list[str]:
    """Does what the command line asks for; lines that say what was done, or found."""
    if arguments.command == "adopt":
        return [adopt(names, arguments.old_folder)]
    folder = database_folder(names.label, names.database_suffix)
    _refuse_missing(folder, names.label)
    with DatabaseManager(folder, names.label, hasattr(arguments, "rebuild")) as db_manager:
        if arguments.command == "forget":
            return forget(db_manager, arguments.images)
        if arguments.command == "export":
            return export(db_manager, names, arguments.form, arguments.folder, arguments.overwrite)
        return list(status_lines(db_manager, names.label))


def _refuse_missing(folder: Path, label: str) -> None:
    if not any((folder / name).exists() for name in (config.CAPTION_DB, JOURNAL_NAME)):
        raise SettingError(
            f"There are no databases of '{label}' yet ({folder}): a search or a run makes them. "
            "For another dataset, name it by --dataset, and the demo by --mode demo."
        )
