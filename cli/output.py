"""What the commands print: results on stdout, failures on stderr."""

import os
import sys
import webbrowser
from argparse import Namespace
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from support.log import log
from support.result import Result, SimilarImage
from support.storage.strict_json import to_json
from support.terminal import UNSAFE
from support.text import first_few, printable


def print_result(result: Result) -> None:
    """Prints one captioned image: its neighbors, prompt, caption and reference."""
    info = result["experiment_info"]
    number = info["experiment_index"]
    heading = "Image" if number is None else f"Experiment {number}"
    print(f"{heading}: {printable(result['metadata']['image'])}")
    vlm = info["models"]["vlm"]["name"]
    print(printable(f"Mode: {info['mode']}   dataset: {info['dataset']}   VLM: {vlm}"))
    print("Similar images:")
    for neighbor in result["similar_images"]:
        print_neighbor(neighbor)
    if result["prompt"]:
        print("Prompt:")
        for line in result["prompt"].splitlines():
            print(f"  {printable(line)}")
    else:
        print("Prompt: none, this model captions from the image alone")
    print(f"Caption:   {printable(result['generated_caption'])}")
    if result["original_caption"]:
        print(f"Reference: {printable(result['original_caption'])}")
    print(f"Saved:     {printable(result['result_file'])}\n", flush=True)


def print_neighbor(neighbor: SimilarImage) -> None:
    """Prints one found image on a line: similarity, number, caption, where it comes from."""
    data = neighbor["metadata"]
    image = printable(data["image"])
    shown = f"{image}  [no caption]"
    if data["caption"] is not None:
        shown = f"{printable(data['caption'])}  [{data['source']}; {image}]"
    print(f"  {neighbor['similarity']:.4f}  #{neighbor['index']:<5} {shown}")


def print_found(text: str, images: Sequence[SimilarImage], arguments: Namespace) -> None:
    """Prints what a search for `text` has found, best first, in the form that its flags name."""
    if arguments.queries is not None:
        _print_json({"query": text, "similar_images": images})
    elif arguments.paths or arguments.null:
        paths = [image["metadata"]["image"] for image in images]
        _print_paths(paths, "\0" if arguments.null else "\n")
    else:
        for image in images:
            (_print_json if arguments.json else print_neighbor)(image)
        if not images:
            log.info("Nothing was found.")


def print_lines(lines: Iterable[str]) -> int:
    """Prints lines; the exit status is that of success."""
    for line in lines:
        print(printable(line))
    return 0


def show_page(path: Path | None, arguments: Namespace) -> None:
    """Says where a page is, on stderr; opens it where the flag says so, and there is a browser."""
    if path is None:
        return
    opens = hasattr(arguments, "open")
    if opens or getattr(arguments, "page", False):  # asked for, so --quiet does not silence it
        print(printable(f"Page: {path}"), file=sys.stderr)
    else:
        log.info("Page: %s", path)
    if opens and not webbrowser.open(path.as_uri()):
        print(printable(f"No browser was found to open {path}"), file=sys.stderr)


def _print_json(value: Any) -> None:
    """One line; what could steer a terminal is escaped, so that nothing is changed before it."""
    text = to_json(value)
    print(UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text), flush=True)


def _print_paths(images: Sequence[str], end: str) -> None:
    """Paths, unchanged where no terminal reads them; rows of tables have none."""
    files = [image for image in images if os.path.lexists(image)]
    raw = None if sys.stdout.isatty() else getattr(sys.stdout, "buffer", None)
    for file in files:
        if raw is None:
            print(printable(file))
        else:
            raw.write(os.fsencode(file + end))
    if raw is not None:
        raw.flush()
    if others := [image for image in images if image not in files]:
        log.warning("%d of %d have no file: %s", len(others), len(images), first_few(others))


def print_gallery(dataset: Any) -> None:
    """Prints how many gallery images of a DatasetLoader could be used."""
    images, unreadable = len(dataset.get_training_data()), len(dataset.unreadable)
    skipped = f", {unreadable} skipped because they cannot be read" if unreadable else ""
    print(f"Gallery: {images - unreadable} images{skipped}")


def report_failures(failures: str) -> int:
    """Prints the failures of a run over many images, if any; returns the exit status."""
    if failures:
        print(failures, file=sys.stderr)
    return 1 if failures else 0
