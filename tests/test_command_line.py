"""The command line: in this process where that does, in one of its own where it matters."""

import json
import re
import signal
import subprocess
import sys
import time

import pytest

import config
from support.errors import SettingError
from support.settings import SETTINGS, Setting, caption_settings, check_settings
from tests.helpers import ROOT, make_photos, picture, run_main, run_python, words_of


def test_help_answers_fast_without_torch():
    start = time.monotonic()
    done = run_python("-X", "importtime", "main.py", "--help")
    assert done.returncode == 0 and "--index" in done.stdout and "search" in done.stdout
    assert time.monotonic() - start < 3
    loaded = re.findall(r"\| +([\w.]+)$", done.stderr, re.MULTILINE)
    assert not {"torch", "transformers", "datasets", "sentence_transformers"} & set(loaded)


def test_a_plain_run_and_a_search_each_way(process, command, tmp_path, photos):
    done = process("--index", "1")
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"Experiment 1: .*\nMode: hub .*\nSimilar images:\n(  [01]\.\d{4}  #.*\n){5}Prompt:\n",
        done.stdout,
    )
    result = json.loads(
        next((tmp_path / "results").glob("experiment_1_*.json")).read_text(encoding="utf-8")
    )
    assert f"Caption:   {result['generated_caption']}\n" in done.stdout
    found = command("search", "a red dog", "--top-k", "3")
    assert found.returncode == 0 and len(found.stdout.splitlines()) == 3, found.stderr
    like = command("search", "--image", str(photos / "p03.png"), "--top-k", "2")
    assert like.returncode == 0 and len(like.stdout.splitlines()) == 2, like.stderr


def test_own_files_and_folders_with_bad_ones_named_at_the_end(command, tmp_path):
    folder = make_photos(tmp_path / "mine", 3)
    (folder / "p01.png").write_bytes(b"")
    picture(50).save(tmp_path / "눈 위의 개.jpg")
    done = command("--image", str(folder), str(tmp_path / "눈 위의 개.jpg"))
    assert done.returncode == 1
    assert done.stdout.count("Caption:") == 3
    assert "1 of 4 images failed" in done.stderr and "p01.png: the file is empty" in done.stderr
    names = [re.sub(r"_\d{8}_\d{6}", "", path.name) for path in (tmp_path / "results").iterdir()]
    assert sorted(names) == [
        *("image_p00.json", "image_p02.json", "image_눈_위의_개.json", "images_summary.json")
    ]


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--index", "3"], ["3", "0 to 2"]),
        (["--index", "-1"], ["-1", "from 0"]),
        (["--index", "two"], ["two", "--index", "a whole number from 0"]),
        (["--top-k", "1e9"], ["--top-k", "'1e9'", "a whole number from 1"]),
        (["--total-samples", "some"], ["'some'", "or all"]),
        (["search", "a", "red", "dog"], ["red dog", 'a text needs quotes: "a red dog"']),
        (["--top-k", "0"], ["--top-k", "0", "from 1"]),
        (["--temperature", "-1"], ["--temperature", "-1", "0 to 10"]),
        (["--mode", "offline"], ["offline", "auto", "hub", "demo"]),
        (["--inex", "1"], ["--inex"]),
        (["--experiment-samples", "12"], ["12", "1 to 11", "--experiment-samples 2"]),
        (["--dataset", "./nowhere"], ["./nowhere", "no such file"]),
        (["--clip-model", "./nowhere"], ["CLIP_MODEL_NAME", "./nowhere"]),
        (["--device", "tpu"], ["tpu", "cpu"]),
        (["--image", "./nowhere.jpg"], ["nowhere.jpg"]),
        (["search"], ["search", "--image"]),
        (["search", ""], ["empty"]),
        (["search", "a", "--queries", "b"], ["either"]),
        (["search", "--queries", "b", "--paths"], ["--paths"]),
        (["search", "a", "--json", "--paths"], ["not allowed"]),
        (["search", "a", "--by", "smell"], ["invalid choice", "look"]),
        (["search", "a", "--image", "b.jpg", "--by", "caption"], ["--by caption", "look"]),
        (["search", "a", "--in", "nowhere"], ["--in", "gallery", "nowhere"]),
        (["search", "a", "--without", " "], ["to avoid (--without) is empty"]),
    ],
)
def test_wrong_flags_are_named_with_what_is_allowed(command, flags, words):
    changed = (
        {flags[0].removeprefix("--").replace("-", "_"): flags[1]}
        if flags[0] in ("--experiment-samples", "--dataset", "--clip-model")
        else {}
    )
    done = command(*([] if changed else flags), **changed)
    assert done.returncode == 2, done.stderr
    for word in words:
        assert word in done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_every_setting_refuses_what_it_cannot_use(settings, setting):
    check_settings()
    wrong = [[], object(), float("nan")]
    wrong += (
        [True, "7", None]
        if setting.kind is int
        else ["yes", 2]
        if setting.kind is bool
        else [3, b"x"]
        if setting.kind is str
        else ["1"]
    )
    wrong += [] if setting.low is None else [setting.low - 1]
    wrong += [] if setting.high is None else [setting.high + 1]
    for value in wrong:
        if value is None and setting.optional:
            continue
        setattr(config, setting.name, value)
        with pytest.raises(SettingError, match=setting.name):
            check_settings()


def test_a_setting_must_say_whether_it_decides_a_caption():
    with pytest.raises(TypeError, match="decides_caption"):
        Setting("NEW", None, int)


def test_what_decides_a_caption_is_recorded_with_it(settings):
    deciding = {setting.name.lower() for setting in SETTINGS if setting.decides_caption}
    assert {"top_k_similar", "prompt_template", "max_new_tokens", "dtype"} <= deciding
    assert not {"db_dir", "show_progress", "vlm_batch_size", "search_word_weight"} & deciding
    settings.TOP_K_SIMILAR = 2
    assert caption_settings()["top_k_similar"] == 2 and set(caption_settings()) == deciding


def test_every_setting_of_config_is_checked():
    assert {setting.name for setting in SETTINGS} == {
        name for name in vars(config) if name.isupper()
    }


def test_quiet_prints_results_only(process):
    done = process("--quiet")
    assert done.returncode == 0 and "Caption:" in done.stdout and done.stderr == ""


def test_an_error_is_one_paragraph_and_a_traceback_only_with_debug(process):
    plain, debug = process(dataset="./x"), process("--debug", dataset="./x")
    assert "Traceback" not in plain.stderr and len(plain.stderr.strip().splitlines()) == 1
    assert "Traceback" in debug.stderr


def test_without_a_hub_auto_says_so_and_own_photos_are_an_error(command, tmp_path, photos):
    done = command(
        "--image", str(photos / "p00.png"), mode="auto", clip_model="openai/clip-vit-base-patch32"
    )
    assert done.returncode == 1
    assert "openai/clip-vit-base-patch32" in done.stderr and "--mode demo" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.long
def test_a_stopped_run_says_so_and_the_next_one_goes_on(
    tiny_flags, command, tmp_path, number, status
):
    photos = make_photos(tmp_path / "many", 200)  # many, so that the signal comes before the end
    words = words_of(tiny_flags, {"dataset": str(photos)})
    arguments = [sys.executable, "main.py", *words, "--image", str(photos)]
    process = subprocess.Popen(
        arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while "Saved:" not in process.stdout.readline():  # the first image is done
        assert process.poll() is None
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == status, errors
    assert "Stopped" in errors and "Traceback" not in errors
    done = command(dataset=str(photos))
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
@pytest.mark.parametrize("command", [["main.py"], ["-m", "scale"]])
def test_a_command_that_is_stopped_while_it_is_imported(tmp_path, command, name, status):
    stop = f"import os, signal; os.kill(os.getpid(), signal.{name}); print('went on')"
    (tmp_path / "numpy.py").write_text(stop)  # what is imported early
    done = run_python(*command, "search", "x", "dog", PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr == "Stopped. What was done is saved.\n"


def test_another_program_that_imports_it_keeps_its_signals():
    code = "import signal, main; print(signal.getsignal(signal.SIGINT).__name__)"
    assert run_python("-c", code).stdout == "default_int_handler\n"


@pytest.mark.parametrize("name", ["typo", "owner/typo"])
def test_the_demo_does_not_stand_for_a_named_dataset_unsaid(name, settings, tmp_path):
    flags = ("--mode", "demo", "--db-dir", str(tmp_path), "--dataset", name)
    for words in (["forget", "1"], ["status"], ["export", "jsonl", str(tmp_path / "out")]):
        done = run_main(*words, *flags)
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert f"'{name}' is no folder here" in done.stderr
    done = run_main("search", "a red dog", *flags)
    assert done.returncode == 0 and "The dataset is the demo's" in done.stderr


def test_results_for_a_reader_that_goes_away():
    script = (
        "import subprocess, sys; pipe = subprocess.PIPE; "
        "p = subprocess.Popen(sys.argv[1:], stdout=pipe, stderr=pipe); "
        "p.stdout.close(); _, e = p.communicate(); print(e.decode()); sys.exit(p.returncode)"
    )
    done = run_python("-c", script, sys.executable, "main.py", "--help")
    assert "Traceback" not in done.stdout
