"""The databases: opened, closed, added to; what they take of the memory."""

import itertools
import json
import os
import shutil
import statistics
from argparse import Namespace
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed.made import DIMENSION, Databases, key_of, opened, unit_vectors
from benchmarks.speed.measure import ROUNDS, Line, beside, memory, run_program, seconds
from support.records import GeneratedCaption, Sample

OPEN = {7_600: "<= 1000 ms", 100_000: "<= 2000 ms", 500_000: "<= 10000 ms"}
CLOSED = (8_000, 500_000)
ADDED = (8_000, 100_000, 1_000_000)


def add(arguments: Namespace, folder: Path) -> Iterator[Line]:
    """Adding one caption; theirs is the same at 8,000 records."""
    smallest: Callable[[], object] | None = None
    for size in (s for s in ADDED if s <= arguments.largest):
        databases = Databases(folder / f"add-{size}", size)
        ours = adder(databases.manager, databases.images)
        smallest = smallest or ours
        work = f"add one caption at {size:,} records"
        yield beside(work, "at 8,000", ours, smallest, "<= 1.3, <= 10 ms", rounds=15)
        databases.manager.close(compact=False)


def adder(manager: Any, images: Any, first: int = 10**9) -> Callable[[], object]:
    """Adds the caption and the vector of another image at each call."""
    numbers, vectors = itertools.count(first), unit_vectors(64, seed=5)
    made: Any = {"timestamp": "2026-01-01", "mode": "hub"}
    caption = GeneratedCaption("a dog runs in the snow", "prompt", made)

    def one() -> None:
        number = next(numbers)
        vector = vectors[number % len(vectors)]
        image: Any = None
        manager.add_generated(Sample(key_of(number), "x.jpg", image), caption, images, vector)

    return one


def opening(arguments: Namespace, folder: Path) -> Iterator[Line]:
    """Opening captions and both kinds of vectors; the files are in the page cache."""
    for size in (s for s in OPEN if s <= arguments.largest):
        there = folder / f"open-{size}"
        Databases(there, size).save()
        as_numpy = _save_as_numpy(there, folder / f"numpy-{size}")
        work = f"open {size:,} captions, image and text vectors"
        yield beside(
            work,
            "numpy.load of the vectors",
            partial(opened, there),
            partial(_load, as_numpy),
            OPEN[size],
        )
        if size == min(OPEN):
            yield _beside_indented_lists(there, folder, work)
        if size == max(OPEN):
            yield from _memory(there, size)


def _load(files: list[Path]) -> list[np.ndarray]:
    return [np.load(file) for file in files]


def _save_as_numpy(there: Path, to: Path) -> list[Path]:
    to.mkdir(parents=True, exist_ok=True)
    _, images, texts = opened(there)
    files = [to / "images.npy", to / "texts.npy"]
    for file, table in zip(files, (images, texts), strict=True):
        np.save(file, table.matrix)
    return files


def _beside_indented_lists(there: Path, folder: Path, work: str) -> Line:
    """The way of the notebook that this program grew out of: indented JSON with lists of floats."""
    manager, images, texts = opened(there)
    files = [folder / f"{name}.json" for name in ("captions", "images", "texts")]
    contents: list[Any] = [manager.captions]
    contents += [
        {key: table.matrix[row].tolist() for key, row in table.rows.items()}
        for table in (images, texts)
    ]
    for file, content in zip(files, contents, strict=True):
        file.write_text(json.dumps(content, indent=2))

    def theirs() -> None:
        json.loads(files[0].read_text())
        for file in files[1:]:
            np.array(list(json.loads(file.read_text()).values()), np.float32)

    line = beside(work, "JSON lists with indent", lambda: opened(there), theirs, ">= 30", rounds=5)
    ratio = 1 / line.ratio if line.ratio else 0.0
    low, high = line.spread or (1.0, 1.0)
    return line._replace(ratio=ratio, spread=(1 / high, 1 / low))


def _memory(there: Path, size: int) -> Iterator[Line]:
    """In a process of its own: the memory when open, and the most while opening."""
    code = (
        "import sys; from pathlib import Path; from benchmarks.speed import databases as d; "
        "d.print_memory(Path(sys.argv[1]))"
    )
    raw = 2 * size * DIMENSION * 4 / 2**20
    found = [run_program(["-c", code, str(there)]).split() for _ in range(ROUNDS)]
    for place, (name, reach) in enumerate((("open", "<= 1.8"), ("while opening", "<= 3"))):
        values = [float(words[place]) for words in found]
        ratios = [value / raw for value in values]
        middle, ends = statistics.median(values), (min(ratios), max(ratios))
        work = f"memory, {size:,} records {name}"
        ratio = statistics.median(ratios)
        yield Line(work, "the raw float32", middle, raw, "MiB", ratio, ends, reach)


def print_memory(there: Path) -> None:
    """Prints the MiB that databases take when they are open, and the most while they open."""
    before = memory("VmRSS")
    held = opened(there)
    print((memory("VmRSS") - before) / 2**20, (memory("VmHWM") - before) / 2**20)
    assert held


def closing(arguments: Namespace, folder: Path) -> Iterator[Line]:
    """Closing after one caption."""
    for size in (s for s in CLOSED if s <= arguments.largest):
        there = folder / f"close-{size}"
        Databases(there, size).save()
        times = []
        for number in range(ROUNDS + 1):
            manager, images, _ = opened(there)
            adder(manager, images, 10**9 + number)()
            times.append(1000 * seconds(manager.close))
        work = f"close after one caption at {size:,} records"
        yield Line(work, "", statistics.median(times[1:]), None, "ms", None, None, "<= 300 ms")
        shutil.rmtree(there)


def synced(run: Callable[[], object]) -> int:
    """How many files and folders `run` syncs."""
    count, sync = 0, os.fsync

    def counted(descriptor: int) -> None:
        nonlocal count
        count += 1
        sync(descriptor)

    os.fsync = counted  # type: ignore[assignment]
    try:
        run()
    finally:
        os.fsync = sync
    return count
