"""The types that pass between the stages."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from PIL import Image

from support.result import GeneratedWith, SimilarImage


@dataclass(frozen=True)
class ModelRef:
    """A model and where it comes from: a local folder, or a Hub name at a commit."""

    name: str  # as the user wrote it, or "demo/clip": what databases and results record
    path: str  # the folder of its files; of a Hub model that is not yet located, its name
    revision: str | None = None  # Hub commit, or the fingerprint of a local folder; None = unknown
    local: bool = False
    # The address of the server that has it, credentials included; then `path` is its name there.
    server: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Models:
    """The three models of a run."""

    clip: ModelRef
    vlm: ModelRef
    text: ModelRef


@dataclass(frozen=True)
class ResolvedNames:
    """What a run works with: the mode, the dataset and the models."""

    mode: str  # "hub" or "demo"
    dataset: str  # Hub name or local path
    model: Callable[[str], ModelRef]  # of a kind ("clip", "vlm", "text"), as config names it now
    label: str  # what databases and results call the dataset: Hub name, absolute path, or "demo"
    database_suffix: str = ""  # set where captions must not mix with those of the configured models
    own_dataset: bool = False  # a dataset on the user's disk


class SplitHashes(NamedTuple):
    """The content hashes of a dataset's images."""

    gallery: frozenset[str]
    experiments: frozenset[str] = frozenset()

    def holds(self, key: str) -> bool:
        """Whether the dataset has an image now."""
        return key in self.gallery or key in self.experiments


@dataclass(frozen=True)
class Sample(Mapping[str, Any]):
    """One image with its reference captions, decoded each time `image` is read.

    Also a mapping with the keys image, caption, captions, original_index and training_index or
    experiment_index.
    """

    content_hash: str  # SHA-256 of the file's bytes (of the RGB pixels for a PIL image)
    label: str  # path or dataset row, for people
    # RGB, or ImageError; with `seen`, as small as a model that sees so many pixels wants it; with
    # `side`, about as small as a picture of so many.
    open_image: Callable[..., Image.Image] = field(repr=False, compare=False)
    captions: tuple[str, ...] = ()
    original_index: int | None = None  # row in the dataset; None for a user's own image
    role: str = "own"  # "training", "experiment" or "own"
    role_index: int | None = None
    split: str | None = None  # of the dataset: "train", "validation", "test", ...

    @property
    def image(self) -> Image.Image:
        return self.open_image()

    def image_for(self, seen: int | None) -> Image.Image:
        """The image for a model that sees `seen` pixels of its shorter side; None: any model."""
        return self.open_image() if seen is None else self.open_image(seen)

    def picture(self, side: int) -> Image.Image:
        """The image for a picture of `side` pixels: of a large JPEG about so many."""
        return self.open_image(side=side)

    @property
    def caption(self) -> str | None:
        """The first reference caption, None without any."""
        return self.captions[0] if self.captions else None

    def __getitem__(self, key: str) -> Any:
        if key not in self._keys():
            raise KeyError(key)
        if key == "captions":
            return list(self.captions)
        return self.role_index if key == f"{self.role}_index" else getattr(self, key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys())

    def __len__(self) -> int:
        return len(self._keys())

    def _keys(self) -> tuple[str, ...]:
        own = () if self.role == "own" else (f"{self.role}_index",)
        return ("image", "caption", "captions", "original_index", *own)


@dataclass(frozen=True)
class Neighbor:
    """A gallery or captioned image found by a search, with the captions it may give as context."""

    index: int  # the databases' number of the image
    similarity: float  # cosine; of a search by text, see experiments.search
    captions: tuple[str, ...]
    caption: str | None  # the one that was found (search by text), or the first; None without any
    original_index: int | None
    source: str | None  # of the caption: "original" (a person's) or "generated" (this system's)
    image: str  # path or dataset row

    def as_dict(self) -> SimilarImage:
        """JSON-ready, in the form that results hold."""
        return {
            "index": self.index,
            "similarity": self.similarity,
            "metadata": {
                "caption": self.caption,
                "original_index": self.original_index,
                "source": self.source,
                "image": self.image,
            },
        }


@dataclass(frozen=True)
class GeneratedCaption:
    """A caption the VLM wrote for an image, and what it was made with."""

    caption: str
    prompt: str | None  # None: the model takes no prompt
    made_with: GeneratedWith
