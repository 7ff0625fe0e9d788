"""Horizons and grounds of the demo's places, in daylight colours at FINE times the scene's size."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from random import Random

import numpy as np
from PIL import Image, ImageDraw

from demo.drawing.paint import FINE, SIZE, Color, Point, blend, picture, ramp

GROUND_COLORS = {  # far, near
    "grass": ((176, 204, 124), (112, 166, 76)),
    "sand": ((246, 226, 174), (230, 190, 122)),
    "snow": ((240, 246, 252), (226, 236, 248)),
    "street": ((172, 172, 182), (132, 134, 148)),
    "deck": ((198, 150, 108), (164, 112, 76)),
}
FLOWERS = ((255, 250, 230), (252, 226, 140), (240, 196, 206))


def ridge(rng: Random, top: float, swing: float, bumps: int, jagged: bool = False) -> list[Point]:
    """Points (x, y) of a hill line across the image, in fine pixels."""
    xs = np.linspace(0, SIZE * FINE, 113)
    knots = np.linspace(0, SIZE * FINE, bumps)
    rises = [(i % 2) * (0.5 + rng.random() / 2) if jagged else rng.random() for i in range(bumps)]
    heights = np.array([top - swing * rise for rise in rises])
    if jagged:
        ys = np.interp(xs, knots, heights) + np.array([rng.random() * 3 for _ in xs])
    else:
        ys = sum(
            height * np.exp(-(((xs - knot) / (SIZE * FINE / bumps)) ** 2))
            for knot, height in zip(knots, heights, strict=False)
        )
        ys = ys / sum(np.exp(-(((xs - knot) / (SIZE * FINE / bumps)) ** 2)) for knot in knots)
    return [(float(x), float(y) * FINE) for x, y in zip(xs, ys, strict=False)]


def fill_below(image: Image.Image, line: Sequence[Point], color: Color, shade: Color) -> None:
    """Fill the land below `line` with a gradient from `color` down to `shade`."""
    mask = Image.new("L", image.size)
    ImageDraw.Draw(mask).polygon([*line, (image.width, image.height), (0, image.height)], fill=255)
    top = int(min(y for _, y in line))
    below = max(0, image.height - top - 60 * FINE)
    bands = (
        np.repeat([color], top, 0),
        ramp((color, shade), 60 * FINE),
        np.repeat([shade], below, 0),
    )
    rows = np.concatenate(bands)[: image.height]
    image.paste(picture(rows, image.width).convert("RGBA"), mask=mask)


def paint_mountains(image: Image.Image, rng: Random) -> None:
    for top, swing, color, shade in (
        (104, 52, (178, 190, 214), (206, 214, 226)),
        (116, 34, (140, 160, 186), (190, 204, 212)),
    ):
        line = ridge(rng, top, swing, 9, jagged=True)
        fill_below(image, line, color, shade)
        draw = ImageDraw.Draw(image)
        for (_x0, y0), (x1, y1), (_x2, y2) in zip(line, line[1:], line[2:], strict=False):
            if y1 < y0 and y1 <= y2 and y1 < (top - swing * 0.4) * FINE:
                outline = (0, 0), (-13, 22), (-4, 16), (3, 24), (14, 20)
                snow = [(x1 + dx, y1 + dy) for dx, dy in outline]
                draw.polygon(snow, fill=(246, 248, 252))
    fill_below(image, ridge(rng, 124, 8, 5), (150, 178, 150), (160, 188, 140))


def paint_hills(image: Image.Image, rng: Random) -> None:
    for top, swing, color, shade in (
        (112, 26, (164, 194, 190), (196, 216, 200)),
        (120, 18, (146, 186, 140), (180, 208, 150)),
        (127, 10, (134, 176, 108), (160, 196, 122)),
    ):
        fill_below(image, ridge(rng, top, swing, 5), color, shade)


def paint_forest(image: Image.Image, rng: Random) -> None:
    fill_below(image, ridge(rng, 108, 22, 5), (150, 178, 182), (186, 206, 196))
    draw = ImageDraw.Draw(image)
    for row, color in ((116, (108, 146, 132)), (126, (82, 124, 104))):
        for i in range(34):
            x, tall = (i + rng.random() * 0.7) * 13.6, 30 + rng.random() * 26
            for level in range(3):
                y, half = row * FINE - tall + level * tall * 0.26, 6 + level * 3
                draw.polygon(
                    [(x, y), (x - half, y + tall * 0.46), (x + half, y + tall * 0.46)],
                    fill=blend(color, (255, 255, 255), 0.06 * level),
                )
        draw.rectangle((0, row * FINE - 6, image.width, image.height), fill=color)


def paint_sea(image: Image.Image, rng: Random) -> None:
    fill_below(image, [(0, 106 * FINE), (image.width, 106 * FINE)], (96, 160, 192), (150, 206, 212))
    draw = ImageDraw.Draw(image)
    for _ in range(90):
        y = 107 + rng.random() ** 1.2 * 26
        x, half = rng.random() * image.width, (y - 103) * (0.5 + rng.random())
        path = (x - half, y * FINE, x + half, y * FINE)
        draw.line(path, fill=(214, 236, 238), width=1 if y < 118 else 2)


def paint_lake(image: Image.Image, rng: Random) -> None:
    fill_below(image, ridge(rng, 100, 28, 5), (158, 186, 196), (190, 212, 206))
    fill_below(image, ridge(rng, 112, 10, 6), (112, 156, 122), (132, 172, 124))
    shore = [(0, 116 * FINE), (image.width, 116 * FINE)]
    fill_below(image, shore, (136, 184, 200), (104, 158, 184))
    draw = ImageDraw.Draw(image)
    for _ in range(70):
        y, x = 118 + rng.random() * 20, rng.random() * image.width
        draw.line((x - 12, y * FINE, x + 12, y * FINE), fill=(196, 222, 226), width=2)


def paint_dunes(image: Image.Image, rng: Random) -> None:
    for top, swing, color, shade in (
        (114, 16, (226, 200, 162), (240, 222, 186)),
        (122, 14, (222, 188, 136), (244, 220, 168)),
    ):
        fill_below(image, ridge(rng, top, swing, 4), color, shade)


def paint_roofs(image: Image.Image, rng: Random) -> None:
    fill_below(image, ridge(rng, 106, 12, 5), (170, 188, 196), (200, 208, 208))
    draw = ImageDraw.Draw(image)
    walls = (234, 214, 188), (222, 196, 178), (206, 206, 204)
    tops = (190, 112, 92), (168, 98, 90), (142, 120, 128)
    for row, haze in ((116, 0.35), (131, 0.12)):
        x: float = -10
        while x < image.width:
            wide, tall = 34 + rng.random() * 26, 26 + rng.random() * 24
            wall, top = (
                blend(group[int(rng.random() * 3)], (206, 214, 222), haze)
                for group in (walls, tops)
            )
            y = row * FINE - tall
            draw.rectangle((x, y, x + wide, row * FINE + 20), fill=wall)
            draw.polygon([(x - 4, y), (x + wide * 0.5, y - 18), (x + wide + 4, y)], fill=top)
            for i in (0.22, 0.62):
                window = (x + wide * i, y + 9, x + wide * i + 6, y + 18)
                draw.rectangle(window, fill=blend(wall, (70, 70, 100), 0.45))
            x += wide


HORIZONS: dict[str, Callable[[Image.Image, Random], None]] = {
    "mountains": paint_mountains,
    "hills": paint_hills,
    "forest": paint_forest,
    "sea": paint_sea,
    "lake": paint_lake,
    "dunes": paint_dunes,
    "roofs": paint_roofs,
}


def paint_ground(image: Image.Image, ground: str, rng: Random) -> None:
    """Paint the ground and its texture below the horizon."""
    far, near = GROUND_COLORS[ground]
    level = 134 if ground in ("street", "deck") else 130
    line: list[Point] = [(0, level * FINE), (image.width, level * FINE)]
    if ground not in ("street", "deck"):
        line = ridge(rng, level + 4, 8, 5)
    mask = Image.new("L", image.size)
    ImageDraw.Draw(mask).polygon([*line, (image.width, image.height), (0, image.height)], fill=255)
    top = int(min(y for _, y in line))
    rows = np.concatenate(
        [np.repeat([far], top, 0), ramp((far, blend(far, near, 0.7), near), image.height - top)]
    )
    image.paste(picture(rows, image.width).convert("RGBA"), mask=mask)
    TEXTURES[ground](image, ImageDraw.Draw(image), rng)


def spots(rng: Random, count: int, top: float = 140) -> Iterator[tuple[float, float, float]]:
    """Yield `count` spots (x, y, nearness 0..1) in fine pixels, denser towards the horizon."""
    for _ in range(count):
        nearness = rng.random()
        yield rng.random() * SIZE * FINE, (top + nearness**1.2 * (SIZE - top)) * FINE, nearness


def texture_grass(image: Image.Image, draw: ImageDraw.ImageDraw, rng: Random) -> None:
    for x, y, near in sorted(spots(rng, 420, 136), key=lambda spot: spot[1]):
        tall, color = 3 + 8 * near, blend((96, 150, 66), (196, 214, 122), rng.random())
        for lean in (-2, 1, 3):
            draw.line((x, y, x + lean * (0.6 + near), y - tall), fill=color, width=1 + (near > 0.5))
    for x, y, near in spots(rng, 46, 142):
        r = 1.4 + 1.8 * near
        draw.ellipse((x - r, y - r, x + r, y + r), fill=FLOWERS[int(rng.random() * len(FLOWERS))])


def texture_sand(image: Image.Image, draw: ImageDraw.ImageDraw, rng: Random) -> None:
    for x, y, near in spots(rng, 120):
        half, crest = 10 + 34 * near, y - 2 - 2 * near
        points = [(x - half, y), (x - half / 2, crest), (x, y), (x + half / 2, crest),
                  (x + half, y)]  # fmt: skip
        color = blend((206, 164, 104), (252, 236, 190), rng.random())
        draw.line(points, fill=color, width=1 + (near > 0.35), joint="curve")
    for x, y, near in spots(rng, 130):
        draw.ellipse((x, y, x + 1 + 2 * near, y + 1 + 2 * near), fill=(190, 148, 98))


def texture_snow(image: Image.Image, draw: ImageDraw.ImageDraw, rng: Random) -> None:
    for x, y, near in sorted(spots(rng, 15, 146), key=lambda spot: spot[1]):
        paint_drift(image, x, y, 70 + 130 * near, 14 + 22 * near)
    for x, y, near in spots(rng, 110):
        draw.ellipse((x, y, x + 2, y + 2), fill=(255, 255, 255) if near > 0.4 else (204, 218, 240))


def paint_drift(image: Image.Image, x: float, y: float, half: float, tall: float) -> None:
    """Paint a snowdrift: a bright crest above a blue shade that fades towards the viewer."""
    width, height = round(half * 2), round(tall * 2)
    rows, columns = np.mgrid[:height, :width]
    crest = tall * 0.3 + tall * 0.5 * (columns / half - 1) ** 2
    depth = (rows - crest) / tall
    fade = np.clip(1 - np.abs(columns / half - 1), 0, 1) ** 0.6
    shade = np.where(depth > 0, np.clip(1 - depth / 0.9, 0, 1) * np.clip(depth * 9, 0, 1), 0) * fade
    light = np.clip(1 - np.abs(depth + 0.02) * 7, 0, 1) * fade
    for color, mask, strength in (((188, 206, 238), shade, 150), ((255, 255, 255), light, 220)):
        opacity = Image.fromarray((mask * strength).astype(np.uint8))
        image.paste((*color, 255), (round(x - half), round(y)), opacity)


def texture_street(image: Image.Image, draw: ImageDraw.ImageDraw, rng: Random) -> None:
    y, tall, odd = 136.0 * FINE, 5.0, 0
    while y < image.height:
        wide, x = tall * 2.1, -tall * 2.1 * (0.5 if odd else 0.1)
        while x < image.width:
            stone = blend((186, 184, 192), (126, 128, 146), rng.random())
            outline = (x + 1, y + 1, x + wide - 1.5, y + tall - 1.5)
            draw.rounded_rectangle(outline, tall * 0.3, fill=stone)
            edge = (x + 3, y + 1.5, x + wide - 4, y + 1.5)
            draw.line(edge, fill=blend(stone, (255, 255, 255), 0.3))
            x += wide
        y, tall, odd = y + tall, tall * 1.13, not odd


def texture_deck(image: Image.Image, draw: ImageDraw.ImageDraw, rng: Random) -> None:
    vanish_x, vanish_y = image.width / 2, 60 * FINE
    top, bottom = 135 * FINE, image.height
    edges = [vanish_x + (i - 9.5) * 74 for i in range(20)]

    def along(x: float, y: float) -> float:
        return vanish_x + (x - vanish_x) * (y - vanish_y) / (bottom - vanish_y)

    for left, right in itertools.pairwise(edges):
        plank = blend((206, 156, 112), (158, 106, 72), rng.random())
        far = (along(left, top), top), (along(right, top), top)
        draw.polygon([*far, (right, bottom), (left, bottom)], fill=plank)
        for _ in range(3):
            x = left + (0.15 + 0.7 * rng.random()) * (right - left)
            draw.line((along(x, top), top, x, bottom), fill=blend(plank, (120, 76, 54), 0.3))
        draw.line((along(left, top), top, left, bottom), fill=(112, 74, 54), width=3)
        joint = top + (0.15 + 0.8 * rng.random()) * (bottom - top)
        seam = (along(left, joint), joint, along(right, joint), joint)
        draw.line(seam, fill=(112, 74, 54), width=2)
    draw.rectangle((0, top - 5, image.width, top + 2), fill=(140, 96, 68))


TEXTURES: dict[str, Callable[[Image.Image, ImageDraw.ImageDraw, Random], None]] = {
    "grass": texture_grass,
    "sand": texture_sand,
    "snow": texture_snow,
    "street": texture_street,
    "deck": texture_deck,
}
