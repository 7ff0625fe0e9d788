"""Sprites of the things in a demo scene, shaded and outlined alike, lit from the upper left."""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from PIL import Image

from demo.drawing import figures, objects
from demo.drawing.paint import MASTER_SCALE, Color, Pen, Tones, finish, tones


class Shape(NamedTuple):
    """Drawing function of a kind, size of its design canvas, height in pixels when small."""

    draw: Callable[[Pen, Tones], None]
    width: int
    height: int
    small: int


SHAPES = {
    "dog": Shape(figures.draw_dog, 104, 85, 44),
    "cat": Shape(figures.draw_cat, 78, 96, 49),
    "horse": Shape(figures.draw_horse, 114, 109, 54),
    "sheep": Shape(figures.draw_sheep, 102, 83, 45),
    "rabbit": Shape(figures.draw_rabbit, 78, 95, 49),
    "duck": Shape(figures.draw_duck, 98, 82, 43),
    "bird": Shape(figures.draw_bird, 108, 70, 38),
    "boat": Shape(objects.draw_boat, 105, 99, 51),
    "car": Shape(objects.draw_car, 118, 73, 40),
    "bus": Shape(objects.draw_bus, 126, 88, 48),
    "bicycle": Shape(objects.draw_bicycle, 118, 78, 43),
    "tent": Shape(objects.draw_tent, 122, 81, 43),
    "bench": Shape(objects.draw_bench, 114, 74, 40),
    "umbrella": Shape(objects.draw_umbrella, 108, 107, 54),
    "ball": Shape(objects.draw_ball, 88, 88, 36),
    "kite": Shape(objects.draw_kite, 94, 125, 52),
    "balloon": Shape(objects.draw_balloon, 88, 119, 56),
    "person": Shape(figures.draw_person, 58, 118, 60),
}
LARGE = 1.45  # height of a large thing relative to a small one


def shape_size(kind: str, size: str) -> tuple[int, int]:
    """Nominal (width, height) in pixels, without the outline and small protruding parts."""
    shape = SHAPES[kind]
    height = shape.small * (LARGE if size == "large" else 1.0)
    return round(height * shape.width / shape.height), round(height)


@lru_cache(maxsize=1024)
def sprite(kind: str, rgb: Color, size: str) -> Image.Image:
    """RGBA image of one thing, cropped to its outline; `size` is "small" or "large"."""
    shape = SHAPES[kind]
    pen = Pen(shape.width, shape.height)
    tone = tones(rgb)
    shape.draw(pen, tone)
    finished = finish(pen, tone.line)
    zoom = shape.small * (LARGE if size == "large" else 1.0) / shape.height / MASTER_SCALE
    width, height = (max(1, round(side * zoom)) for side in finished.size)
    reduced = finished.resize((width, height), Image.Resampling.LANCZOS)
    return reduced.crop(reduced.getchannel("A").point(lambda a: 255 * (a > 40)).getbbox())
