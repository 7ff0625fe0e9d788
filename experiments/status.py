"""What the databases of a dataset hold, as lines to print."""

from collections.abc import Iterator
from pathlib import Path

import config
from db_manager import DatabaseManager
from experiments.moved import databases_of_folders_that_are_gone
from support.errors import PipelineError
from support.storage.documents import read_header
from support.storage.journal import JOURNAL_NAME, Journal
from support.storage.vectors import read_vectors


def status_lines(db_manager: DatabaseManager, dataset: str) -> Iterator[str]:
    """Images, captions by source, vectors by model, what is not embedded yet, bytes, journal."""
    records = db_manager.captions
    own = sum(record["original_index"] is None for record in records.values())
    with_original = sum(bool(record["captions"]) for record in records.values())
    generated = sum(bool(record["generated"]) for record in records.values())
    without = sum(not (r["captions"] or r["generated"]) for r in records.values())
    texts = {text for record in records.values() for text in record["captions"] if text}
    texts |= {record["generated"]["caption"] for record in records.values() if record["generated"]}
    texts.discard("")
    yield f"Dataset: {dataset}"
    yield f"Databases: {db_manager.folder}, {_size(_bytes_below(db_manager.folder))}"
    yield f"Images: {len(records):,}, {own:,} of them from outside the dataset"
    yield (
        f"Captions: {with_original:,} images have some by people, {generated:,} one by this "
        f"program, {without:,} none"
    )
    for path in db_manager.vector_files():
        of_images = path.name == config.IMAGE_EMBEDDING_DB
        yield _vectors_line(path, set(records) if of_images else texts)
    journal = Journal(db_manager.folder / JOURNAL_NAME)
    yield f"Journal: {len(journal.read()[0]):,} updates, {_size(journal.path.stat().st_size)}"
    yield from _other_lines(db_manager.folder)


def _vectors_line(path: Path, wanted: set[str]) -> str:
    what = "images" if path.name == config.IMAGE_EMBEDDING_DB else "captions"
    try:
        keys = set(read_vectors(path)[0])
    except PipelineError as error:
        return f"Vectors of {what}: {error}"
    missing = len(wanted - keys)
    left = f"{missing:,} not embedded yet" if missing else "all embedded"
    if missing and what == "captions":
        left += " (people's captions of experiments never are)"
    model = read_header(path).get("model")
    return f"Vectors of {what} by {model}: {len(keys):,}, {_size(path.stat().st_size)}; {left}"


def _other_lines(folder: Path) -> Iterator[str]:
    """The other databases in DB_DIR."""
    gone = dict(databases_of_folders_that_are_gone())
    for other in sorted(folder.parent.glob(f"*/{config.CAPTION_DB}")):
        if other.parent != folder:
            lost = ", which is not there any more" if other.parent in gone else ""
            label = read_header(other).get("dataset")
            yield f"Other databases: {other.parent}, of {label}{lost}"


def _bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
