"""Photos and captions to vectors."""

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

import config
from benchmarks.full_models import clip_b32
from benchmarks.speed.made import WORDS, make_photos
from benchmarks.speed.measure import Line, beside
from caption_embedder import embed_each, load_caption_embedder
from demo import EMBEDDED
from image_embedder import EmbeddedImages, ImageEmbedder, embed_gallery, load_image_embedder
from support.hub.revisions import locate
from support.records import Sample
from support.sources.own import own_sample

PHOTOS, LARGE_PHOTOS, CAPTIONS = 128, 16, 1024


def photos(arguments: Namespace, folder: Path) -> Iterator[Line]:
    """Embedding photos from files, by a model of CLIP B/32's shape."""
    ref = clip_b32(folder / "clip")
    embedder = load_image_embedder(ref)
    table: Any = SimpleNamespace(decoded_for=embedder.seen_side)
    images = EmbeddedImages(embedder, table)
    samples = _samples(arguments, folder)
    paths = [sample.label for sample in samples]
    batches = _pixels(samples, images)

    def ours() -> None:
        embed_gallery(samples, images, lambda _: None)

    def tower() -> None:
        for batch in batches:
            embedder._embed(batch)

    work, count = f"embed {len(samples)} photos of 500 x 375", len(samples)
    yield beside(work, "the bare tower, batches of 32", ours, tower, ">= 0.93", items=count)
    from sentence_transformers import SentenceTransformer

    peer = SentenceTransformer(ref.path)

    def theirs() -> Any:
        return peer.encode(paths, batch_size=config.IMAGE_BATCH_SIZE, show_progress_bar=False)

    yield beside(work, "sentence-transformers", ours, theirs, ">= 1.03", items=count)
    yield from _large(folder, embedder, images)


def _samples(arguments: Namespace, folder: Path) -> list[Sample]:
    if arguments.photos is not None:
        paths = sorted(arguments.photos.glob("*.jpg"))[:PHOTOS]
    else:
        paths = make_photos(folder / "photos", PHOTOS, (500, 375))
    return [own_sample(path) for path in paths]


def _pixels(samples: list[Sample], images: EmbeddedImages) -> list[list[Any]]:
    pixels, size = [images.read(sample) for sample in samples], config.IMAGE_BATCH_SIZE
    return [pixels[start : start + size] for start in range(0, len(pixels), size)]


def _large(folder: Path, embedder: ImageEmbedder, images: EmbeddedImages) -> Iterator[Line]:
    paths = make_photos(folder / "large", LARGE_PHOTOS, (4000, 3000))
    samples = [own_sample(path) for path in paths]
    usual = [embedder.pixels(sample.image) for sample in samples]
    small = [images.read(sample) for sample in samples]
    cosines = np.sum(embedder.embed_pixels(usual) * embedder.embed_pixels(small), axis=1)
    work, lowest = "lowest cosine of their vectors, small and usual", float(cosines.min())
    yield beside(
        f"read {LARGE_PHOTOS} photos of 12 megapixels",
        "decoded to 2048 pixels",
        lambda: [images.read(sample) for sample in samples],
        lambda: [embedder.pixels(sample.image) for sample in samples],
        ">= 2",
        items=LARGE_PHOTOS,
    )
    yield Line(work, "1", lowest, None, "", lowest, None, ">= 0.999")


def captions(arguments: Namespace, folder: Path) -> Iterator[Line]:
    """Embedding captions, by the demo's MiniLM."""
    embedder = load_caption_embedder(locate(EMBEDDED.model("text")))
    random = np.random.default_rng(0)
    rows = random.integers(0, len(WORDS), (CAPTIONS, 12))
    lengths = random.integers(5, 13, CAPTIONS)
    texts = [" ".join(WORDS[w] for w in row[:n]) for row, n in zip(rows, lengths, strict=True)]

    def theirs() -> Any:
        size = config.TEXT_BATCH_SIZE
        return embedder.model.encode_document(
            texts, batch_size=size, show_progress_bar=False, normalize_embeddings=True
        )

    yield beside(
        f"embed {CAPTIONS:,} captions",
        "SentenceTransformer.encode",
        lambda: embed_each(texts, embedder, lambda _: None),
        theirs,
        ">= 0.97",
        items=CAPTIONS,
    )
