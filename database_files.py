"""The database files: captions and unit vectors, each a JSON document with one record a line."""

import base64
import binascii
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from records import DatabaseError, clean_text
from safe_files import (
    FORMAT_VERSION,
    DamagedFile,
    check_format,
    damaged,
    keep_corrupt_copy,
    parse_json,
    remove_leftovers,
    replace_file,
    to_json,
    unreadable,
)

LARGEST_INDEX = 2**53  # beyond it, programs that read JSON numbers as floats would confuse two


# --- Documents -------------------------------------------------------------------------------------------------
class Document:
    """One JSON file {"header": {...}, "records": {key: record}}, kept in memory."""

    FITTING: tuple[str, ...] = ()  # what must be the same in its header and now

    def __init__(self, path: Path, header: dict[str, Any]):
        self.path = path
        self.header = {
            "format_version": FORMAT_VERSION,
            **{k: v for k, v in header.items() if k not in ("format_version", "count")},
        }
        self._take({})

    def load(self) -> None:
        """Reads the file; one that is not there is empty. Raises DatabaseError, with a copy kept, for a damaged one."""
        if not self.path.exists():
            self._take_header({})
            self._take({})
            return
        header, records = read_document(self.path)
        if header["content"] != self.header["content"]:
            raise damaged(self.path, f"it holds {header['content']!r}, expected {self.header['content']!r}")
        self._check_fit(there=header, now=self.header)
        self._take_header(header)
        try:
            self._take(records)
        except ValueError as error:
            raise damaged(self.path, str(error)) from error

    def check_fits(self, now: dict[str, Any]) -> None:
        """Raises DatabaseError when model, revision, dimension or image processor `now` are not the file's."""
        self._check_fit(there=self.header, now=now)

    def _check_fit(self, there: dict[str, Any], now: dict[str, Any]) -> None:
        for field in self.FITTING:
            if there.get(field) != now.get(field):
                raise DatabaseError(
                    f"{self.path} does not fit: its {field} is {there.get(field)!r}, now it is {now.get(field)!r}. "
                    "Vectors of two models are never mixed. Go back to the former one, or run with --rebuild to make "
                    "the vectors anew (the captions stay)."
                )

    def save(self) -> None:
        """Replaces the file whole: a crash leaves the old one or the new one. With the lock held."""
        remove_leftovers(self.path)
        replace_file(self.path, _document_lines({**self.header, "count": len(self)}, self._records()))

    def bytes_on_disk(self) -> int:
        with unreadable(self.path):
            return self.path.stat().st_size if self.path.exists() else 0

    def _take_header(self, header: dict[str, Any]) -> None:
        """What a subclass keeps of the file's own header."""


class CaptionTable(Document):
    """captions.json: content hash -> record."""

    records: dict[str, dict[str, Any]]
    next_index: int

    def __len__(self) -> int:
        return len(self.records)

    @property
    def fold(self) -> str | None:
        """The mark of the fold that wrote the file; None without a file, or in one that comes from elsewhere."""
        return self.header.get("fold")

    def mark(self, fold: str) -> None:
        self.header["fold"] = fold

    def update(self, records: dict[str, Any]) -> None:
        """Adds or replaces records; all or, raising ValueError for one that cannot be, none."""
        taken: dict[int, str] = {}
        for key, record in records.items():
            check_caption_record(key, record)
            index = record["index"]
            if taken.setdefault(index, self._owners.get(index, key)) != key:
                raise ValueError(f"records {taken[index][:80]!r} and {key[:80]!r} have the same index {index}")
        for key, record in records.items():
            if key in self.records:
                self._owners.pop(self.records[key]["index"], None)
            self.records[key] = record
            self.next_index = max(self.next_index, record["index"] + 1)
        self._owners.update(taken)

    def takes(self, records: dict[str, Any]) -> bool:
        """Adds or replaces records where that can be."""
        try:
            self.update(records)
        except ValueError:
            return False
        return True

    def salvage(self) -> list[str]:
        """Keeps the readable records of a damaged file; returns what could not be kept."""
        try:
            self.load()
            return []
        except DamagedFile:
            copy = keep_corrupt_copy(self.path)
        self._take({})
        lost = sum(not self.takes(record) for record in _readable_records(self.path.read_bytes()))
        return [f"{self.path} was damaged: {len(self)} records kept, {lost} could not be read (see {copy.name})."]

    def _take_header(self, header: dict[str, Any]) -> None:
        self.mark(header.get("fold"))

    def _take(self, records: dict[str, Any]) -> None:
        self.records, self.next_index = {}, 0
        self._owners: dict[int, str] = {}  # index -> key: no two images share a number
        self.update(records)

    def _records(self) -> Iterator[tuple[str, Any]]:
        return iter(self.records.items())


class VectorTable(Document):
    """image_embeddings.json or caption_embeddings.json: key -> unit vector, kept as rows of one matrix."""

    FITTING = ("model", "revision", "dimension", "image_processor")  # two that differ in one are never mixed
    rows: dict[str, int]

    @classmethod
    def read(cls, path: Path) -> "VectorTable":
        """The table in a file, whatever model made it. Raises DatabaseError."""
        header, records = read_document(path)
        try:
            table = cls(path, header)
            table._take(records)
        except (KeyError, ValueError) as error:
            raise damaged(path, str(error)) from error
        return table

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def dimension(self) -> int:
        return self.header["dimension"]

    @property
    def matrix(self) -> np.ndarray:
        """(N, D) float32, unit rows, in the order of `rows`."""
        return self._matrix[: len(self.rows)]

    def update(self, records: dict[str, Any]) -> None:
        """Adds or replaces vectors given as base64. Raises ValueError for one that is no unit vector of our size."""
        vectors = decode_vectors(records, self.dimension)
        for key, vector in zip(records, vectors, strict=True):
            self._put(key, vector)

    def encode(self, vectors: dict[str, np.ndarray]) -> dict[str, str]:
        """`vectors` as records for the journal; DatabaseError for one that is not a unit vector of our dimension."""
        for key, vector in vectors.items():
            if vector.shape != (self.dimension,) or not _are_unit(vector[None])[0]:
                raise DatabaseError(
                    f"The vector of '{key[:80]}' is refused: {vector.shape} with NaN, infinity or a length other "
                    f"than 1; expected ({self.dimension},), unit length."
                )
        return {clean_text(key): encode_vector(vector) for key, vector in vectors.items()}

    def _put(self, key: str, vector: np.ndarray) -> None:
        row = self.rows.setdefault(key, len(self.rows))
        if row == len(self._matrix):  # doubling: adding one vector costs the same however many there are
            self._matrix = np.concatenate([self._matrix, np.zeros((max(16, row), self.dimension), np.float32)])
        self._matrix[row] = vector

    def _take(self, records: dict[str, Any]) -> None:
        self._matrix = decode_vectors(records, self.dimension)
        self.rows = {key: row for row, key in enumerate(records)}

    def _records(self) -> Iterator[tuple[str, str]]:
        return ((key, encode_vector(self._matrix[row])) for key, row in self.rows.items())


CAPTION_FIELDS: dict[str, type | tuple[type, ...]] = {
    "index": int,
    "image": str,
    "original_index": (int, type(None)),
    "captions": list,
    "generated": (dict, type(None)),
}


def check_caption_record(key: str, record: Any) -> None:
    """Raises ValueError for a record that is not one of captions.json."""
    if not isinstance(record, dict) or set(record) != set(CAPTION_FIELDS):
        raise ValueError(f"record {key[:80]!r} has not the fields {sorted(CAPTION_FIELDS)}")
    for name, kind in CAPTION_FIELDS.items():
        if not isinstance(record[name], kind) or isinstance(record[name], bool):
            raise ValueError(f"record {key[:80]!r} has a wrong {name}")
    if not 0 <= record["index"] < LARGEST_INDEX:
        raise ValueError(f"record {key[:80]!r} has the index {record['index']}")
    generated = record["generated"] or {"caption": ""}
    if not all(isinstance(caption, str) for caption in (*record["captions"], generated.get("caption"))):
        raise ValueError(f"record {key[:80]!r} has a caption that is no text")


# --- Vectors as base64 of little-endian float32 ----------------------------------------------------------------
def encode_vector(vector: np.ndarray) -> str:
    """A vector (D,) as base64 of little-endian float32, as OpenAI-compatible embedding APIs give it."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")


def decode_vectors(records: dict[str, Any], dimension: int) -> np.ndarray:
    """(N, D) float32 of base64 records. Raises ValueError, naming the record, for anything but finite unit vectors."""
    vectors = np.zeros((len(records), dimension), np.float32)
    for row, (key, text) in enumerate(records.items()):
        try:
            data = base64.b64decode(text, validate=True)
        except (binascii.Error, TypeError, ValueError) as error:
            raise ValueError(f"the vector of {key[:80]!r} is not base64") from error
        if len(data) != 4 * dimension:
            raise ValueError(f"the vector of {key[:80]!r} has {len(data)} bytes, expected {4 * dimension}")
        vectors[row] = np.frombuffer(data, "<f4")
    bad = np.flatnonzero(~_are_unit(vectors))
    if len(bad):
        raise ValueError(f"the vector of {list(records)[bad[0]][:80]!r} is not a unit vector")
    return vectors


def _are_unit(vectors: np.ndarray) -> np.ndarray:
    """(N,) bool: which rows are finite and of length 1."""
    with np.errstate(all="ignore"):
        return np.abs(np.linalg.norm(vectors.astype(np.float64), axis=1) - 1) < 1e-3  # False for NaN


def read_vectors(path: str | Path) -> tuple[list[str], np.ndarray]:
    """The keys and the (N, D) float32 unit rows of an embeddings file, for use elsewhere."""
    table = VectorTable.read(Path(path))
    return list(table.rows), table.matrix


# --- Reading and writing documents -----------------------------------------------------------------------------
def read_document(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and records of a database file. Raises DatabaseError, with a copy kept, for a damaged one."""
    with unreadable(path):
        data = path.read_bytes()
    try:
        document = parse_json(data)
    except ValueError as error:
        raise damaged(path, f"not JSON: {error}" if data else "it is empty") from error
    header = document.get("header") if isinstance(document, dict) else None
    records = document.get("records") if isinstance(document, dict) else None
    if not isinstance(header, dict) or not isinstance(records, dict):
        raise damaged(path, "it has not the form {header, records}")
    check_format(path, header.get("format_version"))
    if not isinstance(header.get("content"), str) or header.get("count") != len(records):
        raise damaged(path, f"its header counts {header.get('count')!r} records, it holds {len(records)}")
    dimension = header.get("dimension", 1)
    if not isinstance(dimension, int) or not 0 < dimension < 100_000:
        raise damaged(path, f"its dimension is {dimension!r}")
    return header, records


def read_header(path: Path) -> dict[str, Any]:
    """The header alone: the file's second line, so that a large file need not be read. Empty when there is none."""
    try:
        with path.open("rb") as file:
            file.readline()
            line = file.readline().strip().rstrip(b",")
        header = parse_json(b"{" + line + b"}")["header"]
    except (OSError, ValueError, KeyError):
        return {}
    return header if isinstance(header, dict) else {}


def _document_lines(header: dict[str, Any], records: Iterable[tuple[str, Any]]) -> Iterator[str]:
    """One valid JSON document with a line for the header and one for each record: easy to read and to diff."""
    yield '{\n"header": ' + to_json(header) + ',\n"records": {\n'
    separator = ""
    for key, record in records:
        yield f"{separator}{to_json(key)}: {to_json(record)}"
        separator = ",\n"
    yield "\n}\n}\n"


def _readable_records(data: bytes) -> Iterator[dict[str, Any]]:
    """Each {key: record} of a damaged document, or what cannot be read of it as {line: None}."""
    try:
        records = parse_json(data)["records"]
        yield from ({key: record} for key, record in records.items())
        return
    except (ValueError, KeyError, TypeError, AttributeError):
        pass  # not JSON as a whole: its lines may be
    for line in data.splitlines():
        if line.startswith(b'"') and not line.startswith((b'"header": ', b'"records": ')):
            try:
                yield parse_json(b"{" + line.rstrip(b",") + b"}")
            except ValueError:
                yield {line.decode(errors="replace"): None}
