"""Stage 6: the three JSON databases of a dataset, and the journal that makes an update small and safe.

    captions.json                           original and generated captions of each image, as text
    <image model>/image_embeddings.json     a unit vector for each image
    <text model>/caption_embeddings.json    a unit vector for each caption
    journal.jsonl                           updates not yet folded into these files

An update is one line, appended to the journal and synced before it is reported as done, so its cost does not depend on
how large the databases are. Folding writes the files anew and whole (temporary file, fsync, rename) and then starts an
empty journal. Applying a line twice changes nothing, so a crash between those steps loses and doubles nothing.
Writers hold a lock for the time of an update; readers need none.
"""

import atexit
import logging
import re
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

import config
from database_files import CaptionTable, VectorTable, read_document, read_header
from journal import Head, Journal, Place, Updates, WriterLock
from records import DatabaseError, GeneratedCaption, ModelRef, Sample, clean_text
from safe_files import DamagedFile, damaged, unwritable

log = logging.getLogger("captioning")

JOURNAL_BYTES = 8 * 2**20  # folded when it is larger than this and than half of the files


def database_folder(dataset: str, mode: str = "hub") -> Path:
    """DB_DIR/<dataset>; a relative config.DB_DIR counts from config.py's folder.

    What the demo's models say of other pictures is kept apart: it must not become context for real models.
    """
    tried_out = "-tried-with-demo" if mode == "demo" and dataset != "demo" else ""
    return Path(config.__file__).resolve().parent / Path(config.DB_DIR).expanduser() / (slug(dataset) + tried_out)


def slug(name: str) -> str:
    """`name` as one folder name: Hub names stay readable, paths and odd characters get a hash so that none collide."""
    plain = name.replace("/", "--")
    usual = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", plain) and "--" not in name and len(plain) < 100
    if usual and not plain.startswith("lock") and Path(plain).suffix not in (".json", ".jsonl"):  # names of files here
        return plain
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(name).name).strip("-.")[:60]
    return f"{stem or 'dataset'}-{sha256(clean_text(name).encode()).hexdigest()[:8]}"


class DatabaseManager:
    """The databases of one dataset.

    `rebuild` makes damaged files and vectors that do not fit anew, keeping the captions that can be read. Raises
    DatabaseError, naming the file and the way out, for files that are damaged, of a newer format, or locked.
    """

    def __init__(self, folder: Path, dataset: str, rebuild: bool = False):
        self.folder = folder
        self._rebuild = rebuild
        self._rebuilt: set[str] = set()
        self._lock = WriterLock(folder)
        self._captions = CaptionTable(folder / config.CAPTION_DB, {"content": "captions", "dataset": dataset})
        self._tables: dict[str, CaptionTable | VectorTable] = {config.CAPTION_DB: self._captions}
        self._journal = Journal(folder / "journal.jsonl")
        self._place: Place | None = None  # up to where the tables hold the journal; None: they must be read anew
        self._wrote = False
        with unwritable(folder):
            folder.mkdir(parents=True, exist_ok=True)
        if rebuild:
            self._salvage()
        if not self._journal.path.exists():
            self._start()
        self.refresh()
        atexit.register(self._close_at_exit)

    # --- Reading -----------------------------------------------------------------------------------------------
    @property
    def captions(self) -> dict[str, dict[str, Any]]:
        """content hash -> {index, image, original_index, captions, generated}; not to be changed by the caller."""
        return self._captions.records

    def image_vectors(self, ref: ModelRef, dimension: int, backend: str) -> VectorTable:
        """The unit vectors of images by this model, by content hash."""
        return self._vectors(config.IMAGE_EMBEDDING_DB, ref, {"dimension": dimension, "image_processor": backend})

    def caption_vectors(self, ref: ModelRef, dimension: int) -> VectorTable:
        """The unit vectors of captions by this model, by text."""
        return self._vectors(config.CAPTION_EMBEDDING_DB, ref, {"dimension": dimension})

    def recorded_revision(self, file: str, ref: ModelRef) -> str | None:
        """The revision with which the vectors of a model were made; None without any, or when they are made anew."""
        name = self._vector_file(file, ref)
        if self._rebuild and name not in self._rebuilt:
            return None
        return read_header(self.folder / name).get("revision")

    def refresh(self) -> None:
        """Takes in what other processes have written since."""
        place, self._place = self._place, None  # whatever stops us before the end, the next look reads all anew
        updates, place = (place and self._journal.read_after(place)) or self._load()
        self._apply(updates)
        self._place = place

    def _load(self) -> tuple[list[Updates], Place]:
        """Reads the files and the whole journal as they stood at one moment: again, if a fold came between."""
        while True:
            head = self._journal.head()
            for table in self._tables.values():
                table.load()
            updates, place = self._journal.read()
            if place.head == head:
                break
        if mismatch := self._mismatch(head):
            raise DatabaseError(
                f"{mismatch} Put back the two files of one time, or run with --rebuild to go on with what they hold "
                "together."
            )
        return updates, place

    def _mismatch(self, head: Head) -> str | None:
        """What is wrong when captions.json is missing, or from another time than the journal."""
        path, journal = self._captions.path, self._journal.path.name
        if self._captions.fold in (head.fold, head.next_fold):
            return None
        if not path.exists():
            return f"{path} is missing; {journal} holds only what came after it."
        return f"{path} and {journal} are not of one time: updates between them may be missing."

    def _vector_file(self, file: str, ref: ModelRef) -> str:
        return f"{slug(ref.name)}/{file}"

    def _vectors(self, file: str, ref: ModelRef, details: dict[str, Any]) -> VectorTable:
        name = self._vector_file(file, ref)
        header = {
            "content": Path(file).stem,
            "model": clean_text(ref.name),
            "revision": ref.revision,
            "dtype": "float32",
            **details,
        }
        if self._rebuild and name not in self._rebuilt:
            self._start_vectors(name, header, anew=True)
        elif not (self.folder / name).exists():
            self._start_vectors(name, header)
        if name not in self._tables:
            self._open(name, VectorTable(self.folder / name, header))
        self._tables[name].check_fits(header)
        return self._tables[name]

    def _open(self, name: str, table: VectorTable) -> None:
        self._tables[name], self._place = table, None
        try:
            self.refresh()
        except BaseException:
            del self._tables[name]
            raise

    def _apply(self, updates: Iterable[Updates]) -> None:
        for update in updates:
            for name, records in update.items():
                if name in self._tables:
                    try:
                        self._tables[name].update(records)
                    except ValueError as error:
                        raise damaged(self._journal.path, f"an update of {name}: {error}") from error

    # --- Writing -----------------------------------------------------------------------------------------------
    def sync_gallery(self, samples: Iterable[Sample]) -> None:
        """Records gallery images that are new, or whose captions changed; earlier ones keep their numbers."""
        samples = list(samples)

        def changes() -> Updates:
            records, index = {}, self._captions.next_index
            for sample in samples:
                old = self.captions.get(sample.content_hash)
                record = _caption_record(sample, index if old is None else old["index"], old)
                record["captions"] = list(sample.captions)
                if record != old:
                    records[sample.content_hash] = record
                    index += old is None
            return {config.CAPTION_DB: records}

        self.refresh()
        if changes()[config.CAPTION_DB]:  # who only reads needs no lock
            self._update(changes)

    def add_generated(
        self, sample: Sample, generated: GeneratedCaption, vectors: VectorTable, vector: np.ndarray
    ) -> int:
        """Records a generated caption in the place of an earlier one, and the image's vector; the image's number."""

        def changes() -> Updates:
            old = self.captions.get(sample.content_hash)
            record = _caption_record(sample, self._captions.next_index if old is None else old["index"], old)
            record["generated"] = {"caption": clean_text(generated.caption), **generated.made_with}
            return {
                config.CAPTION_DB: {sample.content_hash: record},
                self._name(vectors): vectors.encode({sample.content_hash: vector}),
            }

        self._update(changes)
        return self.captions[sample.content_hash]["index"]

    def add_vectors(self, table: VectorTable, vectors: dict[str, np.ndarray]) -> None:
        """Records unit vectors (D,) by content hash or caption. Refuses NaN, infinite and zero ones: DatabaseError."""
        self._update(lambda: {self._name(table): table.encode(vectors)})

    def close(self, fold: bool = True) -> None:
        """Folds the journal into the files. What was added is safe without it: the next program reads the journal."""
        atexit.unregister(self._close_at_exit)
        if fold and self._wrote and self._journal.path.exists():
            with self._lock.held_if_free() as held:
                if held:  # else another process writes at this moment, and will fold
                    self._take_in()
                    self._fold()

    def _close_at_exit(self) -> None:
        try:
            self.close()
        except DatabaseError as error:
            log.warning("%s", error)

    def __enter__(self) -> "DatabaseManager":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(fold=kind is None)

    def _name(self, table: VectorTable) -> str:
        return table.path.relative_to(self.folder).as_posix()

    def _update(self, changes: Callable[[], Updates]) -> None:
        """Appends what `changes` makes of the newest state to the journal, then applies it."""
        with self._lock.held():
            self._take_in()
            updates = {name: records for name, records in changes().items() if records}
            if updates:
                place, self._place = self._place, None
                place = self._journal.append(updates, place)
                self._apply([updates])
                self._place, self._wrote = place, True
            if self._journal.size() > max(JOURNAL_BYTES, sum(t.bytes_on_disk() for t in self._tables.values()) // 2):
                self._fold()

    def _take_in(self) -> None:
        """With the lock held: the newest state, and no half line at the journal's end."""
        self.refresh()
        if self._journal.cut_half_line(self._place):
            log.warning("%s ended in half an update, of a program that was stopped: left out.", self._journal.path)

    def _fold(self) -> None:
        """With the lock held: writes captions.json and every file that the journal has updates for, then empties it."""
        updates, place = self._journal.read()
        head = Head.new(fold=place.head.next_fold)
        self._place = None
        self._captions.mark(head.fold)
        self._captions.save()
        left = []
        for name in sorted({name for update in updates for name in update} - {config.CAPTION_DB}):
            theirs = [update[name] for update in updates if name in update]
            if name in self._tables:
                self._tables[name].save()
            elif (self.folder / name).exists() and not self._fold_other_model(name, theirs):
                left += [{name: records} for records in theirs]
        self._place = self._journal.start(head, left)

    def _fold_other_model(self, name: str, updates: list[dict[str, Any]]) -> bool:
        """Writes the vectors of a model that this process does not use; False leaves damage to who uses them."""
        try:
            table = VectorTable.read(self.folder / name)
            for records in updates:
                table.update(records)
        except (DatabaseError, ValueError):
            return False
        table.save()
        return True

    # --- Starting and rebuilding -------------------------------------------------------------------------------
    def _start(self) -> None:
        """Begins a journal, unless another process just has."""
        with self._lock.held():
            if self._journal.path.exists():
                return
            self._captions.load()
            if self._captions.path.exists():
                log.warning("%s; going on with what %s holds.", self._journal.missing(), self._captions.path.name)
            self._journal.start(Head.new(self._captions.fold))

    def _start_vectors(self, name: str, header: dict[str, Any], anew: bool = False) -> None:
        """Makes an empty vector file, and none of the journal's updates apply to it; with `anew` over an existing one.

        The journal goes first: a crash must not leave old updates beside the new file. And last: so others notice.
        """
        with self._lock.held():
            path = self.folder / name
            if path.exists() and not anew:
                return
            with suppress(DamagedFile):  # a copy is kept; a file of a newer format is refused
                if path.exists():
                    read_document(path)
            self._take_in()
            updates, place = self._journal.read()
            others = [{n: r for n, r in update.items() if n != name} for update in updates]
            others = [update for update in others if update]
            self._restart_journal(place.head, others)
            VectorTable(path, header).save()
            self._restart_journal(place.head, others)
            self._tables.pop(name, None)
            self._rebuilt.add(name)

    def _restart_journal(self, head: Head, updates: Iterable[Updates]) -> None:
        self._place = None
        self._journal.start(Head.new(head.fold, head.next_fold), updates)

    def _salvage(self) -> None:
        """Keeps what can be read of captions file and journal, where they are damaged or do not belong together."""
        with self._lock.held():
            if not (self._journal.path.exists() or self._captions.path.exists()):
                return
            updates, lost = self._journal.salvage()
            lost += self._captions.salvage()
            if not lost and (mismatch := self._mismatch(self._journal.head())):
                lost.append(mismatch)
            kept = [update for update in updates if self._captions.takes(update.get(config.CAPTION_DB, {}))]
            if len(kept) < len(updates):
                lost.append(f"{len(updates) - len(kept)} updates in {self._journal.path} do not fit and are left out.")
            if lost:
                head = Head.new(uuid.uuid4().hex)
                self._captions.mark(head.fold)
                self._captions.save()
                self._journal.start(head, kept)
        for what in lost:
            log.warning("--rebuild: %s", what)


def _caption_record(sample: Sample, index: int, old: dict[str, Any] | None) -> dict[str, Any]:
    """The record of an image, with the captions that the database holds already."""
    known = old is not None and sample.role == "own"  # a user's copy of a dataset's image does not rename it
    return {
        "index": index,
        "image": old["image"] if known else clean_text(sample.label),
        "original_index": old["original_index"] if known else sample.original_index,
        "captions": old["captions"] if old else [],
        "generated": old["generated"] if old else None,
    }
