"""The arms of an evaluation: what the model is shown of other images, under which settings.

none        no context
retrieved   the captions of the top-K images, as the pipeline does it
random      the captions of K random gallery images
wrong       the captions of the K images least like the query
nearest     no model: the caption of the most similar image, copied
consensus   no model: of the top-K captions, the one most like the others

Only original captions are context.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import config
from caption_embedder import CaptionEmbedder
from prompt_generator import context_captions
from similarity_search import Pool
from support.errors import SettingError
from support.records import Neighbor, Sample
from support.settings import caption_settings

ARMS = ("none", "retrieved", "random", "wrong", "nearest", "consensus")
NEED_A_PROMPT = ("retrieved", "random", "wrong")
WITHOUT_MODEL = ("nearest", "consensus")
BASELINES = ("none", "retrieved")  # each arm's difference from these is given with its interval
# What decides the prompt alone: with the same prompt, these change no caption.
SETTINGS_OF_PROMPTS = (
    "top_k_similar",
    "captions_per_neighbor",
    "use_generated_as_context",
    "max_context_caption_chars",
    "prompt_template",
    "prompt_without_context",
)


@dataclass(frozen=True)
class Arm:
    """What the experiment images are captioned with."""

    name: str  # as --arms gives it; in a sweep also the settings
    kind: str  # one of ARMS
    # Settings of config that it changes.
    settings: Mapping[str, Any] = field(default_factory=dict)
    # "none" and "retrieved" -> the name of the arm that it is compared with
    baselines: Mapping[str, str] = field(default_factory=dict)

    @property
    def needs_a_prompt(self) -> bool:
        return self.kind in NEED_A_PROMPT

    @contextmanager
    def configured(self) -> Iterator[None]:
        """Its settings hold in config meanwhile."""
        before = {name: getattr(config, name) for name in self.settings}
        try:
            vars(config).update(self.settings)
            yield
        finally:
            vars(config).update(before)


def arms_named(names: Sequence[str] | None) -> list[Arm]:
    """The arms of `names` in their usual order, all by default. Raises SettingError for others."""
    unknown = [name for name in names or () if name not in ARMS]
    if unknown:
        raise SettingError(f"There is no arm '{unknown[0]}' (--arms). Allowed: {', '.join(ARMS)}.")
    chosen = [name for name in ARMS if not names or name in names]
    there = [name for name in BASELINES if name in chosen]
    return [Arm(name, name, {}, {b: b for b in there if b != name}) for name in chosen]


def contexts_of(
    arm: Arm,
    samples: Sequence[Sample],
    vectors: np.ndarray,
    pool: Pool,
    nearest: Callable[[int], list[list[Neighbor]]],
) -> list[list[str]]:
    """The captions that an arm is shown for each sample, whose images' `vectors` (N, D) are.

    `nearest(k)` are the samples' k nearest images in `pool`.
    """
    with arm.configured():
        if arm.kind in BASELINES[1:] + WITHOUT_MODEL:
            found = nearest(config.TOP_K_SIMILAR)
        else:
            pairs = zip(samples, vectors, strict=True)
            found = [_others(arm.kind, sample, vector, pool) for sample, vector in pairs]
        return [context_captions(neighbors) for neighbors in found]


def _others(kind: str, sample: Sample, vector: np.ndarray, pool: Pool) -> list[Neighbor]:
    """The images that a baseline takes in place of the nearest ones."""
    key, k = sample.content_hash, config.TOP_K_SIMILAR
    if kind == "none":
        return []
    if kind == "wrong":
        return pool.least_similar(vector, key, k)
    seed = hashlib.sha256(f"{config.RANDOM_SEED}:{key}".encode()).hexdigest()[:15]
    return pool.at_random(vector, key, k, int(seed, 16))


def copied_caption(arm: Arm, texts: Sequence[str], embedder: CaptionEmbedder) -> str:
    """The caption of an arm that copies one of `texts`."""
    if arm.kind == "consensus" and len(texts) > 2:
        return _consensus(texts, embedder)
    return texts[0] if texts else ""


def _consensus(texts: Sequence[str], embedder: CaptionEmbedder) -> str:
    """The text with the highest mean cosine similarity to the others; the first among equals."""
    vectors = embedder.embed_captions(texts)  # (K, D)
    similarity = np.round(vectors @ vectors.T, 6)
    return texts[int(np.argmax(similarity.sum(axis=1)))]


def generation_key() -> tuple[Any, ...]:
    """What decides the caption of an image beside model and prompt, by config as it is now."""
    return tuple(v for k, v in caption_settings().items() if k not in SETTINGS_OF_PROMPTS)
