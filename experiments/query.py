"""What is searched for: a text, an image or both, and where; as notebooks and commands give it."""

import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, TypedDict, TypeGuard, Unpack

from PIL import Image

import config
from similarity_search import checked_k
from support.errors import SettingError
from support.hub.names import is_local
from support.paths import expand_home
from support.records import Sample
from support.sources.files import has_image_suffix
from support.sources.own import own_sample
from support.text import clean_text

WAYS = ("caption", "look", "both")
SCOPES = ("all", "gallery", "captioned")
PathOrImage = str | Path | Image.Image


@dataclass(frozen=True)
class Query:
    """What is searched for, and how."""

    text: str = ""
    image: Sample | None = None
    without: tuple[str, ...] = ()  # texts to avoid
    by: str | None = None  # one of WAYS; None: captions, where there are enough
    within: str = "all"  # one of SCOPES, or a folder
    min_similarity: float | None = None
    top_k: int | None = None  # config.TOP_K_SIMILAR by default

    def shown(self) -> tuple[str, Image.Image | None, str]:
        """What a page shows of it: text, image, and in words the options that are not the usual."""
        said = [f"by {self.by}"] if self.by else []
        said += [f"in {self.within}"] if self.within != "all" else []
        said += [f"without “{text}”" for text in self.without]
        if self.min_similarity is not None:
            said.append(f"similarity from {self.min_similarity:g}")
        return self.text, self.image.image if self.image else None, ", ".join(said)

    def models(self) -> tuple[str, ...]:
        """The models without which this cannot be searched for, as far as it is known before."""
        if self.image is not None or self.by == "look":
            return ("clip",)
        if self.by == "both":
            return ("clip", "text")
        # A user's dataset may hold no captions, and then needs no text model.
        return () if self.by is None and is_local(config.DATASET_NAME) else ("text",)


class SearchOptions(TypedDict, total=False):
    """The options of `search_images`; the command's, with `within` for --in."""

    by: str | None  # "caption", "look" (the images themselves) or "both", fused
    image: PathOrImage | None  # beside a text: like both together
    without: str | Sequence[str]  # a text to avoid, or several
    within: str | Path  # "all", "gallery", "captioned", or a folder
    min_similarity: float | None  # what fits less is left out


def query_of(
    query: PathOrImage | None, top_k: int | None = None, **options: Unpack[SearchOptions]
) -> Query:
    """What `search_images` is asked for, checked: `query` is a text, a path or an image.

    Raises SettingError for what does not go together, ImageError for an image that is none.
    """
    if query is None or is_text(query):
        return _checked(query, top_k, **options)
    if not isinstance(query, str | Path | Image.Image):
        raise SettingError(f"{query!r} cannot be searched for; give a text, a path or a PIL image.")
    if options.get("image") is not None:
        raise SettingError(f"Two images are given, {query} and {options['image']}; search for one.")
    options["image"] = query
    return _checked(None, top_k, **options)


def queries_of(arguments: Namespace) -> list[Query]:
    """What the command line asks for, checked as by `query_of`."""
    names = ("by", "image", "without", "within", "min_similarity")
    options: Any = {name: getattr(arguments, name) for name in names}
    if arguments.queries is None:
        return [query_of(arguments.query, **options)]
    return [_checked(text, **options) for text in _read_queries(arguments.queries)]


def _checked(
    text: str | None,
    top_k: int | None = None,
    by: str | None = None,
    image: PathOrImage | None = None,
    without: str | Sequence[str] = (),
    within: str | Path = "all",
    min_similarity: float | None = None,
) -> Query:
    if text is None and image is None:
        raise SettingError("Give a text or an image to search for.")
    _check_kinds(image, without, within)
    if by not in (None, *WAYS):
        raise SettingError(f"--by is {by!r}; it must be one of {', '.join(WAYS)}.")
    if by in ("caption", "both") and image is not None:
        raise SettingError(f"--by {by} is for texts: an image is compared by its look.")
    number = isinstance(min_similarity, Real) and min_similarity == min_similarity  # no NaN
    if min_similarity is not None and not number:
        raise SettingError(f"--min-similarity is {min_similarity!r}; it must be a number.")
    avoided = [without] if isinstance(without, str) else without
    return Query(
        text="" if text is None else clean_query(text),
        image=None if image is None else own_sample(image),
        without=tuple(clean_query(text, "to avoid (--without)") for text in avoided),
        by=by,
        within=_checked_scope(within),
        min_similarity=min_similarity,
        top_k=checked_k(top_k),
    )


def _check_kinds(image: Any, without: Any, within: Any) -> None:
    """Raises SettingError for what is neither text, path nor image."""
    if image is not None and not isinstance(image, str | Path | Image.Image):
        raise SettingError(f"{image!r} is no image; give a path or a PIL image.")
    texts = [without] if isinstance(without, str) else without
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise SettingError(f"--without is {without!r}; it must be a text, or several in a list.")
    if not isinstance(within, str | Path):
        raise SettingError(f"--in is {within!r}; it must be {', '.join(SCOPES)} or a folder.")


def _checked_scope(within: str | Path) -> str:
    """One of SCOPES, or the absolute path of a folder. Raises SettingError for anything else."""
    if within in SCOPES:
        return str(within)
    if not os.path.isdir(expand_home(within)):  # noqa: PTH112 - Path.is_dir may raise
        raise SettingError(
            f"--in is {str(within)!r}; it must be {', '.join(SCOPES)} or a folder that is there."
        )
    return str(expand_home(within).absolute())


def _read_queries(path: str) -> list[str]:
    """The texts in the lines of a file, or of stdin ("-"), without empty ones."""
    try:
        data = _read_stdin() if path == "-" else expand_home(path).read_text("utf-8-sig")
    except (OSError, ValueError) as error:  # ValueError: no UTF-8, or no path
        raise SettingError(f"--queries is '{path}', which cannot be read: {error}.") from error
    texts = [line.strip() for line in data.split("\n") if line.strip()]
    if not texts:
        raise SettingError(f"--queries is '{path}', which holds no text; it needs one a line.")
    return texts


def _read_stdin() -> str:
    if sys.stdin is None:
        raise ValueError("stdin is closed")
    binary = getattr(sys.stdin, "buffer", None)
    return sys.stdin.read() if binary is None else binary.read().decode("utf-8-sig")


def is_text(query: PathOrImage) -> TypeGuard[str]:
    """Whether a query is a text; one that names a file or has an image suffix is an image."""
    if not isinstance(query, str):
        return False
    # os.path.isfile, because Path.is_file raises for long texts.
    return not os.path.isfile(query) and not has_image_suffix(query)  # noqa: PTH113


def clean_query(text: str, role: str = "to search for") -> str:
    """A text as it is embedded. Raises SettingError for an empty one."""
    text = clean_text(text).strip()
    if not text:
        raise SettingError(f"The text {role} is empty.")
    return text
