"""Shared by the tests: tiny models, a small dataset, settings for one test, the command line."""

import os
import subprocess
import tempfile
from pathlib import Path

# Before any library reads them: no test meets the real Hub, or what an earlier run left in the
# user's cache.
os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="hf-home-")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # enough for models of a few kilobytes

import pytest

import config
from tests import tiny_models
from tests.helpers import Finished, make_photos, run_main, run_python, words_of

pytest_plugins = ["tests.hub_fixtures"]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """tiny("clip") is the folder of a random CLIP.

    tiny("clip", "bin") is the same with pytorch_model.bin.
    """
    built = {}

    def folder(architecture: str, form: str = "safetensors") -> Path:
        key = (architecture, form)
        if key not in built:
            path = tiny_models.build(
                architecture, tmp_path_factory.mktemp(f"{architecture}-{form}")
            )
            built[key] = tiny_models.to_bin(path) if form == "bin" else path
        return built[key]

    return folder


@pytest.fixture
def fast_folder():
    """A folder, in memory if possible, for tests that write hundreds of databases.

    After a SIGKILL, a file system in memory holds the same bytes as one on a disk.
    """
    with tempfile.TemporaryDirectory(
        dir="/dev/shm" if Path("/dev/shm").is_dir() else None
    ) as folder:
        yield Path(folder)


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """config.py for one test: databases and results in tmp_path, few images.

    Changes are undone after the test.
    """
    for name in [name for name in vars(config) if name.isupper()]:
        monkeypatch.setattr(config, name, getattr(config, name))
    config.DB_DIR, config.RESULTS_DIR = str(tmp_path / "databases"), str(tmp_path / "results")
    config.MODE, config.SHOW_PROGRESS, config.WRITE_PAGES = "hub", False, False
    config.EXPERIMENT_SAMPLES, config.MAX_NEW_TOKENS = 3, 8
    return config


@pytest.fixture
def tiny_settings(settings, tiny, photos):
    """`settings` with tiny models and the dataset `photos`."""
    settings.DATASET_NAME = str(photos)
    settings.CLIP_MODEL_NAME = str(tiny("clip"))
    settings.CLIPSCORE_MODEL_NAME = settings.CLIP_MODEL_NAME
    settings.VLM_MODEL_NAME = str(tiny("idefics3"))
    settings.CAPTION_EMBEDDING_MODEL = str(tiny("bert"))
    return settings


@pytest.fixture
def photos(tmp_path):
    """A folder of 12 pictures with captions.txt, two captions each."""
    return make_photos(tmp_path / "photos", 12)


@pytest.fixture
def tiny_flags(tiny, tmp_path, photos) -> dict[str, str]:
    """Flags that make `main.py` use tiny models on `photos`, and folders of this test."""
    return {
        "--mode": "hub",
        "--dataset": str(photos),
        "--experiment-samples": "3",
        "--clip-model": str(tiny("clip")),
        "--clipscore-model": str(tiny("clip")),
        "--vlm-model": str(tiny("idefics3")),
        "--text-model": str(tiny("bert")),
        "--max-new-tokens": "8",
        "--db-dir": str(tmp_path / "databases"),
        "--results-dir": str(tmp_path / "results"),
    }


@pytest.fixture
def command(tiny_flags, settings):
    """Runs `main.py ...` with `tiny_flags` in this process, which is quick."""

    def run(*arguments: str, **changed: str) -> Finished:
        return run_main(*arguments, *words_of(tiny_flags, changed))

    return run


@pytest.fixture
def process(tiny_flags):
    """Runs `python main.py ...` with `tiny_flags` in a process of its own."""

    def run(*arguments: str, **changed: str) -> subprocess.CompletedProcess:
        return run_python("main.py", *arguments, *words_of(tiny_flags, changed))

    return run
