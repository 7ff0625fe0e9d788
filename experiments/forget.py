"""Takes bad captions and own photos out of the databases and out of what gives context."""

from collections.abc import Iterable
from contextlib import suppress

from db_manager import DatabaseManager
from experiments.pools import check_pools, drop_from_pools
from support.candidates import is_of_dataset
from support.errors import ImageError, SettingError
from support.paths import absolute_path, expand_home
from support.sources.own import own_sample

MOST_DIGITS = 20  # of a number that can be one of the databases'


def forget(db_manager: DatabaseManager, wanted: Iterable[str]) -> list[str]:
    """Takes the generated captions of images out for good; lines that say what was done.

    Each of `wanted` is a path, or the databases' number. Images that do not belong to the dataset
    go as a whole. Raises SettingError for one that is not known, before anything is changed.
    """
    keys = list(dict.fromkeys(_find(db_manager, name) for name in wanted))
    records = {key: db_manager.captions[key] for key in keys}
    check_pools(db_manager)  # refused as a whole where a file cannot be read
    db_manager.forget(keys)
    begun = drop_from_pools(db_manager, keys)
    lines = []
    for key, record in records.items():
        stays = key in db_manager.captions
        what = "the caption of" if stays else "all of"
        lines.append(f"Forgotten: {what} #{record['index']}, {record['image']}")
    lines.append("A run over many images that has them among its images captions them again.")
    if begun:
        lines.append(f"{begun} runs over many images that showed them as context begin anew.")
    return lines


def _find(db_manager: DatabaseManager, name: str) -> str:
    """The content hash of an image in the databases that has something to be forgotten."""
    key = _by_path(db_manager, name) or _by_number(db_manager, name)
    if key is None:
        raise SettingError(
            f"'{name}' is not in the databases ({db_manager.folder}). Give the path of an image, "
            "or its number as a search prints it after '#'."
        )
    record = db_manager.captions[key]
    if not record["generated"] and is_of_dataset(record):
        raise SettingError(
            f"'{name}' has no caption by this program. Captions by people are in the dataset's own "
            "files."
        )
    return key


def _by_path(db_manager: DatabaseManager, name: str) -> str | None:
    """By the content of a file that is there; else by the path, of one that has gone or changed."""
    with suppress(ImageError):
        key = own_sample(name).content_hash
        if key in db_manager.captions:
            return key
    try:
        paths = {name, str(expand_home(name).absolute()), absolute_path(name)}
    except ValueError:  # a null character
        return None
    known = db_manager.captions.items()
    return next((key for key, record in known if record["image"] in paths), None)


def _by_number(db_manager: DatabaseManager, name: str) -> str | None:
    number = name.removeprefix("#")
    if not number.isascii() or not number.isdigit():
        return None
    return db_manager.caption_table.key_of(int(number)) if len(number) < MOST_DIGITS else None
