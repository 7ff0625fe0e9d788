"""Writes pages beside the results, and the list of all pages."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup
from PIL import Image

import config
from pages.evaluation import EvaluationParts, evaluation_run
from pages.many import Run, card_of, nearest_first, run_pages
from pages.pictures import Pictures
from pages.render import MARK, clean, page
from pages.single import file_name, result_page, search_page
from support.garbage import without_search_for_garbage
from support.log import log
from support.result import Result, SimilarImage
from support.settings import configured_folder
from support.storage.errors import open_regular
from support.storage.files import publish_file, replace_file

INDEX = "index.html"
LISTED = 500  # pages in the list
MOST_CARDS = 4_000  # of a run; the newest
FURTHER = re.compile(r"_summary_\d{8}_\d{6}.*-page\d+\.html|^evaluation_.*-page\d+\.html")
TITLE = re.compile(r"<title>(.*?)</title>", re.DOTALL)
HEAD_BYTES = 4096  # of a page, with its title
SETTING = "RESULTS_DIR"


def write_result(result: Result, pictures: Pictures, query: Image.Image) -> Path | None:
    """The page of one captioned image, `query`, beside its result file.

    None where pages are not wanted.
    """
    if not config.WRITE_PAGES:
        return None
    path = Path(result["result_file"]).with_suffix(".html")
    return _write({path.name: result_page(result, pictures, query)}, path)


def write_captioned(
    results: Iterable[Result], summary: str, file: Path, pictures: Pictures
) -> Path | None:
    """The pages of captioned images, beside the `file` that sums them up; the first one."""
    if not config.WRITE_PAGES:
        return None
    found = list(results)
    cards = [card_of(result) for result in found]
    kind = "Experiments" if file.name.startswith("experiments") else "Own images"
    dataset = found[0]["experiment_info"]["dataset"] if found else ""
    title = f"{kind}: {len(cards):,} captioned, with the gallery of {file_name(dataset)}"
    shown = f"{len(cards):,} images"
    if len(cards) == MOST_CARDS:
        shown = f"The last {shown} of the run; pages show no more."
    return write_run(Run(title, shown, summary, cards, nearest_first(cards)), file, pictures)


def write_evaluation(
    outcome: Mapping[str, Any], parts: EvaluationParts, file: Path, pictures: Pictures
) -> Path | None:
    """The pages of an evaluation, beside its result `file`; the first one."""
    if not config.WRITE_PAGES:
        return None
    return write_run(evaluation_run(outcome, *parts), file, pictures)


def write_run(run: Run, summary: Path, pictures: Pictures) -> Path | None:
    """The pages of a run over many images, beside its summary; the first one."""
    if not run.cards:
        return None

    def file_of(number: int) -> str:
        return f"{summary.stem}-page{number + 1}.html" if number else f"{summary.stem}.html"

    with without_search_for_garbage():
        for name, html in run_pages(run, pictures, file_of):
            replace_file(summary.parent / name, [html], SETTING)
    return _write({}, summary.with_suffix(".html"))


def write_search(
    text: str,
    image: Image.Image | None,
    details: str,
    found: Sequence[SimilarImage],
    pictures: Pictures,
) -> Path:
    """The page of a search for a text, an image or both, in a file of its own."""
    html = search_page(text, image, details, found, pictures)
    folder = configured_folder(config.RESULTS_DIR)
    path = publish_file(folder, f"search_{datetime.now():%Y%m%d_%H%M%S}", ".html", html)
    return _write({}, path)


def _write(pages: dict[str, str], first: Path) -> Path:
    """Writes pages into the folder of the `first`, and the list of pages; the first one's path."""
    for name, html in pages.items():
        replace_file(first.parent / name, [html], SETTING)
    index = first.parent / INDEX
    if os.path.lexists(index) and MARK not in _head(index):
        log.warning("%s is not of this program, so the pages are not listed there.", index)
    else:
        replace_file(index, [_index(first.parent)], SETTING)
    return first


def _index(folder: Path) -> str:
    """The list of the pages in a folder, newest first; of a run on several pages the first."""
    found: list[tuple[float, str]] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            listed = name.endswith(".html") and name != INDEX and name.isprintable()
            if listed and not FURTHER.search(name) and entry.is_file():
                found.append((entry.stat().st_mtime, name))
    shown: list[dict[str, str]] = []
    for at, name in sorted(found, reverse=True):
        head = _head(folder / name)
        if MARK in head and len(shown) < LISTED:
            time = f"{datetime.fromtimestamp(at):%Y-%m-%d %H:%M}"
            shown.append({"file": quote(name), "title": _title(head) or name, "time": time})
    more = f"; the newest {LISTED} of them are here" if len(shown) == LISTED else ""
    return page("index.html", "Results", pages=shown, summary=f"Newest first{more}.")


def _head(path: Path) -> str:
    """How a file begins; nothing if it cannot be read."""
    try:
        with open_regular(path) as file:
            return file.read(HEAD_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def _title(head: str) -> str:
    found = TITLE.search(head)
    return clean(Markup(found[1]).unescape()) if found else ""
