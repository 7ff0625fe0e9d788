"""`python setup_token.py`, on a terminal and piped, against a Hub on loopback."""

import io
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import setup_token
from tests.helpers import ROOT, Finished, run_here
from tests.hub_fixtures import CLOSED, OPENS, TOKEN_VARIABLES
from tests.hub_repositories import MODELS

GATED = "google/embeddinggemma-300m"
PAGE = "https://huggingface.co/settings/tokens"


@pytest.fixture
def command(online, monkeypatch):
    """Runs setup_token.py with `typed` on its standard input, in this process."""

    def run(*arguments: str, typed: str = "", **variables: str) -> Finished:
        for name in TOKEN_VARIABLES:
            monkeypatch.setenv(name, variables.get(name, ""))
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        return without_secrets(run_here(lambda: setup_token.main(list(arguments))))

    return run


@pytest.fixture
def process(hub_environment):
    """The same in a process of its own: where a token is stored, huggingface_hub fixes early."""

    def run(*arguments: str, typed: str = "", **variables: str) -> Finished:
        done = subprocess.run(
            [sys.executable, "setup_token.py", *arguments],
            cwd=ROOT,
            env={**os.environ, **hub_environment, **variables},
            input=typed,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return without_secrets(Finished(done.returncode, done.stdout, done.stderr))

    return run


def without_secrets(done: Finished) -> Finished:
    assert "Traceback" not in done.stderr
    for token in (OPENS, CLOSED):
        assert token not in done.stdout + done.stderr
    return done


@pytest.fixture
def home(tmp_path) -> Path:
    return tmp_path / ".hf"


@pytest.mark.parametrize("ending", ["\n", "\r\n", "", "  \nmore\n"])
def test_a_piped_token_is_verified_and_stored_for_the_owner_only(process, loopback, home, ending):
    done = process(typed=OPENS + ending)
    assert done.returncode == 0 and "valid and stored; account: somebody" in done.stdout, (
        done.stderr
    )
    assert (home / "token").read_text().strip() == OPENS
    for file in ("token", "stored_tokens"):
        assert stat.S_IMODE((home / file).stat().st_mode) == 0o600
    assert {request.token for request in loopback.asked("whoami")} == {OPENS}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
def test_on_a_terminal_the_token_is_not_shown(hub_environment, home):
    import pty

    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "setup_token.py"],
        cwd=ROOT,
        env={**os.environ, **hub_environment},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    while b"Token: " not in shown:
        shown += os.read(ours, 1000)
    os.write(ours, OPENS.encode() + b"\n")
    while chunk := _read(ours):
        shown += chunk
    os.close(ours)
    assert process.wait(timeout=30) == 0 and b"valid and stored" in shown
    assert OPENS.encode() not in shown and PAGE.encode() in shown
    assert (home / "token").read_text().strip() == OPENS


def _read(terminal: int) -> bytes:
    """What comes next from a terminal; nothing when the process at its other end has closed it."""
    try:
        return os.read(terminal, 1000)
    except OSError:
        return b""


@pytest.mark.parametrize(
    "typed, words",
    [
        ("\n", "No token was given"),
        ("hf_unknown\n", "does not accept this token"),
        ("hf_two words\n", "holds spaces"),
        ("hf_\x07\n", "unusual characters"),
        ("hf_żółw\n", "unusual characters"),
    ],
)
def test_what_is_no_token_is_not_stored(command, home, typed, words):
    done = command(typed=typed)
    assert done.returncode == 2 and words in done.stderr and "Nothing was stored" in done.stderr
    assert typed.strip() == "" or typed.strip() not in done.stderr + done.stdout
    assert not home.exists() or not list(home.rglob("*token*"))


@pytest.mark.parametrize("place", ["HF_TOKEN", "HUGGINGFACE_TOKEN", "stored"])
@pytest.mark.parametrize(
    "token, says",
    [
        (OPENS, f"{GATED}: gated, open to this token"),
        (CLOSED, f"{GATED}: gated, not open to this token"),
    ],
    ids=["opens", "closed"],
)
def test_check_says_where_the_token_is_and_what_it_opens(command, home, place, token, says):
    if place == "stored":
        home.mkdir()
        (home / "token").write_text(token)
    done = command("--check", **({} if place == "stored" else {place: token}))
    assert done.returncode == 0, done.stderr
    assert ("a stored token" if place == "stored" else f"found in {place}") in done.stdout
    assert says in done.stdout and "account: somebody" in done.stdout
    assert (f"https://huggingface.co/{GATED}" in done.stdout) == (token == CLOSED)


def test_check_without_a_token_or_with_an_unknown_one(command):
    done = command("--check")
    assert done.returncode == 2 and "No token was found" in done.stderr and PAGE in done.stderr
    done = command("--check", HF_TOKEN="hf_expired")
    assert (
        done.returncode == 2
        and "does not accept the token (a token was found in HF_TOKEN)" in done.stderr
    )
    assert PAGE in done.stderr and "hf_expired" not in done.stderr


@pytest.mark.parametrize(
    "arguments, typed", [(["--check"], ""), ([], OPENS + "\n")], ids=["check", "store"]
)
@pytest.mark.parametrize("fault", ["stopped", "down"])
def test_without_a_hub_it_says_what_to_do(command, loopback, home, arguments, typed, fault):
    loopback.stop() if fault == "stopped" else setattr(loopback, "down", True)
    done = command(*arguments, typed=typed, HF_TOKEN=OPENS if arguments else "")
    assert done.returncode == 2
    assert re.search(
        r"cannot be reached \(.*(refused|503).*cannot be verified.*Connect", done.stderr
    )
    assert not home.exists() or not list(home.rglob("*token*"))


def test_a_variable_that_goes_before_the_stored_token_is_named(process):
    done = process(typed=OPENS + "\n", HF_TOKEN=CLOSED)
    assert (
        done.returncode == 0
        and "Another one precedes it (a token was found in HF_TOKEN)" in done.stdout
    )


def test_all_models_of_config_are_asked_about_the_commented_ones_too(settings):
    settings.VLM_MODEL_NAME = "./my_model"
    assert set(setup_token.model_names()) == set(MODELS)


def test_a_stored_token_that_is_no_text_is_named(tmp_path, monkeypatch, capsys):
    from huggingface_hub import constants

    path = tmp_path / "token"
    path.write_bytes(b"\xff\xfe")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(path))
    for name in ("HF_TOKEN", "HUGGINGFACE_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    assert setup_token.main(["--check"]) == 2
    assert f"token in {path} cannot be read" in capsys.readouterr().err
