"""`--all`: every experiment, in batches, stopped and resumed, with one fixed pool."""

import json
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import main
from main import initialize_system, run_all_experiments, run_experiment
from support.errors import PipelineError
from tests.helpers import ROOT, make_photos


@pytest.fixture
def many(tiny_settings, tmp_path):
    """A dataset of 30 pictures, 10 of them experiments."""
    tiny_settings.DATASET_NAME = str(make_photos(tmp_path / "many", 30))
    tiny_settings.EXPERIMENT_SAMPLES = 10
    return tiny_settings


def captions(results) -> list[str]:
    return [result["generated_caption"] for result in results]


def test_batches_and_single_images_give_the_same_captions(many, tmp_path):
    many.VLM_BATCH_SIZE = 4
    together = run_all_experiments(*initialize_system())
    many.VLM_BATCH_SIZE, many.DB_DIR, many.RESULTS_DIR = 1, str(tmp_path / "d"), str(tmp_path / "r")
    many.USE_GENERATED_AS_CONTEXT = False
    system = initialize_system()
    assert captions(run_experiment(*system, index) for index in range(10)) == captions(together)


def test_what_is_finished_is_not_captioned_again(many, monkeypatch):
    many.USE_GENERATED_AS_CONTEXT = False  # else a new run is shown what the first one wrote
    counts = count_captioned(monkeypatch)
    first = run_all_experiments(*initialize_system(), indices=range(6))
    second = run_all_experiments(*initialize_system())
    assert counts == [6, 4]
    assert second[:6] == first
    assert captions(run_all_experiments(*initialize_system(), recaption=True)) == captions(second)
    assert counts[2:] == [8, 2]


def count_captioned(monkeypatch) -> list[int]:
    counts, write = [], main.write_results

    def counted(batch, *rest):
        counts.append(len(batch.samples))
        return write(batch, *rest)

    monkeypatch.setattr(main, "write_results", counted)
    return counts


@pytest.mark.parametrize(
    "name, value",
    [
        ("TOP_K_SIMILAR", 3),
        ("PROMPT_WITHOUT_CONTEXT", "x"),
        ("MAX_NEW_TOKENS", 7),
        ("NUM_BEAMS", 2),
    ],
)
def test_another_setting_is_another_run(many, monkeypatch, name, value):
    run_all_experiments(*initialize_system(), indices=[0, 1])
    counts = count_captioned(monkeypatch)
    setattr(many, name, value)
    run_all_experiments(*initialize_system(), indices=[0, 1])
    assert counts == [2]


def test_captions_written_in_between_change_neither_the_pool_nor_what_is_finished(
    many, monkeypatch
):
    system = initialize_system()
    run_experiment(*system, 9)  # stands in the databases when the run begins, so it is context
    run_all_experiments(*system, indices=range(4))
    run_experiment(*system, 8)  # does not
    results = run_all_experiments(*initialize_system())
    generated = {
        n["metadata"]["image"]
        for r in results
        for n in r["similar_images"]
        if n["metadata"]["source"] == "generated"
    }
    experiments = system[0].get_experiment_data()
    assert generated <= {experiments[9].label}


def test_one_failing_image_is_reported_and_costs_no_other(many):
    system = initialize_system()
    Path(system[0].get_experiment_data()[3].label).write_bytes(b"gone bad")
    with pytest.raises(PipelineError, match=r"1 of 10 images failed: .*\.png"):
        run_all_experiments(*system)
    results = list(Path(many.RESULTS_DIR).glob("experiment_*.json"))
    assert len(results) == 9


def arguments(tiny, tmp_path, folder: str) -> list[str]:
    models = [("--clip-model", "clip"), ("--vlm-model", "idefics3"), ("--text-model", "bert")]
    flags = [
        "--all", "--mode", "hub", "--dataset", str(tmp_path / "many"), "--experiment-samples", "10",
    ]  # fmt: skip
    flags += [word for flag, model in models for word in (flag, str(tiny(model)))]
    folders = [
        "--db-dir", str(tmp_path / folder / "databases"),
        "--results-dir", str(tmp_path / folder / "results"),
    ]  # fmt: skip
    sizes = ["--vlm-batch-size", "2", "--max-new-tokens", "6"]
    return [sys.executable, "main.py", *flags, *folders, *sizes]


def end_state(folder: Path) -> tuple[dict, dict]:
    """The databases' captions and the results, without times and file names, which vary."""
    database = json.loads(
        next(folder.glob("databases/*/captions.json")).read_text(encoding="utf-8")
    )["records"]
    for record in database.values():
        for key in ("timestamp", "run"):
            (record["generated"] or {}).pop(key, None)
    results = {}
    for path in sorted(
        folder.glob("results/experiment_*.json"), key=lambda path: path.stat().st_mtime_ns
    ):
        result = json.loads(path.read_text(encoding="utf-8"))
        for key in ("timestamp", "run", "seconds"):
            result["experiment_info"].pop(key)
        results[result["experiment_info"]["experiment_index"]] = result
    return database, results


@pytest.mark.long
def test_killed_at_random_moments_and_resumed_it_ends_as_if_never_stopped(tiny, tmp_path):
    make_photos(tmp_path / "many", 30)
    whole = subprocess.run(
        arguments(tiny, tmp_path, "whole"), cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "10 of 10 experiment images captioned" in whole.stdout
    seconds = random.Random(5)
    for _ in range(10):
        process = subprocess.Popen(
            arguments(tiny, tmp_path, "killed"),
            cwd=ROOT,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        _wait_for_work(process)
        time.sleep(seconds.uniform(0, 0.3))
        process.kill()
        process.communicate()
    done = subprocess.run(
        arguments(tiny, tmp_path, "killed"), cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0 and "10 of 10" in done.stdout, done.stderr
    assert end_state(tmp_path / "killed") == end_state(tmp_path / "whole")


def _wait_for_work(process) -> None:
    """Wait for a progress bar of embedding or captioning, or for the end of the process."""
    seen = b""
    while chunk := process.stderr.read1():
        seen += chunk
        if re.search(rb"Captioning|Embedding", seen):
            return


def test_the_summary_holds_every_caption(tiny, tmp_path):
    make_photos(tmp_path / "many", 30)
    subprocess.run(arguments(tiny, tmp_path, "whole"), cwd=ROOT, capture_output=True, check=True)
    summary = json.loads(
        next((tmp_path / "whole" / "results").glob("experiments_summary_*.json")).read_text(
            encoding="utf-8"
        )
    )
    assert [row["experiment_index"] for row in summary["experiments"]] == list(range(10))
    assert (
        summary["captioned"] == 10
        and summary["failures"] == {}
        and summary["models"]["vlm"]["name"]
    )
    for row in summary["experiments"]:
        result = json.loads(
            (tmp_path / "whole" / "results" / row["result_file"]).read_text(encoding="utf-8")
        )
        assert result["generated_caption"] == row["generated_caption"]
