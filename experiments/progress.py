"""The captions that an evaluation has written so far, kept on disk until its report is saved."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from experiments.results import results_folder
from support.log import log
from support.records import Sample
from support.storage.errors import read_regular, unreadable, unwritable
from support.storage.files import make_folder, sync_folder
from support.storage.strict_json import parse_json, to_json


class CaptionRow(TypedDict):
    """A caption of an image under one arm."""

    arm: str
    content_hash: str
    caption: str
    prompt: str | None  # None where the model was shown none


class Progress:
    """Rows in a file, one per line, each batch synced before it counts."""

    def __init__(self, name: str, former_name: str):
        """Goes on with the file of this `name`, or of the `former_name` that it may have."""
        self.path = _partial_file(former_name)
        if not self.path.exists():
            self.path = _partial_file(name)
        self.done: dict[tuple[str, str], CaptionRow] = {}
        self._synced = False
        if self.path.exists():
            self._read()

    def add(self, rows: Sequence[CaptionRow]) -> None:
        """Keeps the captions of a batch; they are on disk when this returns."""
        with unwritable(self.path, "RESULTS_DIR"):
            make_folder(self.path.parent, "RESULTS_DIR")
            with self.path.open("ab") as file:
                file.write(("\n" + "".join(to_json(row) + "\n" for row in rows)).encode())
                file.flush()
                os.fsync(file.fileno())
            if not self._synced:
                sync_folder(self.path.parent, "RESULTS_DIR")
                self._synced = True
        self._keep(rows)

    def rows(self, arm: str, samples: Sequence[Sample]) -> list[CaptionRow]:
        """The captions of `samples` under one arm, all of which are done."""
        return [self.done[arm, sample.content_hash] for sample in samples]

    def close(self) -> None:
        """Removes the file: what it holds has been saved elsewhere."""
        with unwritable(self.path, "RESULTS_DIR"):
            self.path.unlink(missing_ok=True)

    def _keep(self, rows: Sequence[CaptionRow]) -> None:
        self.done.update({(row["arm"], row["content_hash"]): row for row in rows})

    def _read(self) -> None:
        with unreadable(self.path):
            # Not splitlines, which also splits at characters that captions may hold.
            lines = [line for line in read_regular(self.path).split(b"\n") if line]
        rows = [row for line in lines if (row := _parse(line)) is not None]
        if len(rows) < len(lines):
            log.warning(
                "%d lines of %s cannot be read: their captions are written again.",
                len(lines) - len(rows),
                self.path,
            )
        self._keep(rows)


def _partial_file(name: str) -> Path:
    return results_folder() / f"evaluation_{name}.partial.jsonl"


def _parse(line: bytes) -> CaptionRow | None:
    """The row in a line; None for another, such as the half line of a killed run."""
    try:
        row = parse_json(line)
        texts = row["arm"], row["content_hash"], row["caption"], row["prompt"] or ""
    except (ValueError, KeyError, TypeError):
        return None
    return row if all(isinstance(text, str) for text in texts) else None
