"""Stage 7: captions and text queries to unit vectors, by any sentence-transformers model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

import config
import model_loader
from records import ModelRef

# BGE v1.5 was trained with this before queries, but its saved configuration does not say so (see its model card).
BGE_QUERY_PROMPT = "Represent this sentence for searching relevant passages: "
BGE_NAMES = ("bge-small-en-v1.5", "bge-base-en-v1.5", "bge-large-en-v1.5")


@dataclass(frozen=True)
class CaptionEmbedder:
    """A loaded text embedding model."""

    model: Any
    name: str
    dimension: int

    def embed_captions(self, captions: Sequence[str]) -> np.ndarray:
        """(N, D) float32, unit rows, of captions; in batches of config.TEXT_BATCH_SIZE."""
        encode = self.model.encode_document
        return self._embed(captions, lambda batch: encode(list(batch), **self._options()))

    def embed_query(self, query: str) -> np.ndarray:
        """(D,) float32, unit length, of a text query, with the model's query prompt."""
        prompt = query_prompt(self.name)
        options = self._options() if prompt is None else {**self._options(), "prompt": prompt}
        return self._embed([query], lambda batch: self.model.encode_query(list(batch), **options))[0]

    def _embed(self, texts: Sequence[str], run: Callable[[Sequence[str]], np.ndarray]) -> np.ndarray:
        batches = model_loader.in_batches(texts, config.TEXT_BATCH_SIZE, run, "embedding captions")
        return np.concatenate([np.zeros((0, self.dimension), np.float32), *batches])

    @staticmethod
    def _options() -> dict[str, Any]:
        return {
            "normalize_embeddings": True,
            "convert_to_numpy": True,
            "batch_size": config.TEXT_BATCH_SIZE,
            "show_progress_bar": False,
        }


def load_caption_embedder(ref: ModelRef) -> CaptionEmbedder:
    """The text model of `ref`, loaded once a process."""
    return model_loader.load_once("text", ref, lambda *where: _build(ref.name, *where))


def query_prompt(name: str) -> str | None:
    """What to put before a text query: config's, else BGE's own for BGE, else what the model saved (None)."""
    if config.CAPTION_QUERY_PROMPT is not None:
        return config.CAPTION_QUERY_PROMPT
    return BGE_QUERY_PROMPT if name.lower().replace("\\", "/").rsplit("/", 1)[-1] in BGE_NAMES else None


def _build(name: str, path: str, arguments: dict, device: str) -> CaptionEmbedder:
    from sentence_transformers import SentenceTransformer

    settings = {key: value for key, value in arguments.items() if key != "dtype"}
    model = SentenceTransformer(path, device=device, model_kwargs={"dtype": arguments["dtype"]}, **settings).eval()
    return CaptionEmbedder(model, name, model.get_embedding_dimension())


def embed_missing(
    captions: Sequence[str], embedder: CaptionEmbedder, save: Callable[[dict[str, np.ndarray]], None]
) -> None:
    """Embeds `captions` batch by batch, giving each batch to `save` as {caption: (D,) vector} before the next."""
    step = 4 * config.TEXT_BATCH_SIZE  # one write for several steps
    bar = tqdm(
        total=len(captions),
        desc="Embedding captions",
        unit="caption",
        disable=len(captions) < 2 or not config.SHOW_PROGRESS,
    )
    with bar:
        for start in range(0, len(captions), step):
            batch = captions[start : start + step]
            save(dict(zip(batch, embedder.embed_captions(batch), strict=True)))
            bar.update(len(batch))
