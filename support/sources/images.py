"""Images decoded to RGB, whatever their files hold."""

import io
import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from io import BufferedIOBase
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps, UnidentifiedImageError

from support.errors import ImageError
from support.sources.files import open_file, refuse_large
from support.sources.limits import prepare, refuse_large_webp
from support.sources.pixels import full_scale, in_blocks, is_deep, on_white, to_8_bit

# Pillow's names of the formats of photos: some of its other readers start programs (EPS).
IMAGE_FORMATS = (
    "JPEG",  # and MPO
    "PNG",
    "WEBP",
    "BMP",
    "DIB",
    "GIF",
    "TIFF",
    "PPM",
    "JPEG2000",
    "AVIF",
)
MAX_SIDE = 2048  # pixels; no model here looks at more, and it bounds the memory of a large photo
LARGE_SIDE = 4 * MAX_SIDE  # pixels; from here on, transparent images are not copied as a whole
# Pillow's modes that are shrunk as they are; to shrink transparent ones takes a copy.
PLAIN_MODES = ("L", "RGB", "CMYK", "YCbCr")
TRANSPARENT_MODES = ("LA", "RGBA")
TIFF_WIDTH, TIFF_LENGTH = 256, 257  # tags


# --- Opening --------------------------------------------------------------------------------------
def decode_file(path: Path, label: str) -> Image.Image:
    """The image in a file, as `decode` gives it. Raises ImageError, naming `label`."""
    with open_file(path) as file:
        return decode(file, label)


def decode_image(data: bytes, label: str) -> Image.Image:
    """The image in `data`, as `decode` gives it. Raises ImageError, naming `label`."""
    return decode(io.BytesIO(data), label)


def decode(file: BufferedIOBase, label: str) -> Image.Image:
    """The image in an open file as RGB, upright, at most MAX_SIDE pixels wide and high.

    Raises ImageError, naming `label`, also for a file or image too large for the memory.
    """
    size = file.seek(0, os.SEEK_END)
    if not size:
        raise ImageError(f"{label}: the file is empty")
    refuse_large(size, label)
    with decoding(label):
        image = _open(file, label)
        prepare(image, MAX_SIDE, size, label)
        if image.format == "TIFF":
            _allocate(image)
        return to_rgb(image)


@contextmanager
def decoding(label: str) -> Iterator[None]:
    """Turns whatever a decoder raises into an ImageError that names `label`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's warning of a bomb: the limit is ours
            yield
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{label}: not an image that can be read (its content is of no known image format)"
        ) from error
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{label}: {error} Save a smaller copy of the image, as JPEG for instance."
        ) from error
    except MemoryError as error:
        raise ImageError(f"{label}: there is not enough memory to decode it") from error
    except Exception as error:  # decoders of hostile bytes raise nearly anything
        raise ImageError(f"{label}: the image is damaged: {error}") from error


def _open(file: BufferedIOBase, label: str) -> Image.Image:
    """An image whose pixels are not decoded yet.

    Not by Image.open: it refuses what is larger than Image.MAX_IMAGE_PIXELS, which belongs to the
    whole process and leaves out how much memory a format takes. `file` has no name, so that no
    decoder maps it into memory: a mapped file that shrinks ends the process.
    """
    Image.init()
    file.seek(0)
    head = file.read(30)
    for name in IMAGE_FORMATS:
        factory: Any
        factory, accepts = Image.OPEN.get(name, (None, None))
        if factory is None or (accepts is not None and accepts(head[:16]) is not True):
            continue
        if name == "WEBP":
            refuse_large_webp(head, label)
        file.seek(0)
        try:
            return factory(file, "")
        except (SyntaxError, IndexError, TypeError, struct.error):
            continue  # as Image.open does: another format may fit
    raise UnidentifiedImageError(label)


def _allocate(image: Image.Image) -> None:
    """Makes room for a TIFF's pixels, which its decoder would not do above MAX_IMAGE_PIXELS."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    image.im = Image.new(image.mode, (tags[TIFF_WIDTH], tags[TIFF_LENGTH])).im


# --- To RGB ---------------------------------------------------------------------------------------
def to_rgb(image: Image.Image) -> Image.Image:
    """`image` as RGB: upright (EXIF), deep greys scaled, transparency on white, first frame.

    At most MAX_SIDE pixels wide and high. It may shrink its argument in place. For deep greys see
    `pixels.full_scale`.
    """
    image.seek(0)
    image.load()
    return on_white(ImageOps.exif_transpose(_shrunk(image)))


def _shrunk(image: Image.Image) -> Image.Image:
    """`image` in a mode of 8 bits per band, at most MAX_SIDE pixels wide and high."""
    may_copy = max(image.size) < LARGE_SIDE
    if image.mode in PLAIN_MODES or (image.mode in TRANSPARENT_MODES and may_copy):
        _shrink(image)
        return image
    convert = partial(to_8_bit, white=full_scale(image)) if is_deep(image) else on_white
    factor = max(1, max(image.size) // (2 * MAX_SIDE))
    shrunk = in_blocks(image, convert, factor)
    if factor > 1:
        reduced_size = image.width / factor, image.height / factor  # its last pixels are parts
        scale = MAX_SIDE / max(reduced_size)
        size = [max(1, round(scale * side)) for side in reduced_size]
        shrunk = shrunk.resize(size, Image.Resampling.BICUBIC, (0, 0, *reduced_size))
    shrunk.info = {key: value for key, value in image.info.items() if key != "transparency"}
    _shrink(shrunk)
    return shrunk


def _shrink(image: Image.Image) -> None:
    image.thumbnail((MAX_SIDE, MAX_SIDE))
