"""Database files with arbitrary content: readers answer or raise an error that they name."""

import base64
import json
import math
import shutil
import zlib
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from db_manager import DatabaseManager
from support.errors import DatabaseError
from tests import attacks

FILES = (
    "captions.json",
    "org--clip/image_embeddings.json",
    "org--text/caption_embeddings.json",
    "journal.jsonl",
)

any_text = st.text(st.characters(exclude_categories=()), max_size=20)  # lone surrogates too
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
numbers = st.lists(st.floats(width=32), min_size=attacks.DIMENSION, max_size=attacks.DIMENSION)
vectors = numbers.map(lambda row: base64.b64encode(np.array(row, "<f4").tobytes()).decode())
index = st.integers(-1, 10) | st.just(2**70)
text = st.text(max_size=5)
records = st.fixed_dictionaries(
    {
        "index": index | values,
        "image": text | values,
        "original_index": index | st.none() | values,
        "captions": st.lists(text, max_size=2) | values,
        "generated": st.none() | st.fixed_dictionaries({"caption": text | values}) | values,
    }
)
keys = st.sampled_from([attacks.sample(n).content_hash for n in range(3)]) | st.text(max_size=5)
tables = st.dictionaries(keys, records | vectors | values, max_size=4)
updates = st.dictionaries(st.sampled_from(FILES) | st.text(max_size=8), tables | values, max_size=3)


@st.composite
def damages(draw):
    """A file's name, and what to make of its bytes."""
    name, kind = (
        draw(st.sampled_from(FILES)),
        draw(st.sampled_from(["bytes", "cut", "flip", "splice", "json", "line"])),
    )
    if kind == "bytes":
        return name, _becomes(draw(st.binary(max_size=200)))
    if kind == "cut":
        part = draw(st.floats(0, 1))
        return name, lambda data: data[: int(part * len(data))]
    if kind in ("flip", "splice"):
        part, other = draw(st.floats(0, 1)), draw(st.binary(min_size=1, max_size=10))
        skipped = len(other) if kind == "flip" else 0
        return (
            name,
            lambda data: (
                data[: int(part * len(data))] + other + data[int(part * len(data)) + skipped :]
            ),
        )
    if kind == "line":
        update = json.dumps(draw(updates)).encode()
        return "journal.jsonl", lambda data: data + _line(data, update)
    table, field, value = (
        draw(tables),
        draw(st.sampled_from(["count", "dimension", "content", "fold"])),
        draw(values),
    )
    return name, lambda data: _document(data, table, field, value)


def _becomes(data: bytes):
    return lambda _: data


def _line(data: bytes, update: bytes) -> bytes:
    """A journal line that fits its checksum, whatever it says."""
    lines = data.splitlines()
    before = int(lines[-1][10:18], 16) if len(lines) > 1 else 0
    return b'{"crc32":"%08x","updates":' % zlib.crc32(update, before) + update + b"}\n"


def _document(data: bytes, table: dict, field: str, value: object) -> bytes:
    try:
        document = json.loads(data)
        document["records"].update(table)
        document["header"].update({"count": len(document["records"]), field: value})
    except (ValueError, KeyError):  # the journal
        document = {"header": {field: value}, "records": table}
    return json.dumps(document).encode()


class Target:
    """Databases to damage: compacted ones, with some updates in the journal."""

    def __init__(self, folder: Path):
        self.whole, self.folder = folder / "whole", folder / "damaged"
        attacks.update_databases(self.whole)
        db = DatabaseManager(self.whole, "photos")
        attacks.add(db, 50)
        db.close(compact=False)

    def attack(self, name: str, damage) -> str:
        """Open, update and compact damaged databases, and rebuild them if need be.

        Returns "read" or "refused".
        """
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.whole, self.folder)
        path = self.folder / name
        data = damage(path.read_bytes())
        path.write_bytes(data)
        try:
            self.use()
        except DatabaseError as error:
            text = str(error)
            assert path.name in text or "journal.jsonl" in text, text
            assert "--rebuild" in text or "newer" in text, text
            kept = [copy.read_bytes() for copy in (path, *self.folder.rglob("*.corrupt*"))]
            assert any(copy.startswith(data) for copy in kept), (
                "the damaged file was changed, and no copy kept"
            )
            if "newer" not in text:
                self.use(rebuild=True)
                self.use()
            return "refused"
        self.use()
        return "read"

    def use(self, rebuild: bool = False) -> None:
        with DatabaseManager(self.folder, "photos", rebuild) as db:
            attacks.add(db, 60)
            matrix = db.image_vectors(attacks.CLIP, attacks.DIMENSION, "pil").matrix
            assert all(math.isclose(np.linalg.norm(row), 1, abs_tol=1e-2) for row in matrix)
