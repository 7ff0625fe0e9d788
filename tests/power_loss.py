"""Power loss: what a disk may hold afterwards, for each moment of a recorded run.

A workload (tests/power_loss_workloads.py) runs under strace, which records its calls to the file
system and, in order with them, what it reported as done. The calls are replayed on a disk in memory
(tests/power_loss_disk.py). Whenever one has changed it, the power fails: each state that the disk
may be in is built as real folders, and the workload's own check looks at them. Pillai et al. 2014
(ALICE) and Mohan et al. 2018 (CrashMonkey) test programs and file systems so.

The disk model:

- What was synced is there. fsync and fdatasync of a file make its content durable; fsync of a
  folder makes its entries durable: its names, and the file or folder that each leads to.
- Content that was written but not synced is there in pieces, or not. A write is divided where the
  file's offset is a multiple of 4 KiB. Each piece can be lost, also while a later one is there; the
  gap then holds what it held before, or zeros where the file was shorter. The file can have its new
  length while its last pieces are zeros. A truncation is one more piece. A piece is never torn
  itself, and the content of other files never appears.
- Creating, linking, renaming and unlinking a name and making a folder are changes of a folder's
  entries, each there as a whole or not at all. They do not wait for the file's content: a renamed
  file can have its new name and nothing of what was not synced.
- Two models say which unsynced changes of a folder can be lost. "Journalled", as ext4, XFS and
  btrfs do it: the newest ones, in each folder independently; and fsync of a file or folder makes
  its own name durable too, with the earlier changes of that folder, and the folders above.
  "Minimal", what POSIX promises: each change by itself; and fsync says nothing of names.
- What was durable stays, and an fsync that has returned is true. Modes and times are not modelled.

Of few changes, all combinations are tried. Of many, for a dozen of them: what came before, all but
this one, this one alone, and the next one instead of it. Of several files and folders with many
combinations: all or nothing of each; and each in all its ways, while the others have all, and while
they have nothing of what was not synced.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.helpers import ROOT
from tests.power_loss_disk import MODELS, Call, Disk, Tree

TRACED = (
    "?open", "openat", "write", "pwrite64", "lseek", "ftruncate", "truncate",
    "?rename", "renameat", "renameat2", "?link", "linkat", "?unlink", "unlinkat", "?rmdir",
    "?mkdir", "mkdirat", "fsync", "fdatasync",
)  # fmt: skip
MARK = b"REPORTED: "
START = "start"
NOTES = ("lock-holder.json",)  # of no consequence for what is stored


# --- Recording ------------------------------------------------------------------------------------
def missing_strace() -> str | None:
    """Why nothing can be recorded here, if so."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    tried = subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True, text=True)
    return f"strace cannot trace here: {tried.stderr.strip()}" if tried.returncode else None


def report(text: str) -> None:
    """Says in the trace that something is done; START, that what is there now is durable."""
    os.write(1, MARK + text.encode())


def record(arguments: Sequence[str], trace: Path) -> list[Call]:
    """The calls of `python -m arguments` and the processes it starts."""
    strace = ["strace", "-f", "-y", "-xx", "-s", "10000000", "-o", str(trace)]
    command = [*strace, "-e", f"trace={','.join(TRACED)}", sys.executable, "-Bm", *arguments]
    quiet = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # no threads in the trace
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **quiet}, capture_output=True)
    if done.returncode:
        raise RuntimeError(f"{command} failed: {done.stderr.decode()}")
    with trace.open(encoding="ascii") as lines:
        return list(_calls(lines))


def _calls(lines: Iterable[str]) -> Iterator[Call]:
    """The successful calls of a trace."""
    begun: dict[str, str] = {}
    for line in lines:
        process, text = line.rstrip().split(maxsplit=1)
        if text.endswith("<unfinished ...>"):
            begun[process] = text.removesuffix("<unfinished ...>")
            continue
        if resumed := re.match(r"<\.\.\. \w+ resumed>", text):
            text = begun.pop(process) + text[resumed.end() :]
        if call := re.fullmatch(r"(\w+?)(?:at2?|64)?\((.*)\)\s+= (\d+).*", text):
            yield _call(process, call[1], call[2].split(", "), int(call[3]))


def _call(process: str, name: str, arguments: Iterable[str], result: int) -> Call:
    call = Call(process, name, [], [], [], "", result)
    for argument in arguments:
        if opened := re.fullmatch(r"(\d+)<(.*)>.*", argument):
            call.files.append((int(opened[1]), os.fsdecode(_unescaped(opened[2]))))
        elif argument.startswith('"'):
            assert argument.endswith('"'), "strace has cut a text off"
            call.texts.append(_unescaped(argument[1:-1]))
        elif argument.isdecimal():
            call.numbers.append(int(argument))
        else:
            call = call._replace(flags=call.flags + argument)
    return call


def _unescaped(text: str) -> bytes:
    return re.sub(rb"\\x(..)", lambda code: bytes.fromhex(code[1].decode()), text.encode())


# --- Replaying ------------------------------------------------------------------------------------
class Crash(NamedTuple):
    """The most that was reported before a state of the disk, and how the state comes about."""

    done: list[str]
    where: str


class Outcome(NamedTuple):
    """How many calls changed the disk, in how many states power failures leave it, and what fails.

    Each problem is named with the states that have it.
    """

    operations: int
    states: int
    problems: dict[str, list[Crash]]

    def __str__(self) -> str:
        counts = f"{self.operations} operations, {self.states} crash states, problems: "
        return counts + ("".join(map(self._shown, self.problems)) or "none")

    def _shown(self, problem: str) -> str:
        first, *others = self.problems[problem]
        return f"\n  {problem}\n    {first.where}; reported: {first.done}; {len(others)} more"


def lose_power(
    arguments: Sequence[str],
    folder: Path,
    check: Callable[[Path, list[str]], str | None],
    every_note: bool = False,
) -> Outcome:
    """Records `python -m arguments FOLDER` and has `check` look at each state it may leave.

    `check(folder, reported)` says what is wrong, or returns None. `folder` must be empty. Of states
    that differ in NOTES alone, which are never synced, one is checked, or `every_note`.
    """
    recorded, crashed = folder.resolve() / "recorded", folder / "crashed"
    recorded.mkdir()
    calls = record([*arguments, str(recorded)], folder / "trace")
    found, operations = _crashes(calls, recorded, () if every_note else NOTES)
    problems: dict[str, list[Crash]] = {}
    for tree, crash in found.items():
        _build(tree, crashed)
        if problem := check(crashed, crash.done):
            problems.setdefault(problem.replace(str(crashed), ""), []).append(crash)
    return Outcome(operations, len(found), problems)


def _crashes(
    calls: list[Call], recorded: Path, alike: tuple[str, ...]
) -> tuple[dict[Tree, Crash], int]:
    """The states of `recorded` that power failures leave, and how many calls changed it.

    One for all that differ in files with names that are `alike`.
    """
    found: dict[Tree, tuple[Tree, Crash]] = {}
    for model in MODELS:
        disk = Disk(recorded, model)
        for tree, crash in _replay(calls, disk):
            key = tuple(file for file in tree if not file[0].endswith(alike))
            if key not in found or len(found[key][1].done) < len(crash.done):
                found[key] = tree, crash
        assert disk.now() == _read(recorded), "the replay is not what was recorded"
    return dict(found.values()), disk.operations


def _replay(calls: list[Call], disk: Disk) -> Iterator[tuple[Tree, Crash]]:
    """After each call and report, each state that the disk may be in."""
    done: list[str] = []
    last: Call | str = "the start"
    for call in calls:
        if call.name == "write" and call.texts[0].startswith(MARK):
            done = [*done, call.texts[0].removeprefix(MARK).decode()]
            if done == [START]:
                disk.start()
        elif disk.run(call):
            last = call if done else last
        else:
            continue
        where = f"{disk.model.name}, after operation {disk.operations}, {last}: "
        for tree, words in disk.states() if done else ():
            yield tree, Crash(done[1:], where + words)


def _build(tree: Tree, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for path, content in tree:
        if content is None:
            (folder / path).mkdir()
        else:
            (folder / path).write_bytes(content)


def _read(folder: Path) -> Tree:
    paths = sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).parts)
    return tuple(
        (path.relative_to(folder).as_posix(), None if path.is_dir() else path.read_bytes())
        for path in paths
    )
