"""Memory that images take: bounded before they are decoded, whatever their files say."""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset_loader import load_and_split_dataset
from support.errors import ImageError
from support.sources.files import MAX_FILE_BYTES
from support.sources.images import decode_image
from support.sources.limits import MAX_DECODING_BYTES
from support.sources.own import own_sample
from tests.helpers import ROOT, picture

MEMORY = """
import sys
from pathlib import Path
from support.errors import ImageError
from support.sources.own import own_sample
try:
    image = own_sample(sys.argv[1]).image
    assert max(image.size) <= 2048 and image.mode == "RGB", image
except ImageError as error:
    print(error, file=sys.stderr)
lines = Path("/proc/self/status").read_text().splitlines()
peak = next(line for line in lines if line.startswith("VmHWM"))
print(int(peak.split()[1]) * 1024)  # not ru_maxrss, which counts the parent before exec
"""
measured = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measures by /proc")


class Peak(int):
    """Bytes of memory that decoding an image takes, beside those of a small one."""

    refused = ""  # the message, where it was refused


@pytest.fixture(scope="module")
def peak(tmp_path_factory):
    small = tmp_path_factory.mktemp("small") / "small.png"
    picture(1).save(small)

    def run(path) -> subprocess.CompletedProcess:
        command = [sys.executable, "-c", MEMORY, str(path)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)

    needed = int(run(small).stdout)

    def measure(path) -> Peak:
        done = run(path)
        found = Peak(int(done.stdout) - needed)
        found.refused = done.stderr
        return found

    return measure


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(size: tuple[int, int], depth: int, colour: int, row: bytes, *chunks: bytes) -> bytes:
    """A PNG of equal rows, without an image of its size in memory."""
    packer = zlib.compressobj(1)
    head = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0)
    packed = b"".join(packer.compress(b"\0" + row) for _ in range(size[1])) + packer.flush()
    parts = [png_chunk(b"IHDR", head), *chunks, png_chunk(b"IDAT", packed), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


# --- What fits ------------------------------------------------------------------------------------
@measured
def test_a_small_file_of_many_16_bit_pixels_takes_two_bytes_for_each(tmp_path, peak):
    data = png((8000, 8000), 16, 0, b"\x40\x00" * 8000)
    (tmp_path / "grey.png").write_bytes(data)
    assert len(data) < 600_000
    assert peak(tmp_path / "grey.png") < 400e6  # 1.7e9 where all of it is converted at once


@measured
def test_a_small_file_of_many_transparent_pixels_takes_one_byte_for_each(tmp_path, peak):
    palette, alpha = png_chunk(b"PLTE", bytes(range(6))), png_chunk(b"tRNS", b"\x80")
    data = png((9000, 8000), 8, 3, bytes(9000), palette, alpha)
    (tmp_path / "palette.png").write_bytes(data)
    assert len(data) < 600_000
    assert peak(tmp_path / "palette.png") < 400e6  # 1.0e9 at once


@measured
def test_the_photo_of_a_phone_of_200_megapixels_is_read(tmp_path, peak):
    Image.new("L", (16_320, 12_240), 90).save(tmp_path / "phone.jpg", quality=30)
    used = peak(tmp_path / "phone.jpg")
    assert used.refused == "" and used < 300e6


def reference_on_white(image: Image.Image) -> np.ndarray:
    """What a large transparent image should look like, from the whole of it."""
    whole = image.convert("RGBA")
    white = Image.new("RGBA", whole.size, "white")
    flat = Image.alpha_composite(white, whole).convert("RGB")
    flat.thumbnail((2048, 2048))
    return np.asarray(flat, dtype=float)


@pytest.mark.parametrize("kind", ["RGBA", "palette", "16 bits", "1"])
def test_shrinking_block_by_block_gives_the_picture_that_it_gives_at_once(kind):
    image = picture(5, (8231, 300)).resize((8231, 300), Image.Resampling.BICUBIC)
    options, expected = {}, None
    if kind == "RGBA":
        image.putalpha(picture(6, image.size).convert("L"))
    elif kind == "palette":
        image, options = image.quantize(16), {"transparency": 3}
    elif kind == "1":
        image = image.convert("1")
    else:
        grey = image.convert("L")
        image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
        expected = reference_on_white(grey)
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    with Image.open(io.BytesIO(file.getvalue())) as whole:
        expected = reference_on_white(whole) if expected is None else expected
    found = np.asarray(decode_image(file.getvalue(), "x"), dtype=float)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 2


def test_the_setting_of_pillow_is_the_users(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100_000)
    for name in ("a.png", "a.jpg", "a.tif", "a.bmp", "a.gif", "a.jp2", "a.avif"):
        picture(1, (700, 600)).save(tmp_path / name)
        assert own_sample(tmp_path / name).image.size == (700, 600), name
    assert Image.MAX_IMAGE_PIXELS == 100_000


# --- What does not --------------------------------------------------------------------------------
def header_of(kind: str) -> bytes:
    """The head of an image of 60,000 x 50,000 pixels, or as large as the format can be."""
    if kind == "PNG":
        return png((60_000, 50_000), 8, 2, b"")[:60] + bytes(100)
    if kind == "WebP":
        size = (16_382).to_bytes(3, "little") * 2
        return b"RIFF\x64\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + size + bytes(80)
    file = io.BytesIO()
    picture(1).save(file, {"BMP": "BMP", "TIFF": "TIFF", "JPEG": "JPEG"}[kind])
    data = bytearray(file.getvalue())
    if kind == "BMP":
        data[18:26] = struct.pack("<II", 60_000, 50_000)
    elif kind == "TIFF":
        for tag, value in ((256, 60_000), (257, 50_000)):
            place = data.index(struct.pack("<H", tag), 8)
            data[place : place + 12] = struct.pack("<HHII", tag, 4, 1, value)
    else:
        place = data.index(b"\xff\xc0")
        data[place + 5 : place + 9] = struct.pack(">HH", 50_000, 60_000)
    return bytes(data)


@pytest.mark.parametrize("kind", ["PNG", "WebP", "BMP", "TIFF", "JPEG"])
def test_what_takes_too_much_memory_is_refused_with_size_bytes_limit_and_remedy(kind):
    size = "16,383 x 16,383" if kind == "WebP" else "60,000 x 50,000"
    limit = f"{MAX_DECODING_BYTES:,}"
    with pytest.raises(ImageError, match=f"x.jpg: {size} pixels .*[0-9,]{{13,}} bytes") as error:
        decode_image(header_of(kind), "x.jpg")
    assert f"at most {limit} are allowed" in str(error.value)
    assert "Save a smaller copy" in str(error.value)


def sparse(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


def test_a_file_larger_than_the_memory_is_named_and_left_out(settings, photos, caplog):
    huge = sparse(photos / "huge.jpg", 40 * 2**30)
    with (photos / "captions.txt").open("a", encoding="utf-8") as file:
        file.write("huge.jpg,a dog\n")
    settings.DATASET_NAME = str(photos)
    loader = load_and_split_dataset()
    assert len(loader.get_training_data()) == 9
    assert "1 of 13 images cannot be read and are left out" in caplog.text
    with pytest.raises(ImageError, match=r"huge.jpg: .*42,949,672,960 bytes; at most 536,870,912"):
        own_sample(huge)


@measured
@pytest.mark.long
def test_hashing_a_file_keeps_little_of_it_in_memory(tmp_path, peak):
    assert peak(sparse(tmp_path / "large.jpg", MAX_FILE_BYTES)) < 50e6


# --- Every format ---------------------------------------------------------------------------------
def big_image(mode: str) -> Image.Image:
    """10,000 x 10,000 pixels."""
    size = (10_000, 10_000)
    if mode in ("I;16", "I", "F"):
        kind = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        return Image.fromarray(np.broadcast_to(np.arange(size[0]).astype(kind), size).copy())
    image = picture(1, (16, 16)).resize(size, Image.Resampling.NEAREST)
    if mode == "P":
        return image.quantize(64)
    return image.convert(mode)


ONE_STRIP = {"compression": "tiff_adobe_deflate", "strip_size": 300_000_000}
TURNED = {"compression": "tiff_lzw", "tiffinfo": {274: 6}}
PACKED_JP2 = {"quality_mode": "rates", "quality_layers": [50]}
FORMATS = {  # extension, mode, options
    "JPEG": ("jpg", "RGB", {}),
    "JPEG, grey": ("jpg", "L", {}),
    "JPEG, CMYK": ("jpg", "CMYK", {}),
    "JPEG, progressive": ("jpg", "RGB", {"progressive": True}),
    "JPEG, progressive, 4:4:4": ("jpg", "RGB", {"progressive": True, "subsampling": 0}),
    "JPEG, progressive, CMYK": ("jpg", "CMYK", {"progressive": True}),
    "PNG, grey": ("png", "L", {}),
    "PNG, grey, 16 bits": ("png", "I;16", {}),
    "PNG, grey, alpha": ("png", "LA", {}),
    "PNG": ("png", "RGB", {}),
    "PNG, alpha": ("png", "RGBA", {}),
    "PNG, palette": ("png", "P", {}),
    "PNG, palette, transparent": ("png", "P", {"transparency": 0}),
    "PNG, black and white": ("png", "1", {}),
    "GIF": ("gif", "P", {}),
    "GIF, transparent": ("gif", "P", {"transparency": 0, "disposal": 2}),
    "BMP": ("bmp", "RGB", {}),
    "PPM": ("ppm", "RGB", {}),
    "TIFF": ("tif", "RGB", {}),
    "TIFF, LZW": ("tif", "RGB", {"compression": "tiff_lzw"}),
    "TIFF, LZW, alpha": ("tif", "RGBA", {"compression": "tiff_lzw"}),
    "TIFF, one strip": ("tif", "RGB", ONE_STRIP),
    "TIFF, turned": ("tif", "RGB", TURNED),
    "TIFF, JPEG": ("tif", "RGB", {"compression": "jpeg"}),
    "TIFF, CMYK": ("tif", "CMYK", {"compression": "tiff_lzw"}),
    "TIFF, 16 bits": ("tif", "I;16", {}),
    "TIFF, 32 bits": ("tif", "I", {}),
    "TIFF, float": ("tif", "F", {}),
    "TIFF, float, LZW": ("tif", "F", {"compression": "tiff_lzw"}),
    "JPEG 2000": ("jp2", "RGB", PACKED_JP2),
    "JPEG 2000, tiles": ("jp2", "RGB", {**PACKED_JP2, "tile_size": (1024, 1024)}),
    "JPEG 2000, 16 bits": ("jp2", "I;16", {}),
    "WebP": ("webp", "RGB", {"method": 0}),
    "AVIF": ("avif", "RGB", {"speed": 10}),
}
REFUSED = ("WebP", "AVIF")  # at 10,000 x 10,000; at 9,000 x 8,900 they are read


@measured
@pytest.mark.long
@pytest.mark.parametrize("name", FORMATS)
def test_no_format_takes_more_than_1_5_gigabytes(tmp_path, peak, name):
    extension, mode, options = FORMATS[name]
    path = tmp_path / f"big.{extension}"
    big_image(mode).save(path, **options)
    used = peak(path)
    print(f"{name}: {path.stat().st_size:,} bytes, peak {used / 1e6:,.0f} MB {used.refused}")
    assert bool(used.refused) == (name in REFUSED)
    assert used < 1.5e9


@measured
@pytest.mark.long
@pytest.mark.parametrize("name", REFUSED)
def test_the_largest_that_is_read_takes_less_than_1_5_gigabytes(tmp_path, peak, name):
    extension, mode, options = FORMATS[name]
    big_image(mode).crop((0, 0, 9000, 8900)).save(tmp_path / f"a.{extension}", **options)
    used = peak(tmp_path / f"a.{extension}")
    print(f"{name}: peak {used / 1e6:,.0f} MB")
    assert used.refused == "" and used < 1.5e9


# --- Many at once ---------------------------------------------------------------------------------
FOLDER_MEMORY = """
import sys
from pathlib import Path
from types import SimpleNamespace
import numpy as np
import config
from image_embedder import EmbeddedImages, embed_gallery
from support.sources import own
from support import threads
config.SHOW_PROGRESS = False
threads.os.cpu_count = lambda: 8
class Model:
    device = "cpu"
    def pixels(self, image):
        return np.asarray(image.resize((8, 8)), np.float32).ravel()[:4]
    def embed_pixels(self, pixels):
        return np.stack(pixels)
images = EmbeddedImages(Model(), SimpleNamespace(decoded_for=224))
samples = [own.own_sample(path) for path in sorted(Path(sys.argv[1]).iterdir())]
saved = {}
assert embed_gallery(samples, images, saved.update) == {} and len(saved) == len(samples)
lines = Path("/proc/self/status").read_text().splitlines()
print(int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024)
"""


@measured
@pytest.mark.long
def test_a_folder_of_huge_photos_takes_no_more_memory_than_one_may(tmp_path):
    """Eight threads, but no more images of 100 megapixels at once than one image may take."""

    def peak_of(count: int) -> int:
        folder = tmp_path / str(count)
        folder.mkdir()
        for number in range(count):
            row = bytes([number, 2, 3]) * 10_000
            (folder / f"{number}.png").write_bytes(png((10_000, 10_000), 8, 2, row))
        command = [sys.executable, "-c", FOLDER_MEMORY, str(folder)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        return int(done.stdout)

    one, six = peak_of(1), peak_of(6)
    assert one > 400e6  # 400 MB of pixels
    assert six < one - 400e6 + MAX_DECODING_BYTES + 150e6  # all at once would be 2.4e9
