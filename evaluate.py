"""Does retrieval help? Captions of the same images under several arms, scored, with paired intervals.

    none        no context
    retrieved   the captions of the top-K images, as the pipeline does it
    random      the captions of K random gallery images
    wrong       the captions of the K images least like the query
    nearest     no model: the caption of the most similar image, copied
    consensus   no model: of the top-K captions, the one most like the others

Only original captions are context, and nothing is written to the databases. References are all captions of an image.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

import config
import metrics
import prompt_generator
import report
from caption_embedder import CaptionEmbedder, embed_missing
from demo import scoring
from image_embedder import ImageEmbedder
from records import ImageError, Neighbor, Sample, SettingError
from safe_files import to_json, unwritable
from similarity_search import Pool
from vlm_captioner import Captioner

log = logging.getLogger("captioning")

ARMS = ("none", "retrieved", "random", "wrong", "nearest", "consensus")
NEEDS_A_PROMPT = ("retrieved", "random", "wrong")
BASELINES = ("none", "retrieved")  # each arm's difference from these is given with its interval
CLIP_SCORE_PREFIX, CLIP_SCORE_WEIGHT = "A photo depicts ", 2.5  # Hessel et al. 2021, CLIPScore


@dataclass(frozen=True)
class System:
    """The loaded models, and where neighbors are found."""

    images: ImageEmbedder
    captioner: Captioner
    texts: CaptionEmbedder
    pool: Pool  # original captions only
    made_with: dict[str, Any]  # mode, dataset, models and revisions


def check_arms(names: Sequence[str] | None) -> tuple[str, ...]:
    """`names` in their usual order, all by default. Raises SettingError for one that is no arm."""
    unknown = [name for name in names or () if name not in ARMS]
    if unknown:
        raise SettingError(f"There is no arm '{unknown[0]}' (--arms). Allowed: {', '.join(ARMS)}.")
    return tuple(arm for arm in ARMS if not names or arm in names)


def evaluate(samples: Sequence[Sample], arms: Sequence[str], system: System) -> dict[str, Any]:
    """Captions `samples` under each arm and scores them; what a stopped evaluation has done is taken over.

    Returns settings, models, scores with intervals and every caption, JSON-ready.
    """
    if not system.captioner.takes_prompt and set(arms) & set(NEEDS_A_PROMPT):
        log.warning("This model takes no prompt; the arms %s do not apply.", ", ".join(NEEDS_A_PROMPT))
        arms = [arm for arm in arms if arm not in NEEDS_A_PROMPT]
    samples = list(_readable(samples))
    vectors = _embed(samples, system)
    contexts = {arm: _contexts(arm, samples, vectors, system.pool) for arm in arms}
    progress = Progress(_fingerprint(system, contexts))
    for arm in arms:
        _caption_arm(arm, samples, contexts[arm], system, progress)
    captions = {arm: [progress.done[arm, sample.content_hash] for sample in samples] for arm in arms}
    outcome = {
        **system.made_with,
        "settings": report.caption_settings(),
        "images": len(samples),
        "scores": score(captions, samples, vectors, contexts, system),
        "captions": list(_caption_rows(captions, samples)),
    }
    progress.close()
    return outcome


# --- Contexts ----------------------------------------------------------------------------------
def _contexts(arm: str, samples: Sequence[Sample], vectors: np.ndarray, pool: Pool) -> list[list[Neighbor]]:
    """The images whose captions an arm is given, for each sample."""
    k = config.TOP_K_SIMILAR
    found = []
    for sample, vector in zip(samples, vectors, strict=True):
        if arm == "none":
            found.append([])
        elif arm == "random":
            seed = int(hashlib.sha256(f"{config.RANDOM_SEED}:{sample.content_hash}".encode()).hexdigest()[:15], 16)
            found.append(pool.at_random(vector, sample.content_hash, k, seed))
        else:
            find = pool.strangers if arm == "wrong" else pool.neighbors
            found.append(find(vector, sample.content_hash, k))
    return found


def _texts(neighbors: Sequence[Neighbor]) -> list[str]:
    return [text for n in neighbors for text in n.captions[: config.CAPTIONS_PER_NEIGHBOR]]


def _readable(samples: Sequence[Sample]) -> Iterator[Sample]:
    for sample in samples:
        try:
            _ = sample.image
        except ImageError as error:
            log.warning("Left out: %s", error)
        else:
            yield sample


def _embed(samples: Sequence[Sample], system: System) -> np.ndarray:
    """(N, D) float32 unit rows of the samples' images, decoded a batch at a time."""
    step = config.IMAGE_BATCH_SIZE
    batches = [samples[start : start + step] for start in range(0, len(samples), step)]
    return np.concatenate([system.images.embed([sample.image for sample in batch]) for batch in batches])


# --- Captions ----------------------------------------------------------------------------------
class Progress:
    """The captions that an evaluation has written so far, kept in a file until it is finished."""

    def __init__(self, fingerprint: str):
        self.path = report.results_folder() / f"evaluation_{fingerprint}.partial.jsonl"
        self.done: dict[tuple[str, str], dict[str, Any]] = {}
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                try:
                    row = json.loads(line)
                except ValueError:
                    continue  # the half line of a killed run
                self.done[row["arm"], row["content_hash"]] = row

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Keeps the captions of a batch; they are on disk when this returns."""
        with unwritable(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write("\n" + "".join(to_json(row) + "\n" for row in rows))
                file.flush()
                os.fsync(file.fileno())
        self.done.update({(row["arm"], row["content_hash"]): row for row in rows})

    def close(self) -> None:
        self.path.unlink(missing_ok=True)


def _fingerprint(system: System, contexts: dict[str, list[list[Neighbor]]]) -> str:
    """Names an evaluation by all that decides its captions: models, settings, and the gallery through the contexts."""
    shown = {arm: [_texts(neighbors) for neighbors in found] for arm, found in contexts.items()}
    decisive = [system.made_with, report.caption_settings(), shown]
    return hashlib.sha256(to_json(decisive).encode()).hexdigest()[:12]


def _caption_arm(
    arm: str, samples: Sequence[Sample], contexts: Sequence[Sequence[Neighbor]], system: System, progress: Progress
) -> None:
    """Captions the samples that are not done yet under one arm."""
    pairs = [pair for pair in zip(samples, contexts, strict=True) if (arm, pair[0].content_hash) not in progress.done]
    done = len(samples) - len(pairs)
    bar = tqdm(desc=f"Arm {arm}", total=len(samples), initial=done, unit="image", disable=not config.SHOW_PROGRESS)
    with bar:
        for start in range(0, len(pairs), config.VLM_BATCH_SIZE):
            batch = pairs[start : start + config.VLM_BATCH_SIZE]
            texts = [_texts(neighbors) for _, neighbors in batch]
            captions, prompts = _write(arm, [sample for sample, _ in batch], texts, system)
            rows = zip(batch, captions, prompts, strict=True)
            progress.add(
                [{"arm": arm, "content_hash": s.content_hash, "caption": c, "prompt": p} for (s, _), c, p in rows]
            )
            bar.update(len(batch))


def _write(
    arm: str, samples: Sequence[Sample], texts: Sequence[list[str]], system: System
) -> tuple[list[str], list[str | None]]:
    """The captions of a batch, and the prompts that the model was shown (None where there was none)."""
    if arm in ("nearest", "consensus"):
        choose = _first if arm == "nearest" else lambda some: _consensus(some, system.texts)
        return [choose(some) for some in texts], [None] * len(texts)
    prompts = [prompt_generator.build_prompt(some) for some in texts]
    captions = system.captioner.write_captions([sample.image for sample in samples], prompts)
    return captions, list(prompts) if system.captioner.takes_prompt else [None] * len(prompts)


def _first(texts: Sequence[str]) -> str:
    return texts[0] if texts else ""


def _consensus(texts: Sequence[str], embedder: CaptionEmbedder) -> str:
    """The text with the highest mean cosine similarity to the others; the first among equals."""
    if len(texts) < 3:
        return _first(texts)
    vectors = embedder.embed_captions(texts)  # (K, D)
    similarity = np.round(vectors @ vectors.T, 6)
    return texts[int(np.argmax(similarity.sum(axis=1)))]


def _caption_rows(captions: dict[str, list[dict[str, Any]]], samples: Sequence[Sample]) -> Iterator[dict[str, Any]]:
    """One row an image: its references, and under each arm the caption and the prompt."""
    for number, sample in enumerate(samples):
        arms = {arm: {key: rows[number][key] for key in ("caption", "prompt")} for arm, rows in captions.items()}
        yield {
            "experiment_index": sample.role_index,
            "image": sample.label,
            "references": list(sample.captions),
            "arms": arms,
        }


# --- Scores ----------------------------------------------------------------------------------
def score(
    captions: dict[str, list[dict[str, Any]]],
    samples: Sequence[Sample],
    vectors: np.ndarray,
    contexts: dict[str, list[list[Neighbor]]],
    system: System,
) -> dict[str, dict[str, Any]]:
    """arm -> metric -> {value, and difference and 95 % interval against each baseline}."""
    weights = metrics.bootstrap_weights(len(samples), config.RANDOM_SEED % 2**32)
    whole = np.ones(len(samples))
    texts = {arm: [row["caption"] for row in rows] for arm, rows in captions.items()}
    text_vectors = _embed_texts([*texts.values(), *(sample.captions for sample in samples)], system.texts)
    statistics = {
        arm: _statistics(ours, contexts[arm], samples, vectors, text_vectors, system) for arm, ours in texts.items()
    }
    table: dict[str, dict[str, Any]] = {}
    for arm, ours in statistics.items():
        table[arm] = {metric: {"value": float(statistic(whole))} for metric, statistic in ours.items()}
        for baseline in BASELINES:
            if baseline not in statistics or baseline == arm:
                continue
            for metric, statistic in ours.items():
                interval = metrics.paired_interval(statistic, statistics[baseline][metric], weights)
                table[arm][metric][f"minus_{baseline}"] = dict(
                    zip(("difference", "low", "high"), interval, strict=True)
                )
    return table


def _statistics(
    captions: Sequence[str],
    contexts: Sequence[Sequence[Neighbor]],
    samples: Sequence[Sample],
    vectors: np.ndarray,
    text_vectors: dict[str, np.ndarray],
    system: System,
) -> dict[str, Any]:
    """metric -> its value as a function of how often each image counts."""
    references = [sample.captions for sample in samples]
    scores = metrics.score_captions(captions, references)
    texts = [_texts(neighbors) for neighbors in contexts]
    copied = [metrics.copied_share(c, context, r) for c, context, r in zip(captions, texts, references, strict=True)]
    values = {
        "cider": scores.cider,
        "rouge_l": scores.rouge_l,
        "clip_score": clip_score(captions, vectors, system.images),
        "text_cosine": text_cosine(captions, references, text_vectors),
        "copied": np.array(copied),
        **_demo_values(captions, references, system),
    }
    bleu = {f"bleu_{n + 1}": lambda weights, n=n: scores.bleu.scores(weights)[..., n] for n in range(4)}
    return bleu | {metric: metrics.mean_statistic(np.asarray(value)) for metric, value in values.items()}


def clip_score(captions: Sequence[str], vectors: np.ndarray, embedder: ImageEmbedder) -> np.ndarray:
    """(N,) CLIPScore, 2.5 * max(cos, 0) of image and caption (Hessel et al. 2021), with config's image model."""
    texts = embedder.embed_texts([CLIP_SCORE_PREFIX + caption for caption in captions])  # (N, D)
    return CLIP_SCORE_WEIGHT * np.maximum((texts * vectors).sum(axis=1), 0)


def text_cosine(
    captions: Sequence[str], references: Sequence[Sequence[str]], vectors: dict[str, np.ndarray]
) -> np.ndarray:
    """(N,) mean cosine similarity of a caption to its references; `vectors` holds each text's (D,) unit vector."""
    return np.array(
        [np.mean([vectors[c] @ vectors[text] for text in texts]) for c, texts in zip(captions, references, strict=True)]
    )


def _embed_texts(groups: Sequence[Sequence[str]], embedder: CaptionEmbedder) -> dict[str, np.ndarray]:
    """text -> (D,) unit vector for all texts of `groups`, each embedded once: all arms share the references."""
    vectors: dict[str, np.ndarray] = {}
    embed_missing(list(dict.fromkeys(text for texts in groups for text in texts)), embedder, vectors.update)
    return vectors


def _demo_values(captions: Sequence[str], references: Sequence[Sequence[str]], system: System) -> dict[str, np.ndarray]:
    """For the demo's scenes: what is named rightly, and CIDEr with the proper names of places masked."""
    if system.made_with["dataset"] != "demo":
        return {}
    scores = [scoring.scene_scores(c, texts) for c, texts in zip(captions, references, strict=True)]
    masked = [[scoring.mask_places(text) for text in texts] for texts in references]
    cider = metrics.score_captions([scoring.mask_places(c) for c in captions], masked).cider
    return {"cider_masked": cider} | {key: np.array([row[key] for row in scores]) for key in scores[0]}
