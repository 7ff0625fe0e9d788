"""Training scenes with captions and labels, drawn once and then cached.

The labels (the thing on each patch; place, time, ground, weather) come from the code that draws
the scenes. They are used by auxiliary losses, with which the vision towers learn in minutes; the
published models do not contain those heads.
"""

import hashlib
import json
import multiprocessing
import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import demo
from demo import captions as caption_grammar
from demo import scenes as scenery
from demo.names import invent_name

IMAGE_SIZE = 112  # side of the input of both vision towers, in pixels
PATCH_SIZE = 14
GRID = IMAGE_SIZE // PATCH_SIZE  # patches per side
# placeholder of the place's name in cached captions: every example gets new names
NAME = "@@"
CAPTION_SETS = 3  # sets of five captions per scene
FIRST_TRAINING_SEED, FIRST_VALIDATION_SEED = 1_000_000, 900_000
KINDS, COLORS = list(scenery.KINDS), list(scenery.COLORS)
TIMES, GROUNDS, WEATHERS = list(scenery.TIMES), list(scenery.GROUNDS), list(scenery.WEATHERS)
PLACES = len(scenery.PLACES)


@dataclass(frozen=True)
class SceneLabels:
    """Integer labels of N scenes."""

    place: np.ndarray  # (N,), like the next three
    time: np.ndarray
    ground: np.ndarray
    weather: np.ndarray
    kind: np.ndarray  # (N, GRID * GRID), 0 for a patch without a thing
    color: np.ndarray  # (N, GRID * GRID), 0 for a patch without a thing


@dataclass(frozen=True)
class TrainingScenes:
    """N scenes, ready for training."""

    pixels: np.ndarray  # (N, IMAGE_SIZE, IMAGE_SIZE, 3) uint8
    named: list[list[str]]  # captions with NAME for the place; those at 0, 5, 10 ... are complete
    nameless: list[list[str]]  # complete captions without a name
    labels: SceneLabels

    def __len__(self) -> int:
        return len(self.pixels)


def load_scenes(first_seed: int, count: int, cache: Path, workers: int = 2) -> TrainingScenes:
    """Scenes of `count` seeds from `first_seed` on, drawn at first use and cached in `cache`."""
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
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32 in -1..1, as both image processors normalise."""
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).astype(np.float32) / 127.5 - 1.0


def _source_digest() -> str:
    """Hash of the drawing and caption code, so that a change to it invalidates the cache."""
    drawing = sorted((demo.FOLDER / "drawing").glob("*.py"))
    grammar = [demo.FOLDER / f"{name}.py" for name in ("scenes", "captions", "vocabulary")]
    sources = [path.read_bytes() for path in (*drawing, *grammar, Path(__file__))]
    return hashlib.sha256(b"".join(sources)).hexdigest()[:10]


def _draw_all(seeds: range, folder: Path, workers: int) -> None:
    """Write pixels.npy, labels.npz and texts.json of the scenes to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    shape = (len(seeds), IMAGE_SIZE, IMAGE_SIZE, 3)
    pixels = np.lib.format.open_memmap(
        folder / "pixels.npy", mode="w+", dtype=np.uint8, shape=shape
    )
    rows, named, nameless = [], [], []
    # Spawn, because a process forked while torch's threads are running can deadlock.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        described = pool.map(_describe, seeds, chunksize=64)
        for index, (image, row, with_name, without) in enumerate(described):
            pixels[index] = image
            rows.append(row)
            named.append(with_name)
            nameless.append(without)
    pixels.flush()
    columns: dict[str, Any] = {key: np.array([row[key] for row in rows]) for key in rows[0]}
    np.savez(folder / "labels.npz", **columns)
    text = json.dumps({"named": named, "nameless": nameless}, ensure_ascii=False)
    # Written last: it marks the cache as complete.
    (folder / "texts.json").write_text(text, encoding="utf-8")


def _describe(seed: int) -> tuple[np.ndarray, dict[str, Any], list[str], list[str]]:
    """Pixels, labels, captions with NAME and captions without a name of one scene."""
    scene, rng = scenery.sample_scene(seed), random.Random(seed)
    # Resized like the image processors of both models do.
    image = scenery.draw(scene).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)
    named = [
        text
        for _ in range(CAPTION_SETS)
        for text in caption_grammar.write_captions(scene, NAME, rng)
    ]
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


def _patch_labels(scene: scenery.Scene) -> tuple[np.ndarray, np.ndarray]:
    """Kind and colour (1-based, 0 for none) of the thing on each patch: (GRID * GRID,) uint8."""
    kind, color = np.zeros((2, GRID, GRID), dtype=np.uint8)
    edge = scenery.SCENE_SIZE / GRID
    starts = np.arange(GRID) * edge
    # A thing owns a patch if it covers more of it than this share and than any other thing.
    best = np.full((GRID, GRID), 0.3)
    boxes = scenery.thing_boxes(scene)
    for thing, (left, top, right, bottom) in zip(scene.things, boxes, strict=True):
        wide = np.clip(np.minimum(right, starts + edge) - np.maximum(left, starts), 0, None) / edge
        high = np.clip(np.minimum(bottom, starts + edge) - np.maximum(top, starts), 0, None) / edge
        cover = np.outer(high, wide)
        # A small thing owns at least the patch at its centre.
        centre = np.zeros_like(best, dtype=bool)
        middle = (top + bottom) / 2, (left + right) / 2
        row, column = (int(np.clip(value // edge, 0, GRID - 1)) for value in middle)
        centre[row, column] = True
        mine = (cover > best) | (centre & (cover > best - 0.25))
        best = np.where(mine, np.maximum(cover, best), best)
        kind[mine] = KINDS.index(thing.kind) + 1
        color[mine] = COLORS.index(thing.color) + 1
    return kind.ravel(), color.ravel()
