"""Scenes to train on: drawn once, cached beside the script, with captions and with labels of what stands where.

The labels (which thing covers which patch; place, time, ground, weather) come from the code that draws the scenes. They
feed auxiliary losses that teach the vision towers to see in minutes; the shipped models do not contain them.
"""

import hashlib
import json
import multiprocessing
import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from PIL import Image

from demo import captions as caption_grammar
from demo import scenes as scenery
from demo.names import invent_name

IMAGE_SIZE = 112  # pixels a side that both vision towers look at
PATCH_SIZE = 14
GRID = IMAGE_SIZE // PATCH_SIZE  # patches a side
NAME = "@@"  # stands in cached captions where a place's name goes: names are drawn anew for every example
CAPTION_SETS = 3  # how often each scene is described: five captions each time
FIRST_TRAINING_SEED, FIRST_VALIDATION_SEED = 1_000_000, 900_000
KINDS, COLORS = list(scenery.KINDS), list(scenery.COLORS)
TIMES, GROUNDS, WEATHERS = list(scenery.TIMES), list(scenery.GROUNDS), list(scenery.WEATHERS)
PLACES = len(scenery.PLACES)


@dataclass(frozen=True)
class SceneLabels:
    """Integer labels of N scenes; `kind` and `color` are (N, GRID * GRID) with 0 for a patch that no thing covers."""

    place: np.ndarray  # (N,) and so on
    time: np.ndarray
    ground: np.ndarray
    weather: np.ndarray
    kind: np.ndarray
    color: np.ndarray


@dataclass(frozen=True)
class TrainingScenes:
    """N scenes, ready for training."""

    pixels: np.ndarray  # (N, IMAGE_SIZE, IMAGE_SIZE, 3) uint8
    named: list[list[str]]  # captions that name the place as NAME; those at 0, 5, 10 ... are complete
    nameless: list[list[str]]  # complete captions that leave the name out
    labels: SceneLabels

    def __len__(self) -> int:
        return len(self.pixels)


def load_scenes(first_seed: int, count: int, cache: Path, workers: int = 2) -> TrainingScenes:
    """The scenes of `count` seeds from `first_seed` on, drawn once and then read from `cache`."""
    folder = cache / f"scenes-{first_seed}-{count}-{_source_digest()}"
    if not (folder / "texts.json").exists():
        _draw_all(range(first_seed, first_seed + count), folder, workers)
    texts = json.loads((folder / "texts.json").read_text(encoding="utf-8"))
    labels = np.load(folder / "labels.npz")
    return TrainingScenes(
        pixels=np.load(folder / "pixels.npy", mmap_mode="r"),
        named=texts["named"],
        nameless=texts["nameless"],
        labels=SceneLabels(**{field.name: labels[field.name] for field in fields(SceneLabels)}),
    )


def invented_names(count: int, seed: int) -> list[str]:
    """`count` place names, none of them the demo's own."""
    rng = random.Random(seed)
    return [invent_name(rng) for _ in range(count)]


def normalised(pixels: np.ndarray) -> np.ndarray:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32 in -1..1, as both image processors do it (mean and deviation 0.5)."""
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).astype(np.float32) / 127.5 - 1.0


def _source_digest() -> str:
    """Changes with the art or the grammar, so that a cache of older scenes is not taken for the present ones."""
    art = ("backdrops", "landmarks", "paint", "scenes", "sprites", "terrain")
    grammar = ("captions", "vocabulary")
    names = (*art, *grammar, Path(__file__).stem)
    sources = [(Path(__file__).parent / f"{name}.py").read_bytes() for name in names]
    return hashlib.sha256(b"".join(sources)).hexdigest()[:10]


def _draw_all(seeds: range, folder: Path, workers: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shape = (len(seeds), IMAGE_SIZE, IMAGE_SIZE, 3)
    pixels = np.lib.format.open_memmap(folder / "pixels.npy", mode="w+", dtype=np.uint8, shape=shape)
    rows, named, nameless = [], [], []
    # Spawned, not forked: torch's threads may be running already, and a fork of them can hang.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        for index, (image, row, with_name, without) in enumerate(pool.map(_describe, seeds, chunksize=64)):
            pixels[index] = image
            rows.append(row)
            named.append(with_name)
            nameless.append(without)
    pixels.flush()
    np.savez(folder / "labels.npz", **{key: np.array([row[key] for row in rows]) for key in rows[0]})
    text = json.dumps({"named": named, "nameless": nameless}, ensure_ascii=False)
    (folder / "texts.json").write_text(text, encoding="utf-8")  # last: it marks the cache as complete


def _describe(seed: int) -> tuple[np.ndarray, dict, list[str], list[str]]:
    """Pixels, labels, captions with NAME and captions without a name of the scene of `seed`."""
    scene, rng = scenery.sample_scene(seed), random.Random(seed)
    # Resized as the processors of both models do it.
    image = scenery.draw(scene).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)
    named = [text for _ in range(CAPTION_SETS) for text in caption_grammar.write_captions(scene, NAME, rng)]
    nameless = [caption_grammar.complete_caption(scene, None, rng) for _ in range(CAPTION_SETS)]
    kind, color = _patch_labels(scene)
    row = {
        "place": scene.place,
        "time": TIMES.index(scene.time),
        "ground": GROUNDS.index(scenery.PLACES[scene.place].ground),
        "weather": WEATHERS.index(scene.weather),
        "kind": kind,
        "color": color,
    }
    return np.asarray(image), row, named, nameless


def _patch_labels(scene) -> tuple[np.ndarray, np.ndarray]:
    """Kind and colour (1-based; 0 = none) of the thing that covers each patch, (GRID * GRID,) uint8 each."""
    kind, color = np.zeros((2, GRID, GRID), dtype=np.uint8)
    edge = scenery.SCENE_SIZE / GRID
    starts = np.arange(GRID) * edge
    best = np.full((GRID, GRID), 0.3)  # a thing owns a patch when it covers more of it than this and than any other
    for thing, (left, top, right, bottom) in zip(scene.things, scenery.thing_boxes(scene), strict=True):
        wide = np.clip(np.minimum(right, starts + edge) - np.maximum(left, starts), 0, None) / edge
        high = np.clip(np.minimum(bottom, starts + edge) - np.maximum(top, starts), 0, None) / edge
        cover = np.outer(high, wide)
        centre = np.zeros_like(best, dtype=bool)  # small things own at least the patch that holds their middle
        row, column = (int(np.clip(value // edge, 0, GRID - 1)) for value in ((top + bottom) / 2, (left + right) / 2))
        centre[row, column] = True
        mine = (cover > best) | (centre & (cover > best - 0.25))
        best = np.where(mine, np.maximum(cover, best), best)
        kind[mine] = KINDS.index(thing.kind) + 1
        color[mine] = COLORS.index(thing.color) + 1
    return kind.ravel(), color.ravel()
