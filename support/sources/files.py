"""Image files found and read."""

import logging
import os
import stat
from pathlib import Path

from support.errors import ImageError, SettingError
from support.paths import expand_home
from support.text import printable

log = logging.getLogger("captioning")

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"}


def find_images(path: str | Path) -> list[Path]:
    """The image files that `path` names: itself, or those in a folder and its subfolders, sorted.

    Raises SettingError where there is nothing, or a folder without images.
    """
    # os.path.exists, because Path.exists raises for names that are too long.
    if not str(path) or not os.path.exists(expand_home(path)):  # noqa: PTH110
        raise SettingError(
            f"There is no file or folder '{printable(str(path))}'. Check the spelling."
        )
    path = expand_home(path)
    if not path.is_dir():
        return [path]
    found = [file for file in _files_below(path) if has_image_suffix(file)]
    if not found:
        kinds = " ".join(sorted(IMAGE_SUFFIXES))
        raise SettingError(f"The folder '{path}' holds no images. Looked for: {kinds}.")
    return found


def has_image_suffix(path: str | Path) -> bool:
    """Whether a name has the suffix of an image file."""
    return os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122 - any text will do


def _files_below(folder: Path) -> list[Path]:
    """The files in `folder` and its subfolders, sorted.

    Links to folders are not followed: some lead in circles.
    """

    def report(error: OSError) -> None:
        log.warning(
            "The folder %s cannot be read: %s", printable(str(error.filename)), error.strerror
        )

    found = []
    for parent, _, names in os.walk(folder, onerror=report):
        found += [Path(parent) / name for name in names]
    return sorted(found)


def read_file(path: Path) -> bytes:
    """The bytes of a file. Raises ImageError, naming it."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe or device might never end
            raise ImageError(f"{printable(str(path))}: not a file")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name with a null character
        raise ImageError(
            f"{printable(str(path))}: {getattr(error, 'strerror', None) or error}"
        ) from error
