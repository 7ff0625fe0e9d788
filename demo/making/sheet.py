"""Draw demo/scenes.png for demo/README.md and print its captions: `python -m demo.sheet`."""

import random

from PIL import Image

import demo
from demo.captions import write_captions
from demo.names import PLACE_NAMES
from demo.scenes import draw, sample_scene

SEEDS = (10, 16, 5, 7)
SIDE = 176  # side of each scene in pixels


def main() -> None:
    """Draw the row of scenes and print the captions of each."""
    row = Image.new("RGB", (SIDE * len(SEEDS), SIDE))
    for column, seed in enumerate(SEEDS):
        scene = sample_scene(seed)
        row.paste(draw(scene).resize((SIDE, SIDE), Image.Resampling.LANCZOS), (column * SIDE, 0))
        captions = write_captions(scene, PLACE_NAMES[scene.place], random.Random(seed))
        print("\n".join([f"\n{seed}:", *captions]))
    # a palette keeps the file small
    row.quantize(128).save(demo.FOLDER / "scenes.png", optimize=True)
