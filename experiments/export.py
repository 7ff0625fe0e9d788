"""Generated captions for other programs: a text beside each photo, or one list of all."""

import csv
import io
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from tqdm import tqdm

import config
from db_manager import DatabaseManager
from support.errors import SettingError
from support.paths import absolute_path, is_file_path
from support.records import ResolvedNames
from support.sources.files import is_inside
from support.sources.known import KNOWN_HASHES, KnownHashes
from support.sources.lists import LIST_NAMES
from support.sources.own import is_at
from support.storage.errors import open_regular
from support.storage.files import replace_file
from support.storage.strict_json import to_json
from support.text import first_few

LISTS = {"jsonl": "metadata.jsonl", "captions": "captions.txt"}  # form -> file
MOST_NAME_BYTES = 250  # of a file; file systems hold 255
SETTING = "the export's FOLDER"
Captions = Mapping[Path, str]  # of an image file


def export(
    db_manager: DatabaseManager,
    names: ResolvedNames,
    form: str,
    folder: str | None,
    overwrite: bool,
) -> list[str]:
    """Writes what was generated as "txt", "jsonl" or "captions"; lines that say what was done.

    "txt" writes photo.txt beside each photo, or below `folder`; the others one list in `folder`, by
    default that of the photos. What is there and says something else is left, unless `overwrite`.
    Raises SettingError where there is nothing to write, where a list would be overwritten, or where
    it is not clear where to write.
    """
    if folder is not None and not folder.strip():
        raise SettingError("The folder to export to is ''. Name one, or leave it out.")
    captions, lines = _captions_of_files(db_manager)
    base = None if folder is None else Path(absolute_path(folder))
    chosen, root = _choose(captions, names, form, base)
    if len(chosen) < len(captions):
        where = "outside" if names.own_dataset else "of"
        lines.append(f"Left out: {len(captions) - len(chosen)} images {where} {names.label}.")
    if form == "txt":
        return lines + _write_texts(chosen, root, base, overwrite)
    return lines + _write_list(form, chosen, root, base or root, overwrite)


def _choose(
    captions: Captions, names: ResolvedNames, form: str, base: Path | None
) -> tuple[Captions, Path]:
    """Those of the captions that are written, and the folder from which their names count.

    That is the user's dataset, if they lie in it, or else their common folder. Beside an image that
    belongs to somebody else's dataset nothing is written.
    """
    place = absolute_path(names.dataset)
    inside = {image: text for image, text in captions.items() if is_inside(str(image), place)}
    if inside and names.own_dataset and not (form == "txt" and base is None):
        return inside, Path(place)
    if base is None and not names.own_dataset:
        captions = {image: text for image, text in captions.items() if image not in inside}
    if not captions:
        raise SettingError(
            f"These images are not your own: name a folder, main.py export {form} FOLDER."
        )
    root = _common_folder(captions)
    if form != "txt" and base is None and not any(image.parent == root for image in captions):
        raise SettingError(
            f"These images lie in several folders: name one to write to, main.py export {form} "
            "FOLDER."
        )
    return captions, root


def _captions_of_files(db_manager: DatabaseManager) -> tuple[Captions, list[str]]:
    """The captions of image files that are as they were when they were captioned.

    And a line for those that are not. Raises SettingError if none is left.
    """
    made = {k: r for k, r in db_manager.captions.items() if r["generated"]}
    known = KnownHashes(db_manager.folder / KNOWN_HASHES)
    captions, gone, unnamed = {}, 0, 0
    hidden = not config.SHOW_PROGRESS
    for key, record in tqdm(made.items(), "Reading images", unit="image", delay=2, disable=hidden):
        path = record["image"]
        if not is_file_path(path):
            unnamed += 1
        elif known.holds(path, key) or is_at(key, path):
            captions[Path(path)] = " ".join(record["generated"]["caption"].split())
        else:
            gone += 1
    lines = []
    if unnamed:
        lines.append(
            f"Left out: {unnamed} captions of images without a file, or a name in Unicode."
        )
    if gone:
        lines.append(f"Left out: {gone} captions of files that have gone or were changed since.")
    if not captions:
        raise SettingError(" ".join(["There is nothing to export.", *lines]))
    return dict(sorted(captions.items())), lines


def _common_folder(captions: Captions) -> Path:
    return Path(os.path.commonpath([image.parent for image in captions]))


# --- A text for each photo ------------------------------------------------------------------------
def _write_texts(captions: Captions, root: Path, base: Path | None, overwrite: bool) -> list[str]:
    written, kept, impossible = 0, [], []
    for image, target in _targets(captions, root, base).items():
        text = captions[image] + "\n"
        outside = base is not None and not is_inside(absolute_path(target.parent), str(base))
        if outside or len(target.name.encode()) > MOST_NAME_BYTES:
            impossible.append(str(target))
        elif os.path.lexists(target) and (target.is_symlink() or not overwrite):
            if not _says(target, text):
                kept.append(str(target))
        else:
            replace_file(target, [text], SETTING)
            written += 1
    lines = [f"Written: {written} files."]
    if kept:
        lines.append(
            f"Left as they are: {len(kept)} files that say something else: {first_few(kept)}. "
            "--overwrite replaces them, unless they are links."
        )
    if impossible:
        lines.append(f"Cannot be written, by their names: {first_few(impossible)}.")
    return lines


def _targets(captions: Captions, root: Path, base: Path | None) -> dict[Path, Path]:
    """The file for each image: photo.txt, or photo.jpg.txt where that is not free.

    Never one that another photo has too, that is a photo itself, or that would be taken for the
    folder's list of captions.
    """
    places = {
        image: image if base is None else base / image.relative_to(root) for image in captions
    }
    wanted = Counter(place.with_suffix(".txt") for place in places.values())
    targets: dict[Path, Path] = {}
    taken = {*captions, *places.values()}
    for image, place in places.items():
        target = place.with_suffix(".txt")
        if wanted[target] > 1 or target.name in LIST_NAMES:
            target = place.with_name(place.name + ".txt")
        while target in taken:
            target = target.with_name(target.name + ".txt")
        taken.add(target)
        targets[image] = target
    return targets


def _says(path: Path, text: str) -> bool:
    """Whether a file, and no pipe or folder, holds a text."""
    data = text.encode()
    try:
        with open_regular(path) as file:
            return file.read(len(data) + 1) == data
    except OSError:
        return False


# --- A list ---------------------------------------------------------------------------------------
def _write_list(
    form: str, captions: Captions, root: Path, place: Path, overwrite: bool
) -> list[str]:
    path = place / LISTS[form]
    within = all(is_inside(str(image), str(place)) for image in captions)
    root = place if within else root
    named = {image.relative_to(root).as_posix(): text for image, text in captions.items()}
    lost = [name for name in named if form == "captions" and name != " ".join(name.split())]
    rows = [(name, text) for name, text in named.items() if name not in lost]
    text = _as_jsonl(rows) if form == "jsonl" else _as_captions(rows)
    _refuse_to_hide(path, text, overwrite)
    replace_file(path, [text], SETTING)
    lines = [f"Written: {path}, {len(rows)} captions, with file names as seen from {root}."]
    if lost:
        lines.append(f"Left out, with names that only jsonl can hold: {first_few(lost)}.")
    earlier = LIST_NAMES[: LIST_NAMES.index(path.name)]
    if first := next((name for name in earlier if (place / name).exists()), None):
        lines.append(f"A dataset in that folder does not read it: {first} comes first.")
    elif within:
        lines.append(
            "A search or run with that folder as --dataset takes them for people's captions."
        )
    return lines


def _refuse_to_hide(path: Path, text: str, overwrite: bool) -> None:
    """Raises SettingError where a list would be overwritten, or would no longer be read."""
    if overwrite and not path.is_symlink():
        return
    if os.path.lexists(path) and not _says(path, text):
        raise SettingError(
            f"{path} is there already, and says something else. Name another folder, or add "
            "--overwrite (which never replaces a link)."
        )
    later = LIST_NAMES[LIST_NAMES.index(path.name) + 1 :]
    for other in (path.with_name(name) for name in later):
        if other.exists():
            raise SettingError(
                f"{other} would no longer be read, because {path.name} comes first. Name another "
                "folder, or add --overwrite."
            )


def _as_jsonl(rows: Iterable[tuple[str, str]]) -> str:
    """The imagefolder convention: https://huggingface.co/docs/datasets/image_load."""
    return "".join(to_json({"file_name": name, "text": caption}) + "\n" for name, caption in rows)


def _as_captions(rows: Iterable[tuple[str, str]]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("image", "caption"))
    writer.writerows(rows)
    return file.getvalue()
