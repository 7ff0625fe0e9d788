"""The metrics against golden values, made once with pycocoevalcap and its Java tokenizer."""

import json

import numpy as np
import pytest

from experiments import metrics
from tests.helpers import ROOT

GOLDEN = json.loads((ROOT / "tests" / "golden" / "captions.json").read_text(encoding="utf-8"))
CAPTIONS = [image["candidate"] for image in GOLDEN["images"]]
REFERENCES = [image["references"] for image in GOLDEN["images"]]


def test_every_golden_caption_is_tokenised_as_the_java_tokenizer_does():
    texts = [
        text for image in GOLDEN["images"] for text in (image["candidate"], *image["references"])
    ]
    golden = [tokens for image in GOLDEN["images"] for tokens in image["tokenized"]]
    assert len(texts) == 200
    assert [metrics.tokenize(text) for text in texts] == golden


def test_scores_meet_the_golden_values_within_half_a_percent():
    scores = metrics.score_captions(CAPTIONS, REFERENCES)
    bleu = scores.bleu.scores(np.ones(len(CAPTIONS)))
    ours = {f"bleu_{n + 1}": bleu[n] for n in range(4)} | {
        "rouge_l": scores.rouge_l.mean(),
        "cider": scores.cider.mean(),
    }
    assert set(ours) == set(GOLDEN["scores"])
    for name, golden in GOLDEN["scores"].items():
        assert ours[name] == pytest.approx(golden, rel=0.005), name


def test_bleu_of_a_resample_is_the_bleu_of_that_corpus():
    scores = metrics.score_captions(CAPTIONS, REFERENCES)
    picks = [0, 0, 3, 7, 7, 7, 12]
    weights = np.bincount(picks, minlength=len(CAPTIONS)).astype(float)
    repeated = metrics.score_captions([CAPTIONS[i] for i in picks], [REFERENCES[i] for i in picks])
    assert scores.bleu.scores(weights) == pytest.approx(repeated.bleu.scores(np.ones(len(picks))))


def test_intervals_cover_a_true_difference_and_are_paired():
    rng = np.random.default_rng(0)
    base = rng.normal(size=300)
    better = base + 0.1 + 0.01 * rng.normal(size=300)
    weights = metrics.bootstrap_weights(300, seed=1)
    difference, low, high = metrics.paired_interval(
        metrics.mean_statistic(better), metrics.mean_statistic(base), weights
    )
    # unpaired, noise of 1 would drown a difference of 0.1
    assert 0.09 < low < difference < high < 0.11
    same = metrics.paired_interval(
        metrics.mean_statistic(base), metrics.mean_statistic(base), weights
    )
    assert same == (0, 0, 0)


def test_copying_counts_content_words_of_the_context_that_no_reference_has():
    assert metrics.copied_share(
        "A red dog on the sand.", ["a blue dog on sand"], ["the dog runs"]
    ) == pytest.approx(1 / 3)
    assert metrics.copied_share("A dog.", [], ["a dog"]) == 0
    assert np.isnan(metrics.copied_share("the of a", ["x"], ["y"]))
