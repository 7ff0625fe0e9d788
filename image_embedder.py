"""Stage 2: images to unit vectors, by CLIP or SigLIP."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

import config
import model_loader
from records import ImageError, ModelRef, PipelineError, Sample

log = logging.getLogger("captioning")

BACKEND = "pil"  # of the image processor; another one shifts embeddings a little, so databases record it


@dataclass(frozen=True)
class ImageEmbedder:
    """A loaded CLIP or SigLIP."""

    model: Any
    processor: Any
    device: str
    dimension: int
    tokenizer: Callable[[], Any]  # loads the tokenizer, which images do without

    def embed(self, images: Sequence[Image.Image]) -> np.ndarray:
        """(N, D) float32, unit rows, of RGB images; in batches of config.IMAGE_BATCH_SIZE."""
        batches = model_loader.in_batches(images, config.IMAGE_BATCH_SIZE, self._embed_batch, "embedding images")
        return np.concatenate([np.zeros((0, self.dimension), np.float32), *batches])

    def _embed_batch(self, images: Sequence[Image.Image]) -> np.ndarray:
        import torch

        inputs = self.processor(images=list(images), return_tensors="pt").to(self.device, self.model.dtype)
        with torch.inference_mode():
            features = self.model.get_image_features(pixel_values=inputs["pixel_values"]).pooler_output  # (B, D)
        return unit_rows(features.float().cpu().numpy(), "The image model")

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """(N, D) float32, unit rows, of texts in the space of the images; long ones are cut to what the model takes."""
        tokenizer = self.tokenizer()

        def run(batch: Sequence[str]) -> np.ndarray:
            import torch

            length = min(tokenizer.model_max_length, self.model.config.text_config.max_position_embeddings)
            inputs = tokenizer(
                list(batch), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
            )
            wanted = {key: inputs[key].to(self.device) for key in ("input_ids", "attention_mask") if key in inputs}
            with torch.inference_mode():
                features = self.model.get_text_features(**wanted).pooler_output  # (B, D)
            return unit_rows(features.float().cpu().numpy(), "The text side of the image model")

        batches = model_loader.in_batches(texts, config.TEXT_BATCH_SIZE, run, "embedding texts")
        return np.concatenate([np.zeros((0, self.dimension), np.float32), *batches])


def load_image_embedder(ref: ModelRef) -> ImageEmbedder:
    """The image model of `ref`, loaded once a process."""
    return model_loader.load_once("clip", ref, lambda *where: _build(ref.name, *where))


def _build(name: str, path: str, arguments: dict, device: str) -> ImageEmbedder:
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    without_dtype = {key: value for key, value in arguments.items() if key != "dtype"}
    processor = AutoImageProcessor.from_pretrained(path, backend=BACKEND, **without_dtype)
    model = AutoModel.from_pretrained(path, **arguments).to(device).eval()
    if not hasattr(model, "get_image_features"):
        raise PipelineError(f"'{name}' is no CLIP or SigLIP model: it gives no image embedding. Check CLIP_MODEL_NAME.")
    dimension = getattr(model.config, "projection_dim", None) or model.config.vision_config.hidden_size
    return ImageEmbedder(
        model, processor, device, dimension, lambda: AutoTokenizer.from_pretrained(path, **without_dtype)
    )


def embed_gallery(
    samples: Sequence[Sample], embedder: ImageEmbedder, save: Callable[[dict[str, np.ndarray]], None]
) -> dict[str, str]:
    """Embeds `samples` batch by batch, giving each batch to `save` as {content hash: (D,) vector} before the next.

    So an interrupted run loses one batch at most. An image that cannot be read is skipped; returned are their labels
    with the reasons.
    """
    skipped: dict[str, str] = {}
    with tqdm(
        total=len(samples), desc="Embedding images", unit="image", disable=not (samples and config.SHOW_PROGRESS)
    ) as bar:
        for start in range(0, len(samples), config.IMAGE_BATCH_SIZE):
            batch = samples[start : start + config.IMAGE_BATCH_SIZE]
            images = _readable(batch, skipped)
            if images:
                save(dict(zip(images, embedder.embed(list(images.values())), strict=True)))
            bar.update(len(batch))
    for label, reason in skipped.items():
        log.warning("Skipped %s", reason if label in reason else f"{label}: {reason}")
    return skipped


def _readable(samples: Sequence[Sample], skipped: dict[str, str]) -> dict[str, Image.Image]:
    """The decoded images by content hash; those that cannot be read go to `skipped`."""
    images = {}
    for sample in samples:
        try:
            images[sample.content_hash] = sample.image
        except ImageError as error:
            skipped[sample.label] = str(error)
    return images


def unit_rows(vectors: np.ndarray, what: str) -> np.ndarray:
    """`vectors` (N, D) scaled to unit length, float32. Raises PipelineError for a row that is not finite, or zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.all(np.isfinite(lengths) & (lengths > 0)):
        raise PipelineError(f'{what} gave a vector that is zero or not a number. With DTYPE = "float16", use "auto".')
    return (vectors / lengths).astype(np.float32)
