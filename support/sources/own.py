"""A user's own image, from a file or from memory."""

import hashlib
import os
from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from PIL import Image

from support.errors import ImageError
from support.paths import expand_home, is_file_path
from support.records import Sample
from support.sources.files import open_file
from support.sources.images import decode_same, decoding, to_rgb
from support.sources.known import Stamp, digest_of
from support.text import clean_text


def own_sample(image: str | Path | Image.Image) -> Sample:
    """A sample of a user's own image: a path, or a PIL image (known by its RGB pixels).

    Raises ImageError.
    """
    if isinstance(image, Image.Image):
        return _sample_in_memory(image)
    path = _place_of(image)
    with open_file(path) as file:
        digest = digest_of(file)
    label = clean_text(str(path))
    return Sample(digest, label, partial(decode_same, partial(open_file, path), digest, label))


def _place_of(image: str | Path) -> Path:
    """The absolute path of an image file, its folder without links: the databases remember it.

    Raises ImageError, saying what may be given, where there is no file.
    """
    if not isinstance(image, str | Path):
        raise ImageError(f"{image!r} is no image; give a path or a PIL image.")
    path = expand_home(image).absolute()
    try:
        path = Path(os.path.realpath(path.parent), path.name)
        if path.is_dir():
            raise ImageError(f"'{image}' is a folder, not an image file.")
        if str(image) and os.path.lexists(path):
            return path
    except (OSError, ValueError):  # a name too long, or with a null character
        pass
    raise ImageError(f"There is no image file '{image}'. Check the spelling.")


def _sample_in_memory(image: Image.Image) -> Sample:
    if not all(image.size):
        raise ImageError(f"The image given has {image.width} x {image.height} pixels.")
    with decoding("the image given"):
        rgb = to_rgb(image.copy())  # to_rgb may shrink its argument in place
    digest = hashlib.sha256(f"RGB {rgb.size}".encode() + rgb.tobytes()).hexdigest()
    return Sample(content_hash=digest, label="image", open_image=lambda *_, **__: rgb.copy())


# --- Own images that were captioned ---------------------------------------------------------------
def has_gone(key: str, record: Mapping[str, Any]) -> bool:
    """Whether the file of a user's own image is not where it was, or another one is.

    `record` is the databases'. Images in memory have no file, and never go.
    """
    path = record["image"]
    is_own_file = record["original_index"] is None and is_file_path(path)
    return is_own_file and not is_at(key, path)


def is_at(key: str, path: str) -> bool:
    """Whether the file at `path` has the content hash `key`, as far as it can be read."""
    try:
        stamp = Stamp.of(os.stat(path))  # noqa: PTH116 - a path of any kind
    except (OSError, ValueError):
        return False
    try:
        return _digest_at(path, stamp) == key
    except ImageError:
        return True  # it is there, but may not be read


@lru_cache(maxsize=2**14)
def _digest_at(path: str, _: Stamp) -> str:
    with open_file(Path(path)) as file:
        return digest_of(file)
