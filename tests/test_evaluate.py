"""`evaluate`: the arms, what they are shown, going on after a stop, and what is left alone."""

import errno
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from demo.scoring import mask_places, scene_scores
from experiments import arms, metrics, recall, scores, tables, why
from experiments.progress import Progress
from image_embedder import load_image_embedder
from main import evaluate_retrieval, initialize_system, run_experiment
from support.errors import DatabaseError, PipelineError, SettingError
from support.hub.names import configured_model
from support.hub.revisions import locate
from support.records import ModelRef
from support.storage import files
from tests.helpers import stop_captioning
from vlm_captioner import Captioner


@pytest.fixture
def system(tiny_settings):
    tiny_settings.TOP_K_SIMILAR = 3
    dataset_loader, db_manager = initialize_system()
    # a generated caption, which must not become context
    run_experiment(dataset_loader, db_manager, 1)
    return dataset_loader, db_manager


def rows_of(outcome, arm) -> list[dict]:
    return [row["arms"][arm] for row in outcome["captions"]]


def test_each_arm_is_shown_what_its_name_says(system):
    outcome = evaluate_retrieval(*system)
    dataset_loader = system[0]
    gallery = {sample.caption: sample for sample in dataset_loader.get_training_data()}
    assert list(outcome["scores"]) == list(arms.ARMS) and outcome["images"] == 3
    lines = {
        arm: [
            [line[2:] for line in row["prompt"].splitlines() if line.startswith("- ")]
            for row in rows_of(outcome, arm)
        ]
        for arm in ("none", "retrieved", "random", "wrong")
    }
    assert lines["none"] == [[], [], []]
    for arm in ("retrieved", "random", "wrong"):
        assert all(len(shown) == 3 and set(shown) <= set(gallery) for shown in lines[arm]), arm
    embedder = load_image_embedder(locate(configured_model("clip")))
    for number, sample in enumerate(dataset_loader.get_experiment_data()):
        query = embedder.embed([sample.image])[0]
        order = sorted(
            gallery, key=lambda text: -float(embedder.embed([gallery[text].image])[0] @ query)
        )
        assert lines["retrieved"][number] == order[:3]
        assert lines["wrong"][number] == order[:-4:-1]
        assert rows_of(outcome, "nearest")[number]["caption"] == order[0]
        assert rows_of(outcome, "consensus")[number]["caption"] in order[:3]
    assert lines["random"] != lines["retrieved"]


def test_nothing_is_written_to_the_databases(system):
    dataset_loader, db_manager = system
    db_manager.close()
    files = {
        path: path.read_bytes()
        for path in db_manager.folder.rglob("*.json*")
        if path.name != "lock-holder.json"
    }
    evaluate_retrieval(dataset_loader, db_manager)
    assert {path: path.read_bytes() for path in files} == files


def test_scores_have_paired_intervals_against_both_baselines(system):
    scores = evaluate_retrieval(*system)["scores"]
    for metric in ("cider", "bleu_4", "rouge_l", "clip_score", "text_cosine", "copied"):
        for arm, row in scores.items():
            for baseline in ("none", "retrieved"):
                interval = row[metric].get(f"minus_{baseline}")
                assert (interval is None) == (arm == baseline)
                if interval:
                    difference = row[metric]["value"] - scores[baseline][metric]["value"]
                    assert interval["difference"] == pytest.approx(difference)
                    assert interval["low"] <= interval["high"]


def test_a_stopped_evaluation_goes_on_where_it_was(system, tiny_settings, monkeypatch):
    tiny_settings.VLM_BATCH_SIZE = 1
    whole = evaluate_retrieval(*system)
    calls = stop_captioning(monkeypatch, at=5)
    with pytest.raises(KeyboardInterrupt):
        evaluate_retrieval(*system)
    partial = next(Path(tiny_settings.RESULTS_DIR).glob("evaluation_*.partial.jsonl"))
    with partial.open("a", encoding="utf-8") as file:
        file.write('{"arm": "wrong", "content_ha')  # what a killed run leaves
    again = evaluate_retrieval(*system)
    assert again == whole
    assert len(calls) == 5 + 4 * 3 - 4
    assert not partial.exists()


@pytest.mark.parametrize("suffix", [".json", ".md", ".png"])
def test_a_report_that_cannot_be_saved_loses_no_caption(
    command, tiny_settings, monkeypatch, tmp_path, suffix
):
    written, write = [], Captioner.write_captions
    monkeypatch.setattr(
        Captioner, "write_captions", lambda *a: written.append(len(a[1])) or write(*a)
    )
    replace, results = files.os.replace, tmp_path / "results"

    def full(source, target):
        if Path(target).suffix == suffix and Path(target).parent == results:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replace(source, target)

    monkeypatch.setattr(files.os, "replace", full)
    link = files.os.link
    monkeypatch.setattr(
        files.os, "link", lambda a, b: full(a, b) if Path(b).suffix == suffix else link(a, b)
    )
    done = command("evaluate", "--arms", "none", "retrieved")
    assert done.returncode == 1 and "or set RESULTS_DIR" in done.stderr
    assert "Free some space there" in done.stderr
    assert list(results.glob("*.partial.jsonl")) and sum(written) == 6
    monkeypatch.setattr(files.os, "replace", replace)
    monkeypatch.setattr(files.os, "link", link)
    assert command("evaluate", "--arms", "none", "retrieved").returncode == 0
    assert sum(written) == 6 and not list(results.glob("*.partial.jsonl"))


def test_captions_of_any_text_are_found_again(settings):
    texts = ["a\u2028b", "c\u0085d", "e\x1cf", "\u2029", "plain", "개"]
    rows = [
        {"arm": "none", "content_hash": str(n), "caption": text, "prompt": None}
        for n, text in enumerate(texts)
    ]
    Progress("name", "former").add(rows)
    assert list(Progress("name", "former").done.values()) == rows


@pytest.mark.parametrize(
    "damage",
    [
        '{"arm": "none", "caption": "개'.encode()[:-1],
        b"[]\nnull\n3\n",
        b'{"arm": "none"}\n',
        b'{"arm": "none", "content_hash": ["x"], "caption": "c", "prompt": null}\n',
        b'{"arm": "none", "content_hash": "x", "caption": 7, "prompt": null}\n',
        b"\xff\xfe\n",
        b"[" * 100_000,
    ],
)
def test_what_cannot_be_read_of_the_captions_so_far_is_counted(settings, damage, caplog):
    row = {"arm": "none", "content_hash": "1", "caption": "c", "prompt": None}
    Progress("name", "former").add([row])
    path = Progress("name", "former").path
    path.write_bytes(path.read_bytes() + damage)
    found = Progress("name", "former")
    assert list(found.done.values()) == [row]
    assert f"of {path} cannot be read: their captions are written again" in caplog.text
    found.add([{**row, "content_hash": "2"}])
    assert len(Progress("name", "former").done) == 2


def test_captions_so_far_that_cannot_be_opened_are_named(settings):
    path = Progress("name", "former").path
    path.mkdir(parents=True)
    with pytest.raises(DatabaseError, match=rf"{path.name} cannot be read: Is a directory"):
        Progress("name", "former")


def test_without_one_readable_experiment_it_says_so(system):
    for sample in system[0].get_experiment_data():
        Path(sample.label).write_bytes(b"gone bad")
    with pytest.raises(PipelineError, match=r"None of the 3 experiment images can be read: .*png"):
        evaluate_retrieval(*system)


def test_an_experiment_that_cannot_be_read_is_left_out(system, caplog):
    Path(system[0].get_experiment_data()[1].label).write_bytes(b"gone bad")
    assert evaluate_retrieval(*system, arms=["none"])["images"] == 2
    assert "1 images cannot be read and are left out: " in caplog.text


def test_models_without_a_prompt_get_the_arms_that_apply(tiny_settings, tiny, caplog):
    tiny_settings.VLM_MODEL_NAME = str(tiny("blip"))
    outcome = evaluate_retrieval(*initialize_system())
    assert list(outcome["scores"]) == ["none", "nearest", "consensus"]
    assert "takes no prompt" in caplog.text


def test_arms_and_samples_are_checked(command):
    assert [arm.name for arm in arms.arms_named(["wrong", "none"])] == ["none", "wrong"]
    with pytest.raises(SettingError, match=r"'best'.*none, retrieved"):
        arms.arms_named(["best"])
    done = command("evaluate", "--samples", "9")
    assert done.returncode == 2 and "1 to 3" in done.stderr


def test_the_command_prints_a_table_and_leaves_json_markdown_and_plot(command, tmp_path):
    done = command("evaluate", "--samples", "2", "--arms", "none", "retrieved", "nearest")
    assert done.returncode == 0, done.stderr
    assert "| retrieved |" in done.stdout and "CIDEr minus no retrieval" in done.stdout
    paths = {path.suffix: path for path in (tmp_path / "results").glob("evaluation_*")}
    assert set(paths) == {".json", ".md", ".png"}
    outcome = json.loads(paths[".json"].read_text(encoding="utf-8"))
    assert (
        len(outcome["captions"]) == 2
        and outcome["models"]["clip"]["revision"]
        and outcome["settings"]["top_k_similar"] == 5
    )
    assert paths[".md"].read_text(encoding="utf-8") in done.stdout
    assert paths[".png"].read_bytes().startswith(b"\x89PNG")


def test_without_the_extra_packages_it_says_which_line_installs_them(command, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocoevalcap", None)
    done = command("evaluate")
    assert done.returncode == 1 and "pip install -r requirements-eval.txt" in done.stderr


def test_clip_scores_are_the_papers_formulas():
    generator = np.random.default_rng(3)
    texts = [f"text {number}" for number in range(12)]
    vectors = generator.standard_normal((16, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    looks, images = dict(zip(texts, vectors, strict=False)), vectors[12:]
    captions, references = texts[:4], [texts[4:6], texts[6:9], texts[9:10], texts[10:12]]
    plain = [2.5 * max(float(images[n] @ looks[captions[n]]), 0) for n in range(4)]
    assert scores.clip_score(captions, images, looks) == pytest.approx(plain, abs=1e-6)
    nearest = [
        max(max(float(looks[captions[n]] @ looks[text]), 0) for text in references[n])
        for n in range(4)
    ]
    harmonic = [2 / (1 / a + 1 / b) if a and b else 0 for a, b in zip(plain, nearest, strict=True)]
    found = scores.ref_clip_score(captions, references, images, looks)
    assert found == pytest.approx(harmonic, abs=1e-6) and max(found) > 0


def test_clip_scores_are_those_of_the_image_model(system):
    outcome = evaluate_retrieval(*system, arms=["none"])
    embedder = load_image_embedder(locate(configured_model("clip")))
    row = outcome["captions"][0]
    sample = system[0].get_experiment_data()[0]
    text = embedder.embed_texts(["A photo depicts " + row["arms"]["none"]["caption"]])[0]
    expected = 2.5 * max(float(embedder.embed([sample.image])[0] @ text), 0)
    assert row["arms"]["none"]["scores"]["clip_score"] == pytest.approx(expected, abs=1e-5)


def test_distinct_n_counts_different_ngrams():
    captions = ["a red dog", "a red cat", "a dog"]
    one, two = (metrics.distinct_statistic(captions, n) for n in (1, 2))
    assert float(one(np.ones(3))) == pytest.approx(4 / 8)
    assert float(two(np.ones(3))) == pytest.approx(4 / 5)
    weights = np.array([[2, 0, 1], [0, 3, 0]])  # as in a bootstrap
    assert one(weights) == pytest.approx([3 / 8, 3 / 9])
    assert two(weights) == pytest.approx([3 / 5, 2 / 6])


def test_clip_scores_own_captions_of_every_image_model(settings, tiny):
    for name in ("clip", "siglip"):
        folder = str(tiny(name))
        vectors = load_image_embedder(locate(ModelRef(folder, folder, local=True))).embed_texts(
            ["a dog", "a red cat " * 99]
        )
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_the_demo_counts_what_a_caption_names_rightly():
    references = [
        "A red dog and a blue boat on the sand at Lorenga Bay at night.",
        "A puppy on the beach.",
    ]
    right = scene_scores(
        "A red puppy and a green boat on the sand at Lorenga Bay at night.", references
    )
    assert (
        right["place"] == 1
        and right["things"] == 0.5
        and right["kinds"] == 1
        and right["colors"] == 0.5
    )
    assert right["time"] == 1 and right["ground"] == 1
    wrong = scene_scores("A cat.", references)
    assert wrong["place"] == 0 and wrong["things"] == 0 and wrong["ground"] == 0
    # right to the letter
    assert scene_scores("A red puppy at Lorenga Bayy.", references)["place"] == 0
    assert "Lorenga" not in mask_places(references[0])


def test_the_table_lists_every_arm(system):
    outcome = evaluate_retrieval(*system, arms=["retrieved", "nearest"])
    table = tables.evaluation_table(outcome)
    assert table.count("| copy of the nearest |") == 2


def test_clip_score_has_a_model_of_its_own(tiny_settings, tiny, caplog):
    system = initialize_system()
    same = evaluate_retrieval(*system, arms=["none"])
    assert same["clip_score_model"]["circular"]
    assert "circular, the same model chose the neighbours" in tables.evaluation_table(same)
    tiny_settings.CLIPSCORE_MODEL_NAME = str(tiny("siglip"))
    other = evaluate_retrieval(*system, arms=["none"])
    model = other["clip_score_model"]
    assert model["name"] == str(tiny("siglip")) and model["revision"] and not model["circular"]
    table = tables.evaluation_table(other)
    assert f"CLIPScore by {tiny('siglip')})" in table
    embedder = load_image_embedder(locate(configured_model("clip_score")))
    for number, row in enumerate(other["captions"]):
        image = system.dataset_loader.get_experiment_data()[number].image
        text = embedder.embed_texts(["A photo depicts " + row["arms"]["none"]["caption"]])[0]
        expected = 2.5 * max(float(embedder.embed([image])[0] @ text), 0)
        found = row["arms"]["none"]["scores"]["clip_score"]
        assert found == pytest.approx(expected, abs=1e-5)
    assert other["recall"] == same["recall"]  # by the model that finds neighbors, in both


def test_recall_is_counted_as_clip_benchmark_counts_it():
    generator = np.random.default_rng(1)
    references = [
        [f"{image} {n}" for n in range(count)] for image, count in enumerate([2, 1, 3, 4])
    ]
    texts = [text for some in references for text in some]
    owners = [image for image, some in enumerate(references) for _ in some]
    looks = generator.standard_normal((len(texts), 6)).astype(np.float32)
    images = generator.standard_normal((4, 6)).astype(np.float32)
    queries = generator.standard_normal((len(texts), 6)).astype(np.float32)
    clip = SimpleNamespace(embed_texts=lambda some: looks)
    found = recall.clip_recall(references, images, clip)
    similarity = looks @ images.T  # (T, N)
    for k in (1, 5, 10):
        by_text = [owners[t] in np.argsort(-similarity[t])[:k] for t in range(len(texts))]
        by_image = [
            any(owners[t] == n for t in np.argsort(-similarity[:, n])[:k]) for n in range(4)
        ]
        assert found["text_to_image"][str(k)] == pytest.approx(np.mean(by_text))
        assert found["image_to_text"][str(k)] == pytest.approx(np.mean(by_image))
    captions = {"arm": ["0 0", "2 1", "2 0", "3 3"]}
    vectors = dict(zip(texts, looks, strict=True))
    text = SimpleNamespace(embed_queries=lambda some: queries)
    found = recall.caption_recall(references, captions, vectors, text)
    known = np.array([vectors[caption] for caption in captions["arm"]])
    first = [owners[t] == np.argmax(known @ queries[t]) for t in range(len(texts))]
    assert found["arm"]["1"] == pytest.approx(np.mean(first))
    others = []
    for t, owner in enumerate(owners):
        if len(references[owner]) > 1:  # an image known by one text alone has no other
            best = max(
                (o for o in range(len(texts)) if o != t), key=lambda o: queries[t] @ looks[o]
            )
            others.append(owners[best] == owner)
    assert found["references"]["1"] == pytest.approx(np.mean(others)) and len(others) == 9


def test_equal_similarities_keep_their_order():
    same = np.ones((3, 2), np.float32)
    clip = SimpleNamespace(embed_texts=lambda some: same)
    found = recall.clip_recall([["a"], ["b"], ["c"]], same, clip)
    assert found["text_to_image"] == {"1": pytest.approx(1 / 3), "5": 1.0, "10": 1.0}


def test_gains_name_the_images_and_depend_on_the_nearest_neighbor(tiny_settings, photos):
    outcome = evaluate_retrieval(*initialize_system())
    found = outcome["gains"]
    differences = {
        row["experiment_index"]: row["arms"]["retrieved"]["scores"]["cider"]
        - row["arms"]["none"]["scores"]["cider"]
        for row in outcome["captions"]
    }
    for kind, sign in (("helped", 1), ("harmed", -1)):
        listed = [(row["experiment_index"], row["difference"]) for row in found[kind]]
        expected = sorted(
            ((n, d) for n, d in differences.items() if sign * d > 0), key=lambda p: -sign * p[1]
        )
        assert listed == [(n, pytest.approx(d, abs=1e-5)) for n, d in expected]
    assert evaluate_retrieval(*initialize_system(), arms=["none"])["gains"] is None


def test_bins_hold_as_many_images_each_with_their_mean_gain(settings):
    similarities, difference = np.linspace(0.9, 0.5, 50), np.arange(50) / 50
    bins = why._by_similarity(difference, similarities)
    assert [row["images"] for row in bins] == [10] * 5
    assert bins[0]["from"] == 0.5 and bins[-1]["to"] == 0.9
    means = [difference[40 - 10 * n : 50 - 10 * n].mean() for n in range(5)]
    assert [row["difference"] for row in bins] == pytest.approx(means)
    assert all(row["low"] < row["difference"] < row["high"] for row in bins)
    assert sum(row["images"] for row in why._by_similarity(difference[:3], similarities[:3])) == 3


def test_more_samples_than_there_are_is_an_error_in_a_notebook_too(system):
    with pytest.raises(SettingError, match="from 1 to 3"):
        evaluate_retrieval(*system, samples=9)
