"""The types that pass between the stages, and the errors meant for users."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image


def clean_text(text: str) -> str:
    """`text` with lone surrogates, which no UTF-8 file can hold, as U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def printable(text: str) -> str:
    """`text` on one line, without control characters: no caption or file name must steer the terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def first_few(lines: list[str], limit: int = 5) -> str:
    """The first `limit` of `lines` as one text, and how many more there are."""
    shown = "; ".join(lines[:limit])
    return shown if len(lines) <= limit else f"{shown}; and {len(lines) - limit} more"


class PipelineError(Exception):
    """Something a user can mend; the message says what, which value and how. Ends a command with status 1."""

    exit_status = 1


class SettingError(PipelineError):
    """A setting, flag or argument that cannot be used. Ends a command with status 2."""

    exit_status = 2


class ImageError(PipelineError):
    """An image that cannot be read."""


class HubError(PipelineError):
    """A model or dataset that the Hugging Face Hub did not give."""


class DatabaseError(PipelineError):
    """A database file that cannot be used or written."""


@dataclass(frozen=True)
class ModelRef:
    """A model and where it comes from: a local folder, or a Hub name at a commit."""

    name: str  # as the user wrote it, or "demo/clip": what databases and results record
    path: str  # the folder of its files; of a Hub model that is not yet located, its name
    revision: str | None = None  # Hub commit, or the fingerprint of a local folder; None = not yet known
    local: bool = False


@dataclass(frozen=True)
class Models:
    """The three models of a run."""

    clip: ModelRef
    vlm: ModelRef
    text: ModelRef


@dataclass(frozen=True)
class Names:
    """What a run works with: the mode, the dataset and the three models."""

    mode: str  # "hub" or "demo"
    dataset: str  # Hub name or local path
    models: Models


@dataclass(frozen=True)
class Sample(Mapping):
    """One image with its reference captions, decoded each time `image` is asked for.

    Also a mapping with the keys image, caption, captions, original_index and training_index or experiment_index.
    """

    content_hash: str  # SHA-256 of the file's bytes (of the RGB pixels for a PIL image)
    label: str  # path or dataset row, for people
    open_image: Callable[[], Image.Image] = field(repr=False, compare=False)  # -> RGB; raises ImageError
    captions: tuple[str, ...] = ()
    original_index: int | None = None  # row in the dataset; None for a user's own image
    role: str = "own"  # "training", "experiment" or "own"
    role_index: int | None = None

    @property
    def image(self) -> Image.Image:
        return self.open_image()

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
    similarity: float  # cosine; of a search by text, see CaptionPool.search
    captions: tuple[str, ...]
    caption: str  # the one that was found (search by text), or the first
    original_index: int | None
    source: str  # "original" (a person's caption) or "generated" (this system's)
    image: str  # path or dataset row

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, in the form that results hold."""
        metadata = {key: getattr(self, key) for key in ("caption", "original_index", "source", "image")}
        return {"index": self.index, "similarity": self.similarity, "metadata": metadata}


@dataclass(frozen=True)
class GeneratedCaption:
    """A caption the VLM wrote for an image, with what it was made by."""

    caption: str
    prompt: str | None  # None: the model takes no prompt
    made_with: Mapping[str, Any]  # mode, dataset, models and revisions, settings, time
