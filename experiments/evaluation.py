"""Does retrieval help? Captions of the same images under several arms, scored, with intervals.

The arms are in arms.py, or the points of a sweep. Nothing is written to the databases. References
are all captions of an image.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np

import config
from caption_embedder import CaptionEmbedder, load_caption_embedder
from experiments.arm_captions import CaptionWriter
from experiments.arms import NEED_A_PROMPT, Arm, contexts_of
from experiments.identity import settings_of_former_names, short_hash
from experiments.near_copies import NearCopies, find_near_copies
from experiments.progress import CaptionRow, Progress
from experiments.results import made_with
from experiments.scores import ImageScores, Scorer
from experiments.sweep import Plan
from experiments.system import System
from experiments.why import gains
from image_embedder import EmbeddedImages, ImageEmbedder, load_image_embedder
from similarity_search import Pool
from support.batches import batches
from support.errors import ImageError, PipelineError, SettingError
from support.extra_scores import ExtraScores
from support.log import log
from support.records import ModelRef, Neighbor, Sample
from support.result import MadeWith
from support.settings import caption_settings, changed_settings
from support.text import first_few
from vlm_captioner import AnyCaptioner, load_captioner

Contexts = dict[str, list[list[str]]]  # arm -> for each image, the captions that it is shown
Rows = Mapping[str, list[CaptionRow]]  # arm -> the captions of the images


@dataclass(frozen=True)
class Pipeline:
    """The models, and where neighbors are found."""

    images: EmbeddedImages
    load_captioner: Callable[[], AnyCaptioner]  # with config's settings as they are then
    caption_embedder: CaptionEmbedder
    score_embedder: ImageEmbedder  # of CLIPScore
    score_model: ModelRef
    pool: Pool  # original captions only
    gallery: Sequence[Sample]
    made_with: MadeWith
    extra: ExtraScores | None = None  # where captions can be parsed


def evaluate_system(
    system: System,
    embed_images: Callable[[System], EmbeddedImages],
    samples: int | None,
    plan: Plan,
    extra: Mapping[str, ExtraScores],
) -> "Evaluation":
    """`evaluate` as planned for the first `samples` experiment images, by default all.

    `extra` are further scores, for datasets by name.
    """
    experiments = system.dataset_loader.get_experiment_data()
    _check_samples(samples, experiments)
    models, score_model = system.models(), system.model("clip_score")
    images = embed_images(system)
    same = (score_model.path, score_model.revision) == (models.clip.path, models.clip.revision)
    pipeline = Pipeline(
        images=images,
        load_captioner=lambda: load_captioner(models.vlm),
        caption_embedder=load_caption_embedder(models.text),
        score_embedder=images.embedder if same else load_image_embedder(score_model, "clip_score"),
        score_model=score_model,
        pool=system.pool(images.vectors, generated=False),
        gallery=system.dataset_loader.get_training_data(),
        made_with=made_with(system.dataset_loader, models),
        extra=extra.get(system.dataset_loader.name),
    )
    return evaluate(experiments[:samples], plan, pipeline)


def _check_samples(wanted: int | None, available: Sequence[Sample]) -> None:
    """Raises SettingError when there are not `wanted` images; None means all."""
    if wanted is not None and not 1 <= wanted <= len(available):
        raise SettingError(
            f"--samples is {wanted}; it must be a whole number from 1 to {len(available)}."
        )


class Evaluation(NamedTuple):
    """What an evaluation has found, and its captions on disk, to be closed once that is saved."""

    outcome: dict[str, Any]  # settings, models, scores with intervals, every caption; JSON-ready
    progress: Progress


def evaluate(samples: Sequence[Sample], plan: Plan, pipeline: Pipeline) -> Evaluation:
    """Captions `samples` under each planned arm and scores them; goes on after a stop.

    Raises PipelineError if no sample can be read.
    """
    arms = _applicable(plan.arms, pipeline)
    samples = _readable(samples)
    vectors = _embed(samples, pipeline)
    copies = find_near_copies(samples, pipeline.gallery)
    nearest = cache(lambda k: pipeline.pool.neighbors_of(samples, vectors, k))
    asked = samples, vectors, pipeline.pool, nearest
    contexts = {arm.name: contexts_of(arm, *asked) for arm in arms}
    progress = Progress(*_names(pipeline, contexts))
    writer = CaptionWriter(pipeline.load_captioner, pipeline.caption_embedder, progress)
    for arm in arms:
        writer.caption(arm, samples, contexts[arm.name])
    rows = {arm.name: progress.rows(arm.name, samples) for arm in arms}
    found = nearest(config.TOP_K_SIMILAR)
    outcome = _outcome(samples, vectors, found, arms, rows, contexts, copies, pipeline)
    return Evaluation({**outcome, "sweep": plan.sweep}, progress)


def _outcome(
    samples: Sequence[Sample],
    vectors: np.ndarray,
    nearest: Sequence[Sequence[Neighbor]],
    arms: Sequence[Arm],
    rows: Rows,
    contexts: Contexts,
    copies: NearCopies,
    pipeline: Pipeline,
) -> dict[str, Any]:
    """All that is known of the captions `rows`, JSON-ready."""
    embedders = pipeline.images.embedder, pipeline.caption_embedder, pipeline.score_embedder
    scorer = Scorer(samples, vectors, *embedders, pipeline.extra)
    captions = {arm: [row["caption"] for row in written] for arm, written in rows.items()}
    baselines = {arm.name: arm.baselines for arm in arms}
    found = scorer.score(captions, contexts, baselines, [s.content_hash in copies for s in samples])
    model = pipeline.score_model
    return {
        **pipeline.made_with,
        "settings": caption_settings(),
        "images": len(samples),
        "clip_score_model": {
            "name": model.name,
            "revision": model.revision,
            "circular": pipeline.score_embedder is pipeline.images.embedder,
        },
        "near_copies": [
            {
                "experiment_index": sample.role_index,
                "image": sample.label,
                "gallery_image": copies[sample.content_hash].label,
            }
            for sample in samples
            if sample.content_hash in copies
        ],
        "scores": found.scores,
        "scores_without_near_copies": found.without_copies,
        "recall": found.recall,
        "gains": gains(samples, captions, found.by_image, nearest),
        "captions": list(_caption_rows(rows, samples, nearest, found.by_image)),
    }


def _applicable(arms: Sequence[Arm], pipeline: Pipeline) -> list[Arm]:
    """The arms that mean something for this model."""
    if not any(arm.needs_a_prompt for arm in arms) or pipeline.load_captioner().takes_prompt:
        return list(arms)
    names = ", ".join(NEED_A_PROMPT)
    log.warning("This model takes no prompt; the arms %s do not apply.", names)
    left = [arm for arm in arms if not arm.needs_a_prompt]
    there = {arm.name for arm in left}
    return [
        replace(arm, baselines={k: v for k, v in arm.baselines.items() if v in there})
        for arm in left
    ]


def _readable(samples: Sequence[Sample]) -> list[Sample]:
    readable, reasons = [], []
    for sample in samples:
        try:
            _ = sample.image
            readable.append(sample)
        except ImageError as error:
            reasons.append(str(error))
    if not readable:
        raise PipelineError(
            f"None of the {len(samples)} experiment images can be read: {first_few(reasons)}"
        )
    if reasons:
        log.warning(
            "%d images cannot be read and are left out: %s", len(reasons), first_few(reasons)
        )
    return readable


def _embed(samples: Sequence[Sample], pipeline: Pipeline) -> np.ndarray:
    """(N, D) float32 unit rows of the samples' images, decoded a batch at a time."""
    parts = []
    for batch in batches(samples, config.IMAGE_BATCH_SIZE, "Embedding images", "image"):
        parts.append(pipeline.images.embed(batch))
    return np.concatenate(parts)


# --- Captions -------------------------------------------------------------------------------------
def _names(pipeline: Pipeline, contexts: Contexts) -> tuple[str, str]:
    """Names for an evaluation by all that decides its captions, the second as in version 0.1.

    Models, settings, and the gallery through the contexts.
    """
    origin = pipeline.made_with
    now = [origin, changed_settings(), contexts]
    former = [origin, settings_of_former_names(), contexts]
    return short_hash(now), short_hash(former)


def _caption_rows(
    rows: Mapping[str, list[CaptionRow]],
    samples: Sequence[Sample],
    nearest: Sequence[Sequence[Neighbor]],
    by_image: ImageScores,
) -> Iterator[dict[str, Any]]:
    """One row per image: its references, and under each arm the caption, prompt and scores."""
    for number, sample in enumerate(samples):
        arms = {}
        for arm, written in rows.items():
            row = written[number]
            scores = {name: _plain(v[number]) for name, v in by_image[arm].items()}
            arms[arm] = {"caption": row["caption"], "prompt": row["prompt"], "scores": scores}
        yield {
            "experiment_index": sample.role_index,
            "image": sample.label,
            "content_hash": sample.content_hash,
            "references": list(sample.captions),
            "similar_images": [neighbor.as_dict() for neighbor in nearest[number]],
            "arms": arms,
        }


def _plain(value: float) -> float | None:
    """A score for JSON; None where an image has none, such as a share of no words."""
    return None if np.isnan(value) else round(float(value), 6)
