"""The result of an experiment, as `run_experiment` returns it and its JSON file holds it."""

from typing import Any, NotRequired, TypedDict


class ModelVersion(TypedDict):
    """Which model it was: its name, and its Hub commit or the fingerprint of its folder."""

    name: str
    revision: str | None


class MadeWith(TypedDict):
    """What a caption was made with."""

    mode: str  # "hub" (what config.py names) or "demo"
    dataset: str  # Hub name, absolute path, or "demo"
    dataset_revision: str | None  # Hub commit; None for a local dataset
    models: dict[str, ModelVersion]  # "clip", "vlm", "text"


class GeneratedWith(MadeWith):
    """What a generated caption was made with, when, and in which run."""

    timestamp: str  # ISO 8601 with the UTC offset
    run: str | None  # the run over all experiments it belongs to; None for a single image


class ExperimentInfo(GeneratedWith):
    """Which image it was, what it was captioned with, and how long each stage took."""

    experiment_index: int | None  # None for an image from outside the dataset
    new_db_index: (
        int  # the databases' number of the image: unique, and the same when captioned again
    )
    seconds: dict[str, float]  # stage -> seconds for the whole batch


class QueryInfo(TypedDict):
    """The query image in its dataset; all None or empty for an image from outside."""

    experiment_index: int | None
    original_index: int | None  # row in the dataset
    caption: str | None  # the first reference caption
    captions: list[str]


class NeighborMetadata(TypedDict):
    """Where a similar image and its caption come from."""

    caption: str | None  # None, found by a search, without any
    original_index: int | None
    source: str | None  # of the caption: "original" (a person's) or "generated" (this system's)
    image: str  # path or dataset row


class SimilarImage(TypedDict):
    """An image found by a search."""

    index: int  # the databases' number of the image
    similarity: float  # cosine; of a search by text, see experiments.search
    metadata: NeighborMetadata


class ResultMetadata(TypedDict):
    """The image, and every setting that decides its caption."""

    image: str  # path or dataset row
    content_hash: str  # SHA-256 of the file's bytes (of the RGB pixels for a PIL image)
    settings: dict[str, Any]  # name in lower case -> value


class SummaryRow(TypedDict):
    """What the summary of a run over many images says of one."""

    experiment_index: int | None  # None for an image from outside the dataset
    image: str  # path or dataset row
    generated_caption: str
    original_caption: str | None
    result_file: str  # the name of its file in the results folder


class Result(TypedDict):
    """What is known of one captioned image, JSON-ready."""

    experiment_info: ExperimentInfo
    query_info: QueryInfo
    similar_images: list[SimilarImage]  # nearest first
    prompt: str | None  # None: the model takes no prompt
    generated_caption: str
    original_caption: str | None  # the first reference caption
    metadata: ResultMetadata
    result_file: NotRequired[str]  # where this was saved; not in the file itself
