"""Stage 7: captions and text queries to unit vectors, by any sentence-transformers model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

import config
from support import models
from support.batches import batches
from support.records import ModelRef
from support.storage.vectors import VectorTable

# BGE v1.5 was trained with this before queries, but its saved configuration does not say so (see
# its model card).
BGE_QUERY_PROMPT = "Represent this sentence for searching relevant passages: "
BGE_NAMES = ("bge-small-en-v1.5", "bge-base-en-v1.5", "bge-large-en-v1.5")
BATCHES_PER_SAVE = 4


class CaptionVectorStore(Protocol):
    """Where vectors of captions are kept: the databases."""

    def caption_vectors(self, ref: ModelRef, dimension: int) -> VectorTable: ...

    def add_vectors(self, table: VectorTable, vectors: Mapping[str, np.ndarray]) -> None: ...


@dataclass(frozen=True)
class CaptionEmbedder:
    """A loaded text embedding model."""

    model: Any
    name: str
    dimension: int

    def embed_captions(self, captions: Sequence[str]) -> np.ndarray:
        """(N, D) float32, unit rows, of captions; in batches of config.TEXT_BATCH_SIZE."""
        return self._embed(captions, self.model.encode_document)

    def embed_query(self, query: str) -> np.ndarray:
        """(D,) float32, unit length, of a text query, with the model's query prompt."""
        return self.embed_queries([query])[0]

    def embed_queries(self, queries: Sequence[str]) -> np.ndarray:
        """(N, D) float32, unit rows, of text queries, with the model's query prompt."""
        prompt = query_prompt(self.name)
        options = {} if prompt is None else {"prompt": prompt}
        return self._embed(queries, self.model.encode_query, **options)

    def _embed(
        self, texts: Sequence[str], encode: Callable[..., np.ndarray], **options: str
    ) -> np.ndarray:
        size = config.TEXT_BATCH_SIZE

        def run(batch: Sequence[str]) -> np.ndarray:
            return encode(
                list(batch),
                normalize_embeddings=True,
                convert_to_numpy=True,
                batch_size=size,
                show_progress_bar=False,
                **options,
            )

        parts = models.run_in_batches(texts, size, run, "embedding captions")
        return models.joined_rows(parts, self.dimension)


def load_caption_embedder(ref: ModelRef) -> CaptionEmbedder:
    """The text model of `ref`, loaded once per process."""
    return models.load_once("text", ref, lambda *where: _build(ref.name, *where))


def query_prompt(name: str) -> str | None:
    """What to put before a text query: config's, else BGE's own for BGE, else the saved (None)."""
    if config.CAPTION_QUERY_PROMPT is not None:
        return config.CAPTION_QUERY_PROMPT
    last = name.lower().replace("\\", "/").rsplit("/", 1)[-1]
    return BGE_QUERY_PROMPT if last in BGE_NAMES else None


def _build(name: str, path: str, arguments: dict[str, Any], device: str) -> CaptionEmbedder:
    from sentence_transformers import SentenceTransformer

    settings = models.without_dtype(arguments)
    dtype = {"dtype": arguments["dtype"]}
    model = SentenceTransformer(path, device=device, model_kwargs=dtype, **settings).eval()
    dimension = models.checked_dimension(model.get_embedding_dimension(), name)
    return CaptionEmbedder(model, name, dimension)


# --- Embedding what has no vector yet -------------------------------------------------------------
class EmbeddedCaptions(NamedTuple):
    """The text model, and the vectors of all captions that it has seen."""

    embedder: CaptionEmbedder
    vectors: VectorTable


def open_captions(ref: ModelRef, store: CaptionVectorStore) -> EmbeddedCaptions:
    """The text model of `ref`, with its vectors as they are."""
    embedder = load_caption_embedder(ref)
    return EmbeddedCaptions(embedder, store.caption_vectors(ref, embedder.dimension))


def embed_captions(
    captions: Sequence[str], ref: ModelRef, store: CaptionVectorStore
) -> EmbeddedCaptions:
    """Embeds those of `captions` for which `store` has no vector yet by the text model of `ref`."""
    embedder, vectors = open_captions(ref, store)
    distinct = dict.fromkeys(captions)
    missing = [caption for caption in distinct if caption and caption not in vectors.rows]
    embed_each(missing, embedder, lambda new: store.add_vectors(vectors, new))
    return EmbeddedCaptions(embedder, vectors)


def embed_each(
    captions: Sequence[str],
    embedder: CaptionEmbedder,
    save: Callable[[dict[str, np.ndarray]], None],
) -> None:
    """Embeds `captions`, passing some batches at a time to `save` as {caption: (D,) vector}.

    The longest come first: a batch of equal lengths has little padding, and what does not fit the
    memory is known at once.
    """
    step = BATCHES_PER_SAVE * config.TEXT_BATCH_SIZE
    by_length = sorted(captions, key=len, reverse=True)
    for batch in batches(by_length, step, "Embedding captions", "caption", least=2):
        save(dict(zip(batch, embedder.embed_captions(batch), strict=True)))
