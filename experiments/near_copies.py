"""Near-copies: experiment images of which the gallery holds another version.

Byte-identical copies are one image from the start. A photo that was saved again, made smaller or
cropped a little would be its own nearest neighbor, and its captions those of the query.

Two steps: perceptual hashes (ImageHash's pHash) of each image and of crops of it name pairs that
may be one photo; then one image is laid upon the other and compared block by block, which two
photos of one scene do not pass. Not found are copies mirrored, turned, recoloured, or cropped by
more than about a tenth.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

import config
from support.batches import batches
from support.errors import ImageError
from support.log import log
from support.records import Sample
from support.text import first_few
from support.threads import in_threads

Box = tuple[float, float, float, float]  # left, upper, right, lower; shares of width and height
NearCopies = Mapping[str, Sample]  # an experiment's content hash -> the image of the gallery

EDGE = 0.05  # of a side, cut off
WHOLE: Box = (0, 0, 1, 1)
# What may have been cut off: all around, one side, two opposite sides, a corner.
BOXES: tuple[Box, ...] = (
    WHOLE,
    (EDGE, EDGE, 1 - EDGE, 1 - EDGE),
    (EDGE, 0, 1, 1),
    (0, EDGE, 1, 1),
    (0, 0, 1 - EDGE, 1),
    (0, 0, 1, 1 - EDGE),
    (EDGE, 0, 1 - EDGE, 1),
    (0, EDGE, 1, 1 - EDGE),
    (EDGE, EDGE, 1, 1),
    (0, EDGE, 1 - EDGE, 1),
    (EDGE, 0, 1, 1 - EDGE),
    (0, 0, 1 - EDGE, 1 - EDGE),
)
HASHED_SIDE = 32  # pixels that pHash sees
MOST_BITS = 10  # of 64 that may differ; copies cropped by EDGE differ in at most 8
LOADED_SIDE = 128  # pixels for the comparison
COMPARED_SIDE, BLOCKS = 64, 8  # pixels and blocks a side
# Of 255: the mean difference of the worst block. Copies have up to 15, other images 33 and more.
MOST_DIFFERENCE = 20.0
HOPELESS = 60.0  # at the first, coarse steps
STEPS = (0.02, 0.01, 0.005, 0.0025)  # by which the edges of a crop are moved until they fit
MOST_ROUNDS = 6  # of each step
LEAST_SIDE = 0.7  # of a crop


class _Pair(NamedTuple):
    """An image of the gallery that may be the photo of an experiment."""

    image: int
    box: Box  # of the larger one, which the other shows
    is_cropped: bool  # the experiment is the smaller one


def find_near_copies(experiments: Sequence[Sample], gallery: Sequence[Sample]) -> NearCopies:
    """Experiment images that have a near-copy in the gallery, by content hash, with that copy.

    Images that cannot be read have none. Logs how many were found.
    """
    ours, theirs = _hashes(experiments), _hashes(gallery)  # (N, B), (M, B)
    found: dict[str, Sample] = {}
    for sample, hashes in zip(experiments, ours, strict=True):
        for pair in _candidates(hashes, theirs):
            other = gallery[pair.image]
            if sample.content_hash not in found and _is_copy(sample, other, pair):
                found[sample.content_hash] = other
    if found:
        named = [sample.label for sample in experiments if sample.content_hash in found]
        log.warning(
            "%d of %d experiment images have a near-copy in the gallery, which inflates what "
            "retrieval gains; scores are given without them too: %s",
            len(found),
            len(experiments),
            first_few(named),
        )
    return found


# --- Pairs by their hashes ------------------------------------------------------------------------
def _hashes(samples: Sequence[Sample]) -> np.ndarray:
    """(N, B) uint64: pHash of each image by each of BOXES; all ones where it cannot be read."""
    rows: list[np.ndarray] = []
    for batch in batches(samples, config.IMAGE_BATCH_SIZE, "Looking for near-copies", "image"):
        rows += in_threads(_hashes_of, batch)
    return np.array(rows, np.uint64).reshape(len(samples), len(BOXES))


def _hashes_of(sample: Sample) -> np.ndarray:
    from imagehash import phash

    image = _loaded(sample)
    if image is None:
        return np.full(len(BOXES), np.iinfo(np.uint64).max)
    grey = image.convert("L")
    small = [grey.resize((HASHED_SIDE,) * 2, Image.Resampling.BOX, _pixels(box)) for box in BOXES]
    bits = np.array([phash(one).hash.ravel() for one in small])  # (B, 64)
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]


def _candidates(hashes: np.ndarray, theirs: np.ndarray) -> list[_Pair]:
    """What may be a copy of an experiment with `hashes` (B,), the nearest first.

    One image may be a part of the other or the other of it: where both may be, both are tried.
    """
    pairs: list[tuple[int, _Pair]] = []
    cropped, whole = theirs ^ hashes[0], theirs[:, :1] ^ hashes  # (M, B)
    for is_cropped, unlike in ((True, cropped), (False, whole)):
        distances = np.bitwise_count(unlike)
        boxes = distances.argmin(axis=1)
        least = distances.min(axis=1)
        for image in np.flatnonzero(least <= MOST_BITS).tolist():
            pair = _Pair(image, BOXES[boxes[image]], is_cropped)
            pairs.append((int(least[image]), pair))
    return [pair for _, pair in sorted(pairs, key=lambda found: found[0])]


# --- Pairs by their pixels ------------------------------------------------------------------------
def _is_copy(experiment: Sample, other: Sample, pair: _Pair) -> bool:
    images = _loaded(experiment), _loaded(other)
    part, whole = images if pair.is_cropped else images[::-1]
    if part is None or whole is None:
        return False
    return bool(_aligned(whole, _seen(part, WHOLE), pair.box).max() <= MOST_DIFFERENCE)


def _aligned(whole: Image.Image, part: np.ndarray, box: Box) -> np.ndarray:
    """How `part` differs from that crop of `whole` that fits it best, by block; begun at `box`."""
    best = _differences(_seen(whole, box), part)
    for step in STEPS:
        for _ in range(MOST_ROUNDS):
            before = best.mean()
            for moved in _moved(box, step):
                differences = _differences(_seen(whole, moved), part)
                if differences.mean() < best.mean():
                    best, box = differences, moved
            if best.mean() == before:
                break
        if best.max() > HOPELESS:
            break
    return best


def _moved(box: Box, step: float) -> list[Box]:
    """`box` with each of its edges moved by `step`, in and out."""
    boxes: list[Box] = []
    for edge in range(4):
        for by in (-step, step):
            sides = list(box)
            sides[edge] = min(1.0, max(0.0, sides[edge] + by))
            left, upper, right, lower = sides
            if min(right - left, lower - upper) >= LEAST_SIDE:
                boxes.append((left, upper, right, lower))
    return boxes


def _differences(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(BLOCKS, BLOCKS) mean absolute difference of two images by block, 0 to 255."""
    side = COMPARED_SIDE // BLOCKS
    by_pixel = np.abs(one - other).mean(axis=-1)  # (H, W)
    return by_pixel.reshape(BLOCKS, side, BLOCKS, side).mean(axis=(1, 3))


def _seen(image: Image.Image, box: Box) -> np.ndarray:
    """(H, W, 3) float32 pixels of a crop, COMPARED_SIDE a side."""
    small = image.resize((COMPARED_SIDE,) * 2, Image.Resampling.HAMMING, _pixels(box))
    return np.asarray(small, np.float32)


def _loaded(sample: Sample) -> Image.Image | None:
    """The image, LOADED_SIDE pixels wide and high; None if it cannot be read."""
    try:
        image = sample.picture(LOADED_SIDE)
    except ImageError:
        return None
    return image.resize((LOADED_SIDE, LOADED_SIDE), Image.Resampling.BOX)


def _pixels(box: Box) -> Box:
    left, upper, right, lower = (LOADED_SIDE * share for share in box)
    return left, upper, right, lower
