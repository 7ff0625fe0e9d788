"""Pixels of every mode made 8-bit, opaque and smaller, without a whole image in a wider mode."""

from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

# What the largest value of a deep grey image may mean: white in 1, 8, 10, 12, 14 or 16 bits.
FULL_SCALES = (1, 255, 1023, 4095, 16383, 65535)
BITS_PER_SAMPLE, MAX_SAMPLE_VALUE = 258, 281  # tags of TIFF
BLOCK_SIDE = 1024  # pixels; a block of any mode takes a few MB


def is_deep(image: Image.Image) -> bool:
    """Whether an image holds greys of more than 8 bits."""
    return image.mode.startswith(("I", "F"))


def in_blocks(
    image: Image.Image, convert: Callable[[Image.Image], Image.Image], factor: int
) -> Image.Image:
    """`convert(image)`, reduced `factor` times, block by block.

    The same as at once, where `convert` looks at single pixels.
    """
    width, height = image.size
    result = None
    for left, top, block in _blocks(image, factor):
        part = convert(block).reduce(factor)
        if result is None:
            result = Image.new(part.mode, (-(-width // factor), -(-height // factor)))
        result.paste(part, (left // factor, top // factor))
    assert result is not None
    return result


def _blocks(image: Image.Image, factor: int = 1) -> Iterator[tuple[int, int, Image.Image]]:
    """Left and upper edges of blocks of an image, multiples of `factor`, and the blocks."""
    side = factor * max(1, BLOCK_SIDE // factor)
    for top in range(0, image.height, side):
        bottom = min(top + side, image.height)
        for left in range(0, image.width, side):
            box = (left, top, min(left + side, image.width), bottom)
            yield left, top, image.crop(box)


def on_white(image: Image.Image) -> Image.Image:
    """`image` as RGB, transparency on white."""
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB")


# --- Greys of more than 8 bits --------------------------------------------------------------------
def full_scale(image: Image.Image) -> float:
    """The value that is white in a deep image: the least of FULL_SCALES that holds its largest.

    Cameras and scanners write 10, 12 or 14 bits into files of 16 without saying so. A TIFF may
    declare its largest value (MaxSampleValue), which counts as present. So a true 16-bit image
    that is darker than 1/4 of white gets brighter, unless it is a TIFF that declares its range (the
    sBIT chunk of a PNG does not come through Pillow). A value above 16 bits is white itself; what
    is infinite or not a number is left aside.
    """
    largest = _declared_largest(image)
    for _, _, block in _blocks(image):
        values = np.asarray(block)
        largest = max(largest, values[np.isfinite(values)].max(initial=0))
    return next((float(scale) for scale in FULL_SCALES if largest <= scale), float(largest))


def _declared_largest(image: Image.Image) -> float:
    """The largest value that a TIFF's tags declare; 0 where they do not."""
    tags = getattr(image, "tag_v2", {})
    declared = tags.get(MAX_SAMPLE_VALUE, 0)
    values = declared if isinstance(declared, tuple) else (declared,)
    numbers = [value for value in values if isinstance(value, int) and value <= FULL_SCALES[-1]]
    bits = max(tags.get(BITS_PER_SAMPLE, (16,)))
    return max(0, *numbers, 2**bits - 1 if bits < 16 else 0)


def to_8_bit(image: Image.Image, white: float) -> Image.Image:
    """A deep image as 8-bit grey, `white` as 255 (Pillow's own conversion clips at 255)."""
    values = np.asarray(image, dtype=np.float64)  # (H, W)
    values = np.nan_to_num(values, posinf=white).clip(0, white)
    return Image.fromarray((values * (255.0 / white)).round().astype(np.uint8))
