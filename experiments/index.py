"""What may be found, kept up to date with the databases: nothing is built anew for a query."""

from collections.abc import Iterable, Iterator

import numpy as np

from similarity_search import CaptionPool, Pool
from support.candidates import Scope, as_candidate, given_captions
from support.garbage import without_search_for_garbage
from support.records import Neighbor, SplitHashes
from support.search.growing import GrowingArray
from support.sources.own import has_gone
from support.storage.captions import CaptionRecord, CaptionTable
from support.storage.vectors import VectorTable

HIDDEN, WORDLESS, ORIGINAL, GENERATED = 0, 1, 2, 3  # what a row's image gives; WORDLESS: no caption
Keyed = tuple[str, CaptionRecord | None]  # a content hash and its record
KINDS = {"original": ORIGINAL, "generated": GENERATED}


class Changes:
    """Which caption records have changed since the last look."""

    def __init__(self, captions: CaptionTable, vectors: VectorTable, dataset: SplitHashes):
        self.captions, self.vectors, self.dataset = captions, vectors, dataset
        self._loads = captions.loads, vectors.loads
        self._seen = len(captions.changed)

    def fit(self, captions: CaptionTable, vectors: VectorTable, dataset: SplitHashes) -> bool:
        """Whether these are the tables and the dataset followed, and no table was read again."""
        same = self.captions is captions and self.vectors is vectors and self.dataset is dataset
        return same and self._loads == (captions.loads, vectors.loads)

    def take(self) -> list[str]:
        """The content hashes of the changed records."""
        changed = self.captions.changed[self._seen :]
        self._seen += len(changed)
        return list(dict.fromkeys(changed))


class ImageIndex:
    """The rows of an image model's vectors: which may be found, and what they give."""

    def __init__(self, captions: CaptionTable, vectors: VectorTable, dataset: SplitHashes):
        self.changes = Changes(captions, vectors, dataset)
        self._kinds = GrowingArray(np.int8)
        self._numbers = GrowingArray(np.int64)
        self._records: list[Keyed] = []  # by row
        self._lent = False  # whether a pool shares what is above

    def pool(self, generated: bool) -> Pool:
        """What gives context now; what this system captioned only where `generated` says so."""
        self._update()
        kinds = self._kinds.values
        return self._pool(kinds >= ORIGINAL if generated else kinds == ORIGINAL)

    def searched(self, within: Scope | None = None) -> Pool:
        """What may be found by a search now, captioned or not."""
        self._update()
        visible = self._kinds.values != HIDDEN
        if within is not None:
            inside = (record is not None and within(key, record) for key, record in self._records)
            visible &= np.fromiter(inside, bool, len(visible))
        return self._pool(visible)

    def _pool(self, visible: np.ndarray) -> Pool:
        self._lent = True
        records, vectors, dataset = self._records, self.changes.vectors, self.changes.dataset

        def neighbor(row: int, similarity: float) -> Neighbor:
            key, record = records[row]
            assert record is not None
            return as_candidate(key, record, dataset).as_neighbor(similarity)

        def gone(row: int) -> bool:
            key, record = records[row]
            return record is not None and has_gone(key, record)

        return Pool(vectors.rows, vectors.matrix, visible, self._numbers.values, neighbor, gone)

    def _update(self) -> None:
        vectors, known = self.changes.vectors, len(self._records)
        changed = [vectors.rows.get(key, known) for key in self.changes.take()]
        if changed := [row for row in changed if row < known]:
            self._keep_what_was_lent()
            for row, look in zip(changed, self._look_at(changed), strict=True):
                self._records[row], self._kinds.values[row], self._numbers.values[row] = look
        with without_search_for_garbage():
            added = list(self._look_at(range(known, len(vectors))))
        self._records += [record for record, _, _ in added]
        self._kinds.extend([kind for _, kind, _ in added])
        self._numbers.extend([number for _, _, number in added])

    def _look_at(self, rows: Iterable[int]) -> Iterator[tuple[Keyed, int, int]]:
        """Of the image of each of `rows` key and record, kind, and number."""
        keys, records = self.changes.vectors.keys, self.changes.captions.records
        dataset = self.changes.dataset
        for row in rows:
            key = keys[row]
            record = records.get(key)
            if record is None:  # a vector whose update of the captions was lost with a file
                yield (key, None), HIDDEN, -1
                continue
            yield (key, record), _kind(key, record, dataset), record["index"]

    def _keep_what_was_lent(self) -> None:
        """Copies what pools share before it changes: they stay as they were made."""
        if self._lent:
            self._records = self._records.copy()
            self._numbers.detach()
            self._lent = False


def _kind(key: str, record: CaptionRecord, dataset: SplitHashes) -> int:
    """What an image gives; HIDDEN for one that has gone, or never belonged here."""
    captions, source = given_captions(key, record, dataset)
    if any(captions):
        return KINDS[source]
    return WORDLESS if dataset.holds(key) else HIDDEN


class CaptionIndex:
    """The captions by which images are found, with a text model's vectors."""

    def __init__(self, captions: CaptionTable, vectors: VectorTable, dataset: SplitHashes):
        self.changes = Changes(captions, vectors, dataset)
        self._pool = self._build()

    def pool(self) -> CaptionPool:
        """What may be found now."""
        for key in self.changes.take():
            self._pool.put(key)
        if self._pool.is_half_empty():
            self._pool = self._build()
        return self._pool

    def _build(self) -> CaptionPool:
        changes = self.changes
        with without_search_for_garbage():
            return CaptionPool(changes.captions.records, changes.dataset, changes.vectors.rows)
