"""Does retrieval help? Captions of the same images under several arms, scored, with intervals.

none        no context
retrieved   the captions of the top-K images, as the pipeline does it
random      the captions of K random gallery images
wrong       the captions of the K images least like the query
nearest     no model: the caption of the most similar image, copied
consensus   no model: of the top-K captions, the one most like the others

Only original captions are context, and nothing is written to the databases. References are all
captions of an image.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

import config
from caption_embedder import CaptionEmbedder, load_caption_embedder
from experiments.identity import settings_of_former_names, short_hash
from experiments.progress import CaptionRow, Progress
from experiments.results import made_with
from experiments.scores import ImageScores, Scorer
from experiments.system import System
from image_embedder import EmbeddedImages
from prompt_generator import build_prompt, context_captions
from similarity_search import Pool
from support.batches import batches
from support.errors import ImageError, PipelineError, SettingError
from support.extra_scores import ExtraScores
from support.log import log
from support.records import Neighbor, Sample
from support.result import MadeWith
from support.settings import caption_settings, changed_settings
from support.text import first_few
from vlm_captioner import AnyCaptioner, load_captioner

ARMS = ("none", "retrieved", "random", "wrong", "nearest", "consensus")
NEED_A_PROMPT = ("retrieved", "random", "wrong")
NEED_NEIGHBORS = ("retrieved", "nearest", "consensus")
Contexts = dict[str, list[list[str]]]  # arm -> for each image, the captions that it is shown


@dataclass(frozen=True)
class Pipeline:
    """The loaded models, and where neighbors are found."""

    images: EmbeddedImages
    captioner: AnyCaptioner
    caption_embedder: CaptionEmbedder
    pool: Pool  # original captions only
    made_with: MadeWith
    extra: ExtraScores | None = None  # where captions can be parsed


def evaluate_system(
    system: System,
    embed_images: Callable[[System], EmbeddedImages],
    samples: int | None,
    arms: Sequence[str] | None,
    extra: Mapping[str, ExtraScores],
) -> "Evaluation":
    """`evaluate` for the first `samples` experiment images; all of both by default.

    `extra` are further scores, for datasets by name.
    """
    chosen, models = check_arms(arms), system.models()
    images = embed_images(system)
    pipeline = Pipeline(
        images=images,
        captioner=load_captioner(models.vlm),
        caption_embedder=load_caption_embedder(models.text),
        pool=system.pool(images.vectors, generated=False),
        made_with=made_with(system.dataset_loader, models),
        extra=extra.get(system.dataset_loader.name),
    )
    return evaluate(system.dataset_loader.get_experiment_data()[:samples], chosen, pipeline)


def check_arms(names: Sequence[str] | None) -> tuple[str, ...]:
    """`names` in their usual order, all by default. Raises SettingError for one that is no arm."""
    unknown = [name for name in names or () if name not in ARMS]
    if unknown:
        raise SettingError(f"There is no arm '{unknown[0]}' (--arms). Allowed: {', '.join(ARMS)}.")
    return tuple(arm for arm in ARMS if not names or arm in names)


def check_samples(wanted: int | None, available: Sequence[Sample]) -> None:
    """Raises SettingError when there are not `wanted` images; None means all."""
    if wanted is not None and not 1 <= wanted <= len(available):
        raise SettingError(
            f"--samples is {wanted}; it must be a whole number from 1 to {len(available)}."
        )


class Evaluation(NamedTuple):
    """What an evaluation has found, and its captions on disk, to be closed once that is saved."""

    outcome: dict[str, Any]  # settings, models, scores with intervals, every caption; JSON-ready
    progress: Progress


def evaluate(samples: Sequence[Sample], arms: Sequence[str], pipeline: Pipeline) -> Evaluation:
    """Captions `samples` under each arm and scores them; resumes an evaluation that was stopped.

    Raises PipelineError if no sample can be read.
    """
    arms = _applicable(arms, pipeline.captioner)
    samples = _readable(samples)
    vectors = _embed(samples, pipeline)
    nearest = pipeline.pool.neighbors_of(samples, vectors)
    contexts = _contexts(arms, samples, vectors, nearest, pipeline.pool)
    progress = Progress(*_names(pipeline, contexts))
    for arm in arms:
        _caption_arm(arm, samples, contexts[arm], pipeline, progress)
    rows = {arm: progress.rows(arm, samples) for arm in arms}
    models = pipeline.images.embedder, pipeline.caption_embedder
    scorer = Scorer(samples, vectors, *models, pipeline.extra)
    scores, by_image = scorer.score(_captions(rows), contexts)
    outcome = {
        **pipeline.made_with,
        "settings": caption_settings(),
        "images": len(samples),
        "scores": scores,
        "captions": list(_caption_rows(rows, samples, nearest, by_image)),
    }
    return Evaluation(outcome, progress)


def _applicable(arms: Sequence[str], captioner: AnyCaptioner) -> list[str]:
    """The arms that mean something for this model."""
    if captioner.takes_prompt or not set(arms) & set(NEED_A_PROMPT):
        return list(arms)
    names = ", ".join(NEED_A_PROMPT)
    log.warning("This model takes no prompt; the arms %s do not apply.", names)
    return [arm for arm in arms if arm not in NEED_A_PROMPT]


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


# --- Contexts -------------------------------------------------------------------------------------
def _contexts(
    arms: Sequence[str],
    samples: Sequence[Sample],
    vectors: np.ndarray,
    nearest: list[list[Neighbor]],
    pool: Pool,
) -> Contexts:
    """The captions that each arm is shown for each sample; `nearest` are their neighbors."""
    contexts: Contexts = {}
    for arm in arms:
        found = nearest
        if arm not in NEED_NEIGHBORS:
            pairs = zip(samples, vectors, strict=True)
            found = [_others(arm, sample, vector, pool) for sample, vector in pairs]
        contexts[arm] = [context_captions(neighbors) for neighbors in found]
    return contexts


def _others(arm: str, sample: Sample, vector: np.ndarray, pool: Pool) -> list[Neighbor]:
    """The images that a baseline takes in place of the nearest ones."""
    key, k = sample.content_hash, config.TOP_K_SIMILAR
    if arm == "none":
        return []
    if arm == "wrong":
        return pool.least_similar(vector, key, k)
    seed = hashlib.sha256(f"{config.RANDOM_SEED}:{key}".encode()).hexdigest()[:15]
    return pool.at_random(vector, key, k, int(seed, 16))


# --- Captions -------------------------------------------------------------------------------------
def _names(pipeline: Pipeline, contexts: Contexts) -> tuple[str, str]:
    """Names for an evaluation by all that decides its captions, the second as in version 0.1.

    Models, settings, and the gallery through the contexts.
    """
    origin = pipeline.made_with
    now = [origin, changed_settings(), contexts]
    former = [origin, settings_of_former_names(), contexts]
    return short_hash(now), short_hash(former)


def _caption_arm(
    arm: str,
    samples: Sequence[Sample],
    contexts: Sequence[list[str]],
    pipeline: Pipeline,
    progress: Progress,
) -> None:
    """Captions the samples that are not done yet under one arm."""
    pairs = zip(samples, contexts, strict=True)
    missing = [pair for pair in pairs if (arm, pair[0].content_hash) not in progress.done]
    done = len(samples) - len(missing)
    for batch in batches(missing, config.VLM_BATCH_SIZE, f"Arm {arm}", "image", done=done):
        found = [sample for sample, _ in batch]
        progress.add(_write(arm, found, [texts for _, texts in batch], pipeline))


def _write(
    arm: str, samples: Sequence[Sample], texts: Sequence[list[str]], pipeline: Pipeline
) -> list[CaptionRow]:
    """The captions of a batch, with the prompts that the model was shown (None without one)."""
    shown: list[str | None]
    if arm in ("nearest", "consensus"):
        captions = [_copied(arm, some, pipeline.caption_embedder) for some in texts]
        shown = [None] * len(texts)
    else:
        prompts = [build_prompt(some) for some in texts]
        images = [sample.image for sample in samples]
        captions = pipeline.captioner.write_captions(images, prompts)
        shown = pipeline.captioner.shown(prompts)
    return [
        {"arm": arm, "content_hash": sample.content_hash, "caption": caption, "prompt": prompt}
        for sample, caption, prompt in zip(samples, captions, shown, strict=True)
    ]


def _copied(arm: str, texts: Sequence[str], embedder: CaptionEmbedder) -> str:
    """The caption of an arm that copies one of `texts`."""
    if arm == "consensus" and len(texts) > 2:
        return _consensus(texts, embedder)
    return texts[0] if texts else ""


def _consensus(texts: Sequence[str], embedder: CaptionEmbedder) -> str:
    """The text with the highest mean cosine similarity to the others; the first among equals."""
    vectors = embedder.embed_captions(texts)  # (K, D)
    similarity = np.round(vectors @ vectors.T, 6)
    return texts[int(np.argmax(similarity.sum(axis=1)))]


def _captions(rows: Mapping[str, list[CaptionRow]]) -> dict[str, list[str]]:
    """Arm -> the captions alone."""
    captions = {}
    for arm, written in rows.items():
        captions[arm] = [row["caption"] for row in written]
    return captions


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
