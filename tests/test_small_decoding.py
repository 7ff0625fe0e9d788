"""JPEGs decoded small for the image model: the same part of the image, nearly the same vector."""

import io
import json
import random
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from db_manager import slug
from demo import EMBEDDED
from image_embedder import EmbeddedImages, load_image_embedder
from main import initialize_system, run_experiment, search_images
from support.hub.revisions import locate
from support.records import Sample
from support.sources.images import MAX_SIDE, decode_image, small_size
from support.sources.own import own_sample
from support.storage.vectors import DECODED_FOR
from tests.helpers import ROOT, picture
from tests.test_db_manager import CLIP, opened, sample, vector

SEEN = 112


def jpeg(size: tuple[int, int], turned: int = 1, noise: int = 0) -> bytes:
    """A JPEG with a coarse picture and some grain, stored turned as EXIF says."""
    generator = np.random.default_rng(noise)
    coarse = Image.fromarray(generator.integers(0, 256, (7, 9, 3), dtype=np.uint8))
    image = coarse.resize(size, Image.Resampling.BICUBIC)
    if noise:
        grain = generator.normal(0, 6, (size[1], size[0], 3)).astype(np.float32)
        image = Image.fromarray((np.asarray(image) + grain).clip(0, 255).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = turned
    file = io.BytesIO()
    image.save(file, "JPEG", exif=exif)
    return file.getvalue()


def seen_by_clip(size: tuple[int, int]) -> tuple[int, int]:
    """What CLIP's processor resizes an image to, before it crops the middle."""
    shorter, longer = sorted(size)
    sides = SEEN, int(SEEN * longer / shorter)
    return sides if size[0] == shorter else sides[::-1]


@pytest.mark.parametrize("seed", range(4))
def test_a_small_image_has_twice_the_size_that_the_model_makes_of_the_usual_one(seed):
    generator, reduced = random.Random(seed), 0
    for _ in range(8):
        size = generator.randrange(100, 4500), generator.randrange(100, 3500)
        data = jpeg(size, turned=generator.choice([1, 3, 6, 8]))
        usual, small = decode_image(data, "x"), decode_image(data, "x", SEEN)
        if small.size == usual.size:
            assert np.array_equal(np.asarray(small), np.asarray(usual))
            continue
        reduced += 1
        assert small.size == tuple(2 * side for side in seen_by_clip(usual.size))
    assert reduced


@pytest.mark.parametrize("size", [(500, 375), (640, 480), (48, 4000), (600, 4000)])
def test_photos_of_few_pixels_are_decoded_as_ever(size):
    data = jpeg(size)
    assert small_size(Image.open(io.BytesIO(data)), SEEN) is None
    usual, small = decode_image(data, "x"), decode_image(data, "x", SEEN)
    assert np.array_equal(np.asarray(small), np.asarray(usual))
    assert max(usual.size) <= MAX_SIDE


def test_other_formats_are_decoded_as_ever():
    file = io.BytesIO()
    Image.new("RGB", (3000, 2500), "red").save(file, "PNG")
    assert decode_image(file.getvalue(), "x", SEEN).size == (2048, 1707)


@pytest.mark.parametrize("size", [(4000, 3000), (2801, 4000), (4032, 2501)])
def test_the_vector_of_a_small_image_is_nearly_that_of_the_usual_one(size):
    embedder = load_image_embedder(locate(EMBEDDED.model("clip")))
    assert embedder.seen_side == SEEN
    data = jpeg(size, noise=1)
    small = decode_image(data, "x", SEEN)
    assert min(small.size) == 2 * SEEN
    usual, quick = embedder.embed([decode_image(data, "x"), small])
    assert usual @ quick >= 0.999


# --- What the databases remember ------------------------------------------------------------------
def header(folder) -> dict:
    return json.loads((folder / slug("org/clip") / "image_embeddings.json").read_text())["header"]


def test_a_file_of_vectors_keeps_to_how_its_images_were_decoded(tmp_path):
    for seen, folder in ((None, tmp_path / "old"), (224, tmp_path / "new")):
        with opened(folder) as db:
            db.add_vectors(
                db.image_vectors(CLIP, 8, "pil", seen), {sample(1).content_hash: vector(1)}
            )
        for asked in (224, 336, None):
            with opened(folder) as db:
                table = db.image_vectors(CLIP, 8, "pil", asked)
                assert table.decoded_for == seen
                db.add_vectors(table, {sample(asked or 2).content_hash: vector(2)})
            assert header(folder).get(DECODED_FOR) == seen
    with opened(tmp_path / "old", rebuild=True) as db:
        assert db.image_vectors(CLIP, 8, "pil", 224).decoded_for == 224


@pytest.mark.parametrize("wrong", ["x", 0, -3, True, 1e9, [1]])
def test_a_header_that_says_nonsense_is_taken_for_the_usual_decoding(tmp_path, wrong):
    with opened(tmp_path) as db:
        db.image_vectors(CLIP, 8, "pil", 224)
    path = tmp_path / slug("org/clip") / "image_embeddings.json"
    content = json.loads(path.read_text())
    content["header"][DECODED_FOR] = wrong
    path.write_text(json.dumps(content))
    assert opened(tmp_path).image_vectors(CLIP, 8, "pil", 224).decoded_for is None


def test_databases_of_version_0_1_keep_the_usual_decoding(tmp_path):
    shutil.copytree(ROOT / "tests" / "fixtures" / "format_1", tmp_path / "d")
    files = list((tmp_path / "d").rglob("image_embeddings.json"))
    assert files and all(b"decoded_for" not in file.read_bytes() for file in files)


def test_gallery_queries_and_searches_are_decoded_as_the_file_says(tiny_settings, monkeypatch):
    tiny_settings.EXPERIMENT_SAMPLES = 3
    asked, usual = [], Sample.image_for
    monkeypatch.setattr(
        Sample, "image_for", lambda self, seen: asked.append(seen) or usual(self, seen)
    )
    system = initialize_system()
    run_experiment(*system, 0)
    search_images(system.dataset_loader.get_experiment_data()[1].label, *system)
    # The tiny model's 32 pixels: 9 of the gallery, and for the search the two other experiments and
    # the query. The image that was captioned has so few pixels that its usual decoding serves both
    # models.
    assert asked == [32] * 12
    images = EmbeddedImages(None, system.db_manager.image_vectors(*_opened(system)))
    assert images.vectors.decoded_for == 32


def _opened(system):
    return system.model("clip"), 16, "pil"


@pytest.mark.parametrize("seen", [None, SEEN])
def test_an_image_that_was_decoded_is_not_decoded_again_unless_small(tmp_path, seen):
    """The same vectors, whether the images are at hand or not."""
    embedder = load_image_embedder(locate(EMBEDDED.model("clip")))
    images = EmbeddedImages(embedder, SimpleNamespace(decoded_for=seen))
    samples, decoded = [], []
    for number, size in enumerate([(500, 375), (2000, 1500), (700, 690), (4000, 3000)]):
        data = jpeg(size, noise=number + 1)

        def opener(pixels=None, data=data, size=size):
            decoded.append(size)
            return decode_image(data, "x", pixels)

        samples.append(Sample(str(number), "x", opener))
    usual = [each.image for each in samples]
    decoded.clear()
    vectors = images.embed(samples, usual)
    again = {(4000, 3000), (2000, 1500), (700, 690)} if seen else set()
    assert set(decoded) == again
    assert np.array_equal(vectors, images.embed(samples))


def test_a_picture_is_decoded_about_as_small_as_it_is_shown(tmp_path):
    picture(3).resize((1000, 640)).save(tmp_path / "p.jpg", quality=90)
    sample = own_sample(tmp_path / "p.jpg")
    sizes = {side: sample.picture(side).size for side in (900, 480, 300, 72)}
    assert sizes == {900: (1000, 640), 480: (500, 320), 300: (250, 160), 72: (125, 80)}
    small, usual = sample.picture(480), sample.image.resize((500, 320))
    assert np.abs(np.asarray(small, int) - np.asarray(usual, int)).mean() < 3
    assert own_sample(picture(3)).picture(20).size == picture(3).size
