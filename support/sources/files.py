"""Image files found, opened, and kept inside the folder that may name them."""

import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from errno import ENAMETOOLONG
from functools import lru_cache
from importlib.util import find_spec
from io import BufferedIOBase
from pathlib import Path

from support.errors import ImageError, SettingError
from support.log import log
from support.paths import absolute_path, expand_home
from support.text import first_few

# Of the formats in images.IMAGE_FORMATS.
IMAGE_SUFFIXES = {
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".avif", ".gif", ".bmp",
    ".dib", ".tif", ".tiff", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".ppm", ".pgm",
    ".pbm", ".pnm",
}  # fmt: skip
HEIC_SUFFIXES = {".heic", ".heif", ".hif"}  # photos of phones, read with pi-heif
HEIC_REMEDY = "to read HEIC: pip install -r requirements-heic.txt"
MAX_FILE_BYTES = 512 * 2**20  # some decoders read the whole file
HIDDEN_FOLDERS = (".", "__MACOSX", "@eaDir")  # what ZIP files of macOS and Synology's NAS add
APPLE_DOUBLE = "._"  # macOS writes "._a.jpg" beside a.jpg on other file systems; it is no image


class NoImagesError(SettingError):
    """A folder holds no images."""


class OutsideFolderError(ImageError):
    """A dataset names a file outside its folder."""


# --- Found ----------------------------------------------------------------------------------------
def find_images(path: str | Path) -> list[Path]:
    """The image files that `path` names: itself, or those in a folder and its subfolders, sorted.

    Logs how many other files a folder holds. Raises SettingError where there is nothing, nothing
    that may be read, or a folder without images.
    """
    missing = f"There is no file or folder '{path}'. Check the spelling."
    if not str(path):
        raise SettingError(missing)
    path = expand_home(path)
    refuse_unreadable(path, missing)
    if not os.path.isdir(path):  # noqa: PTH112 - Path.is_dir may raise
        return [path]
    files = files_below(path)
    found = [file for file in files if is_image_name(file)]
    if not found:
        raise no_images(path, files)
    log_others(path, files, [file for file in files if not is_image_name(file)])
    return found


def find_all_images(names: Iterable[str | Path]) -> tuple[list[Path], dict[str, str]]:
    """The image files that several paths name; of folders without images the reason, by name.

    Raises SettingError as `find_images`, also where no folder holds any.
    """
    found: list[Path] = []
    empty: dict[str, str] = {}
    for name in names:
        try:
            found += find_images(name)
        except NoImagesError as error:
            empty[str(name)] = str(error)
    if empty and not found:
        raise SettingError(" ".join(empty.values()))
    return found, empty


def no_images(folder: Path, files: Iterable[Path]) -> NoImagesError:
    """The error for a folder that holds only such `files` as are no images."""
    kinds = " ".join(sorted(_readable_suffixes()))
    hint = f" ({HEIC_REMEDY}.)" if any(map(_is_heic, files)) and not reads_heic() else ""
    return NoImagesError(f"The folder '{folder}' holds no images. Looked for: {kinds}.{hint}")


def has_image_suffix(path: str | Path) -> bool:
    """Whether a name has the suffix of an image file, readable here or not."""
    return _suffix(path) in IMAGE_SUFFIXES or _is_heic(path)


def is_image_name(path: Path) -> bool:
    """Whether a file in a folder is taken for an image: by its suffix, unless it is hidden."""
    return _suffix(path) in _readable_suffixes() and not path.name.startswith(".")


@lru_cache(maxsize=1)
def reads_heic() -> bool:
    """Whether pi-heif is installed. It is optional, because its licence is the LGPL."""
    return find_spec("pi_heif") is not None


def _readable_suffixes() -> set[str]:
    return IMAGE_SUFFIXES | HEIC_SUFFIXES if reads_heic() else IMAGE_SUFFIXES


def _is_heic(path: str | Path) -> bool:
    return _suffix(path) in HEIC_SUFFIXES


def _suffix(path: str | Path) -> str:
    return os.path.splitext(path)[1].lower()  # noqa: PTH122 - any text will do


def files_below(folder: Path) -> list[Path]:
    """The files in `folder` and its subfolders, sorted; not what is hidden, but for macOS's "._".

    Links to folders are not followed: some lead in circles.
    """

    def report(error: OSError) -> None:
        log.warning("The folder %s cannot be read: %s", error.filename, error.strerror)

    found: list[str] = []
    links: list[Path] = []
    for parent, folders, names in os.walk(folder, onerror=report):
        folders[:] = [name for name in folders if not name.startswith(HIDDEN_FOLDERS)]
        shown = (name for name in names if name[0] != "." or name.startswith(APPLE_DOUBLE))
        found += [os.path.join(parent, name) for name in shown]  # noqa: PTH118 - may be a million
        links += [path for name in folders if (path := Path(parent) / name).is_symlink()]
    if links:
        log.warning(
            "%s: %d links to folders are not followed: %s. Name those folders themselves.",
            folder,
            len(links),
            first_few(sorted(map(str, links))),
        )
    return [Path(path) for path in sorted(found, key=_parts)]


def _parts(path: str) -> list[str]:
    """What a path is sorted by: folders come together."""
    return path.split(os.sep)  # noqa: PTH206 - may be asked a million times


def log_others(folder: Path, files: Sequence[Path], others: Sequence[Path]) -> None:
    """Logs how many of the `files` in a folder are `others` than images, by their kinds."""
    if others:
        counted = Counter(map(_kind, others)).most_common()
        counted.sort(key=lambda pair: HEIC_REMEDY not in pair[0])  # what can be mended comes first
        kinds = [f"{count} {kind}" for kind, count in counted]
        log.warning(
            "%s: left out %d of %d files, no images by their names: %s",
            folder,
            len(others),
            len(files),
            first_few(kinds, 12),
        )


def _kind(path: Path) -> str:
    if path.name.startswith(APPLE_DOUBLE):
        return f"{APPLE_DOUBLE}* (metadata of macOS)"
    if _is_heic(path) and not reads_heic():
        return f"{path.suffix.lower()} ({HEIC_REMEDY})"
    return path.suffix.lower() or "without a suffix"


# --- Opened ---------------------------------------------------------------------------------------
def refuse_unreadable(path: Path, missing: str) -> None:
    """Raises SettingError for a file or folder that cannot be used; `missing` if there is none."""
    try:
        if stat.S_ISDIR(path.stat().st_mode):
            os.stat(os.path.join(path, "."))  # noqa: PTH116, PTH118 - may its files be opened?
            with os.scandir(path):
                pass  # may its names be read?
    except ValueError as error:  # a null character
        raise SettingError(missing) from error
    except OSError as error:
        if isinstance(error, FileNotFoundError | NotADirectoryError) or error.errno == ENAMETOOLONG:
            raise SettingError(missing) from error
        raise SettingError(
            f"'{path}' cannot be read: {error.strerror}. Check its permissions and those of the "
            "folders above it."
        ) from error


@contextmanager
def open_file(path: Path) -> Iterator[BufferedIOBase]:
    """A file opened to read its bytes. Raises ImageError, naming it, also for errors while reading.

    Larger ones than MAX_FILE_BYTES are refused, as is what is no file.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # reading a pipe or device might never end
            raise ImageError(f"{path}: not a file")
        refuse_large(status.st_size, str(path))
        with path.open("rb") as file:
            yield file
    except (OSError, ValueError) as error:  # ValueError: a name with a null character
        raise ImageError(f"{path}: {getattr(error, 'strerror', None) or error}") from error


def refuse_large(size: int, label: str) -> None:
    """Raises ImageError for a file of more than MAX_FILE_BYTES."""
    if size > MAX_FILE_BYTES:
        raise ImageError(
            f"{label}: a file of {size:,} bytes; at most {MAX_FILE_BYTES:,} are read. Save a "
            "smaller copy of the image, as JPEG for instance."
        )


@contextmanager
def open_inside(path: Path, roots: Sequence[str]) -> Iterator[BufferedIOBase]:
    """`open_file` for a path that a dataset names: its file must be in one of the folders `roots`.

    Raises OutsideFolderError for another one, links followed. `roots` are absolute, without links.
    """
    try:
        real = absolute_path(path)
    except ValueError:  # a null character: opening it says so
        real = roots[0]
    if not any(is_inside(real, root) for root in roots):
        raise OutsideFolderError(str(path) if str(path) == real else f"{path} ({real})")
    with open_file(path) as file:
        yield file


def is_inside(path: str, folder: str) -> bool:
    """Whether a path is in a folder, or that folder; both absolute, without links."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
