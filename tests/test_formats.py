"""Every format of photos that Pillow reads; HEIC where pi-heif is installed, else with a remedy."""

import importlib
import logging

import numpy as np
import pytest
from PIL import Image

from support.errors import ImageError, SettingError
from support.sources import files, images
from support.sources.files import find_images
from support.sources.own import own_sample
from tests.helpers import ROOT, picture

HEIC = ROOT / "tests" / "fixtures" / "heic" / "drawn.heic"  # tests.helpers.picture(3, (96, 64))
LOSSLESS = {"png", "apng", "bmp", "dib", "tif", "tiff", "ppm", "pnm"}
GREY = {"pgm", "pbm"}


@pytest.fixture
def without_heic(monkeypatch):
    monkeypatch.setattr(files, "reads_heic", lambda: False)
    monkeypatch.setattr(images, "reads_heic", lambda: False)
    monkeypatch.setattr(images, "IMAGE_FORMATS", images.IMAGE_FORMATS[:-1])


@pytest.mark.parametrize("suffix", sorted(files.IMAGE_SUFFIXES))
def test_images_of_every_suffix_are_found_and_read(tmp_path, suffix):
    path, drawn = tmp_path / f"photo{suffix.upper()}", picture(3, (96, 64))
    kind = suffix[1:]
    if kind in GREY:
        drawn = drawn.convert("L" if kind == "pgm" else "1")
    Image.init()
    drawn.save(path, Image.EXTENSION[suffix])
    assert find_images(tmp_path) == [path]
    read = np.asarray(own_sample(path).image, dtype=float)
    expected = np.asarray(drawn.convert("RGB"), dtype=float)
    assert read.shape == (64, 96, 3)
    assert np.abs(read - expected).mean() < (1 if kind in LOSSLESS | GREY else 12)


def test_every_suffix_is_of_a_format_that_is_read():
    Image.init()
    formats = {Image.EXTENSION[suffix] for suffix in files.IMAGE_SUFFIXES}
    assert formats - {"MPO"} <= set(images.IMAGE_FORMATS)  # of which the JPEG reader takes one


def test_heic_is_read_where_pi_heif_is_installed(tmp_path):
    pytest.importorskip("pi_heif")
    (tmp_path / "IMG_1.HEIC").write_bytes(HEIC.read_bytes())
    assert find_images(tmp_path) == [tmp_path / "IMG_1.HEIC"]
    read = np.asarray(own_sample(tmp_path / "IMG_1.HEIC").image, dtype=float)
    assert np.abs(read - np.asarray(picture(3, (96, 64)), dtype=float)).mean() < 12


@pytest.mark.parametrize("cut", [20, 200, 700])
def test_a_damaged_heic_is_named(tmp_path, cut):
    pytest.importorskip("pi_heif")
    (tmp_path / "a.heic").write_bytes(HEIC.read_bytes()[:cut])
    with pytest.raises(ImageError, match=r"a\.heic: "):
        _ = own_sample(tmp_path / "a.heic").image


def test_heic_is_named_with_the_remedy_where_it_cannot_be_read(tmp_path, without_heic, caplog):
    caplog.set_level(logging.WARNING)
    for name in ("a.heic", "b.HEIF"):
        (tmp_path / name).write_bytes(HEIC.read_bytes())
    with pytest.raises(SettingError, match=r"no images.*pip install -r requirements-heic\.txt"):
        find_images(tmp_path)
    with pytest.raises(ImageError, match=r"a\.heic: an image of HEIC; .*requirements-heic\.txt"):
        _ = own_sample(tmp_path / "a.heic").image
    picture(1).save(tmp_path / "c.png")
    assert find_images(tmp_path) == [tmp_path / "c.png"]
    assert "left out 2 of 3 files" in caplog.text
    assert "1 .heic (to read HEIC: pip install -r requirements-heic.txt)" in caplog.text


def test_heic_is_optional():
    required = (ROOT / "requirements.txt").read_text()
    assert "heif" not in required and importlib.util.find_spec("pi_heif") is not None
    assert "pi-heif==" in (ROOT / "requirements-heic.txt").read_text()
