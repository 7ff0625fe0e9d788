"""Scores of each arm of an evaluation, with paired bootstrap intervals."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

import config
from caption_embedder import CaptionEmbedder, embed_each
from experiments import metrics
from experiments.meteor import MeteorCounts, meteor_counts
from experiments.recall import Recall, caption_recall, clip_recall
from image_embedder import ImageEmbedder
from support.batches import batches
from support.extra_scores import ExtraScores
from support.records import Sample

CLIP_SCORE_PREFIX, CLIP_SCORE_WEIGHT = "A photo depicts ", 2.5  # Hessel et al. 2021, CLIPScore
Baselines = Mapping[str, Mapping[str, str]]  # arm -> baseline -> the arm that stands for it
Statistic = Callable[[np.ndarray], np.ndarray]  # weights of the images (..., N) -> value (...)
Table = dict[str, dict[str, Any]]  # arm -> metric -> {value, minus_none, minus_retrieved}
ImageScores = dict[str, dict[str, np.ndarray]]  # arm -> metric -> (N,) its value for each image


class Scores(NamedTuple):
    """All scores of an evaluation."""

    scores: Table
    without_copies: Table | None  # of the images without a near-copy, where others have one
    by_image: ImageScores  # of the metrics that each image has
    recall: dict[str, Recall]  # of retrieval itself


@dataclass(frozen=True)
class Scorer:
    """What the arms of an evaluation are scored with."""

    samples: Sequence[Sample]
    vectors: np.ndarray  # (N, D) float32 unit rows of the samples' images
    image_embedder: ImageEmbedder  # the one that finds neighbors
    caption_embedder: CaptionEmbedder
    score_embedder: ImageEmbedder  # the one of CLIPScore
    extra: ExtraScores | None

    def score(
        self,
        captions: Mapping[str, list[str]],
        shown: Mapping[str, list[list[str]]],
        baselines: Baselines,
        has_copy: Sequence[bool],
    ) -> Scores:
        """Arm -> metric -> {value, and difference and 95 % interval against each baseline}.

        `captions` and `shown` hold, for each arm, the caption of each sample and the captions that
        were its context; `has_copy` says which samples have a near-copy in the gallery.
        """
        text_vectors, looks = self._embed_texts(captions), self._look_vectors(captions)
        meteor = meteor_counts(captions, self._references) or {}
        pictures = self._score_vectors()
        statistics, by_image = {}, {}
        for arm, ours in captions.items():
            values = self._values(ours, shown[arm], text_vectors, looks, pictures)
            statistics[arm], by_image[arm] = self._statistics(ours, values, meteor.get(arm))
        kept = ~np.array(has_copy, bool)
        without = None if kept.all() else _table(statistics, baselines, kept)
        recall = clip_recall(self._references, self.vectors, self.image_embedder)
        recall |= caption_recall(self._references, captions, text_vectors, self.caption_embedder)
        return Scores(_table(statistics, baselines, kept | True), without, by_image, recall)

    @property
    def _references(self) -> list[Sequence[str]]:
        return [sample.captions for sample in self.samples]

    def _texts(self, captions: Mapping[str, list[str]]) -> list[str]:
        """All captions and references, each once: the arms share the references."""
        groups = [*captions.values(), *self._references]
        return list(dict.fromkeys(text for group in groups for text in group))

    def _embed_texts(self, captions: Mapping[str, list[str]]) -> dict[str, np.ndarray]:
        """Text -> (D,) unit vector by the text model."""
        vectors: dict[str, np.ndarray] = {}
        embed_each(self._texts(captions), self.caption_embedder, vectors.update)
        return vectors

    def _look_vectors(self, captions: Mapping[str, list[str]]) -> dict[str, np.ndarray]:
        """Text -> (D,) unit vector by the text side of CLIPScore's model."""
        texts = self._texts(captions)
        vectors = self.score_embedder.embed_texts([CLIP_SCORE_PREFIX + text for text in texts])
        return dict(zip(texts, vectors, strict=True))

    def _score_vectors(self) -> np.ndarray:
        """(N, D) unit rows of the samples' images by CLIPScore's model."""
        if self.score_embedder is self.image_embedder:
            return self.vectors
        parts = []
        for batch in batches(self.samples, config.IMAGE_BATCH_SIZE, "CLIPScore", "image"):
            parts.append(self.score_embedder.embed([sample.image for sample in batch]))
        return np.concatenate(parts)

    def _values(
        self,
        captions: Sequence[str],
        shown: Sequence[list[str]],
        text_vectors: Mapping[str, np.ndarray],
        looks: Mapping[str, np.ndarray],
        pictures: np.ndarray,
    ) -> dict[str, Any]:
        """Metric -> (N,) its value for each image, of those that need the models' vectors."""
        references = self._references
        return {
            "clip_score": clip_score(captions, pictures, looks),
            "ref_clip_score": ref_clip_score(captions, references, pictures, looks),
            "text_cosine": text_cosine(captions, references, text_vectors),
            "copied": copied_shares(captions, shown, references),
            "words": [len(metrics.tokenize(caption).split()) for caption in captions],
        }

    def _statistics(
        self, captions: Sequence[str], values: dict[str, Any], meteor: MeteorCounts | None
    ) -> tuple[dict[str, Statistic], dict[str, np.ndarray]]:
        """Metric -> its value as a function of how often each image counts; and of each image."""
        scores = metrics.score_captions(captions, self._references)
        values = {"cider": scores.cider, "rouge_l": scores.rouge_l, **values}
        values |= self._extra_values(captions, self._references)
        by_image = {metric: np.asarray(value, float) for metric, value in values.items()}
        statistics = {f"bleu_{n}": _bleu(scores.bleu, n) for n in (1, 2, 3, 4)}
        for n in (1, 2):
            statistics[f"distinct_{n}"] = metrics.distinct_statistic(captions, n)
        for metric, value in by_image.items():
            statistics[metric] = metrics.mean_statistic(value)
        if meteor is not None:
            statistics["meteor"], by_image["meteor"] = meteor.of_corpus, meteor.of_images()
        return statistics, by_image

    def _extra_values(
        self, captions: Sequence[str], references: Sequence[Sequence[str]]
    ) -> dict[str, np.ndarray]:
        """The extra scores (N,), and CIDEr with captions and references masked."""
        if self.extra is None:
            return {}
        mask, scored = self.extra.mask, []
        masked_captions, masked_references = [], []
        for caption, texts in zip(captions, references, strict=True):
            masked_captions.append(mask(caption))
            masked_references.append([mask(text) for text in texts])
            scored.append(self.extra.score(caption, texts))
        values = {"cider_masked": metrics.score_captions(masked_captions, masked_references).cider}
        for metric in scored[0]:
            values[metric] = np.array([row[metric] for row in scored])
        return values


def _bleu(counts: metrics.BleuCounts, n: int) -> Statistic:
    return lambda weights: counts.scores(weights)[..., n - 1]


def _table(
    statistics: Mapping[str, Mapping[str, Statistic]], baselines: Baselines, kept: np.ndarray
) -> Table:
    """The values of all arms over the images that are `kept` (N,)."""
    weights = np.zeros((metrics.RESAMPLES, len(kept)))
    seed = config.RANDOM_SEED % 2**32
    weights[:, kept] = metrics.bootstrap_weights(int(kept.sum()), seed) if kept.any() else 0
    return {
        arm: _with_intervals(
            ours, {b: statistics[name] for b, name in baselines[arm].items()}, weights, kept
        )
        for arm, ours in statistics.items()
    }


def _with_intervals(
    ours: Mapping[str, Statistic],
    theirs: Mapping[str, Mapping[str, Statistic]],
    weights: np.ndarray,
    kept: np.ndarray,
) -> dict[str, Any]:
    """The values of one arm, each with its differences from the baselines `theirs`."""
    row: dict[str, dict[str, Any]] = {}
    for metric, statistic in ours.items():
        row[metric] = {"value": float(statistic(kept.astype(float)))}
        for baseline, statistics in theirs.items():
            interval = metrics.paired_interval(statistic, statistics[metric], weights, kept)
            row[metric][f"minus_{baseline}"] = interval._asdict()
    return row


def clip_score(
    captions: Sequence[str], vectors: np.ndarray, looks: Mapping[str, np.ndarray]
) -> np.ndarray:
    """(N,) CLIPScore, 2.5 * max(cos, 0) of image and caption.

    `vectors` (N, D) are the images', `looks` the texts' with CLIP_SCORE_PREFIX, all of unit length.
    Hessel et al. 2021, https://doi.org/10.18653/v1/2021.emnlp-main.595.
    """
    texts = np.array([looks[caption] for caption in captions])  # (N, D)
    return CLIP_SCORE_WEIGHT * np.maximum((texts * vectors).sum(axis=1), 0)


def ref_clip_score(
    captions: Sequence[str],
    references: Sequence[Sequence[str]],
    vectors: np.ndarray,
    looks: Mapping[str, np.ndarray],
) -> np.ndarray:
    """(N,) RefCLIPScore: the harmonic mean of CLIPScore and the caption's nearest reference.

    The latter is max(cos, 0) of caption and reference. Arguments and source as of `clip_score`.
    """
    nearest = [
        max(0.0, *(float(looks[caption] @ looks[text]) for text in texts))
        for caption, texts in zip(captions, references, strict=True)
    ]
    scores, theirs = clip_score(captions, vectors, looks), np.array(nearest)
    return 2 * scores * theirs / np.maximum(scores + theirs, 1e-12)


def text_cosine(
    captions: Sequence[str], references: Sequence[Sequence[str]], vectors: Mapping[str, np.ndarray]
) -> np.ndarray:
    """(N,) mean cosine similarity of a caption to its references; `vectors` by text, (D,) each."""
    means = []
    for caption, texts in zip(captions, references, strict=True):
        means.append(np.mean([vectors[caption] @ vectors[text] for text in texts]))
    return np.array(means)


def copied_shares(
    captions: Sequence[str], shown: Sequence[list[str]], references: Sequence[Sequence[str]]
) -> np.ndarray:
    """(N,) the share of each caption's content words that only its context can have given."""
    batch = zip(captions, shown, references, strict=True)
    return np.array([metrics.copied_share(*parts) for parts in batch])
