"""The page of one captioned image, and that of a search."""

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from pages.pictures import LEVELS, NEIGHBOR_LEVEL, Pictures, thumbnail
from pages.render import clean, page
from support.result import Result, SimilarImage
from support.threads import in_threads

Row = tuple[str, str]


def result_page(result: Result, pictures: Pictures, query: Image.Image) -> str:
    """One image, `query`: its caption beside the references, neighbors, prompt, models, seconds."""
    return page("result.html", heading(result), **result_values(result, pictures, query))


def result_values(
    result: Result, pictures: Pictures, query: Image.Image | None = None
) -> dict[str, Any]:
    """What the templates of a result are filled with; `query` is its image, if it has no file."""
    caption, key = clean(result["generated_caption"]), result["metadata"]["content_hash"]
    return {
        "query": thumbnail(pictures.by_hash(key, LEVELS[0][0]) if query is None else query),
        "alt": f"The image that was captioned: {caption}",
        "caption": caption,
        "references": clean(result["query_info"]["captions"]),
        "found": found_values(result["similar_images"], pictures, NEIGHBOR_LEVEL),
        "prompt": clean(result["prompt"]),
        "facts": clean(facts(result)),
    }


def search_page(
    text: str,
    image: Image.Image | None,
    details: str,
    found: Sequence[SimilarImage],
    pictures: Pictures,
) -> str:
    """What a search for a text, an image or both has found, best first."""
    heading = clean(text or "Images like this one")
    return page(
        "found.html",
        f"Search: {heading}",
        heading=heading,
        query=thumbnail(image),
        details=clean(details),
        found=found_values(found, pictures, 1 if len(found) <= 60 else NEIGHBOR_LEVEL),
    )


def found_values(
    found: Sequence[SimilarImage], pictures: Pictures, level: int
) -> list[dict[str, Any]]:
    """Images that were found, with their pictures."""

    def picture(one: SimilarImage) -> str | None:
        return thumbnail(pictures.by_number(one["index"], LEVELS[level][0]), level)

    uris = in_threads(picture, found)
    rows = [plain_neighbor(one) for one in found]
    return [{**row, "picture": uri} for row, uri in zip(rows, uris, strict=True)]


def plain_neighbor(one: SimilarImage) -> dict[str, Any]:
    """A similar image in one level, its texts fit for a page."""
    data = one["metadata"]
    return {
        "index": one["index"],
        "similarity": one["similarity"],
        "caption": clean(data["caption"]),
        "source": data["source"],
        "image": clean(data["image"]),
        "file": file_name(data["image"]),
    }


def heading(result: Result) -> str:
    """What a result is called."""
    number = result["experiment_info"]["experiment_index"]
    name = file_name(result["metadata"]["image"])
    return clean(name if number is None else f"Experiment {number}: {name}")


def file_name(image: str) -> str:
    """The last part of an image's path; a dataset row as it is."""
    return clean(image.replace("\\", "/").rsplit("/", 1)[-1])


def facts(result: Result) -> list[Row]:
    """Where a caption comes from, as rows of a table."""
    info: Mapping[str, Any] = result["experiment_info"]
    rows = [
        ("Image", result["metadata"]["image"]),
        ("Number in the databases", f"#{info['new_db_index']}"),
    ]
    rows += [("Dataset", info["dataset"]), ("Mode", info["mode"])]
    for kind, model in info["models"].items():
        revision = f" ({model['revision'][:16]})" if model["revision"] else ""
        rows.append((f"Model: {kind}", f"{model['name']}{revision}"))
    seconds = info["seconds"].items()
    rows.append(("Seconds", ", ".join(f"{k.replace('_', ' ')} {v:.2f}" for k, v in seconds)))
    return [*rows, ("Time", info["timestamp"])]
