"""What one machine's JSON databases hold, moved up to Milvus: nothing is computed again."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

import config
from caption_embedder import load_caption_embedder
from db_manager import DatabaseManager, slug
from image_embedder import BACKEND
from scale.entries import Entry
from scale.gallery import Gallery
from scale.identity import Sizes
from scale.places import is_uri
from support.batches import batches
from support.errors import SettingError
from support.paths import expand_home
from support.records import ModelRef
from support.storage.captions import CaptionRecord
from support.storage.documents import read_header
from support.storage.journal import JOURNAL_NAME
from support.storage.vectors import VectorTable

AT_ONCE = 500


class Moved(NamedTuple):
    """How many images were moved up, and how many have no vector yet."""

    images: int
    without_vector: int


def is_databases(source: str) -> bool:
    """Whether a source is the folder of a dataset's databases."""
    files = config.CAPTION_DB, JOURNAL_NAME
    return not is_uri(source) and all((expand_home(source) / name).is_file() for name in files)


def move_up(source: str, gallery: Gallery, ann: bool) -> Moved:
    """Puts all that the databases hold into the gallery.

    Captions that no search by text has embedded yet are embedded. Raises SettingError where the
    databases have no vectors of the gallery's model.
    """
    folder, address = expand_home(source), gallery.address
    manager = DatabaseManager(folder, read_header(folder / config.CAPTION_DB).get("dataset", ""))
    images = _image_table(manager, address.clip)
    embedder = load_caption_embedder(address.text)
    sizes = Sizes(images.dimension, embedder.dimension, images.decoded_for)
    there = gallery.create(sizes, ann)
    if there != sizes:
        raise SettingError(
            f"The gallery '{address.name}' holds vectors of images decoded for {there.decoded_for} "
            f"pixels, '{source}' for {sizes.decoded_for}: move it up under another --name."
        )
    texts = _caption_vectors(manager, address.text, embedder.dimension)
    entries = list(_entries(manager.captions, images))
    for part in batches(entries, AT_ONCE, "Moving images", "image"):
        # What `scale caption --add` has written stays, if this machine wrote nothing.
        known = gallery.known([entry.key for entry in part if not entry.generated])
        some = [
            entry._replace(generated=known[entry.key].generated) if entry.key in known else entry
            for entry in part
        ]
        named = list(dict.fromkeys(text for entry in some for text in entry.texts().values()))
        new = [text for text in named if text not in texts]
        vectors = dict(zip(new, embedder.embed_captions(new), strict=True))
        gallery.put(some, {**vectors, **{text: texts[text] for text in named if text in texts}})
    return Moved(len(entries), len(manager.captions) - len(entries))


def _image_table(manager: DatabaseManager, ref: ModelRef) -> VectorTable:
    path = manager.folder / slug(ref.name) / config.IMAGE_EMBEDDING_DB
    if not path.is_file():
        made = ", ".join(file.parent.name for file in manager.vector_files()) or "no model"
        raise SettingError(
            f"'{manager.folder}' holds no image vectors of {ref.name}, but of: {made}. Choose that "
            "model (--clip-model), or compute them first with main.py."
        )
    return manager.image_vectors(ref, read_header(path)["dimension"], BACKEND)


def _caption_vectors(
    manager: DatabaseManager, ref: ModelRef, dimension: int
) -> dict[str, np.ndarray]:
    """The vectors of captions that are there, by text."""
    if not (manager.folder / slug(ref.name) / config.CAPTION_EMBEDDING_DB).is_file():
        return {}
    table = manager.caption_vectors(ref, dimension)
    return {text: table.matrix[row] for text, row in table.rows.items()}


def _entries(records: Mapping[str, CaptionRecord], table: VectorTable) -> Iterator[Entry]:
    for key, record in records.items():
        if key in table.rows:
            vector, place = table.matrix[table.rows[key]], (record["image"], record["index"])
            written = record["generated"]["caption"] if record["generated"] else ""
            yield Entry(key, vector, *place, record["captions"], written)
