"""Scores beyond the field's own, for a dataset whose captions can be read by rule."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ExtraScores:
    """What to compute for each caption, and how to print it."""

    headings: Mapping[str, tuple[str, str]]  # metric -> heading, format
    score: Callable[[str, Sequence[str]], dict[str, float]]  # a caption and its references
    masked_heading: str  # of CIDEr with captions and references masked
    mask: Callable[[str], str]  # a caption without what only a reference can give away
