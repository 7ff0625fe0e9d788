"""Shared by the tests: tiny models, a small dataset, settings for one test, the command line."""

import io
import logging
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

# Before any library reads them: no test meets the real Hub, or what an earlier run left in the
# user's cache.
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
    config.MODE, config.SHOW_PROGRESS = "hub", False
    config.EXPERIMENT_SAMPLES, config.MAX_NEW_TOKENS = 3, 8
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
        lines += [
            f"p{number:02}.png,a red dog number {number}",
            f'p{number:02}.png,"a dog, seen again ({number})"',
        ]
    (folder / "captions.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def tiny_flags(tiny, tmp_path, photos) -> dict[str, str]:
    """Flags that make `main.py` use tiny models on `photos`, and folders of this test."""
    return {
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


def words_of(flags: dict[str, str], changed: dict[str, str]) -> list[str]:
    """`flags` as words of a command line, with changes such as top_k="3"."""
    named = {"--" + name.replace("_", "-"): value for name, value in changed.items()}
    return [word for pair in {**flags, **named}.items() for word in pair]


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


class Finished(NamedTuple):
    """What a command has come to."""

    returncode: int
    stdout: str
    stderr: str


def run_main(*arguments: str) -> Finished:
    """Runs the command line in this process, and puts back what it changes of the process."""
    from main import main
    from tests.hub_fixtures import forget

    forget()
    log = logging.getLogger("captioning")
    before = {name: value for name, value in vars(config).items() if name.isupper()}
    terminate, level = signal.getsignal(signal.SIGTERM), log.level
    stdout, stderr = io.StringIO(), io.StringIO()
    handler = logging.StreamHandler(stderr)  # under pytest, basicConfig adds none
    log.addHandler(handler)
    try:
        with redirect_stdout(stdout), redirect_stderr(stderr):
            status = main(list(arguments))
    except SystemExit as stop:
        status = stop.code
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        signal.signal(signal.SIGTERM, terminate)
        vars(config).update(before)
    return Finished(status, stdout.getvalue(), stderr.getvalue())


def run_python(
    *arguments: str, timeout: float = 300, cwd: Path = ROOT, **environment: str
) -> subprocess.CompletedProcess:
    """Run Python in the project's folder (or `cwd`), with a Hub that cannot be reached."""
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
