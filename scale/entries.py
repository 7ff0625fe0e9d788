"""An image as the gallery in Milvus holds it, and as a search finds it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from similarity_search import top_k
from support.records import Neighbor
from support.search.nearest import exact_products

LONGEST_TEXT = 65_535  # bytes of a VARCHAR
FIELDS = ("key", "vector", "number", "path", "captions", "generated")


class Entry(NamedTuple):
    """An image of a gallery."""

    key: str  # SHA-256 of its bytes
    vector: np.ndarray  # (D,) float32, unit length
    path: str
    number: int  # equal similarities are ordered by it
    captions: Sequence[str] = ()  # a person's
    generated: str = ""  # this system's; "" for none

    @property
    def given(self) -> tuple[str, ...]:
        """The captions that the image gives as context."""
        if any(self.captions):
            return tuple(self.captions)
        return (self.generated,) if self.generated else ()

    def row(self) -> dict[str, Any]:
        """The row of the collection of images."""
        source = "original" if any(self.captions) else "generated" if self.generated else "none"
        texts = list(self.captions)
        while len(json.dumps(texts)) > LONGEST_TEXT:
            texts.pop()
        cells = cut(self.path), json.dumps(texts), cut(self.generated)
        named = dict(zip(("path", "captions", "generated"), cells, strict=True))
        vector = {"key": self.key, "vector": self.vector, "number": self.number}
        return {**vector, **named, "source": source}

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Entry":
        """The image of such a row."""
        vector, number = np.asarray(row["vector"], np.float32), int(row["number"])
        captions = json.loads(row["captions"])
        return cls(row["key"], vector, row["path"], number, captions, row["generated"])

    def texts(self) -> dict[str, str]:
        """The captions by which the image is found, by their keys."""
        written = {f"{self.key}:g": self.generated} if self.generated else {}
        return {f"{self.key}:{n}": text for n, text in enumerate(self.captions) if text} | written

    def as_neighbor(self, similarity: float, found: str | None = None) -> Neighbor:
        """This image as found: by the caption `found`, or by its look."""
        shown = found or (self.given[0] if self.given else None)
        source = None
        if shown is not None:
            source = "original" if shown in self.captions else "generated"
        return Neighbor(self.number, similarity, self.given, shown, None, source, self.path)


class Found(NamedTuple):
    """An image found, with its key."""

    key: str
    neighbor: Neighbor


def number_of(key: str) -> int:
    """The number of an image that no database has numbered: of its key, below 2^53."""
    return int(key[:13], 16)


def cut(text: str) -> str:
    """`text` as long as Milvus takes it."""
    return text.encode()[:LONGEST_TEXT].decode(errors="ignore")


def ranked(query: np.ndarray, entries: Sequence[Entry], k: int) -> list[Found]:
    """The `k` of `entries` most like `query` (D,), in the order of similarity_search.Pool."""
    if not entries:
        return []
    similarities = _similarities(query, [entry.vector for entry in entries])
    best = top_k(similarities, np.array([entry.number for entry in entries], np.int64), k)
    return [Found(entries[n].key, entries[n].as_neighbor(value)) for n, value in best]


def ranked_by_caption(
    query: np.ndarray, rows: Sequence[Mapping[str, Any]], images: Mapping[str, Entry], k: int
) -> list[Found]:
    """The `k` of `images` whose best caption among `rows` is most like `query` (D,).

    A caption that its image no longer has is passed over.
    """
    rows = [row for row in rows if row["key"] in _keys_of(images.get(row["image"]), row)]
    if not rows:
        return []
    similarities = _similarities(query, [row["vector"] for row in rows])
    best: dict[str, int] = {}
    for n in np.argsort(-similarities, kind="stable").tolist():
        best.setdefault(rows[n]["image"], n)
    found, numbers = list(best.values()), [images[image].number for image in best]
    order = top_k(similarities[found], np.array(numbers, np.int64), k)
    hits = [(rows[found[place]], value) for place, value in order]
    return [
        Found(row["image"], images[row["image"]].as_neighbor(value, row["caption"]))
        for row, value in hits
    ]


def _keys_of(entry: Entry | None, row: Mapping[str, Any]) -> list[str]:
    """The keys of those captions of an image that are what a row says."""
    texts = entry.texts() if entry else {}
    return [key for key, text in texts.items() if cut(text) == row["caption"]]


def _similarities(query: np.ndarray, vectors: Sequence[Any]) -> np.ndarray:
    """(N,) float64 cosine similarities."""
    matrix, rows = np.asarray(vectors, np.float32), np.arange(len(vectors))
    return exact_products(query[None], matrix, np.zeros_like(rows), rows)
