"""A Hub on loopback, and clients of it in this process and in subprocesses."""

import subprocess
from functools import lru_cache
from pathlib import Path

import pytest

from tests.helpers import forget, run_python
from tests.hub_server import Hub

OPENS, CLOSED = "hf_opensTheGatedModel", "hf_opensNothing"
TOKEN_VARIABLES = ("HF_TOKEN", "HUGGINGFACE_TOKEN", "HUGGING_FACE_HUB_TOKEN")


@pytest.fixture(scope="session")
def repositories(tiny, tmp_path_factory):
    """repositories() is all that config.py names, as the Hub holds it: (kind, name) -> folder."""

    @lru_cache(maxsize=1)
    def build() -> dict[tuple[str, str], Path]:
        from tests.hub_repositories import DATASETS, MODELS, build_dataset, build_model

        base = tmp_path_factory.mktemp("repositories")
        place = {name: base / name.replace("/", "--") for name in (*MODELS, *DATASETS)}
        models = {
            ("model", n): build_model(n, tiny(model.architecture), place[n])
            for n, model in MODELS.items()
        }
        return models | {("dataset", name): build_dataset(name, place[name]) for name in DATASETS}

    return build


@pytest.fixture
def loopback(repositories, tmp_path):
    """A running Hub with all that config.py names.

    EmbeddingGemma is gated, and the token OPENS opens it.
    """
    with Hub(tmp_path / "served") as server:
        for (kind, name), folder in repositories().items():
            server.publish(name, folder, kind, gated=name == "google/embeddinggemma-300m")
        server.members = {OPENS: {"google/embeddinggemma-300m"}, CLOSED: set()}
        yield server


@pytest.fixture
def online(loopback, settings, tmp_path, monkeypatch):
    """`loopback` as this process's Hub, with an empty cache and no token.

    config.py keeps its names.
    """
    import datasets.config
    from huggingface_hub import constants

    for name in TOKEN_VARIABLES:
        monkeypatch.setenv(name, "")
    home = tmp_path / ".hf"
    for name, value in {
        "ENDPOINT": loopback.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": loopback.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_TOKEN_PATH": str(home / "token"),
        "HF_STORED_TOKENS_PATH": str(home / "stored_tokens"),
    }.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", home / "datasets")
    forget()
    yield loopback
    forget()


@pytest.fixture
def hub_environment(loopback, tmp_path) -> dict[str, str]:
    """The variables of a process whose Hub is `loopback`, with an empty cache and no token."""
    return {
        "HF_ENDPOINT": loopback.url,
        "HF_HOME": str(tmp_path / ".hf"),
        **dict.fromkeys(TOKEN_VARIABLES, ""),
    }


@pytest.fixture
def hub_command(hub_environment, tmp_path):
    """Run `python main.py ...` in a subprocess with `hub_environment` and config.py's names."""
    flags = ["--experiment-samples", "3", "--max-new-tokens", "8", "--no-pages"]
    flags += ["--db-dir", str(tmp_path / "databases"), "--results-dir", str(tmp_path / "results")]

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess:
        return run_python("main.py", *arguments, *flags, **{**hub_environment, **variables})

    return run


def texts_below(folder: Path) -> dict[Path, str]:
    """All files below `folder` as text."""
    return {
        path: path.read_text(encoding="utf-8", errors="replace")
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }
