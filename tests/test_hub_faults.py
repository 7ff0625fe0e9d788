"""What a run does and says when the Hub refuses, does not answer or breaks off."""

import errno
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import demo
from main import initialize_system, run_experiment
from support.errors import HubError
from support.hub import connection
from support.hub.cache import _holds_model, cached_snapshot, wanted_files
from support.hub.download import fetch
from support.hub.names import resolve_names
from tests.helpers import ROOT, forget
from tests.hub_fixtures import CLOSED, texts_below

GATED = "google/embeddinggemma-300m"
CLIP = "openai/clip-vit-large-patch14"


def message_of(name: str, kind: str = "model", revision: str | None = None) -> str:
    with pytest.raises(HubError) as caught:
        fetch(name, kind, revision)
    assert "\n" not in str(caught.value) and caught.value.exit_status == 1
    return str(caught.value)


def store_login(home: Path, token: str) -> None:
    home.mkdir(exist_ok=True)
    (home / "token").write_text(token)


# --- Refusals ----------------------------------------------------------------------------------
@pytest.mark.parametrize("token", ["", CLOSED], ids=["401", "404"])
@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_a_name_that_is_not_there(online, monkeypatch, kind, token):
    monkeypatch.setenv("HF_TOKEN", token)
    message = message_of("nobody/nothing", kind)
    assert f"no {kind} 'nobody/nothing', or it is private" in message and "spelling" in message


def test_a_revision_that_is_not_there(online):
    message = message_of(CLIP, "model", "v9")
    assert CLIP in message and "no revision 'v9'" in message and "_REVISION" in message
    assert "no revision 'v9'" in message_of("jxie/flickr8k", "dataset", "v9")


@pytest.mark.parametrize("name", ["two words/x", "a--b/c..d", "x" * 200])
def test_a_name_that_cannot_be_one(online, settings, name):
    settings.MODE, settings.VLM_MODEL_NAME = "auto", name
    assert resolve_names(demo.EMBEDDED).mode == "hub"
    assert f"'{name}' is no name that a model can have" in message_of(name)


@pytest.mark.parametrize(
    "place, token, found",
    [
        (None, None, "no token was found"),
        ("HF_TOKEN", CLOSED, "a token was found in HF_TOKEN"),
        ("HUGGINGFACE_TOKEN", CLOSED, "a token was found in HUGGINGFACE_TOKEN"),
        ("login", CLOSED, "a stored token was found"),
    ],
)
@pytest.mark.parametrize("mode", ["hub", "auto"])
def test_a_gated_model_says_which_token_and_both_pages(
    online, settings, monkeypatch, tmp_path, place, token, found, mode
):
    if place == "login":
        store_login(tmp_path / ".hf", token)
    elif place:
        monkeypatch.setenv(place, token)
    settings.MODE = mode
    assert resolve_names(demo.EMBEDDED).mode == "hub"
    message = message_of(GATED)
    for words in (f"'{GATED}' is gated ({found})", f"https://huggingface.co/{GATED} ",
                  "https://huggingface.co/settings/tokens", "python setup_token.py"):  # fmt: skip
        assert words in message
    assert CLOSED not in message
    assert {request.token for request in online.asked("auth-check")} == {token}


def test_a_gated_dataset_names_its_own_licence_page(online):
    online.repositories["dataset", "jxie/flickr8k"].gated = True
    assert "https://huggingface.co/datasets/jxie/flickr8k " in message_of(
        "jxie/flickr8k", "dataset"
    )


@pytest.mark.parametrize(
    "places, sent",
    [
        ({"HF_TOKEN": "hf_a", "HUGGINGFACE_TOKEN": "hf_b", "login": "hf_c"}, "hf_a"),
        ({"HUGGINGFACE_TOKEN": "hf_b", "login": "hf_c"}, "hf_b"),
        ({"login": "hf_c"}, "hf_c"),
        ({}, None),
    ],
)
def test_the_order_in_which_tokens_are_looked_for(online, monkeypatch, tmp_path, places, sent):
    online.members = {token: {GATED} for token in ("hf_a", "hf_b", "hf_c")}
    for place, token in places.items():
        store_login(tmp_path / ".hf", token) if place == "login" else monkeypatch.setenv(
            place, token
        )
    fetch(GATED if sent else CLIP, "model")
    assert {request.token for request in online.asked("/api/models/")} == {sent}


def test_a_token_that_the_hub_does_not_know(online, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    message = message_of(CLIP)
    assert "did not accept the token" in message and "found in HF_TOKEN" in message
    assert "https://huggingface.co/settings/tokens" in message and "hf_expired" not in message


@pytest.mark.parametrize(
    "status, said, words",
    [
        (
            403,
            "Please enable access to public gated repositories in your fine-grained token settings",
            "is gated",
        ),
        (429, "You have reached your rate limit", "status 429"),
        (500, "Internal error", "status 500"),
    ],
)
def test_what_else_the_hub_says_is_passed_on(online, status, said, words):
    online.refusals["/api/models/"] = (status, said)
    message = message_of(CLIP)
    assert CLIP in message and words in message and said in message


@pytest.mark.parametrize("token", ["hf_two words", "hf_\x07bell", "hf_żółw"])
def test_a_token_that_no_request_can_carry_is_not_quoted(online, monkeypatch, token):
    monkeypatch.setenv("HF_TOKEN", token)
    message = message_of(CLIP)
    assert "cannot be one" in message and token not in message and online.requests == []


def test_no_refusal_shows_the_token_even_in_a_traceback(hub_command, tmp_path):
    done = hub_command("--mode", "hub", "--text-model", GATED, "--debug", HF_TOKEN=CLOSED)
    assert done.returncode == 1 and "Traceback" in done.stderr and "GatedRepo" in done.stderr
    assert "is gated (a token was found in HF_TOKEN)" in done.stderr
    assert CLOSED not in done.stdout + done.stderr
    assert [path for path, text in texts_below(tmp_path).items() if CLOSED in text] == []


# --- No answer ----------------------------------------------------------------------------------
@pytest.fixture(
    params=["refused", "no such host", "name server hangs", "silent", "down", "offline"]
)
def unreachable(request, online, monkeypatch):
    """The Hub out of reach, in one way after another; the words that say so."""
    from huggingface_hub import constants

    if request.param == "refused":
        online.stop()
    elif request.param == "no such host":
        monkeypatch.setattr(constants, "ENDPOINT", "http://hub.invalid")
    elif request.param == "name server hangs":
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(60))
        monkeypatch.setattr(connection, "PROBE_SECONDS", 1.0)
    elif request.param == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    elif request.param == "silent":
        online.silent = ".*"
        monkeypatch.setattr(connection, "PROBE_SECONDS", 1.0)
    else:
        online.down = True
    return {
        "refused": "refused",
        "no such host": "hub.invalid",
        "name server hangs": "no answer within 1 seconds",
        "silent": "timed out|no answer within 1 seconds",
        "down": "status 503",
        "offline": "HF_HUB_OFFLINE is set",
    }[request.param]


def test_out_of_reach_auto_shows_the_demo_and_hub_fails_with_the_remedy(
    unreachable, settings, monkeypatch, caplog
):
    import demo

    monkeypatch.setattr(demo, "prepare_scenes", demo.scenes_folder)
    settings.MODE = "auto"
    start = time.monotonic()
    assert resolve_names(demo.EMBEDDED).mode == "demo"
    assert time.monotonic() - start < 10
    (notice,) = caplog.messages
    assert re.search(rf"cannot be reached \(.*({unreachable}).*\).*embedded demo", notice)
    names = (
        settings.DATASET_NAME,
        settings.CLIP_MODEL_NAME,
        settings.VLM_MODEL_NAME,
        settings.CAPTION_EMBEDDING_MODEL,
    )
    assert all(name in notice for name in names)
    settings.MODE = "hub"
    start = time.monotonic()
    with pytest.raises(
        HubError, match=rf"'jxie/flickr8k' cannot be fetched.*({unreachable}).*Connect.*--mode demo"
    ):
        initialize_system()
    assert time.monotonic() - start < 10


def test_the_command_decides_within_ten_seconds(loopback, hub_environment, tmp_path):
    loopback.silent = ".*"
    start = time.monotonic()
    flags = ["--db-dir", str(tmp_path / "databases"), "--results-dir", str(tmp_path / "results")]
    process = subprocess.Popen(
        [sys.executable, "main.py", *flags],
        cwd=ROOT,
        env={**os.environ, **hub_environment},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert "Running the embedded demo instead" in process.stderr.readline()
        assert time.monotonic() - start < 10
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("path", [f"/api/models/{CLIP}$", f"/api/models/{CLIP}/tree/"])
def test_a_hub_that_falls_silent_after_its_first_answer(online, settings, monkeypatch, path):
    monkeypatch.setattr(connection, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(time, "sleep", lambda _: None)  # between the client's attempts
    online.silent = path
    assert re.search(
        r"cannot be fetched: the Hugging Face Hub does not answer \(.*timed out", message_of(CLIP)
    )


def test_a_connection_that_comes_back_is_seen(online, settings):
    online.down = True
    assert connection.probe_hub()
    online.down = False
    assert not connection.probe_hub()


def test_own_photos_are_never_given_to_the_demo(online, settings, photos):
    online.stop()
    settings.MODE, settings.DATASET_NAME = "auto", str(photos)
    with pytest.raises(HubError, match=r"cannot be reached.*refused.*local folders.*--mode demo"):
        resolve_names(demo.EMBEDDED)


# --- Downloads that break off ---------------------------------------------------------------------
def test_a_download_cut_in_the_middle_goes_on_where_it_was(online, settings, monkeypatch):
    from huggingface_hub import constants

    # what came of a chunk that broke off is lost
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10_000)
    online.cut_after["model.safetensors"] = 100_000
    folder = fetch(CLIP, "model")
    ranges = [request.range for request in online.asked("GET /cdn/.*/model.safetensors")]
    assert ranges == [None, "bytes=100000-"]
    served = online.repositories["model", CLIP].commits[folder.name]
    assert (folder / "model.safetensors").read_bytes() == (
        served / "model.safetensors"
    ).read_bytes()


def test_a_download_that_breaks_off_again_and_again_is_an_error_and_keeps_what_came(
    online, settings, monkeypatch
):
    class Always(dict):
        pop = dict.get

    online.cut_after = Always({"model.safetensors": 1000})
    message = message_of(CLIP)
    assert (
        f"The model '{CLIP}' cannot be fetched" in message and "complete files are kept" in message
    )
    online.cut_after = {}
    online.requests.clear()
    fetch(CLIP, "model")
    assert len(online.asked("GET /cdn/|GET .*/resolve/")) == 1


@pytest.mark.parametrize("damage", ["missing", "truncated", "dangling"])
def test_half_a_model_in_the_cache(online, settings, damage):
    folder = fetch(CLIP, "model")
    weights, tokenizer = folder / "model.safetensors", folder / "tokenizer.json"
    if damage == "truncated":
        weights.resolve().write_bytes(weights.read_bytes()[:5000])
    else:
        weights.resolve().unlink()
        if damage == "missing":
            weights.unlink()
    assert cached_snapshot(CLIP, "model") is None
    online.requests.clear()
    assert fetch(CLIP, "model") == folder
    assert [
        request.path.rsplit("/", 1)[1] for request in online.asked("GET /cdn/|GET .*/resolve/")
    ] == [weights.name]
    tokenizer.unlink()
    assert cached_snapshot(CLIP, "model") is None
    online.stop()
    forget()
    assert "does not hold all of it" in message_of(CLIP)


def test_a_notice_tells_what_is_here_already(online, settings, caplog):
    folder = fetch(CLIP, "model")
    size = (folder / "model.safetensors").stat().st_size
    rest = sum(path.stat().st_size for path in folder.iterdir()) - size
    (folder / "model.safetensors").resolve().unlink()
    fetch(CLIP, "model")
    assert (
        f"{CLIP}: {size / 1e3:.3g} kB ({rest / 1e3:.3g} kB of it are here already) to"
        in caplog.messages[-1]
    )


def test_a_model_that_another_program_fetched_is_taken_only_whole(online, settings):
    from huggingface_hub import hf_hub_download

    files = wanted_files([p.name for p in fetch(CLIP, "model").iterdir()], "model")
    shutil.rmtree(fetch(CLIP, "model").parents[1])
    for file in sorted(files, key=lambda name: name == "model.safetensors"):  # the weights last
        assert cached_snapshot(CLIP, "model") is None
        hf_hub_download(CLIP, file)
    assert cached_snapshot(CLIP, "model") is not None


def test_half_of_a_sharded_model_is_not_a_model(tmp_path):
    index = {
        "weight_map": {
            "a": "model-00001-of-00002.safetensors",
            "b": "model-00002-of-00002.safetensors",
        }
    }
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "model-00001-of-00002.safetensors").touch()
    assert not _holds_model(tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").touch()
    assert _holds_model(tmp_path)


# --- A full disk ----------------------------------------------------------------------------------
def test_a_disk_without_room_is_said_before_gigabytes_come(online, settings, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    message = message_of(CLIP)
    assert re.search(
        rf"disk is full: no room for the model '{CLIP}' \(.* kB needed, 1 kB free in .*HF_HOME",
        message,
    )
    assert not online.asked("GET /cdn/")


def test_a_disk_that_fills_up_during_a_download(online, settings, monkeypatch):
    from huggingface_hub import file_download

    get = file_download.http_get

    def fills_up(url, temp_file, **arguments):
        if "model.safetensors" in url:
            temp_file.write(b"begun")
            raise OSError(errno.ENOSPC, "No space left on device")
        get(url, temp_file, **arguments)

    monkeypatch.setattr(file_download, "http_get", fills_up)
    message = message_of(CLIP)
    assert "disk is full" in message and CLIP in message and "HF_HOME" in message
    monkeypatch.setattr(file_download, "http_get", get)
    online.requests.clear()
    folder = fetch(CLIP, "model")
    assert (folder / "model.safetensors").stat().st_size > 5
    assert not online.asked("GET .*/resolve/.*/config.json")  # what came whole was kept


def test_a_disk_that_fills_up_while_a_dataset_is_unpacked(online, settings, monkeypatch):
    from datasets.arrow_writer import ArrowWriter

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(ArrowWriter, "write_table", full)
        with pytest.raises(HubError, match=r"disk is full.*dataset 'jxie/flickr8k'"):
            initialize_system()
    assert len(run_experiment(*initialize_system(), 0)["similar_images"]) == 5
