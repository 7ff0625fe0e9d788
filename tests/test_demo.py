"""The embedded demo through the whole pipeline, as README and demo/README.md describe it."""

import statistics
import time

import numpy as np
import pytest

import demo
from dataset_loader import load_and_split_dataset
from demo.scoring import scene_scores
from main import evaluate_retrieval, initialize_system, run_all_experiments, search_images
from tests.helpers import run_python


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    """The demo's dataset and databases, with settings that are put back."""
    import config

    before = {name: value for name, value in vars(config).items() if name.isupper()}
    folder = tmp_path_factory.mktemp("demo")
    config.MODE, config.SHOW_PROGRESS, config.VLM_BATCH_SIZE = "demo", False, 16
    config.DB_DIR, config.RESULTS_DIR = str(folder / "databases"), str(folder / "results")
    yield initialize_system()
    for name, value in before.items():
        setattr(config, name, value)


def test_it_is_a_dataset_of_400_experiments_and_800_gallery_images(system):
    dataset_loader, _ = system
    experiments = dataset_loader.get_experiment_data()
    assert (len(experiments), len(dataset_loader.get_training_data())) == (400, 800)
    assert all(len(sample.captions) == 5 for sample in experiments)


def test_the_dataset_alone_is_the_same_one(system):
    alone, used = load_and_split_dataset(), system[0]
    assert (alone.name, alone.mode) == (used.name, used.mode) == ("demo", "demo")
    hashes = [sample.content_hash for sample in alone.get_experiment_data()]
    assert hashes == [sample.content_hash for sample in used.get_experiment_data()]


def test_captions_of_the_first_fifty_experiments_say_what_is_there(system):
    results = run_all_experiments(*system, indices=range(50))
    scores = [scene_scores(r["generated_caption"], r["query_info"]["captions"]) for r in results]
    mean = {
        key: statistics.fmean(row[key] for row in scores if row[key] == row[key])
        for key in scores[0]
    }
    assert mean["time"] >= 0.95 and mean["ground"] >= 0.95, mean
    assert mean["things"] >= 0.8 and mean["place"] >= 0.85, mean
    for result in results:
        similarities = [neighbor["similarity"] for neighbor in result["similar_images"]]
        assert len(similarities) == 5 and similarities == sorted(similarities, reverse=True)


def test_only_retrieval_gives_the_place_away(system):
    outcome = evaluate_retrieval(*system, samples=50, arms=["none", "retrieved", "wrong"])
    place = {arm: row["place"]["value"] for arm, row in outcome["scores"].items()}
    assert place["retrieved"] >= 0.85 and place["none"] < 0.05 and place["wrong"] < 0.05


@pytest.mark.parametrize(
    "query, words",
    [
        ("a puppy on snow", {"puppy", "dog", "hound"}),
        ("a kitten in the evening", {"kitten", "cat"}),
        ("somebody in a red coat", {"person", "someone"}),
        ("a sailing boat at night", {"boat", "sailboat", "dinghy", "sailing"}),
    ],
)
def test_free_words_find_the_right_scenes(system, query, words):
    found = search_images(query, *system, top_k=3)
    captions = [neighbor["metadata"]["caption"] for neighbor in found]
    hits = [bool(words & set(caption.lower().rstrip(".").split())) for caption in captions]
    assert sum(hits) >= 2, captions


def test_an_image_finds_images_of_its_own_place(system):
    dataset_loader, _ = system
    hits = []
    for sample in dataset_loader.get_experiment_data()[:10]:
        found = search_images(sample.image, *system)
        captions = [n["metadata"]["caption"] for n in found if n["metadata"]["caption"]]
        hits += [scene_scores(caption, sample.captions)["place"] for caption in captions]
    assert statistics.fmean(hits) >= 0.8


def test_a_plain_run_without_a_hub_falls_back_to_the_demo_at_once(tmp_path):
    demo.prepare_scenes()
    start = time.monotonic()
    folders = ["--db-dir", str(tmp_path / "d"), "--results-dir", str(tmp_path / "r")]
    done = run_python("main.py", *folders)
    assert done.returncode == 0, done.stderr
    assert "Running the embedded demo instead" in done.stderr and "jxie/flickr8k" in done.stderr
    assert "Mode: demo   dataset: demo" in done.stdout and "Caption:" in done.stdout
    assert time.monotonic() - start < 60


def test_the_text_model_is_the_packages_with_the_trained_layer_behind_it():
    from sentence_transformers import SentenceTransformer

    folders = demo.text_model_folder(), demo.text_package_folder()
    ours, theirs = (SentenceTransformer(str(folder)) for folder in folders)
    texts = ["a red dog at night", "Vào buổi tối"]
    layer = ours[2].linear.weight.detach().numpy()
    expected = theirs.encode(texts) @ layer.T
    assert np.abs(layer - np.eye(len(layer))).max() > 0.01
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert ours.encode(texts) == pytest.approx(expected, abs=1e-5)
    assert demo.text_model_folder().parent == demo.CACHE  # assembled once, then cached


def test_the_package_of_the_text_model_is_verified(monkeypatch):
    monkeypatch.setattr(demo, "TEXT_MODEL_SHA256", "0" * 64)
    with pytest.raises(demo.PipelineError, match="not the one expected"):
        demo.text_package_folder()


def test_scenes_are_published_whole_or_not_at_all(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "CACHE", tmp_path)

    def interrupted(folder, count):
        (folder / "0000.jpg").write_bytes(b"")
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "draw_scenes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        demo.prepare_scenes()
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]
