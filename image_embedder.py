"""Stage 2: images to unit vectors, by CLIP or SigLIP."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple, Protocol
from weakref import WeakKeyDictionary

import numpy as np
from PIL import Image

import config
from support import models
from support.batches import batches_read
from support.errors import ImageError, PipelineError
from support.hub.errors import errors_explained
from support.log import log
from support.records import ModelRef, Sample
from support.sources.images import may_be_small
from support.sources.own import own_sample
from support.storage.captions import CaptionTable
from support.storage.vectors import VectorTable
from support.text import printable
from support.threads import in_threads

BACKEND = "pil"  # of the image processor; another one shifts vectors a little: databases record it


@dataclass(frozen=True)
class ImageEmbedder:
    """A loaded CLIP or SigLIP."""

    model: Any
    processor: Any
    device: str
    dimension: int
    load_tokenizer: Callable[[], Any]  # images do without it

    def embed(self, images: Sequence[Image.Image]) -> np.ndarray:
        """(N, D) float32, unit rows, of RGB images; in batches of config.IMAGE_BATCH_SIZE."""
        return self.embed_pixels(in_threads(self.pixels, images))

    def pixels(self, image: Image.Image) -> Any:
        """A tensor (3, H, W) of an RGB image, as the model sees it."""
        return self.processor(images=[image], return_tensors="pt")["pixel_values"][0]

    def embed_pixels(self, pixels: Sequence[Any]) -> np.ndarray:
        """`embed` of images as `pixels` gives them."""
        size = config.IMAGE_BATCH_SIZE
        parts = models.run_in_batches(pixels, size, self._embed, "embedding images")
        return models.joined_rows(parts, self.dimension)

    @property
    def seen_side(self) -> int | None:
        """The pixels that the processor leaves of an image's shorter side; None if unclear."""
        size = dict(self.processor.size)
        sides = [size.get(name) for name in ("shortest_edge", "height", "width")]
        return max((side for side in sides if isinstance(side, int)), default=None)

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """(N, D) float32, unit rows, of texts in the space of the images.

        Long texts are cut to what the model takes.
        """
        tokenizer = self.load_tokenizer()
        size = config.TEXT_BATCH_SIZE

        def run(batch: Sequence[str]) -> np.ndarray:
            return self._embed_texts(batch, tokenizer)

        parts = models.run_in_batches(texts, size, run, "embedding texts")
        return models.joined_rows(parts, self.dimension)

    def _embed(self, pixels: Sequence[Any]) -> np.ndarray:
        import torch

        batch = torch.stack(list(pixels)).to(self.device, self.model.dtype)  # (B, 3, H, W)
        with torch.inference_mode():
            features = self.model.get_image_features(pixel_values=batch).pooler_output  # (B, D)
        return unit_rows(features.float().cpu().numpy(), "The image model")

    def _embed_texts(self, texts: Sequence[str], tokenizer: Any) -> np.ndarray:
        import torch

        longest = self.model.config.text_config.max_position_embeddings
        # SigLIP was trained on texts padded to its full length. CLIP reads the end of a text, which
        # sees nothing of what follows.
        full = "siglip" in self.model.config.model_type
        inputs = tokenizer(
            list(texts),
            padding="max_length" if full else "longest",
            truncation=True,
            max_length=min(tokenizer.model_max_length, longest),
            return_tensors="pt",
        )
        names = [name for name in ("input_ids", "attention_mask") if name in inputs]
        wanted = {name: inputs[name].to(self.device) for name in names}
        with torch.inference_mode():
            features = self.model.get_text_features(**wanted).pooler_output  # (B, D)
        return unit_rows(features.float().cpu().numpy(), "The text side of the image model")


def load_image_embedder(ref: ModelRef, kind: str = "clip") -> ImageEmbedder:
    """The image model of `ref`, loaded once per process; one of each `kind` is kept."""
    return models.load_once(kind, ref, lambda *where: _build(ref.name, *where))


def _build(name: str, path: str, arguments: dict[str, Any], device: str) -> ImageEmbedder:
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    without_dtype = models.without_dtype(arguments)
    processor = AutoImageProcessor.from_pretrained(path, backend=BACKEND, **without_dtype)
    model = AutoModel.from_pretrained(path, **arguments).to(device).eval()
    if not hasattr(model, "get_image_features"):
        raise PipelineError(
            f"'{name}' is no CLIP or SigLIP model: it gives no image embedding. Check "
            "CLIP_MODEL_NAME."
        )
    projected = getattr(model.config, "projection_dim", None)
    dimension = projected or model.config.vision_config.hidden_size
    dimension = models.checked_dimension(dimension, name)

    @cache
    def load_tokenizer() -> Any:
        with errors_explained(name, "model"):
            return AutoTokenizer.from_pretrained(path, **without_dtype)

    return ImageEmbedder(model, processor, device, dimension, load_tokenizer)


def unit_rows(vectors: np.ndarray, what: str) -> np.ndarray:
    """`vectors` (N, D) scaled to unit length, float32.

    Raises PipelineError for a row that is zero or not finite.
    """
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.all(np.isfinite(lengths) & (lengths > 0)):
        raise PipelineError(
            f"{what} gave a vector that is zero or not a number. With DTYPE = "
            '"float16", use "auto"; else its files may be damaged: fetch them again, or change '
            "CLIP_MODEL_NAME."
        )
    return (vectors / lengths).astype(np.float32)


# --- Embedding what has no vector yet -------------------------------------------------------------
class EmbeddedImages(NamedTuple):
    """The image model, and the vectors of all images that it has seen."""

    embedder: ImageEmbedder
    vectors: VectorTable

    def embed(
        self, samples: Sequence[Sample], decoded: Sequence[Image.Image] | None = None
    ) -> np.ndarray:
        """(N, D) float32, unit rows, of the samples' images, decoded as those of `vectors` were.

        `decoded` are their images as for any model, used where they are the same. Raises ImageError
        for one that cannot be read.
        """
        images: Sequence[Image.Image | None] = decoded or [None] * len(samples)
        pairs = list(zip(samples, images, strict=True))
        return self.embedder.embed_pixels(in_threads(lambda pair: self._read_again(*pair), pairs))

    def _read_again(self, sample: Sample, image: Image.Image | None) -> Any:
        seen = self.vectors.decoded_for
        if image is not None and (seen is None or not may_be_small(image, seen)):
            return self.embedder.pixels(image)
        return self.read(sample)

    def read(self, sample: Sample) -> Any:
        """What the model sees of an image. Raises ImageError."""
        return self.embedder.pixels(sample.image_for(self.vectors.decoded_for))


class SplitDataset(Protocol):
    """A dataset, split into gallery and experiments."""

    unreadable: dict[str, str]  # images that cannot be decoded: label -> reason

    def get_training_data(self) -> Sequence[Sample]: ...

    def get_experiment_data(self) -> Sequence[Sample]: ...


class ImageVectorStore(Protocol):
    """Where vectors of images are kept: the databases."""

    @property
    def caption_table(self) -> CaptionTable: ...

    def image_vectors(
        self, ref: ModelRef, dimension: int, backend: str, decoded_for: int | None = None
    ) -> VectorTable: ...

    def add_vectors(self, table: VectorTable, vectors: Mapping[str, np.ndarray]) -> None: ...


def embed_dataset(
    dataset: SplitDataset, ref: ModelRef, store: ImageVectorStore, experiments: bool = False
) -> EmbeddedImages:
    """Embeds the images for which `store` has no vector yet by the image model of `ref`.

    The gallery, and what was captioned earlier, so that it gives context under a new model too; all
    `experiments`, so that a search finds them, only if asked for. Images that cannot be read are
    added to the dataset's `unreadable`.
    """
    embedder = load_image_embedder(ref)
    vectors = store.image_vectors(ref, embedder.dimension, BACKEND, embedder.seen_side)
    images = EmbeddedImages(embedder, vectors)
    captions = store.caption_table
    now = _Seen(dataset, (captions.loads, vectors.loads), len(captions.changed), experiments)
    missing = _without_vector(captions, vectors, now)
    readable = [sample for sample in missing if sample.label not in dataset.unreadable]
    skipped = embed_gallery(readable, images, lambda new: store.add_vectors(vectors, new))
    dataset.unreadable.update(skipped)
    if before := _seen.get(vectors):
        now = now._replace(experiments=experiments or (before.covers(now) and before.experiments))
    _seen[vectors] = now  # what was missing has been embedded, or cannot be
    return images


class _Seen(NamedTuple):
    """What was looked through for images without a vector."""

    dataset: SplitDataset
    loads: tuple[int, int]  # of captions and vectors
    changes: int  # of captions
    experiments: bool  # whether all of them were looked at

    def covers(self, other: "_Seen") -> bool:
        """Whether all that `other` looks through was seen, but for what changed since."""
        same = self.dataset is other.dataset and self.loads == other.loads
        return same and self.experiments >= other.experiments


_seen: WeakKeyDictionary[VectorTable, _Seen] = WeakKeyDictionary()


def _without_vector(captions: CaptionTable, vectors: VectorTable, now: _Seen) -> list[Sample]:
    """The images of the gallery, and those captioned earlier, that have no vector.

    All are looked at once, then only those whose records have changed.
    """
    samples = [*now.dataset.get_training_data()]
    if now.experiments:
        samples += now.dataset.get_experiment_data()
    keys: Iterable[str] = captions.records
    before = _seen.get(vectors)
    if before and before.covers(now):
        samples, keys = [], captions.changed[before.changes :]
    missing = [sample for sample in samples if sample.content_hash not in vectors.rows]
    records = {key: captions.records[key] for key in keys if key not in vectors.rows}
    captioned = {key: record for key, record in records.items() if record["generated"]}
    return missing + _captioned_earlier(captioned, now.dataset, missing)


def _captioned_earlier(
    captioned: Mapping[str, Mapping[str, Any]], dataset: SplitDataset, missing: Sequence[Sample]
) -> list[Sample]:
    """The images of the records `captioned` that are not `missing` and can be found."""
    if not captioned:
        return []
    experiments = dataset.get_experiment_data()
    samples = [sample for sample in experiments if sample.content_hash in captioned]
    known = {sample.content_hash for sample in (*missing, *samples)}
    for key, record in captioned.items():
        if record["original_index"] is None and key not in known:
            samples += _own_image(key, record["image"])
    return samples


def _own_image(content_hash: str, path: str) -> list[Sample]:
    """The sample of a user's image captioned earlier; none if its file is gone or another."""
    try:
        own = own_sample(path)
    except ImageError:
        return []  # moved or deleted since
    return [own] if own.content_hash == content_hash else []


def embed_gallery(
    samples: Sequence[Sample], images: EmbeddedImages, save: Callable[[dict[str, np.ndarray]], None]
) -> dict[str, str]:
    """Embeds `samples` batch by batch, passing each to `save` as {content hash: (D,) vector}.

    So an interrupted run loses one batch at most. An image that cannot be read is skipped; returns
    their labels with the reasons.
    """
    skipped: dict[str, str] = {}

    def read(batch: Sequence[Sample]) -> list[tuple[Sample, Any]]:
        return in_threads(partial(_read_if_possible, images=images), batch)

    size, ahead = config.IMAGE_BATCH_SIZE, images.embedder.device != "cpu"
    for batch in batches_read(samples, size, "Embedding images", "image", read, ahead):
        pixels = {sample.content_hash: seen for sample, seen in batch if not _failed(seen)}
        skipped |= {sample.label: str(seen) for sample, seen in batch if _failed(seen)}
        if pixels:
            vectors = images.embedder.embed_pixels(list(pixels.values()))
            save(dict(zip(pixels, vectors, strict=True)))
    for label, reason in skipped.items():
        log.warning("Skipped %s", reason if printable(label) in reason else f"{label}: {reason}")
    return skipped


def _read_if_possible(sample: Sample, images: EmbeddedImages) -> tuple[Sample, Any]:
    """A sample with what the model sees of it, or the error."""
    try:
        return sample, images.read(sample)
    except ImageError as error:
        return sample, error


def _failed(seen: Any) -> bool:
    return isinstance(seen, ImageError)
