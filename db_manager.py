"""Stage 6: the three JSON databases of a dataset.

captions.json                           original and generated captions of each image, as text
<image model>/image_embeddings.json     a unit vector for each image
<text model>/caption_embeddings.json    a unit vector for each caption
journal.jsonl                           updates not yet compacted into these files

How they survive a crash is described in docs/ARCHITECTURE.md.
"""

import atexit
import re
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from hashlib import sha256
from pathlib import Path

import numpy as np

import config
from support.candidates import is_of_dataset
from support.errors import DatabaseError
from support.log import log
from support.records import GeneratedCaption, ModelRef, Sample
from support.settings import configured_folder
from support.storage.captions import CaptionRecord, CaptionTable
from support.storage.documents import Header, read_header
from support.storage.journal import Updates
from support.storage.store import Store
from support.storage.vectors import DECODED_FOR, VectorTable
from support.text import clean_text


def database_folder(dataset: str, suffix: str = "") -> Path:
    """DB_DIR/<dataset><suffix>; a relative config.DB_DIR is relative to config.py's folder."""
    return configured_folder(config.DB_DIR) / (slug(dataset) + suffix)


def slug(name: str) -> str:
    """`name` as one folder name: Hub names stay readable, others get a hash to be distinct."""
    plain = name.replace("/", "--")
    readable = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", plain) and len(plain) < 100
    names_a_file = plain.startswith("lock") or Path(plain).suffix in (".json", ".jsonl")
    if readable and "--" not in name and not names_a_file:
        return plain
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(name).name).strip("-.")[:60]
    return f"{stem or 'dataset'}-{sha256(clean_text(name).encode()).hexdigest()[:8]}"


class DatabaseManager:
    """The databases of one dataset.

    `rebuild` recomputes damaged files and vectors that do not fit, keeping the captions that can be
    read; `renew` recomputes the latter only, with a notice. Raises DatabaseError, naming the file
    and the way out, for files that are damaged, of a newer format, or locked.
    """

    def __init__(self, folder: Path, dataset: str, rebuild: bool = False, renew: bool = False):
        self.folder = folder
        self.rebuild = rebuild
        self._renew = renew
        self._rebuilt: set[str] = set()
        header = {"content": "captions", "dataset": dataset}
        self._captions = CaptionTable(folder / config.CAPTION_DB, header)
        self._store = Store(folder, self._captions, rebuild)
        _open.add(self)

    def __repr__(self) -> str:
        captioned = sum(bool(record["generated"]) for record in self.captions.values())
        return (
            f"<DatabaseManager {self.folder}: {len(self.captions)} images, {captioned} captioned>"
        )

    # --- Reading ----------------------------------------------------------------------------------
    @property
    def captions(self) -> dict[str, CaptionRecord]:
        """Content hash -> {index, image, original_index, captions, generated}; read only."""
        return self._captions.records

    @property
    def caption_table(self) -> CaptionTable:
        """`captions`, and which of them have changed; read only."""
        return self._captions

    def image_vectors(
        self, ref: ModelRef, dimension: int, backend: str, decoded_for: int | None = None
    ) -> VectorTable:
        """The unit vectors of images by this model, by content hash.

        A new file is for images `decoded_for` what the model sees; one that is there keeps to its
        own (see VectorTable.decoded_for).
        """
        details: Header = {"dimension": dimension, "image_processor": backend}
        if decoded_for is not None:
            details[DECODED_FOR] = decoded_for
        return self._vectors(config.IMAGE_EMBEDDING_DB, ref, details)

    def caption_vectors(self, ref: ModelRef, dimension: int) -> VectorTable:
        """The unit vectors of captions by this model, by text."""
        return self._vectors(config.CAPTION_EMBEDDING_DB, ref, {"dimension": dimension})

    def vector_files(self) -> list[Path]:
        """The embeddings files of all models."""
        names = config.IMAGE_EMBEDDING_DB, config.CAPTION_EMBEDDING_DB
        return sorted(path for name in names for path in self.folder.glob(f"*/{name}"))

    def recorded_revision(self, file: str, ref: ModelRef) -> str | None:
        """The revision that a model's vectors were made with; None without any, or on a rebuild."""
        name = self._vector_file(file, ref)
        if self.rebuild and name not in self._rebuilt:
            return None
        return read_header(self.folder / name).get("revision")

    def refresh(self) -> None:
        """Applies what other processes have written since."""
        self._store.snapshot.refresh()

    def _vector_file(self, file: str, ref: ModelRef) -> str:
        return f"{slug(ref.name)}/{file}"

    def _vectors(self, file: str, ref: ModelRef, details: Header) -> VectorTable:
        name = self._vector_file(file, ref)
        header = {
            "content": Path(file).stem,
            "model": clean_text(ref.name),
            "revision": ref.revision,
            "dtype": "float32",
            **details,
        }
        if self._is_outdated(name, header):
            self._store.start_vectors(name, header, replace=True)
            self._rebuilt.add(name)
        elif not (self.folder / name).exists():
            self._store.start_vectors(name, header)
        return self._store.snapshot.vectors(name, header)

    def _is_outdated(self, name: str, header: Header) -> bool:
        """Whether the vectors in a file are to be replaced: on a rebuild, or by newer ones."""
        if name in self._rebuilt or self.rebuild:
            return name not in self._rebuilt
        if not self._renew:
            return False
        there = read_header(self.folder / name).get("revision", header["revision"])
        if there == header["revision"]:
            return False
        log.warning("%s is of another version of its model: computed anew.", self.folder / name)
        return True

    # --- Writing ----------------------------------------------------------------------------------
    def sync_gallery(self, samples: Iterable[Sample]) -> None:
        """Records gallery images that are new, or whose captions changed; numbers stay."""
        samples = list(samples)
        self.refresh()
        self._update_if_needed(
            lambda: {config.CAPTION_DB: _changed_gallery(self._captions, samples)}
        )

    def add_generated(
        self, sample: Sample, generated: GeneratedCaption, table: VectorTable, vector: np.ndarray
    ) -> int:
        """Records a generated caption, replacing an earlier one, and the image's vector (D,).

        Returns the image's number.
        """

        def changes() -> Updates:
            old = self.captions.get(sample.content_hash)
            index = self._captions.next_index if old is None else old["index"]
            record = _caption_record(sample, index, old)
            record["generated"] = {"caption": clean_text(generated.caption), **generated.made_with}
            return {
                config.CAPTION_DB: {sample.content_hash: record},
                self._name(table): table.encode({sample.content_hash: vector}),
            }

        self._store.update(changes)
        return self.captions[sample.content_hash]["index"]

    def add_all_generated(
        self,
        samples: Sequence[Sample],
        captions: Sequence[GeneratedCaption],
        table: VectorTable,
        vectors: np.ndarray,
    ) -> list[int]:
        """`add_generated` for a batch of images with their vectors (N, D); their numbers."""
        batch = zip(samples, captions, vectors, strict=True)
        return [self.add_generated(sample, made, table, vector) for sample, made, vector in batch]

    def add_vectors(self, table: VectorTable, vectors: Mapping[str, np.ndarray]) -> None:
        """Records unit vectors (D,) by content hash or caption. Raises DatabaseError for others."""
        self._store.update(lambda: {self._name(table): table.encode(vectors)})

    def record_images(self, samples: Iterable[Sample]) -> None:
        """Gives a number to those of `samples` that have none, without their captions."""
        by_hash = {sample.content_hash: sample for sample in samples}

        def changes() -> Updates:
            new = [key for key in by_hash if key not in self.captions]
            numbered = enumerate(new, self._captions.next_index)
            return {
                config.CAPTION_DB: {
                    k: _caption_record(by_hash[k], number) for number, k in numbered
                }
            }

        self._update_if_needed(changes)

    def record_paths(self, samples: Iterable[Sample]) -> None:
        """Records where those of `samples` lie now that are users' own and were elsewhere."""
        known = {s.content_hash: s for s in samples if s.content_hash in self.captions}
        self._update_if_needed(lambda: {config.CAPTION_DB: _moved(self.captions, known)})

    def forget(self, keys: Collection[str]) -> None:
        """Takes generated captions out for good, of the images with the content hashes `keys`.

        An image of the dataset keeps its number, vector and original captions; others go whole.
        """

        self._store.remove(lambda: _without(self.captions, keys), self.vector_files())

    def locked(self) -> AbstractContextManager[None]:
        """Holds the writers' lock, for files beside the databases."""
        return self._store.lock.held()

    def _update_if_needed(self, changes: Callable[[], Updates]) -> None:
        if changes()[config.CAPTION_DB]:  # without changes no lock is needed
            self._store.update(changes)

    def close(self, compact: bool = True) -> None:
        """Compacts the journal. What was added is safe without it: the next program reads it."""
        _open.discard(self)
        if compact:
            self._store.compact_if_free()

    def __enter__(self) -> "DatabaseManager":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(compact=kind is None)

    def _name(self, table: VectorTable) -> str:
        return table.path.relative_to(self.folder).as_posix()


# Weakly held: a notebook that opens the databases again must not keep the old ones in memory.
_open: weakref.WeakSet[DatabaseManager] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Closes what is still open when the program ends."""
    for manager in list(_open):
        try:
            manager.close()
        except DatabaseError as error:
            log.warning("%s", error)


def _changed_gallery(captions: CaptionTable, samples: Iterable[Sample]) -> dict[str, CaptionRecord]:
    """The records of gallery images that are new or changed."""
    records: dict[str, CaptionRecord] = {}
    index = captions.next_index
    for sample in samples:
        old = captions.records.get(sample.content_hash)
        record = _caption_record(sample, index if old is None else old["index"], old)
        record["captions"] = list(sample.captions)
        if record != old:
            records[sample.content_hash] = record
            index += old is None
    return records


def _moved(
    captions: Mapping[str, CaptionRecord], samples: Mapping[str, Sample]
) -> dict[str, CaptionRecord]:
    """The records of `samples`, by content hash, that say another place than the samples do."""
    records: dict[str, CaptionRecord] = {}
    for key, sample in samples.items():
        record = _caption_record(sample, captions[key]["index"], captions[key])
        if record != captions[key]:
            records[key] = record
    return records


def _caption_record(sample: Sample, index: int, old: CaptionRecord | None = None) -> CaptionRecord:
    """The record of an image, with the captions that the database holds already."""
    if old is not None and sample.role == "own" and is_of_dataset(old):
        # A user's copy of a dataset's image does not rename it.
        image, original_index = old["image"], old["original_index"]
    else:
        image, original_index = clean_text(sample.label), sample.original_index
    return {
        "index": index,
        "image": image,
        "original_index": original_index,
        "captions": old["captions"] if old else [],
        "generated": old["generated"] if old else None,
    }


def _without(
    captions: Mapping[str, CaptionRecord], keys: Collection[str]
) -> tuple[dict[str, CaptionRecord], set[str]]:
    """What is left of the records `keys` of images of the dataset, and all keys that go.

    Those are the other content hashes, and captions that no record holds any longer.
    """
    named = {key: captions[key] for key in keys if key in captions}
    kept = {key: {**r, "generated": None} for key, r in named.items() if is_of_dataset(r)}
    others = {key: record for key, record in captions.items() if key not in named}
    return kept, (named.keys() - kept.keys()) | (_texts_of(named) - _texts_of({**others, **kept}))


def _texts_of(records: Mapping[str, CaptionRecord]) -> set[str]:
    """The captions of records, original and generated."""
    texts: set[str] = set()
    for record in records.values():
        texts.update(record["captions"])
        if record["generated"]:
            texts.add(record["generated"]["caption"])
    return texts
