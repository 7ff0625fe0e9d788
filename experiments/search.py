"""Search over the dataset and the images captioned earlier, by text, by image, or by both.

A text is compared with captions by the text model, or with the images themselves ("look") by the
text side of the image model. Both rankings can be fused.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from caption_embedder import CaptionEmbedder, embed_captions, open_captions
from experiments.query import SCOPES, Query
from experiments.system import System
from image_embedder import EmbeddedImages
from similarity_search import checked_k
from support.candidates import Record, Scope
from support.errors import SettingError
from support.log import log
from support.paths import absolute_path
from support.records import Neighbor
from support.sources.files import is_inside
from support.storage.captions import CaptionTable

# Of reciprocal rank fusion (Cormack, Clarke and Büttcher 2009, https://doi.org/10.1145/1571941.1572114):
# an image at place r of a list gets 1 / (RANK_CONSTANT + r).
RANK_CONSTANT = 60
# Beyond so many places of a list, found by measuring, places only order what is left.
FUSED_DEPTH, DEEPER_SHARE = 5, 1e-3
# Where fewer than this share have captions, the list by captions counts for less: else the one
# image with a caption would come first whatever is searched for.
ENOUGH_CAPTIONED = 0.1
# A query vector is the image's, plus TEXT_WEIGHT times the text's, minus WITHOUT_WEIGHT times that
# of each text to avoid, scaled to unit length. See benchmarks/README.md for these numbers.
TEXT_WEIGHT = 1.5
WITHOUT_WEIGHT = 0.5
# The image model, with a vector of every image, and of all experiments too.
EmbedImages = Callable[[System, bool], EmbeddedImages]


def search(query: Query, system: System, embed_images: EmbedImages) -> list[Neighbor]:
    """The images that fit `query` best, best first.

    The similarity is a cosine; by caption as CaptionPool.search has it; by both the fused rank,
    where 1 is the first place in both lists.
    """
    system.db_manager.refresh()
    k = checked_k(query.top_k)
    share = _share_captioned(query, system)
    by = query.by or _usual_way(query, share)
    if query.by is None and by == "caption" and share < 1:
        log.info("Some images have no caption, and are not searched; --by both searches them too.")
    if by == "caption" and not share:
        raise SettingError(
            "--by caption needs captions, and none of these images has one. Search with --by look, "
            "or caption them: main.py --image FOLDER."
        )
    scope = _scope(query.within, system)
    depth = max(k, FUSED_DEPTH) if by == "both" else k
    lists, weights = [], []
    if by == "caption" or (by == "both" and share):
        lists.append(_by_caption(query, system, scope, depth))
        weights.append(min(1.0, share / ENOUGH_CAPTIONED))
    if by in ("look", "both"):
        lists.append(_by_look(query, system, scope, depth, embed_images(system, True)))
        weights.append(1.0)
    found = lists[0] if len(lists) == 1 else fused(lists, weights)[:k]
    least = -np.inf if query.min_similarity is None else query.min_similarity
    return [neighbor for neighbor in found if neighbor.similarity >= least]


def fused(lists: Sequence[Sequence[Neighbor]], weights: Sequence[float]) -> list[Neighbor]:
    """Lists of images, best first, as one, by reciprocal rank; the similarity is 1 at most.

    Among equals, an image of an earlier list comes first. Each comes with the caption that it has
    in the first of the lists that holds it.
    """
    scores: dict[int, float] = {}
    images: dict[int, Neighbor] = {}
    for found, weight in zip(lists, weights, strict=True):
        for place, neighbor in enumerate(found, 1):
            part = weight * (RANK_CONSTANT + 1) / (RANK_CONSTANT + place) / sum(weights)
            part *= 1 if place <= FUSED_DEPTH else DEEPER_SHARE
            scores[neighbor.index] = scores.get(neighbor.index, 0) + part
            images.setdefault(neighbor.index, neighbor)
    # In the order in which the lists name them, which sorting keeps among equals.
    best = [replace(images[index], similarity=round(scores[index], 9)) for index in scores]
    return sorted(best, key=lambda neighbor: -neighbor.similarity)


# --- How and where --------------------------------------------------------------------------------
def _usual_way(query: Query, share: float) -> str:
    """How to search for a query that does not say it, where a share of the images has captions.

    A text by captions, which found more on demo/tuning_queries.json than look or both did. Where
    fewer than half of the images have one, captions alone would leave most images out.
    """
    if query.image is not None or not share:
        return "look"
    return "caption" if share >= 0.5 else "both"


def _share_captioned(query: Query, system: System) -> float:
    """The share of the images searched that have a caption that is searched, from 0 to 1."""
    table, dataset = system.db_manager.caption_table, system.dataset_loader.hashes
    state = (table.loads, len(table.changed), dataset, query.within)
    known = _shares.get(table)
    if known is None or known[0] != state:
        known = _shares[table] = state, _count_captioned(system, query.within)
    return known[1]


_shares: WeakKeyDictionary[CaptionTable, tuple[tuple[Any, ...], float]] = WeakKeyDictionary()


def _count_captioned(system: System, within: str) -> float:
    """The share among the gallery and the user's own images, in a scope.

    Experiments are not counted: their captions are not searched. Raises SettingError for a folder
    of which nothing is known.
    """
    captioned = total = others = 0
    scope = _scope(within, system)
    gallery, experiments = system.dataset_loader.hashes
    for key, record in system.db_manager.captions.items():
        of_gallery = key in gallery
        if scope is None or scope(key, record):
            others += key in experiments
            if of_gallery or record["original_index"] is None:
                total += 1
                captioned += bool(record["generated"]) or (of_gallery and bool(record["captions"]))
    if within not in SCOPES and not total + others:
        raise SettingError(
            f"Nothing in {within} is known to the databases of {system.dataset_loader.name}. To "
            "search that folder, name it by --dataset instead of --in."
        )
    return captioned / max(1, total)


def _scope(within: str, system: System) -> Scope | None:
    """Which images are searched; None for all."""
    gallery, folders = system.dataset_loader.hashes.gallery, {within, absolute_path(within)}

    def in_gallery(key: str, _: Record) -> bool:
        return key in gallery

    def is_captioned(_: str, record: Record) -> bool:
        return bool(record["generated"])

    def is_in_folder(_: str, record: Record) -> bool:
        return any(is_inside(record["image"], folder) for folder in folders)

    scopes: dict[str, Any] = {"all": None, "gallery": in_gallery, "captioned": is_captioned}
    return scopes.get(within, is_in_folder)


# --- The two rankings -----------------------------------------------------------------------------
def _by_caption(query: Query, system: System, scope: Scope | None, k: int) -> list[Neighbor]:
    """The `k` images whose captions fit a text best."""
    text_model = system.model("text")
    embedder, vectors = open_captions(text_model, system.db_manager)
    missing = system.caption_pool(vectors).without_vector()
    embed_captions(missing, text_model, system.db_manager)
    pool = system.caption_pool(vectors)  # another program may have compacted meanwhile
    vector = _text_vector(query, embedder)
    return pool.search(query.text, vector, vectors.matrix, k, query.without, scope)


def _text_vector(query: Query, embedder: CaptionEmbedder) -> np.ndarray:
    """(D,) what captions are compared with."""
    wanted = embedder.embed_query(query.text)
    avoided = [embedder.embed_query(text) for text in query.without]
    return _sum([wanted], avoided)


def _by_look(
    query: Query, system: System, scope: Scope | None, k: int, images: EmbeddedImages
) -> list[Neighbor]:
    """The `k` images that look most like a query; never its own image."""
    pool = system.searched_images(images.vectors, scope)
    own = None if query.image is None else query.image.content_hash
    return pool.neighbors(_look_vector(query, images), own, k)


def _look_vector(query: Query, images: EmbeddedImages) -> np.ndarray:
    """(D,) what the images' vectors are compared with."""
    texts = [query.text] * bool(query.text) + list(query.without)
    vectors = list(images.embedder.embed_texts(texts)) if texts else []
    wanted = [] if query.image is None else [images.embed([query.image])[0]]
    if query.text:
        weight = TEXT_WEIGHT if wanted else 1.0
        wanted.append(weight * vectors.pop(0))
    return _sum(wanted, vectors)


def _sum(wanted: Sequence[np.ndarray], avoided: Sequence[np.ndarray]) -> np.ndarray:
    """(D,) unit length: the vectors that are wanted, less those to avoid.

    One vector alone stays as it is, to the bit.
    """
    if len(wanted) == 1 and not avoided:
        return wanted[0]
    total = np.sum(wanted, axis=0) - WITHOUT_WEIGHT * np.sum(avoided, axis=0)
    length = float(np.linalg.norm(total))
    if length < 1e-6:
        raise SettingError("What is searched for and what is to be avoided are the same.")
    return (total / length).astype(np.float32)
