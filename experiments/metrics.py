"""Scores of captions against references: BLEU, ROUGE-L, CIDEr, copying; bootstrap intervals.

The scorers are pycocoevalcap's own (the field's). Its tokenizer needs Java; `tokenize` replaces
it.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

from support.errors import PipelineError

RESAMPLES = 2000
INTERVAL = 0.95
PACKAGES = ("pycocoevalcap", "matplotlib", "imagehash")  # METEOR does without its own

_ABBREVIATIONS = (
    "mr|mrs|ms|dr|st|jr|sr|vs|prof|rev|gen|lt|col|sgt|capt|inc|corp|co|etc|mt|ave|blvd|dept"
)
_TOKEN = re.compile(
    r"""
    \w+://\S+ | [\w.+-]+@[\w-]+\.\w[\w.]*              # addresses
    | (?:[^\W\d_]\.){2,}                               # u.s., p.m.
    | (?:ABBREVIATIONS)\.(?!\w)                        # mr., st.
    | [^\W\d_]\.(?=\s+\S) | no\.(?=\s*\d)              # an initial; a number
    | (?<!\d)'(?:\d\ds?|n'|tis|twas|em)(?!\w)          # '57, '90s, rock 'n' roll
    | \#(?!\d)\w+                                      # a tag
    | -?\d+(?:[.,:/-]\d+)*\w*(?:[-/]\w+)*              # 3:30, 10,000, 2nd, 12-year-old
    # words, also t-shirt, black/white, o'clock
    | [^\W_][\w]*(?:(?:[-./@]|['’](?![smd]\b|re\b|ve\b|ll\b))\w+)*
    | ['’](?:s|m|d|re|ve|ll)(?!\w)                     # contractions
    | \.\.+ | --+ | [!?]{2,} | \S                      # the rest, sign by sign
    """.replace("ABBREVIATIONS", _ABBREVIATIONS),
    re.VERBOSE,
)
_SPLIT_WORDS = {
    "cannot": "can not",
    "gonna": "gon na",
    "gotta": "got ta",
    "wanna": "wan na",
    "lemme": "lem me",
    "gimme": "gim me",
}
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_REMOVED = set("'`\".?!,:;-“”‘’«»…–—") | {"''", "``", "--", "...", "---"}


def tokenize(caption: str) -> str:
    """`caption` in lower case, tokens apart, most punctuation removed.

    As pycocoevalcap's PTBTokenizer gives it: the Penn Treebank rules as far as captions need them
    (contractions, abbreviations, brackets); rare marks may differ.
    """
    tokens: list[str] = []
    for token in _TOKEN.findall(caption.lower()):
        if token in _REMOVED or re.fullmatch(r"\.\.+|--+", token):
            continue
        negated = re.fullmatch(r"(\w+)(n['’]t)", token)
        tokens += (
            negated.groups() if negated else [_SPLIT_WORDS.get(token, _BRACKETS.get(token, token))]
        )
    return " ".join(tokens)


# --- Scores ---------------------------------------------------------------------------------------
@dataclass(frozen=True)
class BleuCounts:
    """What corpus BLEU adds up, for each image: n-gram counts (N, 4) and lengths (N,)."""

    matches: np.ndarray
    guesses: np.ndarray
    length: np.ndarray
    reference_length: np.ndarray

    def scores(self, weights: np.ndarray) -> np.ndarray:
        """BLEU-1..4 of the corpus in which image i occurs weights[..., i] times: (..., 4).

        The formula of pycocoevalcap's scorer, constants included (Papineni et al. 2002, closest
        reference length).
        """
        matches, guesses = weights @ self.matches, weights @ self.guesses  # (..., 4)
        length, reference = weights @ self.length, weights @ self.reference_length
        precision = np.cumprod((matches + 1e-15) / (guesses + 1e-9), axis=-1)
        scores = precision ** (1 / np.arange(1, 5))
        ratio = (length + 1e-15) / (reference + 1e-9)
        brevity = np.where(ratio < 1, np.exp(1 - 1 / np.maximum(ratio, 1e-15)), 1.0)
        return scores * brevity[..., None]


@dataclass(frozen=True)
class CaptionScores:
    """BLEU counts, and ROUGE-L and CIDEr of each image (N,)."""

    bleu: BleuCounts
    rouge_l: np.ndarray
    cider: np.ndarray


def score_captions(captions: Sequence[str], references: Sequence[Sequence[str]]) -> CaptionScores:
    """Scores of `captions` against all `references` of each image, by pycocoevalcap's scorers.

    CIDEr's document frequencies come from the references given here, so scores of subsets differ a
    little.
    """
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    truth = {i: [tokenize(text) for text in texts] for i, texts in enumerate(references)}
    guess = {i: [tokenize(text)] for i, text in enumerate(captions)}
    scorer = BleuScorer(n=4)
    for i, texts in truth.items():
        scorer += (guess[i][0], texts)
    counts = BleuCounts(
        matches=np.array([item["correct"] for item in scorer.ctest], dtype=float),
        guesses=np.array([item["guess"] for item in scorer.ctest], dtype=float),
        length=np.array([item["testlen"] for item in scorer.ctest], dtype=float),
        reference_length=np.array([_closest_length(item) for item in scorer.ctest], dtype=float),
    )
    rouge = np.asarray(Rouge().compute_score(truth, guess)[1], dtype=float)
    cider = np.asarray(Cider().compute_score(truth, guess)[1], dtype=float)
    return CaptionScores(counts, rouge, cider)


def check_packages() -> None:
    """Raises PipelineError, with the line to run, without the packages of requirements-eval.txt."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise PipelineError(
            f"The evaluation needs {' and '.join(missing)}. Run: python -m pip install -r "
            "requirements-eval.txt"
        )


def _closest_length(item: dict[str, Any]) -> int:
    return min((abs(length - item["testlen"]), length) for length in item["reflen"])[1]


def copied_share(caption: str, context: Sequence[str], references: Sequence[str]) -> float:
    """The share of the caption's content words that are in the context but in no reference.

    NaN without any content word.
    """
    words = content_words(caption)
    shown = set().union(*map(content_words, context))
    true = set().union(*map(content_words, references))
    copied = (words & shown) - true
    return len(copied) / len(words) if words else float("nan")


_FUNCTION_WORDS = frozenset(
    re.findall(
        r"\S+",
        """
        a an the and or but nor of in on at by to from with without into onto over under near beside
        behind before after above below between through across along around up down out off for as
        is are was were be been being am has have had do does did this that these those it its he
        she they them his her their there here who which what where when while some one two we you i
        me us our your can could will would may might 's n't not no very
        """,
    )
)


def content_words(text: str) -> set[str]:
    """The words of a text that say what is in a picture: no articles, prepositions, auxiliaries."""
    words = [word for word in tokenize(text).split() if word not in _FUNCTION_WORDS]
    return {word for word in words if any(map(str.isalnum, word))}


# --- Intervals ------------------------------------------------------------------------------------
def bootstrap_weights(count: int, seed: int) -> np.ndarray:
    """How often each image occurs in each of R = RESAMPLES resamples: (R, count)."""
    generator, even = np.random.default_rng(seed), np.full(count, 1 / count)
    return generator.multinomial(count, even, size=RESAMPLES).astype(float)


def mean_statistic(values: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The mean of per-image values (N,), NaN left out, as a function of weights (..., N)."""
    known = np.isfinite(values)
    filled = np.where(known, values, 0.0)
    return lambda weights: (weights @ filled) / np.maximum(weights @ known.astype(float), 1e-12)


class Interval(NamedTuple):
    """A difference of two statistics with its 95 % interval."""

    difference: float
    low: float
    high: float


def distinct_statistic(captions: Sequence[str], n: int) -> Callable[[np.ndarray], np.ndarray]:
    """Distinct-n of a corpus: different n-grams by all n-grams (Li et al. 2016).

    As a function of how often each caption counts. https://doi.org/10.18653/v1/N16-1014
    """
    rows = [_ngrams(tokenize(caption).split(), n) for caption in captions]
    places = {gram: place for place, gram in enumerate({gram for row in rows for gram in row})}
    holds = np.zeros((len(rows), len(places)), np.float32)
    for row, grams in enumerate(rows):
        holds[row, [places[gram] for gram in grams]] = 1
    counts = np.array([len(row) for row in rows], float)

    def statistic(weights: np.ndarray) -> np.ndarray:
        present = (np.asarray(weights > 0, np.float32) @ holds > 0).sum(axis=-1)
        return present / np.maximum((weights * counts).sum(axis=-1), 1)

    return statistic


def _ngrams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]


def paired_interval(
    ours: Callable[[np.ndarray], np.ndarray],
    theirs: Callable[[np.ndarray], np.ndarray],
    weights: np.ndarray,
    whole: np.ndarray | None = None,
) -> Interval:
    """The difference of two statistics on the same images, with its paired bootstrap interval.

    Percentiles over resamples `weights` (R, N); the difference is that of `whole` (N,), by default
    each image once.
    """
    whole = np.ones(weights.shape[-1]) if whole is None else whole.astype(float)
    tail = 50 * (1 - INTERVAL)
    low, high = np.percentile(ours(weights) - theirs(weights), [tail, 100 - tail])
    return Interval(float(ours(whole) - theirs(whole)), float(low), float(high))
