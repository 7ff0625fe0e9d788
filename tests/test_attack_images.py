"""Images of every kind and name: read, or reported; the good ones keep their captions."""

import os
import random
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from dataset_loader import load_and_split_dataset
from experiments.results import save_results
from support.errors import ImageError
from support.sources import images as image_files
from support.sources.files import find_images
from support.sources.images import decode_image
from support.sources.own import own_sample
from tests.helpers import picture


def encoded(folder, image: Image.Image, name: str, **options) -> bytes:
    image.save(folder / name, **options)
    return (folder / name).read_bytes()


def bad_files(folder) -> dict[str, bytes]:
    """What looks like an image by its name and is none, or not a whole one."""
    jpeg = encoded(folder, picture(1, (300, 200)), "x.jpg")
    bomb = (
        b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + (60_000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
    )
    return {
        "zero bytes": b"",
        "truncated": jpeg[: len(jpeg) // 2],
        "only a head": jpeg[:20],
        "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        "HTML": b"<!DOCTYPE html><title>404</title>",
        "PostScript, a program": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
        "bomb": bomb,
        "noise": bytes(range(256)) * 20,
    }


def good_files(folder) -> dict[str, bytes]:
    grey = Image.fromarray((np.arange(48 * 40) * 30).astype(np.uint16).reshape(40, 48))
    clear = picture(4).quantize(8)
    clear.info["transparency"] = 0
    files = {
        "wrong extension": encoded(folder, picture(1), "a.png"),
        "one pixel": encoded(folder, picture(2, (1, 1)), "b.png"),
        "a line": encoded(folder, picture(3, (1, 10_000)), "c.png"),
        "16 bits": encoded(folder, grey, "d.png"),
        "CMYK": encoded(folder, picture(5).convert("CMYK"), "e.jpg"),
        "palette with transparency": encoded(folder, clear, "f.png", transparency=0),
        "animated": encoded(folder, picture(6), "g.gif", save_all=True, append_images=[picture(7)]),
    }
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        files[f"rotated {orientation}"] = encoded(
            folder, picture(10 + orientation), "h.jpg", exif=exif
        )
    return files


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("scratch")


def test_every_kind_of_good_image_becomes_rgb_of_bounded_size(scratch):
    for name, data in good_files(scratch).items():
        image = decode_image(data, name)
        assert (
            image.mode == "RGB" and min(image.size) >= 1 and max(image.size) <= image_files.MAX_SIDE
        ), name


def test_every_kind_of_bad_image_is_named_in_one_line(scratch):
    for name, data in bad_files(scratch).items():
        with pytest.raises(ImageError, match=re.escape(name)) as error:
            decode_image(data, name)
        assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_a_jpeg_truncated_anywhere_is_never_half_a_picture(scratch):
    data = encoded(scratch, picture(1, (64, 64)), "t.jpg")
    whole = np.asarray(decode_image(data, "t"))
    for percent in range(100):
        try:
            image = decode_image(data[: len(data) * percent // 100], "t")
        except ImageError:
            continue
        assert np.array_equal(np.asarray(image), whole), percent


def test_a_thousand_images_with_fifty_bad_ones_keep_their_captions_and_indices(
    settings, tmp_path, scratch, caplog
):
    from image_embedder import EmbeddedImages, embed_gallery

    folder = tmp_path / "photos"
    folder.mkdir()
    bad, good = list(bad_files(scratch).values()), list(good_files(scratch).values())
    places = set(random.Random(3).sample(range(1000), 50))
    for n in range(1000):
        data = bad[n % len(bad)] if n in places else good[n % len(good)]
        (folder / f"{n}.jpg").write_bytes(data + b"%d" % n if data else data)  # no two are copies
    missing, folders = sorted(places)[:2], sorted(places)[2:4]
    for n in (*missing, *folders):
        (folder / f"{n}.jpg").unlink()
    for n in folders:
        (folder / f"{n}.jpg").mkdir()
    (folder / "captions.txt").write_text(
        "".join(f"{n}.jpg,number {n}\n" for n in range(1000)), encoding="utf-8"
    )
    settings.DATASET_NAME = str(folder)
    loader = load_and_split_dataset()

    class Embedder:
        device = "cpu"

        def pixels(self, image):
            return np.asarray(image.resize((2, 2))).mean()

        def embed_pixels(self, pixels):
            return np.array(pixels)

    saved = {}
    samples = [*loader.get_experiment_data(), *loader.get_training_data()]
    images = EmbeddedImages(Embedder(), SimpleNamespace(decoded_for=16))
    skipped = embed_gallery(samples, images, saved.update)
    number = {sample.content_hash: sample.original_index for sample in samples}
    assert all(sample.caption == f"number {sample.original_index}" for sample in samples)
    assert {number[key] for key in saved} == set(range(1000)) - places
    for n in places - {*missing, *folders}:
        assert (folder / f"{n}.jpg").stat().st_size == 0 or str(folder / f"{n}.jpg") in skipped
    assert "images cannot be read and are left out" in caplog.text
    assert all(f"{n}.jpg" in caplog.text for n in (*missing, *folders))
    for sample in random.Random(1).sample([s for s in samples if s.content_hash in saved], 20):
        expected = decode_image((folder / f"{sample.original_index}.jpg").read_bytes(), "x")
        assert np.array_equal(np.asarray(sample.image), np.asarray(expected))


ODD_NAMES = [
    "two words.png", "new\nline.png", "\x1b[31mred.png", "🐕‍🦺.png", "눈 위의 개.png", "-rf.png",
    "a;b&c$(d)'\".png", "x" * 251 + ".png", "개" * 83 + "ab.png", "x..png.png", "%s{0}.png",
]  # fmt: skip


@pytest.mark.parametrize("name", [*ODD_NAMES, os.fsdecode(b"\xff\xfe.png")])
def test_odd_names_are_found_read_recorded_and_published(settings, tmp_path, name):
    assert len(os.fsencode(name)) <= 255
    picture(1).save(tmp_path / name)
    assert find_images(tmp_path) == find_images(tmp_path / name) == [tmp_path / name]
    sample = own_sample(tmp_path / name)
    assert sample.image.size == (48, 40)
    (result,) = save_results([{"image": sample.label}], [sample])
    assert Path(result["result_file"]).parent == Path(settings.RESULTS_DIR)
    (tmp_path / name).write_bytes(b"no image")
    with pytest.raises(ImageError) as error:
        own_sample(tmp_path / name).image  # noqa: B018
    assert str(error.value).isprintable()


def test_odd_names_in_a_list_of_captions(settings, tmp_path, caplog):
    names = [name for name in ODD_NAMES if "\n" not in name and '"' not in name]
    for number, name in enumerate(names):
        picture(number).save(tmp_path / name)
    lines = [f"{name},caption {number}" for number, name in enumerate(names)]
    hostile = [
        "../../../etc/passwd,outside",
        "/dev/zero,endless",
        "a\0b.png,null",
        "no comma here",
        "pipe.png,waits",
    ]
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "captions.txt").write_text("\n".join(lines + hostile), encoding="utf-8")
    settings.DATASET_NAME, settings.EXPERIMENT_SAMPLES = str(tmp_path), 1
    loader = load_and_split_dataset()
    samples = {
        s.original_index: s for s in [*loader.get_experiment_data(), *loader.get_training_data()]
    }
    for number in range(len(names)):
        assert samples[number].caption == f"caption {number}" and samples[number].image.size == (
            48,
            40,
        )
    for words in (
        "2 files lie outside the dataset's folder, and are left out",
        "/dev/zero",
        "pipe.png: not a file",
        "a b.png",
        f"line {len(lines) + 4}",
    ):
        assert words in caplog.text


@pytest.mark.skipif(os.name != "posix", reason="symbolic links")
def test_symbolic_links_in_circles_end(tmp_path):
    (tmp_path / "deep").mkdir()
    picture(1).save(tmp_path / "deep" / "a.png")
    (tmp_path / "deep" / "up").symlink_to(tmp_path)
    (tmp_path / "deep" / "me.png").symlink_to(tmp_path / "deep" / "me.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "deep" / "a.png")
    found = find_images(tmp_path)
    assert [path.name for path in found] == ["b.png", "a.png", "me.png"]
    with pytest.raises(ImageError, match=r"me\.png.*symbolic links"):
        own_sample(found[2])
    assert own_sample(found[0]).image.size == (48, 40)


def test_a_pil_image_that_cannot_be_decoded_is_an_image_error(tmp_path):
    data = encoded(tmp_path, picture(1, (300, 200)), "x.jpg")
    (tmp_path / "x.jpg").write_bytes(data[: len(data) // 2])
    with Image.open(tmp_path / "x.jpg") as image, pytest.raises(ImageError, match="damaged"):
        own_sample(image)


def test_all_kinds_as_images_on_the_command_line(command, tmp_path, scratch):
    folder = tmp_path / "mine"
    folder.mkdir()
    bad, good = bad_files(scratch), good_files(scratch)
    for kind, data in {**bad, **good}.items():
        (folder / f"{kind.replace(' ', '_')}\n개.jpg").write_bytes(data)
    (folder / "photo.jpg").mkdir()
    done = command("--image", str(folder))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stdout.count("Caption:") == len(good)
    for kind in bad:
        assert kind.replace(" ", "_") in done.stderr
    assert len(list((tmp_path / "results").glob("image_*.json"))) == len(good)
