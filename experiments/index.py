"""What may be found, kept up to date with the databases: nothing is built anew for a query."""

from collections.abc import Iterable, Iterator

import numpy as np

from similarity_search import CaptionPool, Pool, given_captions
from support.garbage import without_search_for_garbage
from support.records import Neighbor
from support.search.growing import GrowingArray
from support.storage.captions import CaptionRecord, CaptionTable
from support.storage.vectors import VectorTable

HIDDEN, ORIGINAL, GENERATED = 0, 1, 2  # what a row's image gives
Keyed = tuple[str, CaptionRecord | None]  # a content hash and its record
KINDS = {"original": ORIGINAL, "generated": GENERATED}


class Changes:
    """Which caption records have changed since the last look."""

    def __init__(self, captions: CaptionTable, vectors: VectorTable, gallery: frozenset[str]):
        self.captions, self.vectors, self.gallery = captions, vectors, gallery
        self._loads = captions.loads, vectors.loads
        self._seen = len(captions.changed)

    def fit(self, captions: CaptionTable, vectors: VectorTable, gallery: frozenset[str]) -> bool:
        """Whether these are the tables and the gallery followed, and no table was read again."""
        same = self.captions is captions and self.vectors is vectors and self.gallery is gallery
        return same and self._loads == (captions.loads, vectors.loads)

    def take(self) -> list[str]:
        """The content hashes of the changed records."""
        changed = self.captions.changed[self._seen :]
        self._seen += len(changed)
        return list(dict.fromkeys(changed))


class ImageIndex:
    """The rows of an image model's vectors: which may be found, and what they give."""

    def __init__(self, captions: CaptionTable, vectors: VectorTable, gallery: frozenset[str]):
        self.changes = Changes(captions, vectors, gallery)
        self._kinds = GrowingArray(np.int8)
        self._numbers = GrowingArray(np.int64)
        self._records: list[Keyed] = []  # by row
        self._lent = False  # whether a pool shares what is above

    def pool(self, generated: bool) -> Pool:
        """What may be found now; what this system captioned only where `generated` says so."""
        self._update()
        self._lent = True
        records, kinds = self._records, self._kinds.values
        vectors, gallery = self.changes.vectors, self.changes.gallery

        def neighbor(row: int, similarity: float) -> Neighbor:
            key, record = records[row]
            assert record is not None
            captions, source = given_captions(key, record, gallery)
            place = record["original_index"], source, record["image"]
            return Neighbor(record["index"], similarity, tuple(captions), captions[0], *place)

        visible = kinds != HIDDEN if generated else kinds == ORIGINAL
        return Pool(vectors.rows, vectors.matrix, visible, self._numbers.values, neighbor)

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
        gallery = self.changes.gallery
        for row in rows:
            key = keys[row]
            record = records.get(key)
            if record is None:  # a vector whose update of the captions was lost with a file
                yield (key, None), HIDDEN, -1
                continue
            captions, source = given_captions(key, record, gallery)
            yield (key, record), KINDS[source] if any(captions) else HIDDEN, record["index"]

    def _keep_what_was_lent(self) -> None:
        """Copies what pools share before it changes: they stay as they were made."""
        if self._lent:
            self._records = self._records.copy()
            self._numbers.detach()
            self._lent = False


class CaptionIndex:
    """The captions by which images are found, with a text model's vectors."""

    def __init__(self, captions: CaptionTable, vectors: VectorTable, gallery: frozenset[str]):
        self.changes = Changes(captions, vectors, gallery)
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
            return CaptionPool(changes.captions.records, changes.gallery, changes.vectors.rows)
