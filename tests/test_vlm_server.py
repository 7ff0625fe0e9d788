"""Captions by a server (VLM_SERVER): what is sent, what comes back, and servers that fail."""

import base64
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image

import demo
from main import initialize_system, run_experiment
from support.errors import ServerError, SettingError
from support.hub.revisions import locate
from support.server import captioner, retries
from support.server.captioner import served_model
from support.text import without_credentials
from tests.helpers import ROOT, forget, picture, run_python, words_of
from tests.vlm_server import MODEL, Reply, VlmServer, colour_of, completion, model_list
from vlm_captioner import load_captioner

FAKE_TOKEN = "hf_" + "secretsecretsecret"
COLOURS = [(number, 10, 20) for number in range(12)]
BUSY = Reply(503, {"error": {"message": "still loading"}})


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    forget()
    monkeypatch.setattr(retries, "FIRST_WAIT", 0.01)
    monkeypatch.delenv("VLM_SERVER_KEY", raising=False)


@pytest.fixture
def server():
    with VlmServer() as server:
        yield server


@pytest.fixture
def served(server, settings):
    """The captioner of `server`."""
    settings.VLM_SERVER = server.url
    return load_captioner(served_model(server.url))


def plain(colours) -> list[Image.Image]:
    return [Image.new("RGB", (8, 8), colour) for colour in colours]


def in_turn(*replies):
    """An answer for each request in turn, the last one for all that follow."""
    left = list(replies)
    return lambda request: left.pop(0) if len(left) > 1 else left[0]


def failure_of(served, kind=ServerError) -> str:
    with pytest.raises(kind) as caught:
        served.write_captions(plain(COLOURS[:1]), ["a prompt"])
    assert type(caught.value) is kind and "\n" not in str(caught.value)
    return str(caught.value)


def texts_below(folder: Path) -> str:
    return "".join(path.read_text("utf-8") for path in folder.rglob("*") if path.is_file())


# --- What is sent, and what comes back ------------------------------------------------------------
def test_captions_keep_their_order_and_requests_run_together(server, served, settings):
    settings.VLM_BATCH_SIZE = 4
    settings.TEMPERATURE = 0.0

    def slow_first(request):
        number = request.image.getpixel((0, 0))[0]
        return completion(f"image {number}, {request.prompt}", seconds=(12 - number) * 0.02)

    server.answer = slow_first
    prompts = [f"prompt {number}" for number in range(12)]
    captions = served.write_captions(plain(COLOURS), prompts)
    assert captions == [f"image {number}, prompt {number}" for number in range(12)]
    assert server.at_once == 4


@pytest.mark.parametrize("temperature, sampling", [(0.0, {}), (0.5, {"seed": 42})])
def test_a_request_holds_pixels_prompt_and_sampling_only(
    server, served, settings, temperature, sampling
):
    settings.TEMPERATURE = temperature
    image = picture(1)
    exif = image.getexif()
    exif[0x010E] = "where it was taken"
    image.info = {"exif": exif.tobytes(), "icc_profile": b"a profile", "comment": "a comment"}
    served.write_captions([image], ["Describe it.\n네"])
    request = server.completions()[0]
    assert np.array_equal(np.asarray(request.image), np.asarray(image))
    assert request.image.info == {} and request.prompt == "Describe it.\n네"
    options = {name: value for name, value in request.body.items() if name != "messages"}
    always = {"model": MODEL, "max_tokens": 8, "temperature": temperature, "stream": False}
    assert options == {**always, **sampling}


def test_white_space_and_lone_surrogates_are_mended(server, served):
    server.answer = lambda request: completion("  a dog\n runs \ud800")
    assert served.write_captions(plain(COLOURS[:1]), ["p"]) == ["a dog runs �"]


@pytest.mark.parametrize(
    "place, key", [("HF_TOKEN", None), ("login", None), ("HUGGINGFACE_TOKEN", "my-own-key")]
)
def test_the_hugging_face_token_reaches_no_server(server, tiny_flags, tmp_path, place, key):
    home = tmp_path / "hf"
    home.mkdir()
    environment = {"HF_HOME": str(home), "HF_TOKEN": "", "VLM_SERVER_KEY": key or ""}
    if place == "login":
        (home / "token").write_text(FAKE_TOKEN)
        environment["HF_TOKEN_PATH"] = str(home / "token")
    else:
        environment[place] = FAKE_TOKEN
    flags = words_of(tiny_flags, {"vlm_server": server.url})
    found = run_python("-c", "import huggingface_hub as h; print(h.get_token())", **environment)
    assert place == "HUGGINGFACE_TOKEN" or found.stdout.strip() == FAKE_TOKEN  # the trap is set
    done = run_python("main.py", *flags, **environment)
    assert done.returncode == 0, done.stderr
    assert {request.path for request in server.requests} == {"/v1/models", "/v1/chat/completions"}
    for request in server.requests:
        assert request.headers["authorization"] == f"Bearer {key or 'no-key'}"
        assert FAKE_TOKEN not in json.dumps(request.body) + json.dumps(request.headers)
    if key:
        assert key not in done.stdout + done.stderr + texts_below(tmp_path / "results")


def test_a_key_that_no_header_can_hold_is_not_quoted(served, monkeypatch):
    monkeypatch.setenv("VLM_SERVER_KEY", "two words")
    message = failure_of(served, SettingError)
    assert "VLM_SERVER_KEY" in message and "two words" not in message


def test_results_record_model_and_address_without_credentials(server, tiny_settings, tmp_path):
    address = server.url.replace("127.0.0.1", "ann:pass-word@127.0.0.1")
    tiny_settings.VLM_SERVER = address
    tiny_settings.VLM_MODEL_NAME = "owner/not-on-this-machine"
    system = initialize_system()
    with system.db_manager:
        result = run_experiment(*system, experiment_index=1)
    basic = "Basic " + base64.b64encode(b"ann:pass-word").decode()
    assert {request.headers["authorization"] for request in server.requests} == {basic}
    version = {"name": f"{MODEL} @ {server.url}", "revision": None}
    assert result["experiment_info"]["models"]["vlm"] == version
    assert result["generated_caption"].startswith("colour ")
    assert result["prompt"] == server.completions()[0].prompt
    written = texts_below(tmp_path / "results") + texts_below(tmp_path / "databases")
    assert json.loads(json.dumps(version))["name"] in written and "pass-word" not in written


def test_a_server_that_cuts_images_is_told_of_once(server, served, settings, caplog):
    server.answer = lambda request: completion("a dog", prompt_tokens=1053)
    for _ in range(2):
        served.write_captions(plain(COLOURS[:2]), ["a prompt " * 30] * 2)
    assert caplog.text.count("cut images into tiles") == 1 and "963 tokens" in caplog.text


def test_image_tokens_of_one_piece_are_no_tiles(server, served, settings, caplog):
    # A Korean prompt may have a token in every byte.
    for prompt, tokens in [("", 600), ("a prompt " * 30, 650), ("설명" * 100, 1200)]:
        server.answer = lambda request, tokens=tokens: completion("a dog", prompt_tokens=tokens)
        served.write_captions(plain(COLOURS[:1]), [prompt])
    settings.VLM_IMAGE_SPLITTING = True
    server.answer = lambda request: completion("a dog", prompt_tokens=1053)
    served.write_captions(plain(COLOURS[:1]), ["a prompt"])
    server.answer = lambda request: Reply(body={"choices": [{"message": {"content": "a dog"}}]})
    assert served.write_captions(plain(COLOURS[:1]), ["a prompt"]) == ["a dog"]
    assert "tiles" not in caplog.text


# --- Which model is asked for ---------------------------------------------------------------------
@pytest.mark.parametrize("end", ["/v1", "/v1/", "", "/", "/v1/chat/completions"])
def test_an_address_may_be_written_in_several_ways(server, settings, end):
    settings.VLM_MODEL_NAME = f"wanted{len(end)}"
    ref = served_model(server.url.removesuffix("/v1") + end)
    assert ref.name == f"{MODEL} @ {server.url}" and ref.revision is None


@pytest.mark.parametrize(
    "listed, wanted, asked",
    [
        (model_list("a", "b"), "b", "b"),
        (model_list("only"), "b", "only"),
        (model_list("a", "c"), "./folder", "./folder"),  # `transformers serve` takes it
        (model_list(), "b", "b"),
        (Reply(500, {"detail": "no cache"}), "b", "b"),
    ],
)
def test_the_servers_list_says_which_model(server, settings, listed, wanted, asked):
    server.models, settings.VLM_MODEL_NAME = listed, wanted
    assert served_model(server.url).path == asked
    assert served_model(server.url).path == asked
    assert len(server.requests) == 1  # it is asked once


def test_none_of_several_models_is_guessed(server, settings):
    server.models, settings.VLM_MODEL_NAME = model_list("org/a", "org/b"), "org/c"
    with pytest.raises(SettingError, match=r"VLM_MODEL_NAME.*'org/c'.*org/a; org/b"):
        served_model(server.url)


@pytest.mark.parametrize(
    "models, words, asked",
    [
        (Reply(404, {"detail": "Not Found"}), ["404", "VLM_SERVER"], 1),
        (Reply(401, {"error": "no"}), ["401", "VLM_SERVER_KEY"], 1),
        (Reply(body=b"<html>hello</html>"), ["OpenAI-compatible"], 1),
        (Reply(body=["a", "list"]), ["OpenAI-compatible"], 1),
        (BUSY, ["503", "still loading"], 3),
    ],
)
def test_a_wrong_address_is_found_before_the_long_work(
    server, tiny_settings, tmp_path, models, words, asked
):
    server.models, tiny_settings.VLM_SERVER = models, server.url
    with pytest.raises(ServerError) as caught:
        initialize_system()
    assert all(word in str(caught.value) for word in [*words, server.url])
    assert len(server.requests) == asked
    assert "RUGq" not in texts_below(tmp_path / "databases")
    assert not list((tmp_path / "databases").rglob("image_embeddings.json"))


@pytest.mark.parametrize("mode", ["auto", "hub"])
def test_no_vlm_is_wanted_on_this_machine(server, command, mode):
    done = command(mode=mode, vlm_server=server.url, vlm_model="owner/not-here")
    assert done.returncode == 0, done.stderr
    assert "colour " in done.stdout


def test_in_mode_demo_the_server_captions(server, settings):
    settings.MODE, settings.VLM_SERVER = "demo", server.url
    system = initialize_system()
    with system.db_manager:
        info = run_experiment(*system)["experiment_info"]
    names = {kind: version["name"] for kind, version in info["models"].items()}
    assert names == {"clip": "demo/clip", "vlm": f"{MODEL} @ {server.url}", "text": "demo/text"}


@pytest.mark.parametrize(
    "address",
    ["localhost:8000", "ftp://host/v1", "http://", "http://a:b/v1", "http://h/v1?key=s3cret",
     "http://h/a b", "http://[::1/v1", "ftp://ann:s3cret@host/v1"],
)  # fmt: skip
def test_what_is_no_address_is_refused(command, address):
    done = command(vlm_server=address)
    assert done.returncode == 2 and "VLM_SERVER (--vlm-server)" in done.stderr
    assert "http://host:8000/v1" in done.stderr and "s3cret" not in done.stderr


def test_beams_are_refused(command, server):
    done = command(vlm_server=server.url, num_beams="3")
    assert done.returncode == 2 and "NUM_BEAMS (--num-beams) is 3" in done.stderr
    assert server.requests == []


# --- Servers that fail ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    "reply, words, asked",
    [
        (Reply(401, {"error": {"message": "bad no-key"}}), ["401", "VLM_SERVER_KEY"], 1),
        (Reply(403, {"detail": "no"}), ["403", "VLM_SERVER_KEY"], 1),
        (Reply(404, {"detail": "no such model"}), ["404", "no such model", "VLM_MODEL_NAME"], 1),
        (Reply(429, {"error": {"message": "slow down"}}), ["429", "slow down", "busy"], 6),
        (BUSY, ["503", "still loading"], 6),
        (Reply(), ["cannot be reached", "VLM_SERVER"], 6),  # the connection is cut
        # The last one of these is the plain picture, which shows whose fault it is.
        (Reply(500, {"detail": "out of memory"}), ["500", "out of memory"], 7),
        (Reply(500, ["a list"]), ["500"], 7),
        (Reply(400, {"detail": "no images"}), ["400", "no images", "VLM_MODEL_NAME"], 2),
        (Reply(body=b"\xff\xfe garbage"), ["OpenAI-compatible"], 2),
        (Reply(body=b"<html>hello</html>"), ["OpenAI-compatible"], 2),
        (Reply(body=b""), ["OpenAI-compatible"], 2),
        (Reply(body={"choices": []}), ["OpenAI-compatible"], 2),
        (completion(["no", "text"]), ["OpenAI-compatible"], 2),
    ],
)
def test_a_failing_server_gets_one_clear_message(server, served, reply, words, asked):
    server.answer = lambda request: reply
    message = failure_of(served)
    assert all(word in message for word in [*words, f"The VLM server {server.url}"])
    assert "no-key" not in message and "<html" not in message
    assert len(server.completions()) == asked


def test_nobody_listens(settings):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://ann:s3cret@127.0.0.1:{free.getsockname()[1]}/v1"
        with pytest.raises(ServerError, match="cannot be reached.*refused.*VLM_SERVER") as caught:
            served_model(address)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("passing", [BUSY, Reply(), Reply(429, {}), Reply(500, {})])
def test_what_passes_is_waited_for(server, served, passing):
    server.answer = in_turn(passing, passing, completion("a dog"))
    assert served.write_captions(plain(COLOURS[:1]), ["p"]) == ["a dog"]
    assert len(server.completions()) == 3


@pytest.mark.parametrize("form", ["number", "date"])
def test_retry_after_is_honoured(server, served, form):
    until = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 2))
    pause = "1" if form == "number" else until
    server.answer = in_turn(Reply(429, {}, {"Retry-After": pause}), completion("a dog"))
    start = time.monotonic()
    assert served.write_captions(plain(COLOURS[:1]), ["p"]) == ["a dog"]
    assert 0.9 < time.monotonic() - start < 5


def test_nobody_waits_for_an_hour(server, served):
    server.answer = lambda request: Reply(429, {}, {"Retry-After": "3600"})
    assert "asks to wait 3600 seconds" in failure_of(served)
    assert len(server.completions()) == 1


@pytest.mark.parametrize("header", ["soon", "-5", "1e9", "9" * 40, ""])
def test_a_retry_after_without_a_meaning_is_none(server, served, header):
    reply = Reply(429, {}, {"Retry-After": header})
    server.answer = in_turn(reply, completion("a dog"))
    assert served.write_captions(plain(COLOURS[:1]), ["p"]) == ["a dog"]


def test_a_server_that_never_answers(server, served, monkeypatch):
    monkeypatch.setattr(captioner, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(retries, "GIVE_UP_SECONDS", 0.3)
    server.answer = lambda request: completion("too late", seconds=1.0)
    start = time.monotonic()
    message = failure_of(served)
    assert "does not answer in time" in message and "VLM_BATCH_SIZE" in message
    assert time.monotonic() - start < 2 and len(server.completions()) == 2


def test_offline_mode_is_named(server, settings, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ServerError, match="HF_HUB_OFFLINE"):
        served_model(server.url)
    assert server.requests == []


# --- Runs over many images ------------------------------------------------------------------------
@pytest.mark.parametrize(
    "bad, reason",
    [
        (completion(""), "wrote no text"),
        (completion(None), "wrote no text"),
        (Reply(500, {"detail": "cannot identify image"}), "cannot identify image"),
        (Reply(413, {"detail": "too large"}), "too large"),
    ],
)
def test_an_image_that_gets_no_caption_costs_only_itself(server, command, bad, reason):
    first = []

    def answer(request):
        if request.image.size == (64, 64):  # the plain picture
            return completion("grey")
        pixels = request.image.tobytes()
        first.append(pixels)
        return bad if pixels == first[0] else colour_of(request)

    server.answer = answer
    done = command("--all", vlm_server=server.url)
    assert done.returncode == 1
    assert re.search(rf"1 of 3 images failed: .*p\d\d\.png: .*{reason}", done.stderr), done.stderr
    assert "2 of 3 experiment images captioned" in done.stdout


@pytest.mark.parametrize("dead, word", [(BUSY, "503"), (Reply(), "cannot be reached")])
def test_a_dead_server_stops_the_run_which_resumes(server, command, tmp_path, dead, word):
    alive = [True]

    def answer(request):
        alive[0] = len(server.completions()) <= 2
        return colour_of(request) if alive[0] else dead

    server.answer = answer
    flags = {"vlm_server": server.url, "vlm_batch_size": "1", "experiment_samples": "6"}
    stopped = command("--all", **flags)
    assert stopped.returncode == 1 and word in stopped.stderr and "saved" in stopped.stderr
    assert "images failed" not in stopped.stderr  # it was not tried for each image
    assert len(server.completions()) == 2 + 6
    assert len(list((tmp_path / "results").glob("experiment_*.json"))) == 2
    server.answer = colour_of
    finished = command("--all", **flags)
    assert finished.returncode == 0 and "(2 of them earlier)" in finished.stdout
    assert len(server.completions()) == 2 + 6 + 4


def test_the_other_requests_end_with_the_first_that_stops_the_run(server, served):
    def answer(request):
        if request.image.getpixel((0, 0)) == COLOURS[0]:
            return Reply(404, {"detail": "gone"}, seconds=0.3)
        return Reply(503, {}, {"Retry-After": "300"})

    server.answer, before = answer, threading.active_count()
    start = time.monotonic()
    with pytest.raises(ServerError, match="gone"):
        served.write_captions(plain(COLOURS[:4]), ["p"] * 4)
    while threading.active_count() > before and time.monotonic() < start + 5:
        time.sleep(0.05)  # connections of the test's server end too
    assert threading.active_count() <= before and time.monotonic() - start < 5


def test_a_server_that_comes_back_with_another_model(server, served, settings):
    server.answer = lambda request: Reply(404, {"detail": "no such model"})
    failure_of(served)
    server.models, server.answer = model_list("org/other"), colour_of
    again = served_model(server.url)
    assert again.path == "org/other"
    assert load_captioner(again).write_captions(plain(COLOURS[:1]), ["p"]) == ["colour 0 10 20"]


def test_an_evaluation_by_a_server(server, command):
    flags = {"vlm_server": server.url, "experiment_samples": "2"}
    done = command("evaluate", "--arms", "none", "retrieved", **flags)
    assert done.returncode == 0, done.stderr
    assert len(server.completions()) == 4


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such signals")
@pytest.mark.parametrize("busy", [False, True], ids=["silent", "busy"])
def test_ctrl_c_ends_at_once(server, tiny_flags, busy):
    wait = {"Retry-After": "300"}
    server.answer = lambda request: Reply(503, {}, wait) if busy else completion("", seconds=20)
    flags = words_of(tiny_flags, {"vlm_server": server.url})
    command = [sys.executable, "main.py", "--all", *flags]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        limit = time.monotonic() + 120
        while len(server.completions()) < 3 and time.monotonic() < limit:
            time.sleep(0.05)
        time.sleep(0.2)
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=15)
    finally:
        process.kill()
    assert process.returncode == 130 and "Stopped. What was done is saved." in errors, errors
    assert time.monotonic() - start < 5 and "Traceback" not in errors


# --- The real transformers serve ------------------------------------------------------------------
@contextmanager
def transformers_serve(model: str, folder: Path):
    """The address of a `transformers serve` of its own."""
    program = shutil.which("transformers", path=str(Path(sys.executable).parent))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--device", "cpu"]
    with (folder / "serve.log").open("wb") as log:
        process = subprocess.Popen([program, "serve", model, *options], stdout=log, stderr=log)
        try:
            limit = time.monotonic() + 120
            while not healthy(port):
                assert process.poll() is None and time.monotonic() < limit, "it does not start"
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.kill()
            process.wait()


def healthy(port: int) -> bool:
    try:
        return urlopen(f"http://127.0.0.1:{port}/health", timeout=5).status == 200
    except OSError:
        return False


@pytest.mark.long
def test_transformers_serve_gives_the_local_captions(settings, tmp_path):
    """All 400 experiments of the demo, in float32, with the prompts of the pipeline."""
    pytest.importorskip("fastapi", reason="needs requirements-scale.txt")
    settings.MODE, settings.EXPERIMENT_SAMPLES, settings.MAX_NEW_TOKENS = "demo", 400, 60
    settings.DTYPE = "float32"
    images, prompts = demo_prompts()
    local = load_captioner(locate(demo.model("vlm"))).write_captions(images, prompts)
    settings.VLM_MODEL_NAME = demo.model("vlm").path
    with transformers_serve(settings.VLM_MODEL_NAME, tmp_path) as address:
        ref = served_model(address)
        assert ref.path == settings.VLM_MODEL_NAME
        captions = load_captioner(ref).write_captions(images, prompts)
    assert sum(map(str.__eq__, captions, local)) == 400 == len(local)
    assert len(set(local)) > 200


def demo_prompts() -> tuple[list[Image.Image], list[str]]:
    """The images of the demo's experiments, and what stages 2 to 4 make of them."""
    from main import embed_images, prepare

    system = initialize_system()
    images = embed_images(system)
    samples = system.dataset_loader.get_experiment_data()
    batch = prepare(samples, images, system.pool(images.vectors))
    return list(batch.images), list(batch.prompts)


@pytest.mark.parametrize("secret", ["SECRET", "SEC/RET", "SEC?RET", "SEC#RET", "SEC@RET"])
def test_no_part_of_a_password_is_shown(secret):
    assert without_credentials(f"http://user:{secret}@host:1/v1?x=1") == "http://host:1/v1"
