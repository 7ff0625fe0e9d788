"""Retrieval itself: recall@k among the experiment images, by the image model and by captions."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from caption_embedder import CaptionEmbedder
from image_embedder import ImageEmbedder

PLACES = (1, 5, 10)
QUERIES_AT_ONCE = 1024  # rows of the similarities that are in memory together
Recall = dict[str, float]  # "1", "5", "10" -> share of the queries


def clip_recall(
    references: Sequence[Sequence[str]], vectors: np.ndarray, embedder: ImageEmbedder
) -> dict[str, Recall]:
    """Recall of images by texts and of texts by images, by both sides of the image model.

    As CLIP_benchmark counts it: the share of texts whose image is among the first k images, and of
    images that have one of their texts among the first k texts. `vectors` (N, D) are the images'.
    https://github.com/LAION-AI/CLIP_benchmark
    """
    texts = [text for some in references for text in some]
    owners = _owners(references)  # (T,)
    looks = embedder.embed_texts(texts)  # (T, D)
    images = np.arange(len(references))
    return {
        "text_to_image": _recall(looks, vectors, lambda rows: owners[rows, None] == images),
        "image_to_text": _recall(vectors, looks, lambda rows: images[rows, None] == owners),
    }


def caption_recall(
    references: Sequence[Sequence[str]],
    captions: Mapping[str, Sequence[str]],
    vectors: Mapping[str, np.ndarray],
    embedder: CaptionEmbedder,
) -> dict[str, Recall]:
    """Recall of images by texts, through captions, by the text model.

    Each reference is a query. Arm -> its recall where an image is known by the arm's caption alone;
    beside the arms "references": where it is known by its other references. `vectors` are those of
    captions and references, (D,) each.
    """
    texts = [text for some in references for text in some]
    owners, images = _owners(references), np.arange(len(references))
    queries = embedder.embed_queries(texts)  # (T, D)

    def is_right(rows: slice) -> np.ndarray:
        return owners[rows, None] == images

    found = {}
    for arm, written in captions.items():
        known = np.array([vectors[text] for text in written])  # (N, D)
        found[arm] = _recall(queries, known, is_right)
    several = np.flatnonzero(np.bincount(owners, minlength=len(images))[owners] > 1)
    if len(several):
        known = np.array([vectors[text] for text in texts])  # (T, D)
        found["references"] = _recall_of_others(queries, known, owners, several)
    return found


def _owners(references: Sequence[Sequence[str]]) -> np.ndarray:
    """(T,) the image of each text."""
    return np.repeat(np.arange(len(references)), [len(some) for some in references])


def _recall(
    queries: np.ndarray, known: np.ndarray, is_right: Callable[[slice], np.ndarray]
) -> Recall:
    """The share of `queries` (Q, D) with a right one among the first k of `known` (M, D)."""
    ranks: list[np.ndarray] = []
    for start in range(0, len(queries), QUERIES_AT_ONCE):
        rows = slice(start, start + QUERIES_AT_ONCE)
        ranks.append(_best_ranks(queries[rows] @ known.T, is_right(rows)))
    return _shares(ranks)


def _recall_of_others(
    queries: np.ndarray, known: np.ndarray, owners: np.ndarray, several: np.ndarray
) -> Recall:
    """Recall of images, each as near as the nearest of its texts `known` (T, D) but the query."""
    starts = np.searchsorted(owners, np.arange(owners[-1] + 1))
    ranks: list[np.ndarray] = []
    for start in range(0, len(several), QUERIES_AT_ONCE):
        rows = several[start : start + QUERIES_AT_ONCE]
        similarities = queries[rows] @ known.T  # (B, T)
        similarities[np.arange(len(rows)), rows] = -np.inf
        by_image = np.maximum.reduceat(similarities, starts, axis=1)  # (B, N)
        ranks.append(_best_ranks(by_image, owners[rows, None] == np.arange(len(starts))))
    return _shares(ranks)


def _best_ranks(similarities: np.ndarray, is_right: np.ndarray) -> np.ndarray:
    """(B,) the place of the best right one of each row, from 0; equal ones keep their order."""
    rounded = np.round(similarities, 6)  # beyond that, they depend on the machine
    rows = np.arange(len(rounded))
    first = np.where(is_right, rounded, -np.inf).argmax(axis=1)
    best = rounded[rows, first][:, None]
    earlier = np.arange(rounded.shape[1]) < first[:, None]
    return ((rounded > best) | ((rounded == best) & earlier)).sum(axis=1)


def _shares(ranks: Sequence[np.ndarray]) -> Recall:
    joined = np.concatenate(ranks)
    return {str(k): float((joined < k).mean()) for k in PLACES}
