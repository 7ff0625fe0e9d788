"""What Ray's workers do with batches of rows: embed and index them, or caption them."""

import hashlib
import json
import math
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

import config
from caption_embedder import load_caption_embedder
from image_embedder import ImageEmbedder, load_image_embedder
from prompt_generator import build_prompts
from scale.captions import caption_schema
from scale.cluster import TRIES, failure_handed_on
from scale.entries import Entry, Found, number_of
from scale.gallery import Gallery
from scale.identity import Address, Sizes
from scale.rows import Row, as_rows
from support.errors import ImageError, PipelineError, ServerError
from support.hub.revisions import locate
from support.records import ModelRef
from support.sources.images import decode_image, may_be_small
from support.text import clean_text
from support.threads import in_threads
from vlm_captioner import load_captioner

IN_A_ROW = 3  # images that fail one after another: the fault is not theirs


@dataclass(frozen=True)
class Job:
    """What all workers of a command are told."""

    address: Address
    vlm: ModelRef | None
    attempts: Any  # of scale.cluster
    ann: bool = False


class Seen(NamedTuple):
    """A row whose image was decoded and embedded."""

    row: Row
    key: str
    vector: np.ndarray
    image: Image.Image


class Worker:
    """Keeps the models and the connection of one process; called with batches of rows."""

    def __init__(self, job: Job):
        self.job = job
        self._is_ready = False

    def __call__(self, table: Any) -> Any:
        """What comes of a batch of rows, as a table."""
        with failure_handed_on(self.job.attempts):
            if not self._is_ready:  # not in __init__: of errors there Ray prints pages
                self.prepare()
                self._is_ready = True
            return self.as_table(self._work_counted(as_rows(table)))

    def prepare(self) -> None:
        """Connects, and loads the models."""
        address = self.job.address
        self.gallery = Gallery(address)
        self.images: ImageEmbedder = load_image_embedder(here(address.clip))
        self.texts = load_caption_embedder(here(address.text))
        self.sizes = Sizes(self.images.dimension, self.texts.dimension, self.images.seen_side)

    def _work_counted(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """Works on `rows`; alone on each, where one may have killed the process before."""
        import ray

        attempts = self.job.attempts
        counts = ray.get(attempts.counts.remote([row.id for row in rows]))
        done: list[dict[str, Any]] = []
        for group in [[row] for row in rows] if counts else [rows]:
            names = [row.id for row in group]
            if counts.get(names[0], 0) >= TRIES:
                killed = f"{names[0]}: given up, its process was killed {TRIES} times"
                done += self.work([group[0]._replace(image=None, error=killed)])
                continue
            ray.get(attempts.begin.remote(names))
            done += self.work(group)
            ray.get(attempts.end.remote(names))
        return done

    def work(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """What comes of `rows`, one dict each."""
        raise NotImplementedError

    def as_table(self, done: Sequence[dict[str, Any]]) -> Any:
        """These as an Arrow table."""
        raise NotImplementedError

    def embed_images(self, rows: Sequence[Row]) -> list[Seen | Row]:
        """Each of `rows` with its vector; as a row with an error where that cannot be had."""
        decoded = in_threads(self._decode, rows)
        readable = [both for both in decoded if not isinstance(both, Row)]

        def embed(some: Sequence[tuple[Row, Image.Image, Any]]) -> list[np.ndarray]:
            return list(self.images.embed_pixels([pixels for _, _, pixels in some]))

        vectors = iter(each_if_not_all(embed, readable))
        return [
            both if isinstance(both, Row) else _seen(*both[:2], next(vectors)) for both in decoded
        ]

    def _decode(self, row: Row) -> tuple[Row, Image.Image, Any] | Row:
        if row.image is None:
            return row
        try:
            image, side = decode_image(row.image, row.id), self.sizes.decoded_for
            small = side is not None and may_be_small(image, side)
            seen = decode_image(row.image, row.id, side) if small else image
            return row, image, self.images.pixels(seen)
        except ImageError as error:
            return row._replace(error=str(error))

    def embed_texts(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """The vectors of captions, by text."""
        distinct = list(dict.fromkeys(texts))
        return dict(zip(distinct, self.texts.embed_captions(distinct), strict=True))


def here(ref: ModelRef) -> ModelRef:
    """A model with its files on this machine. Raises PipelineError if they are others."""
    if ref.server is not None:
        return ref
    found = locate(ref)
    if found.revision != ref.revision:
        raise PipelineError(
            f"The model {ref.name} on {platform.node()} is {found.revision}, expected "
            f"{ref.revision}. Give all machines the same files."
        )
    return found


def _seen(row: Row, image: Image.Image, vector: np.ndarray | PipelineError) -> Seen | Row:
    if isinstance(vector, PipelineError):
        return row._replace(error=str(vector))
    assert row.image is not None
    return Seen(row, hashlib.sha256(row.image).hexdigest(), vector, image)


def each_if_not_all(
    run: Callable[[Sequence[Any]], Sequence[Any]], items: Sequence[Any], most: float = IN_A_ROW
) -> list[Any]:
    """`run(items)`; where a model fails, of each item alone, with the error in its place.

    Raises the error where `most` items in a row fail, or a server: the fault is not theirs.
    """
    try:
        return list(run(items)) if items else []
    except ServerError:
        raise
    except PipelineError as error:
        if len(items) == 1:
            return [error]
    results: list[Any] = []
    failed = 0  # one after another
    for item in items:
        results += each_if_not_all(run, [item])
        failed = failed + 1 if isinstance(results[-1], PipelineError) else 0
        if failed == most:
            raise results[-1]
    return results


class Indexer(Worker):
    """Puts images with their captions into the gallery; those that it knows are not embedded."""

    def prepare(self) -> None:
        super().prepare()
        self.sizes = self.gallery.create(self.sizes, self.job.ann)

    def as_table(self, done: Sequence[dict[str, Any]]) -> Any:
        import pyarrow as pa

        schema = pa.schema([("id", pa.string()), ("known", pa.bool_()), ("error", pa.string())])
        return pa.Table.from_pylist(list(done), schema)

    def work(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        hashes = [hashlib.sha256(row.image or b"").hexdigest() for row in rows]
        known = self.gallery.known(hashes)
        new = [row for row, key in zip(rows, hashes, strict=True) if key not in known]
        seen = iter(self.embed_images(new))
        entries, errors = dict(known), []
        for row, key in zip(rows, hashes, strict=True):
            one = row if key in known else next(seen)
            errors.append(one.error if isinstance(one, Row) else None)
            if isinstance(one, Seen):
                entries.setdefault(key, Entry(key, one.vector, row.id, number_of(key)))
            if key in entries:
                entries[key] = merged(entries[key], row)
        changed = [entry for key, entry in entries.items() if known.get(key) is not entry]
        texts = [text for entry in changed for text in entry.texts().values()]
        self.gallery.put(changed, self.embed_texts(texts))
        return [
            {"id": row.id, "known": key in known, "error": error}
            for row, key, error in zip(rows, hashes, errors, strict=True)
        ]


def merged(entry: Entry, row: Row) -> Entry:
    """An image as a row of its source has it now; a copy elsewhere adds its captions."""
    path, given = clean_text(row.id), tuple(row.captions)
    if path != entry.path:
        given = tuple(dict.fromkeys((*entry.captions, *given)))
    if path == entry.path and given == tuple(entry.captions):
        return entry
    return entry._replace(path=path, captions=given)


class Captioner(Worker):
    """Captions images with the captions of their neighbors in the gallery."""

    def prepare(self) -> None:
        super().prepare()
        job = self.job
        assert job.vlm is not None
        self.vlm = load_captioner(here(job.vlm))
        # A server that refuses an image has been asked for another one: see ServedCaptioner.
        self.most_failures = IN_A_ROW if job.vlm.server is None else math.inf
        self.sizes = self.gallery.open(self.sizes)
        self.sources = (
            ["original", "generated"] if config.USE_GENERATED_AS_CONTEXT else ["original"]
        )
        named = {"clip": job.address.clip, "vlm": job.vlm, "text": job.address.text}
        versions = {
            kind: {"name": ref.name, "revision": ref.revision} for kind, ref in named.items()
        }
        self.models = json.dumps(versions)

    def as_table(self, done: Sequence[dict[str, Any]]) -> Any:
        import pyarrow as pa

        return pa.Table.from_pylist(list(done), caption_schema())

    def work(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        seen = self.embed_images(rows)
        written = iter(self._caption([one for one in seen if isinstance(one, Seen)]))
        results = []
        for row, one in zip(rows, seen, strict=True):
            cells = next(written) if isinstance(one, Seen) else {"error": one.error}
            image = {"bytes": row.image, "path": None}
            start = {"id": row.id, "path": row.id, "image": image}
            results.append({**start, "models": self.models, **cells})
        return results

    def _caption(self, seen: Sequence[Seen]) -> list[dict[str, Any]]:
        """The cells of images that could be read."""
        if not seen:
            return []
        vectors, keys = np.stack([one.vector for one in seen]), [one.key for one in seen]
        found = self.gallery.neighbors(vectors, keys, self.sources)
        prompts = build_prompts([[hit.neighbor for hit in hits] for hits in found])
        pairs = [(one.image, prompt) for one, prompt in zip(seen, prompts, strict=True)]
        captions = each_if_not_all(self._write, pairs, self.most_failures)
        good = [clean_text(caption) for caption in captions if isinstance(caption, str)]
        embedded, shown = self.embed_texts(good), self.vlm.shown(prompts)
        cells = []
        for one, hits, prompt, caption in zip(seen, found, shown, captions, strict=True):
            start = {"key": one.key, "vector": one.vector, "neighbors": [_as_cell(h) for h in hits]}
            if isinstance(caption, PipelineError):
                cells.append({**start, "prompt": prompt, "error": str(caption)})
            else:
                text = clean_text(caption)
                made = {"caption": text, "text_vector": embedded[text], "prompt": prompt}
                cells.append({**start, **made})
        return cells

    def _write(self, pairs: Sequence[tuple[Image.Image, str]]) -> list[str]:
        return self.vlm.write_captions([image for image, _ in pairs], [text for _, text in pairs])


def _as_cell(found: Found) -> dict[str, Any]:
    """A neighbor as the column `neighbors` holds it."""
    neighbor = found.neighbor
    numbers = {"key": found.key, "index": neighbor.index, "similarity": neighbor.similarity}
    return {**numbers, "caption": neighbor.caption, "image": neighbor.image}
