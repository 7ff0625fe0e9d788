"""image_embeddings.json and caption_embeddings.json: unit vectors as base64 of float32."""

import binascii
import os
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pybase64

from support.errors import DatabaseError
from support.storage.damage import damaged
from support.storage.documents import Document, Header, Records, read_document
from support.storage.journal import JOURNAL_NAME, Journal
from support.storage.lines import (
    END,
    LARGEST_DIMENSION,
    OtherForm,
    RecordLines,
    open_lines,
    parse_keys,
)
from support.storage.strict_json import to_json
from support.text import clean_text

UNIT_TOLERANCE = 1e-3
DECODED_FOR = "decoded_for"  # in the header


class VectorTable(Document):
    """Key -> unit vector, kept as rows of one matrix."""

    FITTING = ("model", "revision", "dimension", "image_processor")
    rows: dict[str, int]
    keys: list[str]  # by row
    _matrix: np.ndarray

    @classmethod
    def read(cls, path: Path) -> "VectorTable":
        """The table in a file, whatever model made it. Raises DatabaseError."""
        with suppress(ValueError, KeyError), open_lines(path) as lines:
            if lines.is_plain():
                table = cls(path, lines.header)
                table._replace_by_line(lines)
                return table
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
        """Keeps what the file's images were decoded for: all other fields have to fit."""
        own = {key: value for key, value in self.header.items() if key != DECODED_FOR}
        own.update({key: value for key, value in header.items() if key == DECODED_FOR})
        self.header = own  # at once: another thread may be reading it

    @property
    def decoded_for(self) -> int | None:
        """The pixels that the model sees of an image's shorter side: `images.small_size`.

        None for vectors of images decoded as for any model, as all were by version 0.1.
        """
        seen = self.header.get(DECODED_FOR)
        return seen if type(seen) is int and 0 < seen < LARGEST_DIMENSION else None

    def remove(self, keys: Collection[str]) -> None:
        """Takes vectors out."""
        kept = [row for row, key in enumerate(self.keys) if key not in keys]
        matrix = _room_for(len(kept), self.dimension)
        matrix[: len(kept)] = self._matrix[kept]
        self._replace([self.keys[row] for row in kept], matrix)

    def _put(self, key: str, vector: np.ndarray) -> None:
        row = self.rows.setdefault(key, len(self.rows))
        if row == len(self.keys):
            self.keys.append(key)
        if row == len(self._matrix):
            grown = _room_for(row, self.dimension)
            grown[:row] = self._matrix
            self._matrix = grown
        self._matrix[row] = vector

    def _replace_records(self, records: Records) -> None:
        self._replace(list(records), decode_vectors(records, self.dimension))

    def _replace(self, keys: list[str], matrix: np.ndarray) -> None:
        self._matrix, self.keys = matrix, keys
        self.loads += 1
        self.rows = {key: row for row, key in enumerate(keys)}

    def _replace_by_line(self, lines: RecordLines) -> None:
        count = lines.header["count"]
        matrix = _room_for(count, self.dimension)
        keys: list[str] = []
        for block in lines.blocks:
            keys += _parse_lines(block, matrix[len(keys) : len(keys) + len(block)])
        self._replace(keys, matrix)
        if len(self) != count:
            raise ValueError("two records have one key")

    def _record_lines(self) -> Iterator[bytes]:
        for key, row in self.rows.items():
            yield f'{to_json(key)}: "{encode_vector(self._matrix[row])}"'.encode()


def _room_for(count: int, dimension: int) -> np.ndarray:
    """A matrix with rows to spare: adding a vector costs the same however many there are.

    The spare rows take no memory before they are written.
    """
    return np.empty((count + max(16, count // 2), dimension), np.float32)


def read_vectors(path: str | Path) -> tuple[list[str], np.ndarray]:
    """The keys and the (N, D) float32 unit rows of an embeddings file, for use elsewhere.

    With what the journal of its databases holds for it. Raises DatabaseError.
    """
    path = Path(os.path.realpath(path))
    journal = Journal(path.parent.parent / JOURNAL_NAME)
    while True:
        header = journal.header() if journal.path.exists() else None
        table = VectorTable.read(path)
        updates, position = journal.read() if header else ([], None)
        if position is None or position.header == header:
            break  # else a compaction came in between
    journal.apply(updates, {f"{path.parent.name}/{path.name}": table})
    return list(table.rows), table.matrix


def encode_vector(vector: np.ndarray) -> str:
    """A vector (D,) as base64 of little-endian float32, as OpenAI-compatible APIs give it."""
    return pybase64.b64encode_as_string(vector.astype("<f4").tobytes())


def decode_vectors(records: Mapping[str, Any], dimension: int) -> np.ndarray:
    """(N, D) float32 unit rows of base64 records. Raises ValueError, naming a bad record."""
    vectors = np.zeros((len(records), dimension), np.float32)
    for row, (key, text) in enumerate(records.items()):
        try:
            data = pybase64.b64decode(text, validate=True)
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
        squares = np.einsum("nd,nd->n", vectors, vectors)  # no copy of the vectors
        return np.abs(np.sqrt(squares) - 1) < UNIT_TOLERANCE  # False for NaN


def _parse_lines(lines: list[bytes], rows: np.ndarray) -> list[str]:
    """The keys of lines `"key": "base64"`, whose unit vectors are written into `rows` (N, D).

    Raises ValueError for other lines.
    """
    width = 4 * rows.shape[1]
    length, end = 4 * -(-width // 3), len(END) + 1  # of base64; of what follows it
    heads, values = [], rows.data.cast("B")
    for number, line in enumerate(lines):
        start = len(line) - length - end
        if line[start - 3 : start] != b': "' or line[-end:] != b'"' + END:
            raise OtherForm("a line holds no vector of this length")
        heads.append(line[: start - 3])
        vector = pybase64.b64decode(line[start:-end], validate=True)
        values[number * width : (number + 1) * width] = vector  # ValueError for another length
    if sys.byteorder == "big":
        rows.byteswap(inplace=True)
    if not _are_unit(rows).all():
        raise OtherForm("not unit vectors")
    return parse_keys(heads)
