"""image_embeddings.json and caption_embeddings.json: unit vectors as base64 of float32."""

import base64
import binascii
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from support.errors import DatabaseError
from support.storage.damage import damaged
from support.storage.documents import Document, Header, Records, read_document
from support.text import clean_text

UNIT_TOLERANCE = 1e-3


class VectorTable(Document):
    """Key -> unit vector, kept as rows of one matrix."""

    FITTING = ("model", "revision", "dimension", "image_processor")
    rows: dict[str, int]
    _matrix: np.ndarray

    @classmethod
    def read(cls, path: Path) -> "VectorTable":
        """The table in a file, whatever model made it. Raises DatabaseError."""
        header, records = read_document(path)
        try:
            table = cls(path, header)
            table._replace_records(records)
        except (KeyError, ValueError) as error:
            raise damaged(path, str(error)) from error
        return table

    def __init__(self, path: Path, header: Header):
        self.dimension: int = header["dimension"]
        super().__init__(path, header)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def matrix(self) -> np.ndarray:
        """(N, D) float32, unit rows, in the order of `rows`."""
        return self._matrix[: len(self.rows)]

    def update(self, records: Records) -> None:
        vectors = decode_vectors(records, self.dimension)
        for key, vector in zip(records, vectors, strict=True):
            self._put(key, vector)

    def encode(self, vectors: Mapping[str, np.ndarray]) -> dict[str, str]:
        """`vectors` as records for the journal. DatabaseError for one that is no unit vector."""
        for key, vector in vectors.items():
            if vector.shape != (self.dimension,) or not _are_unit(vector[None])[0]:
                raise DatabaseError(
                    f"The vector of '{key[:80]}' is refused: {vector.shape} with NaN, infinity or "
                    f"a length other than 1; expected ({self.dimension},), unit length."
                )
        return {clean_text(key): encode_vector(vector) for key, vector in vectors.items()}

    def _adopt_header(self, header: Header) -> None:
        pass  # everything in it has to fit, and is known

    def _put(self, key: str, vector: np.ndarray) -> None:
        row = self.rows.setdefault(key, len(self.rows))
        if row == len(self._matrix):
            # Doubling: adding a vector costs the same however many there are.
            room = np.zeros((max(16, row), self.dimension), np.float32)
            self._matrix = np.concatenate([self._matrix, room])
        self._matrix[row] = vector

    def _replace_records(self, records: Records) -> None:
        self._matrix = decode_vectors(records, self.dimension)
        self.rows = {key: row for row, key in enumerate(records)}

    def _iter_records(self) -> Iterator[tuple[str, Any]]:
        for key, row in self.rows.items():
            yield key, encode_vector(self._matrix[row])


def read_vectors(path: str | Path) -> tuple[list[str], np.ndarray]:
    """The keys and the (N, D) float32 unit rows of an embeddings file, for use elsewhere."""
    table = VectorTable.read(Path(path))
    return list(table.rows), table.matrix


def encode_vector(vector: np.ndarray) -> str:
    """A vector (D,) as base64 of little-endian float32, as OpenAI-compatible APIs give it."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")


def decode_vectors(records: Mapping[str, Any], dimension: int) -> np.ndarray:
    """(N, D) float32 unit rows of base64 records. Raises ValueError, naming a bad record."""
    vectors = np.zeros((len(records), dimension), np.float32)
    for row, (key, text) in enumerate(records.items()):
        try:
            data = base64.b64decode(text, validate=True)
        except (binascii.Error, TypeError, ValueError) as error:
            raise ValueError(f"the vector of {key[:80]!r} is not base64") from error
        if len(data) != 4 * dimension:
            raise ValueError(
                f"the vector of {key[:80]!r} has {len(data)} bytes, expected {4 * dimension}"
            )
        vectors[row] = np.frombuffer(data, "<f4")
    bad = np.flatnonzero(~_are_unit(vectors))
    if len(bad):
        raise ValueError(f"the vector of {list(records)[bad[0]][:80]!r} is not a unit vector")
    return vectors


def _are_unit(vectors: np.ndarray) -> np.ndarray:
    """(N,) bool: which rows are finite and of length 1."""
    with np.errstate(all="ignore"):
        lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
        return np.abs(lengths - 1) < UNIT_TOLERANCE  # False for NaN
