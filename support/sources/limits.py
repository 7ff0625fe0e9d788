"""How much memory decoding an image takes, known before it is decoded."""

from typing import Any

from support.errors import ImageError

# A file that needs more is refused. A JPEG of 200 megapixels needs 0.65 GB, or 1.25 GB without
# chroma subsampling; as PNG in colour 0.8 GB.
MAX_DECODING_BYTES = 1_300_000_000
PIXEL_BYTES = {"1": 1, "L": 1, "P": 1}  # by Pillow's mode; I;16 takes 2, all others 4
# Bytes per pixel that a decoder keeps beside the decoded image: of WebP two canvases and a copy, of
# AVIF and HEIC planes of up to 16 bits and a copy, of PPM and packed BMP copies, of GIF a
# background.
DECODER_BYTES = {"WEBP": 12, "AVIF": 12, "HEIF": 12, "PPM": 8, "BMP": 2, "DIB": 2, "GIF": 1}
WHOLE_FILE = ("WEBP", "AVIF", "HEIF", "TIFF")  # formats whose file is in memory while it is decoded
# Tags of TIFF
BITS, ORIENTATION, SAMPLES, STRIP_ROWS, TILE_WIDTH, TILE_ROWS = 258, 274, 277, 278, 322, 323


def prepare(image: Any, largest_side: int, file_bytes: int, label: str) -> None:
    """Makes `image`, opened but not loaded, decode as small as its format and `largest_side` allow.

    A JPEG always, at a half, quarter or eighth of its size; JPEG 2000 where it would need too much
    memory. Raises ImageError, naming `label`, where more than MAX_DECODING_BYTES are needed.
    """
    size = image.size
    coefficients = coefficient_bytes(image)
    image.draft("RGB", (largest_side, largest_side))
    needed = coefficients + decoding_bytes(image, file_bytes)
    if image.format == "JPEG2000" and needed > MAX_DECODING_BYTES:
        _load_reduced(image, needed, label)
        return
    refuse_larger(needed, size, label)


def needed_bytes(image: Any, file_bytes: int) -> int:
    """Bytes that decoding an opened image takes at most, if it is not decoded small."""
    return coefficient_bytes(image) + decoding_bytes(image, file_bytes)


def decoding_bytes(image: Any, file_bytes: int) -> int:
    """Peak of memory, in bytes, that decoding an opened image of a file takes by its header.

    A JPEG's coefficients come on top.
    """
    pixels = image.width * image.height
    pixel_bytes = 2 if image.mode.startswith("I;16") else PIXEL_BYTES.get(image.mode, 4)
    needed = pixels * (pixel_bytes + DECODER_BYTES.get(image.format, 0))
    if image.format == "JPEG2000":  # planes of 32 bits, and of up to 16 bits, of each band
        needed += pixels * 6 * len(image.getbands())
    if image.format == "TIFF":
        turned = image.tag_v2.get(ORIENTATION, 1) != 1  # Pillow turns a copy
        needed += pixels * pixel_bytes * turned + _strip_bytes(image)
    return needed + file_bytes * (image.format in WHOLE_FILE)


def _load_reduced(image: Any, needed: int, label: str) -> None:
    """Decodes a JPEG 2000 at the largest half, quarter, … of its size that fits the memory."""
    size, halvings = image.size, 1
    while needed >> 2 * halvings > MAX_DECODING_BYTES:
        halvings += 1
    image.reduce = halvings
    try:
        image.load()
    except OSError:  # damaged, or without such a size
        refuse_larger(needed, size, label)


def refuse_larger(needed: int, size: tuple[int, int], label: str) -> None:
    """Raises ImageError where `needed` is more than MAX_DECODING_BYTES."""
    if needed > MAX_DECODING_BYTES:
        raise ImageError(
            f"{label}: {size[0]:,} x {size[1]:,} pixels take up to {needed:,} bytes of memory to "
            f"decode; at most {MAX_DECODING_BYTES:,} are allowed. Save a smaller copy of the "
            "image, as JPEG for instance."
        )


def refuse_large_webp(head: bytes, label: str) -> None:
    """Raises ImageError for a WebP that is too large, by the first 30 bytes of its file.

    Pillow allocates its canvases before it tells their size.
    """
    if head[12:16] == b"VP8X":
        size = _number(head[24:27]) + 1, _number(head[27:30]) + 1
    elif head[12:16] == b"VP8L":
        bits = _number(head[21:25])
        size = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        size = _number(head[26:28]) & 0x3FFF, _number(head[28:30]) & 0x3FFF
    refuse_larger(size[0] * size[1] * (4 + DECODER_BYTES["WEBP"]), size, label)


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")


def coefficient_bytes(image: Any) -> int:
    """Bytes of a JPEG's coefficients: kept for the whole image if it comes in several scans.

    Most come in one, but no header says so. 0 for other formats.
    """
    if image.format not in ("JPEG", "MPO"):
        return 0
    samples = [horizontal * vertical for _, horizontal, vertical, _ in image.layer]
    return 2 * image.width * image.height * sum(samples) // max(samples)


def _strip_bytes(image: Any) -> int:
    """Bytes of one strip or tile of a compressed TIFF, which is decoded as a whole."""
    if image.tile[0][0] != "libtiff":
        return 0
    tags = image.tag_v2
    rows = min(tags.get(STRIP_ROWS, image.height), max(image.size))
    area = tags.get(TILE_WIDTH, 0) * tags.get(TILE_ROWS, 0) or image.width * rows
    return area * max(4, tags.get(SAMPLES, 1) * max(tags.get(BITS, (1,))) // 8)
