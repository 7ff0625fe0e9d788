"""Images of the databases that may be found, and the captions that they give as context."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import config
from support.paths import is_file_path
from support.records import Neighbor, SplitHashes

Record = Mapping[str, Any]  # of captions.json
Scope = Callable[[str, Record], bool]  # whether a content hash with its record is searched


@dataclass(frozen=True)
class Candidate:
    """An image that may be found, with the captions it may give."""

    key: str  # content hash
    index: int  # the databases' number
    captions: tuple[str, ...]
    source: str  # of the captions: "original" or "generated"
    original_index: int | None
    image: str

    def as_neighbor(
        self, similarity: float, caption: str | None = None, source: str | None = None
    ) -> Neighbor:
        """This image as found; by default with its first caption."""
        first = self.captions[0] if self.captions else None
        return Neighbor(
            index=self.index,
            similarity=similarity,
            captions=self.captions,
            caption=first if caption is None else caption,
            original_index=self.original_index,
            source=source or (self.source if self.captions else None),
            image=self.image,
        )


def is_there(key: str, record: Record, dataset: SplitHashes) -> bool:
    """Whether an image has not gone from the dataset; a user's own never belonged to it."""
    return record["original_index"] is None or dataset.holds(key)


def is_of_dataset(record: Record) -> bool:
    """Whether an image belongs to the dataset, and its file, if it is one, is still there."""
    path = record["image"]
    return record["original_index"] is not None and (
        not is_file_path(path) or os.path.lexists(path)
    )


def given_captions(key: str, record: Record, dataset: SplitHashes) -> tuple[Sequence[str], str]:
    """The captions that the image of a databases' record gives, and their source.

    An image of the gallery gives its original captions; any other, or without such, only what this
    system wrote for it: an experiment image never gives away its references. One that has gone from
    the dataset gives nothing.
    """
    if key in dataset.gallery and any(record["captions"]):
        return record["captions"], "original"
    if record["generated"] and is_there(key, record, dataset):
        return [record["generated"]["caption"]], "generated"
    return [], "generated"


def searched_captions(key: str, record: Record, dataset: SplitHashes) -> Sequence[str]:
    """The captions by which an image is found: those that it gives, and one written anew."""
    captions, source = given_captions(key, record, dataset)
    rewritten = source == "original" and record["generated"]
    return [*captions, record["generated"]["caption"]] if rewritten else captions


def as_candidate(key: str, record: Record, dataset: SplitHashes) -> Candidate:
    """The image of a databases' record, with what it gives."""
    captions, source = given_captions(key, record, dataset)
    place = record["original_index"], record["image"]
    return Candidate(key, record["index"], tuple(captions), source, *place)


def candidates(
    records: Mapping[str, Record], dataset: SplitHashes, generated: bool | None = None
) -> list[Candidate]:
    """Those of the databases' caption `records` that give context.

    See `given_captions`; what this system wrote only where `generated` says so, which is
    config.USE_GENERATED_AS_CONTEXT by default.
    """
    generated = config.USE_GENERATED_AS_CONTEXT if generated is None else generated
    found = (as_candidate(key, record, dataset) for key, record in records.items())
    allowed = ("original", "generated") if generated else ("original",)
    return [image for image in found if any(image.captions) and image.source in allowed]
