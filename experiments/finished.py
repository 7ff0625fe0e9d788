"""Which images a run has finished: those in the databases that have a result file."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from db_manager import DatabaseManager
from experiments.results import results_folder, summary_row
from support.log import log
from support.records import Sample
from support.result import Result, SummaryRow
from support.storage.errors import unreadable

RESULT_FILES = ("experiment_", "image_")  # how the names of result files begin


class FinishedImages:
    """The images that the run named `run` has finished, whichever process captioned them."""

    def __init__(self, run: str, db_manager: DatabaseManager):
        self._run = run
        self._db_manager = db_manager
        self._known: set[str] = set()  # names of the files that were read
        self._rows: dict[str, SummaryRow] = {}  # content hash -> of the newest result
        self._listed = -1  # when the folder had last changed as it was listed

    def row(self, sample: Sample) -> SummaryRow | None:
        """What the summary says of an image; None while it is not finished."""
        record = self._db_manager.captions.get(sample.content_hash)
        generated = (record or {}).get("generated") or {}
        if generated.get("run") != self._run:
            return None
        row = self._rows.get(sample.content_hash)
        if row is None:
            self._read_new_files()
            row = self._rows.get(sample.content_hash)
        agrees = row is not None and row["generated_caption"] == generated["caption"]
        return row if agrees else None

    def _read_new_files(self) -> None:
        """Reads the result files that were not read yet, oldest first."""
        changed = _modified(results_folder())
        if changed in (None, self._listed):
            return
        self._listed = changed
        for path in _result_files(self._known):
            self._known.add(path.name)
            result = _result_of(path, self._run)
            if result is not None:
                self._rows[result["metadata"]["content_hash"]] = summary_row(result, path)


def _result_files(known: set[str]) -> list[Path]:
    """The result files whose names are not `known`, oldest first."""
    folder = results_folder()
    with unreadable(folder):
        paths = [path for path in folder.iterdir() if path.name not in known]
    found: list[tuple[int, Path]] = []
    for path in paths:
        modified = _modified(path)
        is_result = path.name.startswith(RESULT_FILES) and path.suffix == ".json"
        if is_result and modified is not None and path.is_file():
            found.append((modified, path))
    return [path for _, path in sorted(found)]


def _modified(path: Path) -> int | None:
    """When a file or folder last changed, in ns; None where there is none, or a dangling link."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def _result_of(path: Path, run: str) -> Result | None:
    """The result in a file, if it is one of `run`."""
    try:
        data = path.read_bytes()
        if run.encode() not in data:
            return None
        result: Result = json.loads(data)
        summary_row(result, path)
        same = result["experiment_info"]["run"] == run
        return result if same and isinstance(result["metadata"]["content_hash"], str) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError, MemoryError) as error:
        log.warning("%s cannot be read and counts as not there: %s", path, error)
        return None


def read_results(rows: Sequence[SummaryRow]) -> Iterator[Result]:
    """The results that `rows` sum up, with their paths under "result_file"."""
    for row in rows:
        path = results_folder() / row["result_file"]
        with unreadable(path):
            result: Result = json.loads(path.read_bytes())
        yield {**result, "result_file": str(path)}
