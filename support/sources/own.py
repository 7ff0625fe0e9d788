"""A user's own image, from a file or from memory."""

import hashlib
from functools import partial
from pathlib import Path

from PIL import Image

from support.errors import ImageError
from support.paths import expand_home
from support.records import Sample
from support.sources.files import open_file
from support.sources.images import decode_file, decoding, to_rgb
from support.sources.known import digest_of
from support.text import clean_text


def own_sample(image: str | Path | Image.Image) -> Sample:
    """A sample of a user's own image: a path, or a PIL image (known by its RGB pixels).

    Raises ImageError.
    """
    if isinstance(image, Image.Image):
        return _sample_in_memory(image)
    if not str(image):
        raise ImageError("There is no image file ''. Check the spelling.")
    path = expand_home(image).absolute()  # the databases remember it
    with open_file(path) as file:
        digest = digest_of(file)
    label = clean_text(str(path))
    return Sample(content_hash=digest, label=label, open_image=partial(decode_file, path, label))


def _sample_in_memory(image: Image.Image) -> Sample:
    with decoding("the image given"):
        rgb = to_rgb(image.copy())  # to_rgb may shrink its argument in place
    digest = hashlib.sha256(f"RGB {rgb.size}".encode() + rgb.tobytes()).hexdigest()
    return Sample(content_hash=digest, label="image", open_image=lambda _=None: rgb.copy())
