"""Small pictures for pages: JPEGs in data URIs, as many as fit a page.

WebP takes a tenth less room, but five times as long to write.
"""

import base64
import io
from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import accumulate
from typing import Protocol

from PIL import Image

from support.threads import in_threads

# Longest side in pixels and JPEG quality, best first; the first that fits the page is taken.
LEVELS = ((360, 72), (240, 70), (176, 66), (128, 60), (96, 55), (72, 50))
NEIGHBOR_LEVEL = 2  # of the pictures beside a large one
MOST_BYTES = 5_800_000  # of a page, whose pictures get what its texts leave


Loads = Mapping[Hashable, Callable[[int], Image.Image | None]]  # for so many pixels a side


class Pictures(Protocol):
    """Where a page finds the images of its results; None for one that is not there any more.

    Each about as large as a picture of `side` pixels needs it, or larger.
    """

    def by_hash(self, key: str, side: int) -> Image.Image | None:
        """The image with a content hash."""

    def key_of(self, index: int) -> str | None:
        """The content hash of the image with a number of the databases."""

    def by_number(self, index: int, side: int) -> Image.Image | None:
        """The image with a number of the databases."""


def thumbnail(image: Image.Image | None, level: int = 0) -> str | None:
    """An image in the size of a level, as a data URI."""
    if image is None:
        return None
    side, quality = LEVELS[level]
    small = image.copy()
    # Half the time of a bicubic filter; an optimised JPEG would be a tenth smaller, and take twice
    # as long to write.
    small.thumbnail((side, side), Image.Resampling.HAMMING, reducing_gap=2.0)
    file = io.BytesIO()
    small.convert("RGB").save(file, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def thumbnails(large: Loads, small: Loads, most: int = MOST_BYTES) -> dict[Hashable, str]:
    """Data URIs of images by any keys, each once; those that are `small` two levels below.

    As large as fits into `most` bytes of a page; if even the smallest do not fit, the last of them
    are left out, as are images that cannot be had.
    """
    others = {key: load for key, load in small.items() if key not in large}
    made: dict[Hashable, str] = {}
    for level in range(_likely_level(len(large), len(others), most), len(LEVELS)):
        lower = min(level + NEIGHBOR_LEVEL, len(LEVELS) - 1)
        made = _made(large, level) | _made(others, lower)
        if sum(map(len, made.values())) <= most:
            return made
    sizes = accumulate(map(len, made.values()))
    return {key: uri for (key, uri), size in zip(made.items(), sizes, strict=True) if size <= most}


def _made(loads: Loads, level: int) -> dict[Hashable, str]:
    side = LEVELS[level][0]
    uris: Sequence[str | None] = in_threads(
        lambda load: thumbnail(load(side), level), [*loads.values()]
    )
    return {key: uri for key, uri in zip(loads, uris, strict=True) if uri is not None}


def _likely_level(large: int, small: int, most: int) -> int:
    """The level that photos usually fit at: each has about 0.16 bytes a pixel, as base64."""
    for level, (side, _) in enumerate(LEVELS):
        lower = LEVELS[min(level + NEIGHBOR_LEVEL, len(LEVELS) - 1)][0]
        if 0.16 * (large * side * side + small * lower * lower) <= most:
            return level
    return len(LEVELS) - 1
