"""Search over the gallery and the images captioned earlier, by text or by image."""

import os
from pathlib import Path
from typing import TypeGuard

from PIL import Image

from caption_embedder import embed_captions, open_captions
from experiments.system import System
from image_embedder import EmbeddedImages
from support.errors import SettingError
from support.records import ModelRef, Neighbor, Sample
from support.sources.files import has_image_suffix
from support.text import clean_text


def is_text(query: str | Path | Image.Image) -> TypeGuard[str]:
    """Whether a query is a text; one that names a file or has an image suffix is an image."""
    if not isinstance(query, str):
        return False
    # os.path.isfile, because Path.is_file raises for long texts.
    return not os.path.isfile(query) and not has_image_suffix(query)  # noqa: PTH113


def clean_query(text: str) -> str:
    """A text query as it is embedded. Raises SettingError for an empty one."""
    text = clean_text(text).strip()
    if not text:
        raise SettingError("The text to search for is empty.")
    return text


def search_by_text(
    query: str, system: System, text_model: ModelRef, top_k: int | None = None
) -> list[Neighbor]:
    """The `top_k` images whose captions fit `query` best."""
    embedder, vectors = open_captions(text_model, system.db_manager)
    missing = system.caption_pool(vectors).without_vector()
    embed_captions(missing, text_model, system.db_manager)
    pool = system.caption_pool(vectors)  # another program may have compacted meanwhile
    return pool.search(query, embedder.embed_query(query), vectors.matrix, top_k)


def search_by_image(
    query: Sample, system: System, images: EmbeddedImages, top_k: int | None = None
) -> list[Neighbor]:
    """The `top_k` images that look most like `query`, without itself."""
    vector = images.embed([query])[0]
    pool = system.pool(images.vectors, generated=True)
    return pool.neighbors(vector, query.content_hash, top_k)
