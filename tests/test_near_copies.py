"""Near-copies in the gallery: planted ones are found, other pictures are not."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from experiments import near_copies
from experiments.near_copies import find_near_copies
from experiments.tables import evaluation_table
from main import evaluate_retrieval, initialize_system
from support.sources.own import own_sample
from tests.helpers import make_photos

SIZE = (320, 240)
CHANGES = {
    "saved again": ((0, 0, 1, 1), 1, 30),
    "half as large": ((0, 0, 1, 1), 0.5, 80),
    "a quarter as large": ((0, 0, 1, 1), 0.25, 80),
    "enlarged": ((0, 0, 1, 1), 1.6, 80),
    "cropped all around": ((0.05, 0.05, 0.95, 0.95), 1, 85),
    "cropped on the left": ((0.05, 0, 1, 1), 1, 85),
    "cropped at the bottom": ((0, 0, 1, 0.95), 1, 85),
    "cropped on two sides": ((0.05, 0, 1, 0.95), 1, 85),
    "cropped and made smaller": ((0.05, 0.05, 0.95, 0.95), 0.5, 60),
}


def scene(seed: int) -> Image.Image:
    """Something like a photo: soft areas, sharp edges, grain."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(0, 256, (5, 7, 3), dtype=np.uint8))
    image = coarse.resize(SIZE, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(8):
        x, y = generator.integers(0, SIZE[0] - 60), generator.integers(0, SIZE[1] - 60)
        w, h = generator.integers(15, 90, 2)
        color = tuple(int(v) for v in generator.integers(0, 256, 3))
        draw.ellipse((int(x), int(y), int(x + w), int(y + h)), fill=color)
    grain = generator.normal(0, 5, (SIZE[1], SIZE[0], 3))
    return Image.fromarray((np.asarray(image) + grain).clip(0, 255).astype(np.uint8))


def changed(image: Image.Image, name: str, path) -> None:
    box, scale, quality = CHANGES[name]
    crop = image.crop(tuple(round(side * share) for side, share in zip(SIZE * 2, box, strict=True)))
    smaller = crop.resize((round(crop.width * scale), round(crop.height * scale)))
    smaller.save(path, quality=quality)


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("originals")
    for seed in range(40):
        scene(seed).save(folder / f"{seed:02}.png")
    return [own_sample(path) for path in sorted(folder.iterdir())]


def test_different_pictures_have_no_near_copies(originals, settings):
    assert find_near_copies(originals[:20], originals[20:]) == {}


@pytest.mark.parametrize("name", CHANGES)
def test_planted_copies_are_found_on_either_side(originals, settings, tmp_path, name, caplog):
    copies = []
    for seed in (3, 17):
        path = tmp_path / f"{seed}.jpg"
        changed(scene(seed), name, path)
        copies.append(own_sample(path))
    found = find_near_copies([originals[17], originals[4], originals[3]], originals[20:] + copies)
    assert found == {originals[17].content_hash: copies[1], originals[3].content_hash: copies[0]}
    assert "2 of 3 experiment images have a near-copy in the gallery" in caplog.text
    found = find_near_copies(copies, originals[:30])
    assert found == {copies[0].content_hash: originals[3], copies[1].content_hash: originals[17]}


def test_hashes_alone_would_take_others_for_copies(originals, settings, monkeypatch):
    monkeypatch.setattr(near_copies, "MOST_BITS", 64)  # every pair is looked at
    assert find_near_copies(originals[:3], originals[20:30]) == {}


def test_the_demos_gallery_holds_no_near_copies(settings):
    settings.MODE, settings.EXPERIMENT_SAMPLES = "demo", 400
    from dataset_loader import load_and_split_dataset

    dataset = load_and_split_dataset()
    experiments, gallery = dataset.get_experiment_data(), dataset.get_training_data()
    assert (len(experiments), len(gallery)) == (400, 800)
    assert find_near_copies(experiments, gallery) == {}


def test_what_cannot_be_read_has_no_copy(settings, tmp_path):
    folder = make_photos(tmp_path / "p", 4)
    samples = [own_sample(path) for path in sorted(folder.glob("*.png"))]
    for sample in samples[:2]:  # an experiment, and one of the gallery
        Path(sample.label).write_bytes(b"gone bad")
    assert find_near_copies(samples[:1], samples[1:]) == {}


def test_scores_are_given_with_and_without_the_images_that_have_one(tiny_settings, photos, caplog):
    system = initialize_system()
    assert evaluate_retrieval(*system, arms=["none"])["scores_without_near_copies"] is None
    query = system.dataset_loader.get_experiment_data()[0]
    copy = photos / "copy.jpg"
    query.image.resize((300, 200)).save(copy, quality=80)
    with (photos / "captions.txt").open("a") as file:
        file.write("copy.jpg,a copy\n")
    system = initialize_system()
    assert copy.name in {s.label.rsplit("/")[-1] for s in system.dataset_loader.get_training_data()}
    outcome = evaluate_retrieval(*system, arms=["none", "nearest"])
    assert "Near-copies in the gallery: of 1 of the 3 images." in evaluation_table(outcome)
    (row,) = outcome["near_copies"]
    assert row["gallery_image"] == str(copy)
    kept = [
        r["arms"]["nearest"]["scores"]["cider"]
        for r in outcome["captions"]
        if r["image"] != row["image"]
    ]
    assert len(kept) == outcome["images"] - 1 > 0
    without = outcome["scores_without_near_copies"]["nearest"]
    assert without["cider"]["value"] == pytest.approx(np.mean(kept))
    assert without["cider"]["minus_none"]["low"] <= without["cider"]["minus_none"]["high"]
    assert "without the images that have a near-copy" in outcome._repr_html_()
