"""Draws demo/scenes.png, the row of scenes in demo/README.md, and prints their captions: `python -m demo.sheet`."""

import random

from PIL import Image

import demo
from demo.captions import write_captions
from demo.names import PLACE_NAMES
from demo.scenes import draw, sample_scene

SEEDS = (10, 16, 5, 7)
SIDE = 176  # pixels of each scene in the row


def main() -> None:
    """Draws the row and prints the captions of each scene."""
    row = Image.new("RGB", (SIDE * len(SEEDS), SIDE))
    for column, seed in enumerate(SEEDS):
        scene = sample_scene(seed)
        row.paste(draw(scene).resize((SIDE, SIDE), Image.Resampling.LANCZOS), (column * SIDE, 0))
        print("\n".join([f"\n{seed}:", *write_captions(scene, PLACE_NAMES[scene.place], random.Random(seed))]))
    row.quantize(128).save(demo.FOLDER / "scenes.png", optimize=True)  # a palette keeps the file small


if __name__ == "__main__":
    main()
