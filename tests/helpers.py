"""Shared by the tests beside fixtures: pictures, and `main.py` in this process or its own."""

import io
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

import config

ROOT = Path(config.__file__).resolve().parent


def picture(seed: int, size: tuple[int, int] = (48, 40)) -> Image.Image:
    """An RGB picture of its own for each seed."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.NEAREST)


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


def words_of(flags: dict[str, str], changed: dict[str, str]) -> list[str]:
    """`flags` as words of a command line, with changes such as top_k="3"."""
    named = {"--" + name.replace("_", "-"): value for name, value in changed.items()}
    return [word for pair in {**flags, **named}.items() for word in pair]


class Finished(NamedTuple):
    """What a command has come to."""

    returncode: int
    stdout: str
    stderr: str


def run_main(*arguments: str) -> Finished:
    """Runs the command line in this process."""
    from main import main

    return run_here(lambda: main(list(arguments)))


def run_here(command: Callable[[], int]) -> Finished:
    """Runs a command in this process, and undoes what it changes of the process."""
    forget()
    log = logging.getLogger("captioning")
    before = {name: value for name, value in vars(config).items() if name.isupper()}
    terminate, level = signal.getsignal(signal.SIGTERM), log.level
    stdout, stderr = io.StringIO(), io.StringIO()
    handler = logging.StreamHandler(stderr)  # under pytest, basicConfig adds none
    log.addHandler(handler)
    try:
        with redirect_stdout(stdout), redirect_stderr(stderr):
            status = command()
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


def stop_captioning(monkeypatch, at: int) -> list[int]:
    """Makes the `at`-th batch that a VLM is given end with Ctrl-C; the sizes of all batches."""
    from vlm_captioner import Captioner

    calls: list[int] = []
    write = Captioner.write_captions

    def stopped(self, images, prompts):
        calls.append(len(images))
        if len(calls) == at:
            raise KeyboardInterrupt
        return write(self, images, prompts)

    monkeypatch.setattr(Captioner, "write_captions", stopped)
    return calls


def forget() -> None:
    """Lets this process forget what it knows of Hub and servers, as a new one would."""
    from support.hub import connection, names, revisions
    from support.server.captioner import _served_name

    for remembered in (revisions.locate, names._warn_once, connection._probe, _served_name):
        remembered.cache_clear()
