"""Image files: found, read, and decoded to RGB whatever they hold."""

import io
import logging
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from records import ImageError, SettingError, printable

log = logging.getLogger("captioning")

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"}
IMAGE_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF")  # Pillow's names
MAX_SIDE = 2048  # pixels; no model here looks at more, and it bounds the memory of a 100-megapixel photo
MAX_PIXELS = 200_000_000  # a file that claims more is taken for a decompression bomb


def find_images(path: str | Path) -> list[Path]:
    """The image files that `path` names: itself, or those in a folder and its subfolders, sorted.

    Raises SettingError where there is nothing, or a folder without images.
    """
    if not str(path) or not os.path.exists(Path(path).expanduser()):  # noqa: PTH110 - Path.exists refuses long names
        raise SettingError(f"There is no file or folder '{printable(str(path))}'. Check the spelling.")
    path = Path(path).expanduser()
    if not path.is_dir():
        return [path]
    found = [file for file in _files_below(path) if file.suffix.lower() in IMAGE_SUFFIXES]
    if not found:
        kinds = " ".join(sorted(IMAGE_SUFFIXES))
        raise SettingError(f"The folder '{path}' holds no images. Looked for: {kinds}.")
    return found


def _files_below(folder: Path) -> list[Path]:
    """The files in `folder` and its subfolders, sorted; links to folders are not followed: some lead in circles."""

    def report(error: OSError) -> None:
        log.warning("The folder %s cannot be read: %s", printable(str(error.filename)), error.strerror)

    found = [Path(parent) / name for parent, _, names in os.walk(folder, onerror=report) for name in names]
    return sorted(found)


def read_file(path: Path) -> bytes:
    """The bytes of a file. Raises ImageError, naming it."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe or device might never end
            raise ImageError(f"{printable(str(path))}: not a file")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name with a null character
        raise ImageError(f"{printable(str(path))}: {getattr(error, 'strerror', None) or error}") from error


def decode_image(data: bytes, label: str) -> Image.Image:
    """The image in `data` as RGB, upright, at most MAX_SIDE pixels a side. Raises ImageError, naming `label`."""
    if not data:
        raise ImageError(f"{printable(label)}: the file is empty")
    with decoding(label):
        # Only formats of photos: some of Pillow's other readers start programs (EPS) or fetch nothing anyone needs.
        image = Image.open(io.BytesIO(data), formats=_image_formats())
        if image.width * image.height > MAX_PIXELS:
            raise ImageError(
                f"{printable(label)}: {image.width} x {image.height} pixels are more than {MAX_PIXELS:,} allowed"
            )
        image.draft("RGB", (MAX_SIDE, MAX_SIDE))  # a JPEG is decoded at a fraction of its size where that is enough
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
        raise ImageError(f"{name}: not an image that can be read (its content is of no known image format)") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: too many pixels: {error}") from error
    except Exception as error:  # decoders of hostile bytes raise nearly anything
        raise ImageError(f"{name}: the image is damaged: {printable(str(error))}") from error


def _image_formats() -> list[str]:
    Image.init()
    return [name for name in IMAGE_FORMATS if name in Image.OPEN]


def to_rgb(image: Image.Image) -> Image.Image:
    """`image` as RGB: EXIF orientation applied, 16-bit greys scaled, transparency on white, first frame only."""
    image.seek(0)
    _shrink(image) if image.mode in ("L", "LA", "RGB", "RGBA", "CMYK", "YCbCr", "I", "F") else image.load()
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
