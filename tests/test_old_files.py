"""Databases and results of the first version open, are searched, and are resumed unchanged."""

import json
import shutil
from pathlib import Path

import pytest

from experiments.arms import ARMS
from main import (
    evaluate_retrieval,
    initialize_system,
    run_all_experiments,
    run_experiment,
    search_images,
)
from tests.helpers import picture
from vlm_captioner import Captioner

OLD = Path(__file__).parent / "fixtures" / "format_1"
EXPECTED = json.loads((OLD / "expected.json").read_text("utf-8"))
COMMITS = {"clip": "c" * 40, "vlm": "e" * 40, "text": "7" * 40, "photos": "d" * 40}
MODELS = {"clip": "clip", "vlm": "idefics3", "text": "bert"}


@pytest.fixture
def old_files(online, settings, tiny):
    """Settings, Hub and files as they were when the first version was stopped."""
    for kind, architecture in MODELS.items():
        publish(online, f"somebody/{kind}", tiny(architecture), "model", COMMITS[kind])
    publish(online, "somebody/photos", OLD / "dataset", "dataset", COMMITS["photos"])
    settings.DATASET_NAME, settings.CLIP_MODEL_NAME = "somebody/photos", "somebody/clip"
    settings.VLM_MODEL_NAME, settings.CAPTION_EMBEDDING_MODEL = "somebody/vlm", "somebody/text"
    settings.EXPERIMENT_SAMPLES, settings.TOP_K_SIMILAR = 4, 3
    shutil.copytree(OLD / "databases", settings.DB_DIR)
    shutil.copytree(OLD / "results", settings.RESULTS_DIR)
    return settings


def publish(hub_server, name: str, folder: Path, kind: str, commit: str) -> None:
    """Publishes a folder as the commit that the files name, whatever its content hashes to."""
    made = hub_server.publish(name, folder, kind)
    repository = hub_server.repositories[kind, name]
    repository.commits[commit] = repository.commits.pop(made)
    repository.names["main"] = commit


@pytest.fixture
def written(monkeypatch) -> list[int]:
    """How many images each call of the VLM captions."""
    counts, write = [], Captioner.write_captions

    def counted(self, images, prompts):
        counts.append(len(images))
        return write(self, images, prompts)

    monkeypatch.setattr(Captioner, "write_captions", counted)
    return counts


def below(folder: str | Path) -> dict[str, bytes]:
    paths = [path for path in Path(folder).rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_they_open_and_nothing_is_made_anew(old_files):
    before = below(old_files.DB_DIR)
    _, db_manager = initialize_system()
    assert db_manager.captions == EXPECTED["captions.json"]
    db_manager.close()
    after = below(old_files.DB_DIR)
    assert {name: after[name] for name in before} == before


def test_they_are_searched(old_files):
    system = initialize_system()
    by_image = search_images(picture(77), *system, top_k=20)
    by_text = search_images("a red dog", *system, top_k=20)
    for found, expected in ((by_image, "by_image"), (by_text, "by_text")):
        # An image of its own was captioned after these searches.
        (later,) = [n for n in found if n["metadata"]["image"] == "image"]
        assert later["metadata"]["caption"] == EXPECTED["own"]
        # Version 0.1 found experiments by what it had written for them only.
        captioned = [n for n in found if n["metadata"]["caption"] is not None]
        assert [n for n in captioned if n is not later] == EXPECTED[expected]


def test_a_run_that_was_stopped_goes_on(old_files, written):
    system = initialize_system()
    results = run_all_experiments(*system)
    assert written == [2]  # the experiments 0 and 3: the run had captioned 1 and 2
    assert {result["experiment_info"]["run"] for result in results} == {EXPECTED["run"]}
    assert [result["generated_caption"] for result in results[1:3]] == EXPECTED["captions"]
    sources = [n["metadata"]["source"] for result in results for n in result["similar_images"]]
    assert "image" not in {n["metadata"]["image"] for r in results for n in r["similar_images"]}
    assert set(sources) <= {"original", "generated"}
    pools = below(Path(old_files.DB_DIR) / "somebody--photos" / "frozen_pools")
    assert pools == below(OLD / "databases" / "somebody--photos" / "frozen_pools")


def test_an_evaluation_that_was_stopped_goes_on(old_files, written):
    (partial,) = Path(old_files.RESULTS_DIR).glob("*.partial.jsonl")
    rows = [json.loads(line) for line in partial.read_text("utf-8").splitlines() if line]
    outcome = evaluate_retrieval(*initialize_system())
    assert list(outcome["scores"]) == list(ARMS)
    assert sum(written) == 4 * 4 - len(rows)  # four arms with a model, four images
    texts = {row["arms"][row_["arm"]]["caption"] for row in outcome["captions"] for row_ in rows}
    assert {row["caption"] for row in rows} <= texts
    assert not partial.exists()


def test_captioning_again_keeps_the_number_and_compaction_keeps_the_records(old_files):
    dataset_loader, db_manager = initialize_system()
    key = dataset_loader.get_experiment_data()[0].content_hash
    number = db_manager.captions[key]["index"]
    result = run_experiment(dataset_loader, db_manager, 0)
    assert result["experiment_info"]["new_db_index"] == number
    db_manager.close()
    again = initialize_system()[1].captions
    assert set(again) == set(EXPECTED["captions.json"])
    others = {name: record for name, record in again.items() if name != key}
    assert others == {k: r for k, r in EXPECTED["captions.json"].items() if k != key}
