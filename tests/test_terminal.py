"""No name, caption or error can steer the terminal: one gate for stdout, stderr and the log."""

import io
import os
import subprocess
import sys

import pytest

from support.errors import DatabaseError, PipelineError
from support.log import log
from support.terminal import SafeStream, guard_terminal
from tests.helpers import ROOT, make_photos, picture

TITLE = "\x1b]0;title\x07"  # what a terminal obeys: a new title,
CLIPBOARD = "\x1b]52;c;cm0gLXJm\x07"  # the clipboard,
RIGHT_TO_LEFT = "\u202e"  # the order of the text
FORBIDDEN = ("\x1b", "\x07", "\x9b", "\u202e", "\x00")


def clean(*texts: str) -> bool:
    return not any(character in text for text in texts for character in FORBIDDEN)


@pytest.mark.parametrize("bars", [False, True])
def test_the_gate_lets_no_control_character_through(bars):
    out = io.StringIO()
    stream = SafeStream(out, bars)
    stream.write(f"a {TITLE}b{CLIPBOARD}\x9b2J\u202e\r\x00 개\tc\nd")
    assert clean(out.getvalue()) and "\r" not in out.getvalue()
    assert "개\tc\nd" in out.getvalue()


def test_progress_bars_may_move_on_stderr_alone():
    for bars in (False, True):
        out = io.StringIO()
        stream = SafeStream(out, bars)
        for text in ("\r 50%", "\n\x1b[A", "\r\x1b[A"):
            stream.write(text)
        assert out.getvalue().startswith("\r 50%") == bars
        assert ("\n\x1b[A" in out.getvalue()) == bars
        assert not out.getvalue().endswith("\x1b[A")


def test_the_gate_is_put_up_once_and_passes_on_what_a_stream_can_do(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "ascii"))
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    guard_terminal()
    gate = sys.stdout
    guard_terminal()
    assert sys.stdout is gate and gate.encoding == "ascii"
    print("개\x1b", file=sys.stdout, flush=True)
    assert sys.stdout.buffer.getvalue() == b"\\uac1c \n"


def test_errors_and_log_lines_are_one_line_in_a_notebook_too(caplog):
    name = f"x\n{TITLE}y"
    assert clean(str(DatabaseError(name)), str(PipelineError(name)))
    assert "\n" not in str(PipelineError(name))
    log.warning("Skipped %s", name)
    assert clean(caplog.text) and caplog.messages[-1].startswith("Skipped x ")


@pytest.fixture
def hostile(tmp_path):
    """A dataset whose folder, files and captions hold escape sequences."""
    folder = make_photos(tmp_path / f"photos{TITLE}", 8)
    (folder / f"bad{CLIPBOARD}.png").write_bytes(b"no image")
    picture(50).save(folder / f"good{TITLE}{RIGHT_TO_LEFT}.png")
    with (folder / "captions.txt").open("a", encoding="utf-8", newline="\n") as file:
        file.write(f"bad{CLIPBOARD}.png,a{TITLE}\ngood{TITLE}{RIGHT_TO_LEFT}.png,b{CLIPBOARD}\n")
    return folder


@pytest.mark.parametrize(
    "words, status",
    [
        (["--index", "0"], 0),
        (["--all"], 0),
        (["search", "a red dog"], 0),
        (["search", TITLE + "dog"], 0),
        (["evaluate", "--arms", "none", "nearest", "--samples", "2"], 0),
        (["evaluate", "--arms", TITLE], 2),
        (["--device", TITLE], 2),
        (["--image", f"./{TITLE}.jpg"], 2),
        ([f"--{TITLE}"], 2),
        ([TITLE], 2),
    ],
)
def test_no_command_prints_what_a_terminal_obeys(command, hostile, words, status):
    done = command(*words, dataset=str(hostile))
    assert done.returncode == status, done.stderr
    assert clean(done.stdout, done.stderr)
    assert done.stdout or done.stderr


@pytest.mark.parametrize("flag", ["clip_model", "vlm_model", "text_model", "dataset", "db_dir"])
def test_names_in_errors_are_made_safe(command, flag, tmp_path):
    (tmp_path / "file").write_text("x")
    done = command("--index", "0", **{flag: str(tmp_path / "file" / TITLE)})
    assert done.returncode in (1, 2) and done.stderr
    assert clean(done.stdout, done.stderr)


def test_a_folder_without_images_or_captions_is_named_safely(command, tmp_path):
    empty = tmp_path / f"empty{TITLE}"
    empty.mkdir()
    for words in (["--image", str(empty)], ["--dataset", str(empty)]):
        done = command(*words) if words[0] == "--image" else command(dataset=str(empty))
        assert done.returncode == 2 and "empty" in done.stderr
        assert clean(done.stdout, done.stderr)


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_a_closed_stream_is_no_error(closed, monkeypatch):
    monkeypatch.setattr(sys, closed, None)
    guard_terminal()
    print("x", file=getattr(sys, closed))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
def test_an_output_that_cannot_be_written_is_named(tiny_flags):
    words = [word for pair in tiny_flags.items() for word in pair]
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "main.py", "--index", "0", *words],
            cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert done.returncode != 0 and "Unexpected" not in done.stderr
    assert "The output or working folder: No space left" in done.stderr


def test_a_line_break_in_a_name_forges_no_line(command, tmp_path):
    folder = make_photos(tmp_path / "nl\nGallery: 999 images", 8)
    for words in (["--index", "0"], ["--all"]):
        done = command(*words, dataset=str(folder))
        assert done.returncode == 0
        assert not [line for line in done.stdout.splitlines() if line.startswith("Gallery: 999")]
