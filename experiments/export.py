"""Generated captions for other programs: a text beside each photo, or one list of all."""

import csv
import io
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from db_manager import DatabaseManager
from support.errors import SettingError
from support.paths import absolute_path, expand_home
from support.records import ResolvedNames
from support.sources.files import is_inside
from support.sources.lists import LIST_NAMES
from support.storage.files import replace_file
from support.storage.strict_json import to_json
from support.text import first_few

LISTS = {"jsonl": "metadata.jsonl", "captions": "captions.txt"}  # form -> file
FORMS = ("txt", *LISTS)
Captions = Mapping[Path, str]  # of an image file


def export(
    db_manager: DatabaseManager,
    names: ResolvedNames,
    form: str,
    folder: str | None,
    overwrite: bool,
) -> list[str]:
    """Writes what was generated in one of FORMS; lines that say what was done.

    "txt" writes photo.txt beside each photo, or below `folder`; the others one list in `folder`, by
    default that of the photos. What is there and says something else is left, unless `overwrite`.
    Raises SettingError where there is nothing to write, or a list would be overwritten.
    """
    made = {
        r["image"]: r["generated"]["caption"]
        for r in db_manager.captions.values()
        if r["generated"]
    }
    captions = {
        Path(image): " ".join(caption.split())
        for image, caption in sorted(made.items())
        if os.path.isabs(image) and os.path.lexists(image)  # noqa: PTH117
    }
    if not captions:
        raise SettingError(
            f"There is nothing to export: {len(made)} captions by this program, none of an image "
            "that is a file."
        )
    lines = []
    if len(captions) < len(made):
        lines.append(f"Left out: {len(made) - len(captions)} captions of images without a file.")
    root = _common_folder(captions)
    inside = {image for image in captions if is_inside(str(image), absolute_path(names.dataset))}
    if folder is None and inside and not names.own_dataset:
        raise SettingError(
            "These images are not your own: name a folder, main.py export FORM FOLDER."
        )
    if form == "txt":
        return lines + _write_texts(captions, root, folder, overwrite)
    if folder is None and inside and len(inside) < len(captions):
        lines.append(f"Left out: {len(captions) - len(inside)} images outside {names.label}.")
        captions, root = {image: captions[image] for image in sorted(inside)}, Path(names.label)
    return lines + _write_list(form, captions, root, folder, overwrite)


def _common_folder(captions: Captions) -> Path:
    return Path(os.path.commonpath([image.parent for image in captions]))


# --- A text for each photo ------------------------------------------------------------------------
def _write_texts(captions: Captions, root: Path, folder: str | None, overwrite: bool) -> list[str]:
    written, kept = 0, []
    for image, target in _targets(captions, root, folder).items():
        text = captions[image] + "\n"
        if target.exists() and not overwrite:
            if not _says(target, text):
                kept.append(str(target))
        else:
            replace_file(target, [text], "the export's FOLDER")
            written += 1
    lines = [f"Written: {written} files."]
    if kept:
        lines.append(
            f"Left as they are: {len(kept)} files that say something else: {first_few(kept)}. "
            "--overwrite replaces them."
        )
    return lines


def _targets(captions: Captions, root: Path, folder: str | None) -> dict[Path, Path]:
    """The file for each image: photo.txt, or photo.jpg.txt where another photo would have it too.

    Never one that would be taken for the folder's list of captions.
    """
    base = None if folder is None else Path(absolute_path(folder))
    places = {}
    for image in captions:
        places[image] = image if base is None else base / image.relative_to(root)
    taken = Counter(place.with_suffix(".txt") for place in places.values())
    targets = {}
    for image, place in places.items():
        short = place.with_suffix(".txt")
        clear = taken[short] == 1 and short.name not in LIST_NAMES
        targets[image] = short if clear else place.with_name(place.name + ".txt")
    return targets


def _says(path: Path, text: str) -> bool:
    try:
        return path.read_text("utf-8") == text
    except (OSError, ValueError):
        return False


# --- A list ---------------------------------------------------------------------------------------
def _write_list(
    form: str, captions: Captions, root: Path, folder: str | None, overwrite: bool
) -> list[str]:
    place = root if folder is None else Path(absolute_path(expand_home(folder)))
    path = place / LISTS[form]
    if all(is_inside(str(image), str(place)) for image in captions):
        root = place
    rows = [(image.relative_to(root).as_posix(), caption) for image, caption in captions.items()]
    text = _as_jsonl(rows) if form == "jsonl" else _as_captions(rows)
    if path.exists() and not overwrite and not _says(path, text):
        raise SettingError(
            f"{path} is there already, and says something else. Name another folder, or add "
            "--overwrite."
        )
    replace_file(path, [text], "the export's FOLDER")
    lines = [f"Written: {path}, {len(rows)} captions; file names count from {root}."]
    if root == place:
        lines.append(
            "A search or run with that folder as --dataset takes them for people's captions."
        )
    return lines


def _as_jsonl(rows: Iterable[tuple[str, str]]) -> str:
    """The imagefolder convention: https://huggingface.co/docs/datasets/image_load."""
    return "".join(to_json({"file_name": name, "text": caption}) + "\n" for name, caption in rows)


def _as_captions(rows: Iterable[tuple[str, str]]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("image", "caption"))
    writer.writerows(rows)
    return file.getvalue()
