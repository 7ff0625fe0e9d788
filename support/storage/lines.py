"""Documents as the program writes them, one record a line: read without the whole in memory."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from support.storage.damage import FORMAT_VERSION
from support.storage.errors import open_regular, unreadable
from support.storage.strict_json import parse_json

OPENING, HEADER, RECORDS, CLOSING = b"{\n", b'"header": ', b'"records": {\n', b"}\n}\n"
END = b",\n"  # of a record's line; the last one's is put there
LARGEST_DIMENSION = 100_000
LINES_AT_ONCE = 4096
BUFFER = 2**20


class OtherForm(ValueError):
    """The document is not laid out as the program does; as a whole it may be valid all the same."""


class RecordLines(NamedTuple):
    """A document's header, and its records as lines, which should each have END."""

    header: dict[str, Any]
    blocks: Iterator[list[bytes]]

    def is_plain(self) -> bool:
        """Whether the header is of this version and says what the records are."""
        version = self.header.get("format_version")
        content = self.header.get("content")
        return type(version) is int and version == FORMAT_VERSION and isinstance(content, str)


@contextmanager
def open_lines(path: Path) -> Iterator[RecordLines]:
    """The lines of a document. Raises OtherForm, while they are read too; DatabaseError."""
    with unreadable(path), open_regular(path, BUFFER) as file:
        size = os.fstat(file.fileno()).st_size
        opening, header, records = file.readline(), file.readline(), file.readline()
        if (opening, records) != (OPENING, RECORDS) or not header.startswith(HEADER):
            raise OtherForm("not the lines of a document")
        fields = parse_json(b"{" + header.rstrip(b",\n") + b"}")["header"]
        yield RecordLines(fields, _blocks(file, _checked_count(fields, size)))


def _checked_count(header: Any, size: int) -> int:
    """How many records there are, by a header that a file of `size` bytes has room for."""
    count = header.get("count") if isinstance(header, dict) else None
    dimension = header.get("dimension", 1) if isinstance(header, dict) else None
    if type(count) is not int or type(dimension) is not int:
        raise OtherForm("the header does not count the records")
    if count < 0 or not 0 < dimension < LARGEST_DIMENSION or count * dimension > size:
        raise OtherForm(f"the header counts {count} records of the dimension {dimension}")
    return count


def _blocks(file: Any, count: int) -> Iterator[list[bytes]]:
    left = count
    while left:
        lines = list(islice(file, min(left, LINES_AT_ONCE)))
        left -= len(lines)
        if not lines:
            raise OtherForm("fewer lines than the header counts")
        if not left:
            lines[-1] = lines[-1][:-1] + END
        yield lines
    if file.read() != (CLOSING if count else b"\n" + CLOSING):
        raise OtherForm("more lines than the header counts")


def parse_records(lines: list[bytes]) -> dict[str, Any]:
    """The records on some lines. Raises OtherForm where a line is none, or two have one key."""
    records = parse_json(b"{" + b"".join(lines)[: -len(END)] + b"}")
    if len(records) != len(lines):
        raise OtherForm("a line holds no record, or two have one key")
    return records


def parse_keys(lines: list[bytes]) -> list[str]:
    """The JSON strings on some lines. Raises OtherForm."""
    quoted = all(line[:1] == line[-1:] == b'"' for line in lines)
    keys = parse_json(b"[" + b",".join(lines) + b"]")
    if not quoted or len(keys) != len(lines) or not all(isinstance(key, str) for key in keys):
        raise OtherForm("a line does not begin with a key")
    return keys
