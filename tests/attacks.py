"""A program that updates databases, and faults injected at its steps.

Used by test_attack_*.py and the benchmarks. `python -m tests.attacks SCENARIO FOLDER ...` runs an
attack in forked processes, which start in milliseconds because torch is never imported here, and
prints a line of JSON. The product has no hook: the forked process wraps the calls by which Python
reaches the disk, counts them, and is killed or given an error at the n-th.
"""

import builtins
import io
import json
import logging
import os
import random
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from db_manager import DatabaseManager
from support.errors import DatabaseError
from support.records import GeneratedCaption, ModelRef, Sample
from support.storage import store as module

CLIP = ModelRef("org/clip", "", "revision-1")
NEW_CLIP = ModelRef("org/clip", "", "revision-2")
TEXT = ModelRef("org/text", "", "revision-1")
DIMENSION = 8
# what changes a disk
WRITES = ("write", "fsync", "replace", "link", "truncate", "ftruncate", "unlink", "mkdir")
STEPS = (
    "open", "write", "fsync", "replace", "link", "truncate", "ftruncate", "unlink", "mkdir",
    "chmod",
)  # fmt: skip


# --- The program under attack ---------------------------------------------------------------------
def sample(number: int, role: str = "training", captions: tuple[str, ...] = ()) -> Sample:
    return Sample(f"{number:064x}", f"{number}.jpg", None, captions, number, role, number)


def vector(seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=DIMENSION).astype(np.float32)
    return values / np.linalg.norm(values)


def caption(number: int) -> str:
    return f"개 {number} runs"


def update_databases(
    folder: Path, done: Callable[[int], None] = lambda number: None, count: int = 4
) -> None:
    """Stages 2, 6 and 7 of `count` images, with compactions in between.

    `done(n)` is called after each update that has returned.
    """
    with frequent_compactions(), DatabaseManager(folder, "photos") as db:
        gallery = [sample(n, captions=(caption(n), "a dog")) for n in range(100, 103)]
        db.sync_gallery(gallery)
        images = db.image_vectors(CLIP, DIMENSION, "pil")
        db.add_vectors(images, {s.content_hash: vector(s.original_index) for s in gallery})
        for number in range(count):
            add(db, number)
            done(number)


@contextmanager
def frequent_compactions() -> Iterator[None]:
    """Journals are compacted after some updates instead of thousands."""
    usual, module.JOURNAL_BYTES = module.JOURNAL_BYTES, 1500
    try:
        yield
    finally:
        module.JOURNAL_BYTES = usual


def add(db: DatabaseManager, number: int) -> int:
    images = db.image_vectors(CLIP, DIMENSION, "pil")
    made = GeneratedCaption(caption(number), "p", {"mode": "hub"})
    index = db.add_generated(sample(number, "experiment"), made, images, vector(number))
    db.add_vectors(
        db.caption_vectors(TEXT, DIMENSION), {caption(number): vector(-number % 1000 + 1000)}
    )
    return index


def state(folder: Path) -> dict[str, Any]:
    """All that the three databases hold, as a fresh reader sees it."""
    db = DatabaseManager(folder, "photos")
    images, texts = db.image_vectors(CLIP, DIMENSION, "pil"), db.caption_vectors(TEXT, DIMENSION)
    tables = {"images": images, "texts": texts}
    rows = {
        kind: {key: table.matrix[row].tolist() for key, row in table.rows.items()}
        for kind, table in tables.items()
    }
    db.close(compact=False)
    return {"captions": db.captions, **rows}


def check(folder: Path, done: int) -> str | None:
    """What is lost, half there, or inconsistent after `done` images were reported captioned."""
    found = state(folder)
    captions, indices = (
        found["captions"],
        [record["index"] for record in found["captions"].values()],
    )
    for number in range(done):
        key = sample(number).content_hash
        if key not in captions or captions[key]["generated"]["caption"] != caption(number):
            return f"caption {number} is lost"
        if key not in found["images"] or caption(number) not in found["texts"]:
            return f"a vector of {number} is lost"
    if len(set(indices)) < len(indices):
        return f"two images share a number: {sorted(indices)}"
    half = [
        key
        for key, record in captions.items()
        if record["generated"] and key not in found["images"]
    ]
    return f"captions without a vector: {half}" if half else None


# --- Faults ----------------------------------------------------------------------------------
class Faults:
    """Counts the steps to the disk, and fails at step `at`.

    `action` says how: killed before, after or half-way, or given an errno.
    """

    def __init__(self, at: int = -1, action: str | int = "", kinds: tuple[str, ...] = STEPS):
        self.at, self.action, self.kinds, self.count, self.failed = at, action, kinds, 0, ""
        self.write = os.write

    def install(self) -> None:
        for name in set(STEPS) - {"open"}:
            setattr(os, name, self._wrapped(name, getattr(os, name)))
        os.open = self._wrapped("open", os.open)
        io.open = builtins.open = self._wrapped("open", io.open)
        fdopen = os.fdopen
        os.fdopen = lambda *a, **k: _File(self, fdopen(*a, **k))

    def _wrapped(self, kind: str, call: Callable) -> Callable:
        def step(*arguments: Any, **options: Any) -> Any:
            return self.step(kind, call, *arguments, **options)

        return step

    def step(self, kind: str, call: Callable, *arguments: Any, **options: Any) -> Any:
        mine = kind in self.kinds and self.count == self.at
        self.count += kind in self.kinds
        if not mine:
            return call(*arguments, **options)
        self.failed = f"{kind}{[str(a)[-50:] for a in arguments]}"
        if isinstance(self.action, int):
            raise OSError(
                self.action,
                os.strerror(self.action),
                *[str(a) for a in arguments[:1] if kind == "open"],
            )
        if self.action == "half":
            call(*arguments[:-1], arguments[-1][: len(arguments[-1]) // 2])
        elif self.action == "after":
            call(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)


class _File:
    """A file object whose writing counts as a step."""

    def __init__(self, faults: Faults, file: Any):
        self.faults, self.file = faults, file

    def writelines(self, lines: Any) -> None:
        self.faults.step("write", self._write, b"".join(lines))

    def _write(self, data: bytes) -> None:
        self.file.write(data)
        self.file.flush()

    def __enter__(self) -> "_File":
        return self

    def __exit__(self, *_: Any) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


# --- Processes ----------------------------------------------------------------------------------
def forked(run: Callable[[], Any]) -> int:
    """Start `run` in a process of its own; returns its pid.

    Its exit status is 0, or 1 with the error on stderr.
    """
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        run()
        status = 0
    except BaseException as error:  # noqa: BLE001 - the process ends here
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(status)


def exit_status(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def answer(run: Callable[[], Any]) -> Any:
    """What `run` returns in a fresh process."""
    reader, writer = os.pipe()
    pid = forked(lambda: os.write(writer, json.dumps(run()).encode()))
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        data = file.read()
    if exit_status(pid):
        return "the fresh process failed"
    return json.loads(data)


class Progress:
    """How far a process has come, kept where a SIGKILL leaves it."""

    def __init__(self, folder: Path):
        self.path = folder.with_name(folder.name + ".done")
        self.path.unlink(missing_ok=True)
        self.write, self.open = os.write, os.open

    def __call__(self, _: int) -> None:
        descriptor = self.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.write(descriptor, b".")
        os.close(descriptor)

    def count(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0


def leftovers(folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob("*.tmp")]


# --- Attacks ----------------------------------------------------------------------------------
def count_steps(folder: Path, run: Callable[[], None], kinds: tuple[str, ...] = STEPS) -> int:
    def counted() -> int:
        faults = Faults(kinds=kinds)
        faults.install()
        run()
        return faults.count

    return answer(counted)


def attack(
    folder: Path, at: int, action: str | int, kinds: tuple[str, ...] = STEPS
) -> dict[str, Any]:
    """One failing run, what a fresh process finds, and what a second run makes of it."""
    shutil.rmtree(folder, ignore_errors=True)
    progress = Progress(folder)
    note = folder.with_name(folder.name + ".error")
    note.unlink(missing_ok=True)

    def failing() -> None:
        faults = Faults(at, action, kinds)
        opened = open
        faults.install()
        try:
            update_databases(folder, progress)
        except DatabaseError as error:
            with opened(note, "w", encoding="utf-8") as file:
                file.write(str(error))
            os._exit(1)

    status = exit_status(forked(failing))
    outcome = {
        "at": at,
        "action": action,
        "status": status,
        "done": progress.count(),
        "left": leftovers(folder),
    }
    outcome["error"] = note.read_text(encoding="utf-8") if note.exists() else ""
    outcome["wrong"] = answer(lambda: check(folder, outcome["done"]))
    exit_status(forked(lambda: update_databases(folder)))
    outcome["rerun"] = answer(lambda: state(folder))
    outcome["left_after"] = leftovers(folder)
    return outcome


def sweep(
    folder: Path, action: str | int, kinds: tuple[str, ...] = STEPS, every: int = 1
) -> dict[str, Any]:
    """`attack` at every step; the problems found."""
    expected = _reference(folder)
    steps = count_steps(folder, lambda: update_databases(folder / "steps"), kinds)
    problems, statuses, errors = [], {}, {}
    for at in range(0, steps, every):
        outcome = attack(folder / "attacked", at, action, kinds)
        statuses[outcome["status"]] = statuses.get(outcome["status"], 0) + 1
        if outcome["error"]:
            errors[outcome["error"]] = errors.get(outcome["error"], 0) + 1
        problems += _problems(outcome, expected)
    return {"steps": steps, "statuses": statuses, "problems": problems, "errors": list(errors)}


def _reference(folder: Path) -> dict[str, Any]:
    """The state that an uninterrupted run comes to."""
    folder.mkdir(parents=True, exist_ok=True)
    exit_status(forked(lambda: update_databases(folder / "whole")))
    return answer(lambda: state(folder / "whole"))


def _problems(outcome: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    where = f"step {outcome['at']} {outcome['action']}: "
    found = [where + outcome["wrong"]] if outcome["wrong"] else []
    if outcome["rerun"] != expected:
        found.append(where + "the second run came to another state")
    if outcome["left_after"]:
        found.append(where + f"left behind: {outcome['left_after']}")
    if isinstance(outcome["action"], int) and outcome["status"] == 1:
        if outcome["left"]:
            found.append(where + f"temporary files stay: {outcome['left']}")
        if not outcome["error"]:
            found.append(where + "an error that was no DatabaseError")
    return found


def random_kills(folder: Path, count: int, seed: int = 0) -> dict[str, Any]:
    """SIGKILL at `count` random moments of a process that updates without end."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = random.Random(seed)
    problems, total = [], 0
    for moment in range(count):
        attacked = folder / "attacked"
        shutil.rmtree(attacked, ignore_errors=True)
        progress = Progress(attacked)
        pid = forked(
            lambda attacked=attacked, progress=progress: update_databases(
                attacked, progress, 10_000
            )
        )
        time.sleep(generator.uniform(0.005, 0.5))
        os.kill(pid, signal.SIGKILL)
        exit_status(pid)
        done = progress.count()
        total += done
        wrong = (
            answer(lambda attacked=attacked, done=done: check(attacked, done))
            if attacked.exists()
            else None
        )
        problems += [f"moment {moment}: {wrong}"] if wrong else []
    return {"kills": count, "updates": total, "problems": problems}


def rebuild_kills(folder: Path) -> dict[str, Any]:
    """SIGKILL at every step of a --rebuild for another revision of the same size.

    Vectors of two revisions are never mixed.
    """
    problems = []
    old = {sample(n).content_hash: vector(n).tolist() for n in range(5)}

    def rebuild(attacked: Path, faults: Faults) -> int:
        db = DatabaseManager(attacked, "photos")  # its updates stay in the journal
        table = db.image_vectors(CLIP, DIMENSION, "pil")
        db.add_vectors(table, {key: np.array(value, np.float32) for key, value in old.items()})
        db.close(compact=False)
        faults.install()
        db = DatabaseManager(attacked, "photos", rebuild=True)
        db.add_vectors(
            db.image_vectors(NEW_CLIP, DIMENSION, "pil"), {sample(7).content_hash: vector(7)}
        )
        db.close()
        return faults.count

    def mixed(attacked: Path) -> str | None:
        try:
            table = DatabaseManager(attacked, "photos").image_vectors(NEW_CLIP, DIMENSION, "pil")
        except DatabaseError as error:
            return None if "--rebuild" in str(error) else str(error)
        return "vectors of two revisions are mixed" if set(table.rows) & set(old) else None

    folder.mkdir(parents=True, exist_ok=True)
    steps, attacked = answer(lambda: rebuild(folder / "steps", Faults())), folder / "attacked"
    for at in range(steps):
        for action in ("before", "after"):
            shutil.rmtree(attacked, ignore_errors=True)
            exit_status(forked(lambda at=at, action=action: rebuild(attacked, Faults(at, action))))
            if wrong := answer(lambda: mixed(attacked)):
                problems.append(f"step {at} {action}: {wrong}")
    return {"steps": steps, "problems": problems}


def crowd(folder: Path, writers: int, updates: int) -> dict[str, Any]:
    """`writers` processes with `updates` each, all at once, and a reader beside them."""
    folder.mkdir(parents=True, exist_ok=True)

    def write(writer: int) -> None:
        with DatabaseManager(folder / "db", "photos") as db:
            for n in range(updates):
                add(db, writer * 1000 + n)

    start = time.monotonic()

    def look_on() -> list[str]:
        problems, before = [], 0
        db = DatabaseManager(folder / "db", "photos")
        images = db.image_vectors(CLIP, DIMENSION, "pil")
        while before < writers * updates and time.monotonic() < start + 120:
            db.refresh()
            half = [key for key in db.captions if key not in images.rows]
            fewer = len(db.captions) < before
            problems += ["a caption without its vector"] * bool(half) + [
                "fewer than before"
            ] * fewer
            before = len(db.captions)
            time.sleep(0.01)
        return problems[:5]

    pids = [forked(lambda writer=writer: write(writer)) for writer in range(writers)]
    problems = answer(look_on)
    statuses = [exit_status(pid) for pid in pids]
    captions = answer(lambda: state(folder / "db"))["captions"]
    indices = sorted(record["index"] for record in captions.values())
    if indices != list(range(writers * updates)):
        problems.append(f"{len(indices)} entries, numbers {indices[:3]} ... {indices[-3:]}")
    return {
        "statuses": statuses,
        "problems": problems,
        "entries": len(indices),
        "seconds": time.monotonic() - start,
    }


def long_run(folder: Path, updates: int, images: int = 200) -> dict[str, Any]:
    """Memory, file handles and time of `updates` over `images`, early and late in one process."""

    def measured() -> dict[str, Any]:
        marks = []
        with DatabaseManager(folder, "photos") as db:
            start = time.perf_counter()
            for n in range(updates):
                add(db, n % images)
                if (n + 1) % (updates // 10) == 0:
                    now = time.perf_counter()
                    marks.append(
                        {
                            "updates": n + 1,
                            "kib": _resident_kib(),
                            "handles": _handles(),
                            "s": now - start,
                        }
                    )
                    start = now
        return {"marks": marks, "handles_after": _handles()}

    return answer(measured)


def _resident_kib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1024


def _handles() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


SCENARIOS = {
    "sweep": lambda folder, action, kinds, every="1": sweep(
        folder, int(action) if action.isdigit() else action, tuple(kinds.split(",")), int(every)
    ),
    "random": lambda folder, count, seed="0": random_kills(folder, int(count), int(seed)),
    "rebuild": rebuild_kills,
    "crowd": lambda folder, writers, updates: crowd(folder, int(writers), int(updates)),
    "long_run": lambda folder, updates: long_run(folder, int(updates)),
}

if __name__ == "__main__":
    logging.getLogger("captioning").setLevel(logging.ERROR)
    print(json.dumps(SCENARIOS[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])))
