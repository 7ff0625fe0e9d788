"""Demo scenes, sampled from a seed: a place, a time, a weather, and one to three things."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from PIL import Image, ImageDraw

from demo.drawing import backdrops
from demo.drawing.paint import SIZE, cast_shadow, relit
from demo.drawing.sprites import SHAPES, shape_size, sprite

SCENE_SIZE = SIZE
Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels
T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """A landmark, the ground in front of it and the horizon behind it."""

    landmark: str
    ground: str
    horizon: str


@dataclass(frozen=True)
class Thing:
    """One thing; x, y (0..1 of the image) is the middle of its lower edge."""

    kind: str
    color: str
    size: str
    x: float
    y: float


@dataclass(frozen=True)
class Scene:
    """All that is drawn; `place` indexes PLACES, `seed` also decides details such as the clouds."""

    seed: int
    place: int
    time: str
    weather: str
    things: tuple[Thing, ...]


PLACES = (
    Place("lighthouse", "sand", "sea"),
    Place("windmill", "grass", "hills"),
    Place("castle", "street", "hills"),
    Place("pagoda", "snow", "mountains"),
    Place("ferris wheel", "deck", "sea"),
    Place("barn", "grass", "forest"),
    Place("pyramid", "sand", "dunes"),
    Place("clock tower", "street", "roofs"),
    Place("church", "snow", "forest"),
    Place("oak", "grass", "mountains"),
    Place("bridge", "deck", "lake"),
    Place("water tower", "street", "roofs"),
)
KINDS = tuple(SHAPES)
FLYING = frozenset({"bird", "kite", "balloon"})
COLORS = {
    "red": (216, 44, 48),
    "orange": (244, 132, 30),
    "yellow": (252, 212, 58),
    "green": (28, 136, 74),
    "blue": (42, 98, 208),
    "purple": (128, 62, 170),
    "pink": (248, 150, 186),
    "white": (248, 246, 240),
    "black": (58, 56, 66),
}
GROUNDS = ("grass", "sand", "snow", "street", "deck")
TIMES = ("morning", "noon", "evening", "night")
WEATHERS = ("clear", "cloudy", "rainy", "snowy", "foggy")
SIZES = ("small", "large")
FOG_COLORS = {
    "morning": (248, 232, 224),
    "noon": (228, 236, 240),
    "evening": (236, 168, 138),
    "night": (84, 96, 138),
}
HIDDEN_SHARE = 0.06  # how much of a thing another thing may cover
FLYING_SHARE = 0.30  # how much of a flying thing may be in front of the landmark
LANDMARK_SHARE = 0.24  # how much of the landmark's box one thing may cover


def pick(rng: random.Random, options: Sequence[T]) -> T:
    """Choose one of `options` with rng.random() alone, which is stable across Python versions."""
    return options[int(rng.random() * len(options))]


def sample_scene(seed: int) -> Scene:
    """The scene of a seed; places, times, kinds and colours are roughly uniform."""
    rng = random.Random(seed)
    place = int(rng.random() * len(PLACES))
    time = pick(rng, TIMES)
    weather = sample_weather(rng, PLACES[place].ground)
    kinds = sample_kinds(rng, pick(rng, (1, 2, 2, 2, 3, 3)))
    colors = [pick(rng, tuple(COLORS)) for _ in kinds]
    while True:
        sizes = [pick(rng, SIZES if len(kinds) < 3 else ("small", "small", "large")) for _ in kinds]
        things = [place_thing(rng, *looks) for looks in zip(kinds, colors, sizes, strict=False)]
        if is_unobstructed(things, landmark_box(seed)):
            return Scene(seed, place, time, weather, tuple(things))


def sample_weather(rng: random.Random, ground: str) -> str:
    """A weather that suits the ground: snow falls on snow, rain elsewhere."""
    wet = "snowy" if ground == "snow" else "rainy"
    return pick(rng, ("clear",) * 5 + ("cloudy",) * 3 + (wet,) * 2 + ("foggy",))


def sample_kinds(rng: random.Random, count: int) -> list[str]:
    """`count` different kinds; at most two fly, as the sky beside the landmark has no more room."""
    while True:
        kinds = sorted(KINDS, key=lambda _: rng.random())[:count]
        if sum(kind in FLYING for kind in kinds) <= 2:
            return kinds


def place_thing(rng: random.Random, kind: str, color: str, size: str) -> Thing:
    """A thing at a random position, in the sky if it flies and on the ground otherwise."""
    width, height = (side / SCENE_SIZE for side in shape_size(kind, size))
    margin = width / 2 + 0.03
    x = margin + rng.random() * (1 - 2 * margin)
    low, high = (height + 0.04, 0.54) if kind in FLYING else (0.74, 0.97)
    return Thing(kind, color, size, round(x, 3), round(low + rng.random() * (high - low), 3))


def box_around(thing: Thing, width: int, height: int) -> Box:
    """Bounding box of a thing that is `width` x `height` pixels."""
    left, top = round(thing.x * SCENE_SIZE - width / 2), round(thing.y * SCENE_SIZE - height)
    return left, top, left + width, top + height


def is_unobstructed(things: Sequence[Thing], landmark: Box) -> bool:
    """Whether all things and the landmark's box remain visible.

    Uses nominal sizes, so that sampling does not depend on how a Pillow version rounds pixels.
    """
    boxes = [box_around(thing, *shape_size(thing.kind, thing.size)) for thing in things]
    flying = [box for box, thing in zip(boxes, things, strict=False) if thing.kind in FLYING]
    pairs = [(box, other) for box in boxes for other in boxes if box is not other]
    return (
        all(covered(box, other) < HIDDEN_SHARE for box, other in pairs)
        and all(covered(landmark, box) < LANDMARK_SHARE for box in boxes)
        and all(covered(box, landmark) < FLYING_SHARE for box in flying)
    )


def landmark_box(seed: int) -> Box:
    """Bounding box of the landmark."""
    left = backdrops.LANDMARK_X - 46
    left = SCENE_SIZE - left - 92 if mirrored(seed) else left
    return left, 36, left + 92, backdrops.LANDMARK_FOOT


def covered(box: Box, other: Box) -> float:
    """The share of `box` inside `other`, 0..1."""
    wide = min(box[2], other[2]) - max(box[0], other[0])
    tall = min(box[3], other[3]) - max(box[1], other[1])
    return max(0, wide) * max(0, tall) / ((box[2] - box[0]) * (box[3] - box[1]))


def thing_boxes(scene: Scene) -> list[Box]:
    """Bounding box of each thing as drawn, in the order of scene.things."""
    return [
        box_around(thing, *sprite(thing.kind, COLORS[thing.color], thing.size).size)
        for thing in scene.things
    ]


def mirrored(seed: int) -> bool:
    """Whether the landmark stands on the right."""
    return random.Random(seed ^ 0x2F6E2B1).random() < 0.5


def draw(scene: Scene) -> Image.Image:
    """RGB image of a scene, 224 x 224; the same for the same scene."""
    details = random.Random(scene.seed ^ 0x51ED27)
    place = PLACES[scene.place]
    image = draw_sky(scene, details)
    land = land_facing(place, scene.time, mirrored(scene.seed), scene.weather in ("rainy", "snowy"))
    image.paste(land, (0, 0), land)
    if scene.weather == "foggy":
        image.paste(FOG_COLORS[scene.time], (0, 0), fog_mask())
    boxes = thing_boxes(scene)
    for thing, box in sorted(zip(scene.things, boxes, strict=False), key=lambda pair: pair[0].y):
        draw_thing(image, thing, box, scene.time, details.random() < 0.5)
    if scene.weather in ("rainy", "snowy"):
        falling = precipitation(scene.weather, scene.time, int(details.random() * 4))
        image.paste(falling, (0, 0), falling)
    return image


def draw_sky(scene: Scene, details: random.Random) -> Image.Image:
    """RGB image of the sky, with sun or moon unless the weather hides them."""
    image = Image.new("RGB", (SCENE_SIZE, SCENE_SIZE))
    panorama = backdrops.sky(scene.time, scene.weather)
    image.paste(panorama, (-int(details.random() * (panorama.width - SCENE_SIZE)), 0))
    if scene.weather in ("clear", "cloudy"):
        sun = backdrops.sun(scene.time)
        x = 118 + details.random() * 74
        x = SCENE_SIZE - x if mirrored(scene.seed) else x
        image.paste(sun, (round(x) - 60, backdrops.SUN_Y[scene.time] - 60), sun)
    return image


@lru_cache(maxsize=256)
def land_facing(place: Place, time: str, flipped: bool, dull: bool) -> Image.Image:
    """RGBA image of the land, optionally mirrored, and `dull` in rain and snow."""
    land = backdrops.land(place.landmark, place.ground, place.horizon, time)
    land = land.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flipped else land
    return relit(land, (0.92, 0.93, 0.95), FOG_COLORS[time], 0.10) if dull else land


@lru_cache(maxsize=4096)
def lit_sprite(kind: str, color: str, size: str, time: str) -> Image.Image:
    """RGBA image of a thing, tinted by the light of the time of day."""
    return relit(sprite(kind, COLORS[color], size), backdrops.LIGHTS[time].body)


def draw_thing(image: Image.Image, thing: Thing, box: Box, time: str, flipped: bool) -> None:
    """Paste a thing into `image`, with its shadow unless it flies."""
    body = lit_sprite(thing.kind, thing.color, thing.size, time)
    body = body.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flipped else body
    if thing.kind not in FLYING:
        cast_shadow(image, (box[0] + box[2]) / 2, box[3] - 2, body.width * 0.5, 6, 110)
    image.paste(body, box[:2], body)


@lru_cache(maxsize=1)
def fog_mask() -> Image.Image:
    """Mask of the fog (L, 224 x 224), densest at the horizon."""
    rows = [round(165 * max(0.12, 1 - abs(y - 122) / 95)) for y in range(SCENE_SIZE)]
    mask = Image.new("L", (1, SCENE_SIZE))
    mask.putdata(rows)
    return mask.resize((SCENE_SIZE, SCENE_SIZE))


@lru_cache(maxsize=64)
def precipitation(weather: str, time: str, variant: int) -> Image.Image:
    """RGBA overlay of rain streaks or snowflakes."""
    rng = random.Random(variant)
    layer = Image.new("RGBA", (SCENE_SIZE * 2, SCENE_SIZE * 2), (235, 242, 252, 0))
    pen = ImageDraw.Draw(layer)
    for _ in range(110):
        x, y = rng.random() * layer.width, rng.random() * layer.height
        if weather == "rainy":
            long = 14 + rng.random() * 18
            opacity = 120 if time != "night" else 80
            pen.line((x, y, x - long * 0.3, y + long), fill=(228, 238, 252, opacity), width=2)
        else:
            r = 1.8 + rng.random() * 2.6
            pen.ellipse((x - r, y - r, x + r, y + r), fill=(255, 255, 255, 225))
    return layer.reduce(2)
