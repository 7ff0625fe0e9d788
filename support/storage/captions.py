"""captions.json: the original and generated captions of each image."""

from collections.abc import Collection, Iterator
from typing import Any

from support.storage.damage import DamagedFile, keep_corrupt_copy
from support.storage.documents import Document, Header, Records, readable_records
from support.storage.errors import unreadable
from support.storage.lines import RecordLines, parse_records
from support.storage.strict_json import to_json

LARGEST_INDEX = 2**53  # beyond it, programs that read JSON numbers as floats would confuse two
CaptionRecord = dict[str, Any]  # index, image, original_index, captions, generated
CAPTION_FIELDS: dict[str, tuple[type, ...]] = {
    "index": (int,),
    "image": (str,),
    "original_index": (int, type(None)),
    "captions": (list,),
    "generated": (dict, type(None)),
}


class CaptionTable(Document):
    """Content hash -> record."""

    records: dict[str, CaptionRecord]
    next_index: int
    changed: list[str]  # the keys of records in the order of their changes, since the last load

    def __len__(self) -> int:
        return len(self.records)

    @property
    def compaction(self) -> str | None:
        """The mark of the compaction that wrote the file.

        None without a file, or in one from elsewhere. Its key on disk is "fold".
        """
        return self.header.get("fold")

    def key_of(self, index: int) -> str | None:
        """The content hash of the image with a number."""
        return self._owners.get(index)

    def mark(self, compaction: str | None) -> None:
        """Sets the mark that the next save writes."""
        self.header["fold"] = compaction

    def update(self, records: Records) -> None:
        taken: dict[int, str] = {}
        for key, record in records.items():
            check_caption_record(key, record)
            index = record["index"]
            other = taken.setdefault(index, self._owners.get(index, key))
            if other != key:
                raise ValueError(
                    f"records {other[:80]!r} and {key[:80]!r} have the same index {index}"
                )
        for key, record in records.items():
            if key in self.records:
                self._owners.pop(self.records[key]["index"], None)
            self.records[key] = record
            self.changed.append(key)
            self.next_index = max(self.next_index, record["index"] + 1)
        self._owners.update(taken)

    def remove(self, keys: Collection[str]) -> None:
        """Takes records out. Their numbers are never given again: the header keeps the next one."""
        self.header["next_index"] = self.next_index
        self._replace_records({k: v for k, v in self.records.items() if k not in keys})

    def try_update(self, records: Records) -> bool:
        """Adds or replaces records unless one is bad; whether it did."""
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
        self._replace_records({})
        lost = 0
        with unreadable(self.path):
            data = self.path.read_bytes()
        for record in readable_records(data):
            lost += not self.try_update(record)
        kept = f"{len(self)} records kept, {lost} could not be read (see {copy.name})."
        return [f"{self.path} was damaged: {kept}"]

    def _adopt_header(self, header: Header) -> None:
        self.mark(header.get("fold"))
        self.header.pop("next_index", None)
        if type(index := header.get("next_index")) is int and 0 <= index < LARGEST_INDEX:
            self.header["next_index"] = index

    def _replace_records(self, records: Records) -> None:
        self.records, self.changed = {}, []
        self.next_index = self.header.get("next_index", 0)
        self.loads += 1
        self._owners: dict[int, str] = {}  # index -> key: no two images share a number
        self.update(records)

    def _replace_by_line(self, lines: RecordLines) -> None:
        self._replace_records({})
        for block in lines.blocks:
            self.update(parse_records(block))
        if len(self) != lines.header["count"]:
            raise ValueError("two records have one key")
        self.changed = []

    def _record_lines(self) -> Iterator[bytes]:
        for key, record in self.records.items():
            yield f"{to_json(key)}: {to_json(record)}".encode()


def check_caption_record(key: str, record: Any) -> None:
    """Raises ValueError for a record that is not one of captions.json."""
    if not isinstance(record, dict) or record.keys() != CAPTION_FIELDS.keys():
        raise ValueError(f"record {key[:80]!r} has not the fields {sorted(CAPTION_FIELDS)}")
    for name, kinds in CAPTION_FIELDS.items():
        if type(record[name]) not in kinds:
            raise ValueError(f"record {key[:80]!r} has a wrong {name}")
    if not 0 <= record["index"] < LARGEST_INDEX:
        raise ValueError(f"record {key[:80]!r} has the index {record['index']}")
    captions = record["captions"]
    if record["generated"]:
        captions = [*captions, record["generated"].get("caption")]
    for caption in captions:
        if not isinstance(caption, str):
            raise ValueError(f"record {key[:80]!r} has a caption that is no text")
