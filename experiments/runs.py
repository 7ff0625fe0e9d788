"""Runs over many images: one fixed pool, resumed where stopped; a failure costs one image."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

import config
from db_manager import DatabaseManager
from experiments.finished import FinishedImages
from experiments.results import Clock, save_summary, summary_row
from support.batches import batches
from support.errors import (
    DatabaseError,
    HubError,
    ImageError,
    MemoryShortage,
    ServerError,
    SettingError,
)
from support.log import log
from support.records import Neighbor, Sample
from support.result import MadeWith, Result, SummaryRow
from support.sources.own import own_sample
from support.storage.lock import runner_number
from support.text import first_few

Item = Sample | Path


class Prepared(NamedTuple):
    """A batch of images, ready for the VLM."""

    samples: Sequence[Sample]
    images: Sequence[Image.Image]
    vectors: np.ndarray  # (B, D)
    neighbors: Sequence[Sequence[Neighbor]]
    prompts: Sequence[str]
    clock: Clock


class Work(NamedTuple):
    """How a run captions, and what becomes of a result."""

    prepare: Callable[[Sequence[Sample]], Prepared]  # a batch: stages 3 and 4
    caption: Callable[[Prepared], Sequence[Result]]  # stages 5 to 7
    show: Callable[[Result], None] | None = None  # each new result


@dataclass
class Outcome:
    """What has become of the images of a run; results stay on disk."""

    run: str
    rows: dict[str, SummaryRow] = field(default_factory=dict)  # by content hash
    failures: dict[str, str] = field(default_factory=dict)  # label -> reason
    earlier: int = 0  # finished before, or by another program
    copies: int = 0  # byte-identical to another
    seconds: float = 0.0

    def save_summary(self, experiments: Sequence[Sample] | None, origin: MadeWith) -> "Summary":
        """Writes the summary of `experiments`, or of own images; says how many, and where."""
        kind = "images" if experiments is None else "experiments"
        rows = [*self.rows.values()] if experiments is None else self.of(experiments)
        path = save_summary(kind, origin, self.run, rows, self.failures, self.seconds)
        what = "images" if experiments is None else "experiment images"
        before = f" ({self.earlier} of them earlier)" if self.earlier else ""
        total = len(self.rows) + len(self.failures)
        done = f"{len(self.rows)} of {total} {what} captioned in {self.seconds:.0f} s{before}."
        return Summary(done, path, rows)

    def failures_text(self) -> str:
        """The failures in one line; empty without any."""
        if not self.failures:
            return ""
        labels: dict[str, list[str]] = {}  # by reason
        for label, reason in self.failures.items():
            labels.setdefault(reason, []).append(label)
        reasons = "; ".join(_with_labels(reason, some) for reason, some in labels.items())
        total = len(self.rows) + len(self.failures)
        return f"{len(self.failures)} of {total} images failed: {reasons}"

    def of(self, samples: Sequence[Sample]) -> list[SummaryRow]:
        """What the summary says of `samples`, in their order; without those that failed."""
        hashes = [sample.content_hash for sample in samples]
        return [self.rows[key] for key in hashes if key in self.rows]


def _with_labels(reason: str, labels: Sequence[str]) -> str:
    """A reason with the images that it is about, where it does not name the only one itself."""
    if len(labels) == 1 and labels[0] in reason:
        return reason
    return f"{first_few(labels)}: {reason}"


class Summary(NamedTuple):
    """What is said of a run in the end, the file that says it, and its rows."""

    text: str
    path: Path
    rows: Sequence[SummaryRow]


def caption_all(
    items: Sequence[Item], run: str, db_manager: DatabaseManager, work: Work
) -> Outcome:
    """Captions those of `items`, samples or files, that the run named `run` has not finished.

    In batches of config.VLM_BATCH_SIZE, the next of which is prepared while one is captioned. What
    another program at the same run finishes meanwhile is not captioned again.
    """
    start, size = time.monotonic(), config.VLM_BATCH_SIZE
    runner = _Runner(run, db_manager, work)
    with runner_number(db_manager.folder) as number, runner:
        items = _in_order(items, number)
        runner.take(items[:size])
        for taken, _ in enumerate(batches(items, size, "Captioning", "image"), 1):
            following = items[taken * size : (taken + 1) * size]
            runner.take(following)
            runner.caption_waiting(at_least=size + len(following) if following else 1)
    runner.outcome.seconds = time.monotonic() - start
    if runner.outcome.copies:
        copies = runner.outcome.copies
        log.warning("%d byte-identical copies are left out: one of each is captioned.", copies)
    return runner.outcome


def _in_order(items: Sequence[Item], number: int) -> Sequence[Item]:
    """The order in which program `number` takes the images: the second one begins at the end.

    So two programs at the same run meet in the middle, and do one batch twice at most.
    """
    if number == 1:
        return items[::-1]
    start = len(items) * number // (number + 1)
    return [*items[start:], *items[:start]]


class _Runner:
    """Takes images, and captions in batches what is not finished."""

    def __init__(self, run: str, db_manager: DatabaseManager, work: Work):
        self.outcome = Outcome(run)
        self._finished = FinishedImages(run, db_manager)
        self._db_manager = db_manager
        self._work = work
        self._seen: set[str] = set()  # content hashes
        self._waiting: list[Sample] = []
        self._thread = ThreadPoolExecutor(1)  # prepares the next batch
        self._ahead: tuple[list[Sample], Future[Prepared] | None] = [], None
        self._fits_beside = True  # the memory, while the VLM writes

    def __enter__(self) -> "_Runner":
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def take(self, items: Sequence[Item]) -> None:
        """Puts those of `items` in line that are neither finished nor copies of others."""
        for item in items:
            try:
                sample = own_sample(item) if isinstance(item, Path) else item
            except ImageError as error:
                self.outcome.failures[str(item)] = str(error)
                continue
            if sample.content_hash in self._seen:
                self.outcome.copies += 1
            else:
                self._seen.add(sample.content_hash)
                self._waiting.append(sample)
        self._drop_finished()

    def caption_waiting(self, at_least: int) -> None:
        """Captions the images in line, as long as there are `at_least` so many."""
        while len(self._waiting) >= at_least:
            self._db_manager.refresh()
            self._drop_finished()
            size = config.VLM_BATCH_SIZE
            batch, self._waiting = self._waiting[:size], self._waiting[size:]
            self._caption(batch, self._waiting[:size])

    def _drop_finished(self) -> None:
        waiting, done = [], []
        for sample in self._waiting:
            row = self._finished.row(sample)
            if row is None:
                waiting.append(sample)
            else:
                self.outcome.rows[sample.content_hash] = {**row, "image": sample.label}
                done.append(sample)
        self._waiting = waiting
        self.outcome.earlier += len(done)
        self._db_manager.record_paths([sample for sample in done if sample.role == "own"])

    def _caption(self, batch: list[Sample], following: Sequence[Sample] = ()) -> None:
        """Captions a batch while `following` is prepared; if one image fails, each alone."""
        if not batch:
            return
        try:
            prepared = self._prepared(batch, list(following))
            results = self._work.caption(prepared)
        except (DatabaseError, HubError, MemoryShortage, ServerError, SettingError):
            raise  # no other image would fare better
        except Exception as error:  # whatever one image causes is reported at the end
            if len(batch) == 1:
                log.debug("%s failed", batch[0].label, exc_info=error)
                self.outcome.failures[batch[0].label] = str(error) or type(error).__name__
            for sample in batch if len(batch) > 1 else ():
                self._caption([sample])
        else:
            for sample, result in zip(batch, results, strict=True):
                path = Path(result["result_file"])
                self.outcome.rows[sample.content_hash] = summary_row(result, path)
                if self._work.show is not None:
                    self._work.show(result)

    def _prepared(self, batch: list[Sample], following: list[Sample]) -> Prepared:
        """`batch`, prepared meanwhile if it is the one that was expected."""
        (expected, coming), self._ahead = self._ahead, ([], None)
        prepared = None
        if coming is not None and expected == batch:
            try:
                prepared = coming.result()
            except MemoryShortage:  # both at once do not fit; one after the other may
                self._fits_beside = False
        prepared = prepared or self._work.prepare(batch)
        if following and self._fits_beside:
            self._ahead = following, self._thread.submit(self._work.prepare, following)
        return prepared
