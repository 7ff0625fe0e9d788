"""Backdrops of the demo's scenes: sky, horizon, ground and landmark at each time of day."""

import random
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from demo.drawing.landmarks import PANE_LIT, landmark_sprite
from demo.drawing.paint import FINE, SIZE, Color, blend, cast_shadow, grained, picture, ramp, relit
from demo.drawing.terrain import HORIZONS, paint_ground

SKY_WIDTH = 2 * SIZE  # the sky is a panorama; each scene shows a crop of it
HORIZON = 122  # pixels from the top
LANDMARK_FOOT = 140
LANDMARK_X = 64  # centre of the landmark; mirrored scenes have it on the right


class Light(NamedTuple):
    """Colours of sky and clouds at one time of day, and the tint of everything below."""

    sky: tuple[Color, ...]  # from the top to the horizon
    cloud: Color
    filter: tuple[float, ...]  # factor per channel for the land
    veil: Color  # colour mixed into the land ...
    share: float  # ... with this weight
    body: tuple[float, ...]  # factor per channel for things; weaker, so colours stay recognisable


LIGHTS = {
    "morning": Light(
        ((172, 190, 226), (244, 204, 206), (255, 240, 190)),
        (255, 236, 224),
        (1.0, 0.94, 0.90),
        (255, 226, 204),
        0.16,
        (1.0, 0.97, 0.95),
    ),
    "noon": Light(
        ((76, 152, 222), (138, 196, 236), (214, 236, 244)),
        (255, 255, 255),
        (1.02, 1.02, 1.0),
        (255, 255, 255),
        0.0,
        (1.0, 1.0, 1.0),
    ),
    "evening": Light(
        ((98, 66, 132), (222, 96, 96), (255, 182, 84)),
        (214, 112, 122),
        (1.0, 0.82, 0.74),
        (240, 120, 80),
        0.08,
        (1.0, 0.93, 0.87),
    ),
    "night": Light(
        ((16, 22, 58), (34, 48, 98), (72, 90, 140)),
        (58, 70, 116),
        (0.57, 0.60, 0.72),
        (44, 52, 104),
        0.09,
        (0.83, 0.83, 0.92),
    ),
}
SUNS = {  # radius in pixels, colour of the disc, colour of the halo
    "morning": (13, (255, 250, 206), (255, 240, 190)),
    "noon": (11, (255, 252, 220), (255, 250, 214)),
    "evening": (17, (255, 218, 120), (255, 160, 84)),
    "night": (12, (250, 244, 214), (150, 160, 210)),
}
SUN_Y = {"morning": 92, "noon": 24, "evening": 96, "night": 30}
# how grey the sky turns
GLOOM = {"clear": 0.0, "cloudy": 0.12, "rainy": 0.48, "snowy": 0.30, "foggy": 0.30}


@lru_cache(maxsize=32)
def sky(time: str, weather: str) -> Image.Image:
    """RGB panorama of the sky, 448 x 150."""
    light, gloom = LIGHTS[time], GLOOM[weather]
    grey = blend(light.sky[1], (128, 132, 146) if time != "night" else (52, 58, 82), 0.75)
    parts = (1.1, 0.9, 0.5)  # least grey at the horizon, where the time of day shows
    stops = [blend(stop, grey, gloom * part) for stop, part in zip(light.sky, parts, strict=False)]
    rows = np.concatenate([ramp(stops, HORIZON * FINE), np.repeat([stops[-1]], 28 * FINE, 0)])
    image = picture(rows, SKY_WIDTH * FINE)
    rng = random.Random(f"{time} {weather}")
    if time == "night" and weather in ("clear", "cloudy"):
        scatter_stars(image, rng)
    clouds = {"clear": 5, "cloudy": 17, "rainy": 22, "snowy": 16, "foggy": 5}[weather]
    color = blend(light.cloud, grey, gloom * 1.4)
    for _ in range(clouds):
        paint_cloud(image, rng, color, grey)
    return grained(image.reduce(FINE), 7, 1.2)


def scatter_stars(image: Image.Image, rng: random.Random) -> None:
    """Draw stars all over a night sky."""
    draw = ImageDraw.Draw(image)
    for _ in range(150):
        x, y = rng.random() * image.width, rng.random() ** 1.3 * HORIZON * FINE
        r = rng.random() * 1.5 + 0.7
        color = blend((120, 130, 180), (255, 250, 220), rng.random())
        draw.ellipse((x - r, y - r, x + r, y + r), fill=color)


def paint_cloud(image: Image.Image, rng: random.Random, color: Color, grey: Color) -> None:
    """Draw one cumulus cloud with a shaded underside, never cut off by the panorama's end."""
    wide = 60 + rng.random() * 90
    tall = wide * (0.26 + rng.random() * 0.12)
    left = rng.random() * (image.width - wide * 1.2)
    top = 8 + rng.random() * (HORIZON * FINE * 0.62)
    mask = Image.new("L", (round(wide * 1.2), round(tall * 2)))
    draw = ImageDraw.Draw(mask)
    for i in range(6):
        x = wide * (0.12 + 0.16 * i) + rng.random() * 6
        r = tall * (0.34 + 0.42 * (1 - abs(i - 2.5) / 2.5) * (0.6 + 0.6 * rng.random()))
        draw.ellipse((x - r * 1.25, tall * 1.3 - r, x + r * 1.25, tall * 1.3 + r * 0.7), fill=215)
    draw.rectangle((0, round(tall * 1.52), mask.width, mask.height), fill=0)
    mask = mask.filter(ImageFilter.GaussianBlur(2.4))
    shades = blend(color, (255, 255, 255), 0.25), color, blend(color, grey, 0.45)
    body = picture(ramp(shades, mask.height), mask.width)
    image.paste(body, (round(left), round(top)), mask)


@lru_cache(maxsize=8)
def sun(time: str) -> Image.Image:
    """RGBA image of the sun or moon with its halo, 120 x 120."""
    radius, disc, halo = SUNS[time]
    y, x = np.mgrid[:120, :120] - 59.5
    distance = np.hypot(x, y)
    inside = np.clip(radius + 0.5 - distance, 0, 1)
    if time == "night":
        # a crescent
        inside = np.clip(inside - np.clip(radius - np.hypot(x - 6, y + 4), 0, 1), 0, 1)
    glow = 0.55 * np.clip(1 - distance / 58, 0, 1) ** 2
    rgb = np.where(inside[..., None] > 0.3, disc, halo)
    rgba = np.dstack([rgb, 255 * np.maximum(inside, glow)]).astype(np.uint8)
    return Image.fromarray(rgba, "RGBA")


@lru_cache(maxsize=64)
def land(landmark: str, ground: str, horizon: str, time: str) -> Image.Image:
    """RGBA image of horizon, ground and landmark without the sky, 224 x 224."""
    light = LIGHTS[time]
    rng = random.Random(landmark)
    image = Image.new("RGBA", (SIZE * FINE, SIZE * FINE))
    HORIZONS[horizon](image, rng)
    paint_ground(image, ground, rng)
    lit = time in ("night", "evening")
    building = landmark_sprite(landmark, lit, FINE)
    left, top = LANDMARK_X * FINE - building.width // 2, LANDMARK_FOOT * FINE - building.height
    cast_shadow(image, LANDMARK_X * FINE, LANDMARK_FOOT * FINE, building.width * 0.56, 11)
    image.alpha_composite(building, (max(0, left), top))
    image = relit(grained(image, 3, 1.6), light.filter, light.veil, light.share)
    if lit:
        light_windows(image, landmark, (max(0, left), top))
    return image.reduce(FINE)


def light_windows(image: Image.Image, landmark: str, corner: tuple[int, int]) -> None:
    """Give the windows of a tinted landmark their own colour back, with a glow around them."""
    lit, unlit = (landmark_sprite(landmark, state, FINE).convert("RGB") for state in (True, False))
    windows = ImageChops.difference(lit, unlit).convert("L").point(lambda v: min(255, v * 3))
    image.paste((*PANE_LIT, 255), corner, windows)
    glow = windows.filter(ImageFilter.GaussianBlur(8)).point(lambda v: min(120, v))
    outline = landmark_sprite(landmark, True, FINE).getchannel("A")
    image.paste((255, 206, 120, 255), corner, ImageChops.darker(glow, outline))
