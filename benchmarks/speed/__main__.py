"""How fast the program is beside its limits and its peers: `python -m benchmarks.speed [PART ...]`.

Prints a table, and writes it with --output; all parts by default. Databases, photos and models of
the real sizes are made on the spot, in a temporary folder of up to 12 GB.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

import config
from benchmarks.speed import databases, growth, photos, search, startup, vlm
from benchmarks.speed.measure import HEADER, ROUNDS, Line

Part = Callable[[argparse.Namespace, Path], Iterator[Line]]
PARTS: dict[str, Part] = {
    "neighbors": search.neighbors,
    "text": search.text,
    "search": search.whole,
    "photos": photos.photos,
    "captions": photos.captions,
    "add": databases.add,
    "open": databases.opening,
    "close": databases.closing,
    "start": startup.start,
    "experiment": startup.experiment,
    "vlm": vlm.vlm,
    "programs": startup.programs,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join((*PARTS, 'growth'))}")
    parser.add_argument("--largest", type=int, default=1_000_000, help="records at most")
    parser.add_argument("--photos", type=Path, help="a folder of JPEGs, in place of made ones")
    parser.add_argument("--output", type=Path, help="where the table is written too")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - {*PARTS, "growth"}:
        parser.error(f"there is no part {', '.join(sorted(unknown))}")
    config.SHOW_PROGRESS = False
    if arguments.parts == ["growth"]:
        growth.draw(arguments.largest)
        return
    if len(arguments.parts) == 1:
        with tempfile.TemporaryDirectory() as folder:
            for line in PARTS[arguments.parts[0]](arguments, Path(folder)):
                print(line.markdown(), flush=True)
        return
    lines = [_machine(), "", HEADER]
    print("\n".join(lines), flush=True)
    for part in arguments.parts or PARTS:
        lines += _in_its_own_process(part, arguments)
    if arguments.output:
        arguments.output.write_text("\n".join(lines) + "\n")


def _in_its_own_process(part: str, arguments: argparse.Namespace) -> list[str]:
    """The lines of a part, printed as they come: no part inherits the memory of another."""
    words = [sys.executable, "-m", "benchmarks.speed", part, f"--largest={arguments.largest}"]
    words += [f"--photos={arguments.photos}"] if arguments.photos else []
    lines = []
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            lines += [line.rstrip("\n")] if line.startswith("|") else []
    if process.returncode:
        sys.exit(f"{part} failed")
    return lines


def _machine() -> str:
    return (
        f"{_processor()}, {os.cpu_count()} cores, Python {platform.python_version()}, numpy "
        f"{np.__version__}, torch {torch.__version__}; medians of {ROUNDS} rounds or more."
    )


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    main()
