"""Which columns hold images and captions, and what a cell of captions holds."""

from collections.abc import Sequence
from typing import Any

import config
from support.errors import SettingError
from support.log import log
from support.text import clean_text

CAPTION_COLUMNS = ("text", "sentence", "sentences", "raw")  # after those that begin with "caption"
IMAGE_COLUMNS = ("file_name", "image", "filename", "image_name", "path")


SPLIT_COLUMN = "split"
# What `datasets` takes for the names of splits, and what they are called here.
SPLIT_NAMES = {
    "train": "train", "training": "train", "test": "test", "testing": "test", "eval": "test",
    "evaluation": "test", "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "validation",
}  # fmt: skip


def split_name(name: str) -> str:
    """What a split is called here, however a dataset calls it."""
    return SPLIT_NAMES.get(name.strip().lower(), name.strip())


def caption_columns(columns: Sequence[str], where: str) -> list[str]:
    """The columns that hold captions: config.CAPTION_COLUMN, or those recognised by name.

    None of the latter is a warning: the images are without captions. Raises SettingError for a
    CAPTION_COLUMN that is not there.
    """
    if config.CAPTION_COLUMN is not None:
        if config.CAPTION_COLUMN not in columns:
            raise SettingError(
                f"CAPTION_COLUMN is '{config.CAPTION_COLUMN}', but {where} has: {list(columns)}."
            )
        return [config.CAPTION_COLUMN]
    named = [column for column in columns if column.lower().startswith("caption")]
    named = named or [column for column in columns if column.lower() in CAPTION_COLUMNS][:1]
    if not named:
        log.warning(
            "%s has no caption column that is recognised, so its images have no captions; it has: "
            "%s. If one of them holds captions, set CAPTION_COLUMN.",
            where,
            list(columns),
        )
    return named


def cell_texts(value: Any) -> list[str]:
    """The strings in a cell: one caption, a list of them, or records with a `raw` field."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return cell_texts(value.get("raw"))
    texts: list[str] = []
    for item in value if isinstance(value, list) else []:
        texts += cell_texts(item)
    return texts


def clean_captions(captions: Sequence[str]) -> tuple[str, ...]:
    """Captions without surrounding white space, empty ones and repetitions.

    Lone surrogates become U+FFFD.
    """
    texts = (clean_text(caption).strip() for caption in captions)
    return tuple(dict.fromkeys(text for text in texts if text))
