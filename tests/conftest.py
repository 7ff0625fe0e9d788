"""What the tests share: tiny models, a small captioned dataset, settings for one test, the real command line."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

# Before any library reads them: no test meets the real Hub, or what an earlier run left in the user's cache.
os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="hf-home-")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # enough for models of a few kilobytes

import numpy as np
import pytest
from PIL import Image

import config
from tests import tiny_models

pytest_plugins = ["tests.hub_fixtures"]

ROOT = Path(config.__file__).resolve().parent


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """tiny("clip") is the folder of a random CLIP; tiny("clip", "bin") the same with pytorch_model.bin."""
    built = {}

    def folder(architecture: str, form: str = "safetensors") -> Path:
        key = (architecture, form)
        if key not in built:
            path = tiny_models.build(architecture, tmp_path_factory.mktemp(f"{architecture}-{form}"))
            built[key] = tiny_models.to_bin(path) if form == "bin" else path
        return built[key]

    return folder


@pytest.fixture
def fast_folder():
    """Where hundreds of databases are made and killed; a SIGKILL leaves the same bytes in memory as on a disk."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """config.py for one test: databases and results in tmp_path, few images; changes are taken back."""
    for name in [name for name in vars(config) if name.isupper()]:
        monkeypatch.setattr(config, name, getattr(config, name))
    config.DB_DIR, config.RESULTS_DIR = str(tmp_path / "databases"), str(tmp_path / "results")
    config.MODE, config.EXPERIMENT_SAMPLES, config.MAX_NEW_TOKENS, config.SHOW_PROGRESS = "hub", 3, 8, False
    return config


@pytest.fixture
def tiny_settings(settings, tiny, photos):
    """`settings` with tiny models and the dataset `photos`."""
    settings.DATASET_NAME = str(photos)
    settings.CLIP_MODEL_NAME = str(tiny("clip"))
    settings.VLM_MODEL_NAME = str(tiny("idefics3"))
    settings.CAPTION_EMBEDDING_MODEL = str(tiny("bert"))
    return settings


def picture(seed: int, size: tuple[int, int] = (48, 40)) -> Image.Image:
    """An RGB picture of its own for each seed."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.NEAREST)


@pytest.fixture
def photos(tmp_path):
    """A folder of 12 pictures with captions.txt, two captions each."""
    return make_photos(tmp_path / "photos", 12)


def make_photos(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True)
    lines = ["image,caption"]
    for number in range(count):
        picture(number).save(folder / f"p{number:02}.png")
        lines += [f"p{number:02}.png,a red dog number {number}", f'p{number:02}.png,"a dog, seen again ({number})"']
    (folder / "captions.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def command(tiny, tmp_path, photos):
    """Runs `python main.py ...` in a process of its own, with tiny models on `photos` unless flags say otherwise."""
    flags = {
        "--mode": "hub",
        "--dataset": str(photos),
        "--experiment-samples": "3",
        "--clip-model": str(tiny("clip")),
        "--vlm-model": str(tiny("idefics3")),
        "--text-model": str(tiny("bert")),
        "--max-new-tokens": "8",
        "--db-dir": str(tmp_path / "databases"),
        "--results-dir": str(tmp_path / "results"),
    }

    def run(*arguments: str, **changed: str) -> subprocess.CompletedProcess:
        chosen = {**flags, **{"--" + name.replace("_", "-"): value for name, value in changed.items()}}
        words = [word for pair in chosen.items() if pair[1] is not None for word in pair]
        return run_python("main.py", *arguments, *words)

    return run


def run_python(
    *arguments: str, timeout: float = 300, cwd: Path = ROOT, **environment: str
) -> subprocess.CompletedProcess:
    """Runs Python in the project's folder (or `cwd`), without a network: the Hub's name leads nowhere."""
    variables = {**os.environ, "PYTHONIOENCODING": "utf-8", **environment}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=variables,
        capture_output=True,
        text=True,
        timeout=timeout,
        encoding="utf-8",
    )
