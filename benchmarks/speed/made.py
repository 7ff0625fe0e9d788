"""Databases, photos and captions of any size, made on the spot."""

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from db_manager import DatabaseManager
from experiments.system import System
from support.records import ModelRef, SplitHashes
from support.storage.vectors import VectorTable

DIMENSION = 512  # of CLIP B/32
CLIP = ModelRef("org/clip", "org/clip", "revision")
TEXT = ModelRef("org/text", "org/text", "revision")
WORDS = """
a the two three dog dogs man woman child boy girl runs jumps sits stands plays holds wears in on
with near through over beside snow beach water ball frisbee street park field grass mountain red
blue green black white brown yellow small large young old
""".split()  # noqa: SIM905 - one word after another, as people read


class Databases:
    """Databases of `count` gallery images in a folder, with `each` captions an image.

    Their vectors are random; `clip` and `text` are the models that they pass for.
    """

    def __init__(
        self,
        folder: Path,
        count: int,
        each: int = 1,
        clip: ModelRef = CLIP,
        text: ModelRef = TEXT,
        text_dimension: int = DIMENSION,
    ):
        self.manager = DatabaseManager(folder, "photos")
        self.images = self.manager.image_vectors(clip, DIMENSION, "pil")
        self.texts = self.manager.caption_vectors(text, text_dimension)
        random = np.random.default_rng(0)
        records: dict[str, Any] = {}
        for number in range(count):
            words = random.integers(0, len(WORDS), (each, 10))
            captions = [" ".join(WORDS[w] for w in row) + f" {number}" for row in words]
            place = {"index": number, "original_index": number, "image": f"/photos/{number}.jpg"}
            records[key_of(number)] = {**place, "captions": captions, "generated": None}
        self.manager.caption_table.update(records)
        self.images._replace(list(records), unit_vectors(count))
        texts = dict.fromkeys(c for record in records.values() for c in record["captions"])
        self.texts._replace(list(texts), unit_vectors(len(texts), 1, text_dimension))
        loader: Any = SimpleNamespace(
            hashes=SplitHashes(frozenset(records)),
            model={"clip": clip, "text": text}.get,
            get_training_data=list,
            get_experiment_data=list,
            unreadable={},
        )
        self.system = System(loader, self.manager)

    def save(self) -> None:
        """Writes the documents, as a compaction does."""
        store = self.manager._store
        with store.lock.held():
            self.manager.caption_table.mark(store.journal.header().next_compaction)
            for table in (self.manager.caption_table, self.images, self.texts):
                table.save()


def opened(folder: Path) -> tuple[DatabaseManager, VectorTable, VectorTable]:
    """The databases in a folder, with their vectors of images and captions."""
    manager = DatabaseManager(folder, "photos")
    images = manager.image_vectors(CLIP, DIMENSION, "pil")
    return manager, images, manager.caption_vectors(TEXT, DIMENSION)


def key_of(number: int) -> str:
    """The content hash of an image."""
    return hashlib.sha256(str(number).encode()).hexdigest()


def unit_vectors(count: int, seed: int = 0, dimension: int = DIMENSION) -> np.ndarray:
    """(N, D) float32 random unit rows."""
    vectors = np.random.default_rng(seed).standard_normal((count, dimension), dtype=np.float32)
    for start in range(0, count, 10_000):
        rows = vectors[start : start + 10_000]
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return vectors


def make_photos(folder: Path, count: int, size: tuple[int, int], quality: int = 90) -> list[Path]:
    """JPEG files with shapes, gradients and grain, about as many bytes as photos of their size."""
    folder.mkdir(parents=True, exist_ok=True)
    random, paths = np.random.default_rng(0), []
    for number in range(count):
        coarse = random.integers(0, 256, (9, 12, 3), dtype=np.uint8)
        pixels = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))
        grain = random.normal(0, 8, pixels.shape).astype(np.float32)
        paths.append(folder / f"{number:05}.jpg")
        Image.fromarray((pixels + grain).clip(0, 255).astype(np.uint8)).save(
            paths[-1], quality=quality
        )
    return paths
