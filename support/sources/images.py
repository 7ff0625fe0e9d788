"""Images decoded to RGB, whatever their files hold."""

import hashlib
import io
import math
import os
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache, partial
from io import BufferedIOBase
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps, UnidentifiedImageError

from support.errors import ImageError
from support.sources.files import HEIC_REMEDY, open_file, reads_heic, refuse_large
from support.sources.limits import needed_bytes, prepare, refuse_large_webp
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
    "HEIF",  # where pi-heif is installed
)
HEIC_BRANDS = (b"ftypheic", b"ftypheix", b"ftyphevc", b"ftypheim", b"ftypheis", b"ftypmif1")
MAX_SIDE = 2048  # pixels; no model here looks at more, and it bounds the memory of a large photo
REDUCED = 2  # a JPEG decoded small has so many times the pixels a side that a model sees
SPARE = 3  # and is decoded to no less than so many, before it is reduced
ENOUGH = 0.8  # of the pixels wanted a side; fewer would look blurred
# Of memory for images that are decoded at the same time; one alone may take more.
TOGETHER_BYTES = 1_000_000_000
# Pillow holds an image in blocks of this size. Above 32 MiB the C library gives each back to the
# system when it is freed; of smaller ones, every thread would keep those of its largest image.
BLOCK_BYTES = 64 * 2**20
LARGE_SIDE = 4 * MAX_SIDE  # pixels; from here on, transparent images are not copied as a whole
# Pillow's modes that are shrunk as they are; to shrink transparent ones takes a copy.
PLAIN_MODES = ("L", "RGB", "CMYK", "YCbCr")
TRANSPARENT_MODES = ("LA", "RGBA")
TIFF_WIDTH, TIFF_LENGTH = 256, 257  # tags


# --- Opening --------------------------------------------------------------------------------------
def decode_file(path: Path, label: str, seen: int | None = None) -> Image.Image:
    """The image in a file, as `decode` gives it. Raises ImageError, naming `label`."""
    with open_file(path) as file:
        return decode(file, label, seen)


def decode_image(data: bytes, label: str, seen: int | None = None) -> Image.Image:
    """The image in `data`, as `decode` gives it. Raises ImageError, naming `label`."""
    return decode(io.BytesIO(data), label, seen)


def decode_same(
    open_bytes: Callable[[], AbstractContextManager[BufferedIOBase]],
    digest: str,
    label: str,
    seen: int | None = None,
    side: int | None = None,
) -> Image.Image:
    """The image that `open_bytes` opens, as `decode` gives it, if it still has its SHA-256.

    Else its caption and vector would be those of another picture. Raises ImageError.
    """
    with open_bytes() as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != digest:
            raise ImageError(f"{label}: the file has changed since it was listed. Run again.")
        file.seek(0)
        return decode(file, label, seen, side)


def decode(
    file: BufferedIOBase, label: str, seen: int | None = None, side: int | None = None
) -> Image.Image:
    """The image in an open file as RGB, upright, at most MAX_SIDE pixels wide and high.

    For a model that sees `seen` pixels of the shorter side, a JPEG of many more is decoded small,
    which is quicker: see `small_size`. For a picture of `side` pixels a JPEG is decoded as small as
    that allows, or a little smaller. Raises ImageError, naming `label`, also for a file or image
    too large for the memory.
    """
    size = file.seek(0, os.SEEK_END)
    if not size:
        raise ImageError(f"{label}: the file is empty")
    refuse_large(size, label)
    with decoding(label):
        image = _open(file, label)
        with _memory.take(needed_bytes(image, size)):
            small = small_size(image, seen) if seen else None
            least = _shorter_side(image, side) if side else MAX_SIDE
            prepare(image, SPARE * seen if seen and small else least, size, label)
            if image.format == "TIFF":
                _allocate(image)
            if small:
                image = image.resize(small, Image.Resampling.BICUBIC)
            return to_rgb(image)


def _shorter_side(image: Image.Image, side: int) -> int:
    """The least pixels of the shorter side of an image whose longer one should have `side`."""
    return max(1, int(ENOUGH * side * min(image.size) / max(image.size)))


@contextmanager
def decoding(label: str) -> Iterator[None]:
    """Turns whatever a decoder raises into an ImageError that names `label`."""
    try:
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


def small_size(image: Image.Image, seen: int) -> tuple[int, int] | None:
    """Width and height to which an opened JPEG is reduced for a model that sees `seen` pixels.

    Twice what the model's processor makes of the usual decoding, so that the processor, which cuts
    off fractions of a pixel, sees the same part of the image. None where decoding it small would
    gain nothing.
    """
    if image.format not in ("JPEG", "MPO"):
        return None
    least = _draft_scale(image.size, MAX_SIDE)
    if _draft_scale(image.size, SPARE * seen) <= least:
        return None
    usual = _thumbnail_size(*(-(-side // least) for side in image.size))
    shorter, longer = sorted(usual)
    small = REDUCED * seen, REDUCED * int(seen * longer / shorter)
    return small if usual[0] == shorter else small[::-1]


def _thumbnail_size(width: int, height: int) -> tuple[int, int]:
    """The size that Image.thumbnail gives an image of which both sides may have MAX_SIDE."""
    if max(width, height) <= MAX_SIDE:
        return width, height
    aspect, upright = width / height, height >= width
    exact = MAX_SIDE * aspect if upright else MAX_SIDE / aspect
    sides = max(1, math.floor(exact)), math.ceil(exact)
    if upright:
        return min(sides, key=lambda side: abs(aspect - side / MAX_SIDE)), MAX_SIDE
    return MAX_SIDE, min(sides, key=lambda side: abs(aspect - MAX_SIDE / side))


def _draft_scale(size: tuple[int, int], side: float) -> int:
    """How many times smaller a JPEG is decoded so that both sides keep `side` pixels."""
    fits = min(size) // side
    return max((scale for scale in (1, 2, 4, 8) if scale <= fits), default=1)


def may_be_small(usual: Image.Image, seen: int) -> bool:
    """Whether an image may be reduced for a model, by how it is usually decoded."""
    return max(usual.size) >= MAX_SIDE or _draft_scale(usual.size, SPARE * seen) > 1


class _Memory:
    """What images that are decoded at the same time take together."""

    def __init__(self) -> None:
        self._taken = 0  # bytes
        self._change = threading.Condition()

    @contextmanager
    def take(self, needed: int) -> Iterator[None]:
        """Waits until `needed` bytes are free, or no other image is being decoded."""
        with self._change:
            while self._taken and self._taken + needed > TOGETHER_BYTES:
                self._change.wait()
            self._taken += needed
        try:
            yield
        finally:
            with self._change:
                self._taken -= needed
                self._change.notify_all()


def _open(file: BufferedIOBase, label: str) -> Image.Image:
    """An image whose pixels are not decoded yet.

    Not by Image.open: it refuses what is larger than Image.MAX_IMAGE_PIXELS, which belongs to the
    whole process and leaves out how much memory a format takes. `file` has no name, so that no
    decoder maps it into memory: a mapped file that shrinks ends the process.
    """
    _register_formats()
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
    if head[4:12] in HEIC_BRANDS and not reads_heic():
        raise ImageError(f"{label}: an image of HEIC; {HEIC_REMEDY}")
    raise UnidentifiedImageError(label)


@lru_cache(maxsize=1)
def _register_formats() -> None:
    """Makes Pillow ready, once a process.

    Its warnings, as of a bomb, are hidden: the limit is ours. (Filters for the time of one decoding
    would be those of other threads too.)
    """
    warnings.filterwarnings("ignore", module=r"PIL\b")
    Image.core.set_block_size(BLOCK_BYTES)
    Image.init()
    if reads_heic():
        import pi_heif

        pi_heif.register_heif_opener()


def _allocate(image: Image.Image) -> None:
    """Makes room for a TIFF's pixels, which its decoder would not do above MAX_IMAGE_PIXELS."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    image.im = Image.new(image.mode, (tags[TIFF_WIDTH], tags[TIFF_LENGTH])).im


_memory = _Memory()


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
