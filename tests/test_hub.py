"""From download to result through the Hub for every choice in config.py, and the cache after it."""

import json
import re
import shutil
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import config
from main import initialize_system, open_system, run_experiment, search_images
from support.errors import HubError
from support.hub.download import fetch
from support.hub.names import configured_model
from support.hub.revisions import locate
from tests.helpers import forget, picture
from tests.hub_fixtures import OPENS, texts_below
from tests.hub_repositories import DATASETS, MODELS

# Every choice stands in one row at least; the first is config.py as it comes.
CHOICES = [
    ("jxie/flickr8k", "openai/clip-vit-base-patch32", "HuggingFaceTB/SmolVLM-Instruct",
     "BAAI/bge-base-en-v1.5"),
    ("Naveengo/flickr8k", "openai/clip-vit-large-patch14", "HuggingFaceTB/SmolVLM-500M-Instruct",
     "BAAI/bge-large-en-v1.5"),
    ("jxie/flickr8k", "google/siglip-base-patch16-224", "Salesforce/blip-image-captioning-large",
     "google/embeddinggemma-300m"),
    ("Naveengo/flickr8k", "openai/clip-vit-base-patch32", "microsoft/git-large-coco",
     "sentence-transformers/all-mpnet-base-v2"),
    ("jxie/flickr8k", "openai/clip-vit-base-patch32", "HuggingFaceTB/SmolVLM-256M-Instruct",
     "BAAI/bge-base-en-v1.5"),
]  # fmt: skip


# The short tests take the first.
LATER_CHOICES = [pytest.param(choice, marks=pytest.mark.long) for choice in CHOICES[1:]]


def short_names(choice: tuple[str, ...]) -> str:
    return " ".join(name.split("/")[1] for name in choice)


def head(hub_server, name: str, kind: str = "model") -> str:
    return hub_server.repositories[kind, name].names["main"]


def changed_copy(source: Path, folder: Path) -> Path:
    """A copy of a model's folder with other weights."""
    folder.mkdir()
    for path in source.iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    safe = folder / "model.safetensors"
    weights = (
        load_file(safe)
        if safe.exists()
        else torch.load(folder / "pytorch_model.bin", weights_only=True)
    )
    weights = {name: value + 0.01 for name, value in weights.items()}
    save_file(weights, safe) if safe.exists() else torch.save(weights, folder / "pytorch_model.bin")
    return folder


def test_every_name_in_config_is_chosen_once():
    names = set(
        re.findall(
            r'^(?:# )?\w+ = "([\w-]+/[\w.-]+)"',
            Path(config.__file__).read_text("utf-8"),
            re.MULTILINE,
        )
    )
    assert {*MODELS, *DATASETS} == {name for row in CHOICES for name in row} == names


@pytest.mark.parametrize(
    "choice",
    [CHOICES[0], *LATER_CHOICES],
    ids=lambda row: " ".join(name.split("/")[1] for name in row),
)
def test_every_choice_runs_from_download_to_result(hub_command, loopback, tmp_path, choice):
    dataset, clip, vlm, text = choice
    flags = ["--dataset", dataset, "--clip-model", clip, "--vlm-model", vlm, "--text-model", text]
    done = hub_command("--mode", "hub", "--index", "1", *flags, HUGGINGFACE_TOKEN=OPENS)
    assert done.returncode == 0, done.stderr
    notices = [
        re.findall(rf"^Downloading the \w+ {name}: .* to {tmp_path}/\.hf/hub\.", done.stderr, re.M)
        for name in choice
    ]
    assert [len(found) for found in notices] == [1, 1, 1, 1]
    (path,) = (tmp_path / "results").iterdir()
    result = json.loads(path.read_text("utf-8"))
    assert len(result["similar_images"]) == 5 and result["generated_caption"]
    assert len(result["query_info"]["captions"]) == (5 if dataset.startswith("jxie") else 1)
    assert (result["prompt"] is not None) == ("SmolVLM" in vlm)
    info = result["experiment_info"]
    assert (info["mode"], info["dataset"]) == ("hub", dataset)
    assert info["dataset_revision"] == head(loopback, dataset, "dataset")
    for kind, name in zip(("clip", "vlm", "text"), choice[1:], strict=True):
        assert info["models"][kind] == {"name": name, "revision": head(loopback, name)}
    for file, name in (("image_embeddings", clip), ("caption_embeddings", text)):
        (path,) = (tmp_path / "databases").rglob(f"{file}.json")
        database = json.loads(path.read_text("utf-8"))
        assert database.get("header", database)["revision"] == head(loopback, name)
    (path,) = (tmp_path / "databases").rglob("captions.json")
    assert all(head(loopback, name) in path.read_text("utf-8") for name in choice[1:])
    # No conversion is asked for, and nothing that there is no use for.
    assert {request.method for request in loopback.requests} == {"GET", "HEAD"}
    assert not loopback.asked(r"discussions|convert|\.(h5|msgpack|onnx|py)$|openvino")
    # it has nothing else
    assert bool(loopback.asked(r"\.bin$")) == (clip == "openai/clip-vit-base-patch32")
    leaks = [path for path, content in texts_below(tmp_path).items() if OPENS in content]
    assert OPENS not in done.stdout + done.stderr and leaks == []
    assert {request.token for request in loopback.asked("GET /api/models")} == {OPENS}
    assert {request.token for request in loopback.asked("GET /cdn/")} == {None}


def test_once_all_is_cached_the_command_needs_no_hub(online, hub_command, tmp_path):
    first = run_experiment(*initialize_system(), 1)
    online.stop()
    for mode in ("hub", "auto"):
        start = time.monotonic()
        done = hub_command("--mode", mode, "--index", "1")
        assert time.monotonic() - start < 40  # the clients' own retries alone would take minutes
        assert done.returncode == 0 and "Downloading" not in done.stderr, done.stderr
        assert "Mode: hub" in done.stdout
    assert f"Caption:   {first['generated_caption']}\n" in done.stdout


def test_a_search_by_look_downloads_clip_alone_and_then_needs_no_hub(
    online, hub_command, settings, photos, tmp_path
):
    settings.DATASET_NAME = str(photos)
    system = initialize_system(for_search=True)
    first = search_images("a red dog", *system, by="look")
    assert len(first) == 5
    asked = {request.path.split("?")[0] for request in online.asked("GET /api/models")}
    assert asked and all(settings.CLIP_MODEL_NAME in path for path in asked)
    system.db_manager.close()
    online.stop()
    for mode in ("hub", "auto"):
        for words in (["a red dog", "--by", "look"], ["--image", str(photos / "p01.png")]):
            done = hub_command("search", *words, "--dataset", str(photos), "--mode", mode)
            assert done.returncode == 0 and len(done.stdout.splitlines()) == 5, done.stderr
    done = hub_command("search", "a red dog", "--by", "caption", "--dataset", str(photos))
    assert done.returncode == 1 and settings.CAPTION_EMBEDDING_MODEL in done.stderr


def test_once_all_is_cached_nothing_is_asked_of_the_hub(online, settings):
    initialize_system()[1].close()
    run_experiment(*initialize_system(), 0)
    online.requests.clear()
    forget()
    online.silent = ".*"  # a question would wait for its answer
    start = time.monotonic()
    run_experiment(*initialize_system(), 0)
    assert online.requests == [] and time.monotonic() - start < 5


def test_the_notice_before_a_download_is_right(online, settings, caplog):
    settings.CLIP_MODEL_NAME = "openai/clip-vit-large-patch14"
    initialize_system()
    folder = online.repositories["model", settings.CLIP_MODEL_NAME].commits[
        head(online, settings.CLIP_MODEL_NAME)
    ]
    other_weights = {"flax_model.msgpack", "tf_model.h5", "pytorch_model.bin"}
    left_out = {"README.md", ".gitattributes", *other_weights}
    sizes = [path.stat().st_size for path in folder.iterdir() if path.name not in left_out]
    numbers = sum(tensor.numel() for tensor in load_file(folder / "model.safetensors").values())
    cache = Path(settings.DB_DIR).parent / ".hf" / "hub"
    name = "openai/clip-vit-large-patch14"
    assert (
        f"Downloading the model {name}: {sum(sizes) / 1e3:.3g} kB to {cache}. "
        f"It needs about {4 * numbers / 1e3:.3g} kB of memory in float32" in caplog.text
    )
    assert "Downloading the dataset jxie/flickr8k: " in caplog.text


def test_the_notice_says_when_the_hub_tells_no_sizes(online, settings, caplog):
    online.tells_sizes = False
    fetch(settings.CLIP_MODEL_NAME, "model")
    assert f"the model {settings.CLIP_MODEL_NAME}: size unknown (the Hub gives none)" in caplog.text
    assert "How much memory it needs is not known." in caplog.text
    assert "0 bytes" not in caplog.text


def test_only_what_is_wanted_is_downloaded(online, settings):
    settings.CLIP_MODEL_NAME = "openai/clip-vit-large-patch14"
    snapshot = fetch(settings.CLIP_MODEL_NAME, "model")
    assert {path.name for path in snapshot.iterdir()} == {
        "config.json", "merges.txt", "model.safetensors", "preprocessor_config.json",
        "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json", "vocab.json",
    }  # fmt: skip
    assert snapshot.name == head(online, settings.CLIP_MODEL_NAME)


def test_a_search_fetches_only_the_model_that_it_uses(online, settings):
    loader, manager = open_system()
    assert search_images("a red dog", loader, manager)
    assert online.asked("GET /cdn/model/BAAI/bge-base-en-v1.5/") and not online.asked(
        "SmolVLM|clip-vit"
    )
    assert search_images(picture(50), loader, manager)
    assert online.asked("GET /cdn/model/openai/clip-vit-base-patch32/") and not online.asked(
        "SmolVLM"
    )


def test_a_closed_model_is_said_before_the_gallery_is_embedded(online, settings):
    settings.CAPTION_EMBEDDING_MODEL = "google/embeddinggemma-300m"
    with pytest.raises(HubError, match="embeddinggemma-300m' is gated"):
        initialize_system()
    assert not list(Path(settings.DB_DIR).rglob("image_embeddings.json"))


# --- Revisions ----------------------------------------------------------------------------------
def test_a_pinned_revision_is_used_by_commit_and_by_tag(online, settings, repositories, tmp_path):
    name = "openai/clip-vit-base-patch32"
    old = head(online, name)
    new = online.publish(name, changed_copy(repositories()["model", name], tmp_path / "changed"))
    online.repositories["model", name].names["v1"] = old
    for pin, commit in ((old, old), ("v1", old), (new, new), (None, new)):
        settings.CLIP_REVISION = pin
        forget()
        assert locate(configured_model("clip")).revision == commit
    settings.DATASET_REVISION = head(online, "jxie/flickr8k", "dataset")
    assert initialize_system()[0].revision == settings.DATASET_REVISION


def test_a_revision_that_moved_on_is_used_only_after_a_rebuild(
    online, settings, repositories, tmp_path
):
    names = ("openai/clip-vit-base-patch32", "HuggingFaceTB/SmolVLM-Instruct")

    def revisions(rebuild: bool = False) -> list[str]:
        forget()
        loader, manager = initialize_system(rebuild=rebuild)
        with manager:
            models = run_experiment(loader, manager, 0)["experiment_info"]["models"]
        return [models[kind]["revision"] for kind in ("clip", "vlm")]

    old = revisions()
    new = [
        online.publish(n, changed_copy(repositories()["model", n], tmp_path / n.split("/")[1]))
        for n in names
    ]
    assert revisions() == old != new
    assert revisions(rebuild=True) == new
    assert revisions() == new


def test_the_recorded_revision_is_fetched_again_when_the_cache_is_gone(
    online, settings, repositories, tmp_path
):
    name = settings.CLIP_MODEL_NAME
    with initialize_system()[1]:
        old = head(online, name)
    online.publish(name, changed_copy(repositories()["model", name], tmp_path / "changed"))
    shutil.rmtree(tmp_path / ".hf")
    forget()
    initialize_system()
    assert online.asked(f"GET /cdn/model/{name}/{old}")
    assert [
        request for request in online.asked(f"GET /cdn/model/{name}/") if old not in request.path
    ] == []


# --- Security ----------------------------------------------------------------------------------
class RunsCode:
    """Pickled into a weights file, this would write a file when it is read."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.write_text, (self.path, "run"))


def test_weights_that_would_run_code_are_refused(online, settings, repositories, tmp_path):
    name = settings.CLIP_MODEL_NAME
    folder = changed_copy(repositories()["model", name], tmp_path / "evil")
    weights = torch.load(folder / "pytorch_model.bin", weights_only=True)
    torch.save({**weights, "logit_scale": RunsCode(tmp_path / "ran")}, folder / "pytorch_model.bin")
    torch.load(folder / "pytorch_model.bin", weights_only=False)
    assert (tmp_path / "ran").read_text() == "run"  # it would
    (tmp_path / "ran").unlink()
    online.publish(name, folder)
    with pytest.raises(HubError, match=f"{name}' cannot be loaded.*(?i:weights|unpickl)"):
        initialize_system()
    assert not (tmp_path / "ran").exists()


def test_code_in_a_repository_is_neither_fetched_nor_run(online, settings, repositories, tmp_path):
    name = settings.CLIP_MODEL_NAME
    folder = changed_copy(repositories()["model", name], tmp_path / "custom")
    described = json.loads((folder / "config.json").read_text("utf-8")) | {
        "model_type": "own",
        "auto_map": {"AutoModel": "modeling_own.Own", "AutoConfig": "modeling_own.OwnConfig"},
    }
    (folder / "config.json").write_text(json.dumps(described), "utf-8")
    (folder / "modeling_own.py").write_text(
        f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
    )
    online.publish(name, folder)
    with pytest.raises(HubError, match=f"{name}' cannot be loaded"):
        initialize_system()
    assert not online.asked(r"\.py") and not (tmp_path / "ran").exists()


def test_code_in_a_dataset_is_not_run(online, settings, repositories, tmp_path):
    folder = shutil.copytree(repositories()["dataset", "jxie/flickr8k"], tmp_path / "scripted")
    (folder / "flickr8k.py").write_text(
        f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
    )
    commit = online.publish("jxie/flickr8k", folder, "dataset")
    assert initialize_system()[0].revision == commit
    assert not (tmp_path / "ran").exists()


def test_weights_for_no_framework_of_ours_are_said(online, settings, repositories, tmp_path):
    folder = changed_copy(repositories()["model", settings.CLIP_MODEL_NAME], tmp_path / "other")
    (folder / "pytorch_model.bin").unlink()
    online.publish(settings.CLIP_MODEL_NAME, folder)
    with pytest.raises(HubError, match=r"clip-vit-base-patch32' holds no weights for PyTorch"):
        initialize_system()
