"""JSON documents {"header": {...}, "records": {key: record}}: one line each, replaced whole."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from support.errors import DatabaseError
from support.garbage import without_search_for_garbage
from support.storage.damage import FORMAT_VERSION, check_format, damaged
from support.storage.errors import open_regular, read_regular, unreadable
from support.storage.files import remove_leftovers, replace_file
from support.storage.lines import LARGEST_DIMENSION, RecordLines, open_lines
from support.storage.strict_json import parse_json, to_json

Header = dict[str, Any]
Records = dict[str, Any]


class Document(ABC):
    """One such file, kept in memory."""

    FITTING: tuple[str, ...] = ()  # header fields that must be the same in the file and now

    def __init__(self, path: Path, header: Header):
        self.path = path
        self.loads = 0  # how often the records were replaced as a whole
        kept = {k: v for k, v in header.items() if k not in ("format_version", "count")}
        self.header: Header = {"format_version": FORMAT_VERSION, **kept}
        self._replace_records({})

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def update(self, records: Records) -> None:
        """Adds or replaces records; all or, raising ValueError for a bad one, none."""

    @abstractmethod
    def _replace_records(self, records: Records) -> None:
        """Holds `records` instead. Raises ValueError for a bad one."""

    @abstractmethod
    def _replace_by_line(self, lines: RecordLines) -> None:
        """`_replace_records` with those on the lines of a file. Raises ValueError."""

    @abstractmethod
    def _record_lines(self) -> Iterator[bytes]:
        """The records as the file holds them, `"key": value` each."""

    @abstractmethod
    def _adopt_header(self, header: Header) -> None:
        """Keeps of the file's own header what this table must remember."""

    def load(self) -> None:
        """Reads the file; one that is not there is empty.

        Raises DatabaseError, with a copy kept, for a damaged one.
        """
        before = {**vars(self), "header": dict(self.header)}
        try:
            with without_search_for_garbage():
                if not self.path.exists():
                    self._adopt_header({})
                    self._replace_records({})
                elif not self._load_by_line():
                    self._load_whole()
        except BaseException:
            vars(self).update(before)  # never half of a file
            raise

    def _load_by_line(self) -> bool:
        """Reads a file that is undamaged, fits, and is laid out as `save` does; whether it is."""
        with suppress(ValueError), open_lines(self.path) as lines:
            if lines.is_plain() and self._belongs(lines.header):
                self._adopt_header(lines.header)
                self._replace_by_line(lines)
                return True
        return False

    def _belongs(self, header: Header) -> bool:
        names = ("content", *self.FITTING)
        return all(header.get(name) == self.header.get(name) for name in names)

    def _load_whole(self) -> None:
        """Reads a file of any layout, or says what is wrong with it."""
        header, records = read_document(self.path)
        expected = self.header["content"]
        if header["content"] != expected:
            raise damaged(self.path, f"it holds {header['content']!r}, expected {expected!r}")
        self._check_fit(there=header, now=self.header)
        self._adopt_header(header)
        try:
            self._replace_records(records)
        except ValueError as error:
            raise damaged(self.path, str(error)) from error

    def check_fits(self, now: Header) -> None:
        """Raises DatabaseError when model, revision, size or processor `now` are not the file's."""
        self._check_fit(there=self.header, now=now)

    def _check_fit(self, there: Header, now: Header) -> None:
        for field in self.FITTING:
            if there.get(field) != now.get(field):
                raise DatabaseError(
                    f"{self.path} does not fit: its {field} is {there.get(field)!r}, now it is "
                    f"{now.get(field)!r}. Vectors of two models are never mixed. Go back to the "
                    "former one, or run with --rebuild to recompute the vectors (the captions "
                    "stay)."
                )

    def save(self) -> None:
        """Replaces the file: a crash leaves the old one or the new one. With the lock held."""
        remove_leftovers(self.path)
        header = {**self.header, "count": len(self)}
        replace_file(self.path, _document_lines(header, self._record_lines()))

    def bytes_on_disk(self) -> int:
        with unreadable(self.path):
            return self.path.stat().st_size if self.path.exists() else 0


# --- Reading and writing --------------------------------------------------------------------------
def read_document(path: Path) -> tuple[Header, Records]:
    """Header and records of a file. Raises DatabaseError, with a copy kept, for a damaged one."""
    with unreadable(path):
        data = read_regular(path)
    try:
        document = parse_json(data)
    except ValueError as error:
        raise damaged(path, f"not JSON: {error}" if data else "it is empty") from error
    header = document.get("header") if isinstance(document, dict) else None
    records = document.get("records") if isinstance(document, dict) else None
    if not isinstance(header, dict) or not isinstance(records, dict):
        raise damaged(path, "it has not the form {header, records}")
    check_format(path, header.get("format_version"))
    count = header.get("count")
    if not isinstance(header.get("content"), str) or count != len(records):
        raise damaged(path, f"its header counts {count!r} records, it holds {len(records)}")
    dimension = header.get("dimension", 1)
    if type(dimension) is not int or not 0 < dimension < LARGEST_DIMENSION:
        raise damaged(path, f"its dimension is {dimension!r}")
    return header, records


def read_header(path: Path) -> Header:
    """The header alone: the file's second line, so that a large file need not be read.

    Empty when there is none.
    """
    try:
        with open_regular(path) as file:
            file.readline()
            line = file.readline().strip().rstrip(b",")
        header = parse_json(b"{" + line + b"}")["header"]
    except (OSError, ValueError, KeyError):
        return {}
    return header if isinstance(header, dict) else {}


def _document_lines(header: Header, records: Iterable[bytes]) -> Iterator[bytes]:
    """One valid JSON document, a line for the header and one for each record: easy to diff."""
    yield b'{\n"header": ' + to_json(header).encode() + b',\n"records": {\n'
    separator = b""
    for record in records:
        yield separator + record
        separator = b",\n"
    yield b"\n}\n}\n"


def readable_records(data: bytes) -> Iterator[Records]:
    """Each {key: record} of a damaged document; what cannot be read of it as {line: None}."""
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
