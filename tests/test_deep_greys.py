"""Greys of 8 to 16 bits in files of 16, and of 32: what is white in them."""

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin, TiffTags

from support.sources.own import own_sample

MAX_SAMPLE_VALUE = 281  # tag of TIFF


def decoded(path, values: np.ndarray, **options) -> np.ndarray:
    Image.fromarray(values).save(path, **options)
    return np.asarray(own_sample(path).image)[..., 0].astype(float)


def ramp(largest: int, kind=np.uint16) -> np.ndarray:
    return np.linspace(0, largest, 40 * 30).reshape(30, 40).astype(kind)


@pytest.mark.parametrize("white", [1, 255, 1023, 4095, 16383, 65535])
@pytest.mark.parametrize("name", ["a.png", "a.tif", "lzw.tif"])
def test_white_is_what_the_bits_in_use_can_hold(tmp_path, name, white):
    options = {"compression": "tiff_lzw"} if name == "lzw.tif" else {}
    values = ramp(white)
    found = decoded(tmp_path / name, values, **options)
    assert np.abs(found - values * (255 / white)).max() <= 0.51


@pytest.mark.parametrize("largest, white", [(700, 1023), (2713, 4095), (5000, 16383)])
def test_an_image_that_does_not_use_the_whole_range_is_not_stretched(tmp_path, largest, white):
    found = decoded(tmp_path / "a.png", ramp(largest))
    assert found.max() == round(largest * 255 / white)


@pytest.mark.parametrize("declared", [4095, 65535])
def test_a_tiff_may_declare_what_is_white(tmp_path, declared):
    values = ramp(200)
    found = decoded(tmp_path / "dark.tif", values, tiffinfo={MAX_SAMPLE_VALUE: declared})
    assert np.abs(found - values * (255 / declared)).max() <= 0.51


@pytest.mark.parametrize("kind, declared", [(TiffTags.ASCII, "much"), (TiffTags.LONG, 2**32 - 1)])
def test_a_tiff_that_declares_nonsense_is_read_by_its_values(tmp_path, kind, declared):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags.tagtype[MAX_SAMPLE_VALUE] = kind
    tags[MAX_SAMPLE_VALUE] = declared
    found = decoded(tmp_path / "a.tif", ramp(4095), tiffinfo=tags)
    with Image.open(tmp_path / "a.tif") as image:
        assert image.tag_v2[MAX_SAMPLE_VALUE] in (declared, (declared,))
    assert found.max() == 255


def test_a_tiff_of_12_bits_is_scaled_by_12_bits(tmp_path):
    # Two greys of 12 bits in 3 bytes, 100 and 200, in one row of 4 pixels.
    header = b"II*\0\x08\0\0\0"
    tags = [(256, 4), (257, 1), (258, 12), (259, 1), (262, 1), (273, 122), (277, 1), (278, 1)]
    entries = b"".join(
        tag.to_bytes(2, "little") + b"\x04\0\1\0\0\0" + value.to_bytes(4, "little")
        for tag, value in [*tags, (279, 6)]
    )
    directory = (len(tags) + 1).to_bytes(2, "little") + entries + bytes(4)
    data = (header + directory).ljust(122, b"\0") + bytes.fromhex("0640c80640c8")
    (tmp_path / "a.tif").write_bytes(data)
    found = np.asarray(own_sample(tmp_path / "a.tif").image)[0, :, 0]
    assert found.tolist() == [round(v * 255 / 4095) for v in (100, 200, 100, 200)]


@pytest.mark.parametrize("largest", [1.0, 255.0, 3000.0, 1e6])
def test_float_greys_follow_the_same_rule(tmp_path, largest):
    white = {3000.0: 4095.0}.get(largest, largest)
    values = ramp(1000, np.float32) / 1000 * np.float32(largest)
    assert np.abs(decoded(tmp_path / "a.tif", values) - values * (255 / white)).max() <= 0.51


def test_what_is_no_number_or_infinite_does_not_darken_the_rest(tmp_path):
    values = ramp(1000, np.float32) / 1000
    values[0, :4] = np.nan, np.inf, -np.inf, -3
    found = decoded(tmp_path / "a.tif", values)
    assert found[0, :4].tolist() == [0, 255, 0, 0]
    assert np.abs(found[1:] - values[1:] * 255).max() <= 0.51


def test_sharp_edges_in_a_large_float_image_keep_its_scale(tmp_path):
    """The overshoot of the resizing filter must not count as a value of the image."""
    values = np.zeros((10, 3000), np.float32)
    values[:, ::50] = 1.0
    values[:, 1500:] = 1.0
    found = decoded(tmp_path / "a.tif", values)
    assert found.shape == (7, 2048) and found[:, 1100:].min() == 255
