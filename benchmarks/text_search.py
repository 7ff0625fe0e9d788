"""Search by text on real captions, with words in common counting and without.

python -m benchmarks.text_search Flickr8k.token.txt    (Flickr8k's captions; no images are needed)

Of each image one caption is the query and the others are what the search sees: how often is that
image found first?
"""

import argparse
import random
from pathlib import Path
from typing import Any

import numpy as np

import config
import demo
from caption_embedder import CaptionEmbedder
from similarity_search import CaptionPool
from support.records import SplitHashes

IMAGES = 1500
WEIGHTS = (0, 0.15)


def main() -> None:
    """Prints recall@1 and recall@5 for each weight, with four captions per image and with one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("captions", type=Path, help="lines of name.jpg#number<TAB>caption")
    texts = read_captions(parser.parse_args().captions)
    embedder = load_package_model()
    distinct = list(dict.fromkeys(text for row in texts for text in row))
    vectors = embedder.embed_captions(distinct)
    rows = {text: row for row, text in enumerate(distinct)}
    for shown in (4, 1):
        for weight in WEIGHTS:
            config.SEARCH_WORD_WEIGHT = weight
            places = places_of([(row[-1], row[:shown]) for row in texts], rows, vectors)
            recalls = "  ".join(f"recall@{k} {np.mean(places < k):.3f}" for k in (1, 5))
            print(f"{shown} captions per image, weight {weight:<4}  {recalls}", flush=True)


def read_captions(path: Path) -> list[list[str]]:
    """The five captions of IMAGES images, drawn with a fixed seed."""
    captions: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        name, text = line.split("\t")
        captions.setdefault(name.split("#")[0], []).append(text)
    return [captions[name] for name in random.Random(0).sample(sorted(captions), IMAGES)]


def load_package_model() -> CaptionEmbedder:
    """all-MiniLM-L6-v2 as the package carries it, without what the demo adds."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(demo.text_package_folder()))
    dimension = model.get_embedding_dimension() or 0
    return CaptionEmbedder(model, "all-MiniLM-L6-v2", dimension)


def places_of(
    images: list[tuple[str, list[str]]], rows: dict[str, int], vectors: np.ndarray
) -> np.ndarray:
    """(N,) at which place, from 0, each image is found by its query; 5 when later than that."""
    records: dict[str, dict[str, Any]] = {}
    for index, (_, shown) in enumerate(images):
        records[str(index)] = {
            "index": index,
            "image": "",
            "original_index": index,
            "captions": shown,
            "generated": None,
        }
    pool = CaptionPool(records, SplitHashes(frozenset(records)), rows)
    places = []
    for index, (query, _) in enumerate(images):
        found = pool.search(query, vectors[rows[query]], vectors, 5)
        best = [neighbor.index for neighbor in found]
        places.append(best.index(index) if index in best else 5)
    return np.array(places)


if __name__ == "__main__":
    main()
