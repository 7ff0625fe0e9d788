"""What the commands print: results on stdout, failures on stderr."""

import sys
from collections.abc import Sequence
from typing import Any

from support.records import Neighbor
from support.result import Result, SimilarImage
from support.text import printable


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
    shown = f"{printable(data['caption'])}  [{data['source']}; {printable(data['image'])}]"
    print(f"  {neighbor['similarity']:.4f}  #{neighbor['index']:<5} {shown}")


def print_neighbors(found: Sequence[Neighbor]) -> None:
    """Prints what a search has found, best first."""
    for neighbor in found:
        print_neighbor(neighbor.as_dict())


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
