"""Images decoded to RGB, whatever their files hold."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from support.errors import ImageError
from support.sources.files import read_file
from support.text import printable

# Pillow's names of the formats of photos: some of its other readers start programs (EPS).
IMAGE_FORMATS = (
    "JPEG",
    "MPO",
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
# Pillow's modes that `thumbnail` can resize.
RESIZABLE_MODES = ("L", "LA", "RGB", "RGBA", "CMYK", "YCbCr", "I", "F")
MAX_SIDE = 2048  # pixels; no model here looks at more, and it bounds the memory of a large photo
MAX_PIXELS = 200_000_000  # a file that claims more is taken for a decompression bomb


def decode_file(path: Path, label: str) -> Image.Image:
    """The image in a file, as `decode_image` gives it. Raises ImageError, naming `label`."""
    return decode_image(read_file(path), label)


def decode_image(data: bytes, label: str) -> Image.Image:
    """The image in `data` as RGB, upright, at most MAX_SIDE pixels wide and high.

    Raises ImageError, naming `label`.
    """
    if not data:
        raise ImageError(f"{printable(label)}: the file is empty")
    with decoding(label):
        image = Image.open(io.BytesIO(data), formats=_image_formats())
        if image.width * image.height > MAX_PIXELS:
            raise ImageError(
                f"{printable(label)}: {image.width} x {image.height} pixels are more than "
                f"{MAX_PIXELS:,} allowed"
            )
        # A JPEG is decoded at a fraction of its size where that is enough.
        image.draft("RGB", (MAX_SIDE, MAX_SIDE))
        return to_rgb(image)


@contextmanager
def decoding(label: str) -> Iterator[None]:
    """Turns whatever a decoder raises into an ImageError that names `label`."""
    name = printable(label)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's warning of a bomb: the limit is ours
            yield
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{name}: not an image that can be read (its content is of no known image format)"
        ) from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: too many pixels: {error}") from error
    except Exception as error:  # decoders of hostile bytes raise nearly anything
        raise ImageError(f"{name}: the image is damaged: {printable(str(error))}") from error


def _image_formats() -> list[str]:
    Image.init()
    return [name for name in IMAGE_FORMATS if name in Image.OPEN]


def to_rgb(image: Image.Image) -> Image.Image:
    """`image` as RGB: upright (EXIF), 16-bit greys scaled, transparency on white, first frame."""
    image.seek(0)
    if image.mode in RESIZABLE_MODES:
        _shrink(image)
    else:
        image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        image = _to_8_bit(image)
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    image = image.convert("RGB")
    _shrink(image)
    return image


def _shrink(image: Image.Image) -> None:
    image.thumbnail((MAX_SIDE, MAX_SIDE))


def _to_8_bit(image: Image.Image) -> Image.Image:
    """A grey image of 16 or 32 bits scaled to 8 (Pillow's own conversion clips at 255)."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float64))  # (H, W)
    largest = float(values.max(initial=0.0))
    full_scale = next((limit for limit in (1.0, 255.0, 65535.0) if largest <= limit), largest)
    if image.mode.startswith("I;16"):
        full_scale = 65535.0
    return Image.fromarray((values.clip(0) * (255.0 / full_scale)).round().astype(np.uint8))
