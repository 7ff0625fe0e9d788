"""The landmarks of the demo's places; each stands on the lower edge of its canvas.

Every drawing function takes a pen and `pane`, the colour of the windows.
"""

from functools import lru_cache
from math import cos, pi, sin

from PIL import Image

from demo.drawing.paint import CREAM, MASTER_SCALE, Color, Pen, Point, finish, smooth

PANE, PANE_LIT = (98, 112, 132), (255, 226, 140)
STONE, STONE_DARK = (186, 178, 172), (150, 142, 142)
WOOD, WOOD_DARK = (150, 112, 84), (116, 84, 66)
BRICK, ROOF, SLATE = (196, 118, 98), (176, 92, 80), (112, 118, 142)


def draw_lighthouse(pen: Pen, pane: Color) -> None:
    for i, color in enumerate((CREAM, (206, 104, 92)) * 3):
        top, bottom = 34 + i * 18, 52 + i * 18
        pen.poly([(29 - top * 0.1, top), (43 + top * 0.1, top),
                  (43 + bottom * 0.1, bottom), (29 - bottom * 0.1, bottom)], color)  # fmt: skip
    pen.box(20, 30, 52, 36, SLATE, 2)
    pen.box(26, 14, 46, 31, pane)
    pen.stroke([(36, 14), (36, 30)], SLATE, 2)
    pen.poly([(20, 15), (36, -2), (52, 15)], ROOF)
    pen.box(30, 126, 43, 142, WOOD_DARK, 5)
    pen.box(32, 74, 40, 84, pane, 3)


def draw_windmill(pen: Pen, pane: Color) -> None:
    pen.poly([(42, 46), (72, 46), (82, 128), (32, 128)], CREAM)
    pen.blob([(38, 48), (44, 32), (57, 26), (70, 32), (76, 48)], ROOF)
    pen.box(50, 104, 64, 128, WOOD_DARK, 6)
    pen.box(52, 70, 62, 82, pane, 4)
    for turn in range(4):
        angle = pi / 4 + 0.18 + turn * pi / 2
        dx, dy = cos(angle), sin(angle)
        along = [(57 + dx * r, 44 + dy * r) for r in (4, 18, 54)]
        side = [(x - dy * 13, y + dx * 13) for x, y in along]
        pen.poly([along[1], along[2], side[2], side[1]], (236, 224, 200))
        for r in range(18, 55, 9):
            x, y = 57 + dx * r, 44 + dy * r
            pen.stroke([(x, y), (x - dy * 13, y + dx * 13)], WOOD, 1.6)
        pen.stroke([along[0], along[2]], WOOD_DARK, 4)
    pen.oval(57, 44, 5, 5, WOOD_DARK)


def draw_barn(pen: Pen, pane: Color) -> None:
    pen.poly([(6, 44), (20, 16), (52, 0), (84, 16), (98, 44), (98, 100), (6, 100)], (182, 88, 78))
    pen.poly([(0, 46), (16, 12), (52, -6), (88, 12), (104, 46), (96, 46), (82, 20), (52, 6),
              (22, 20), (8, 46)], SLATE)  # fmt: skip
    pen.box(34, 58, 70, 100, CREAM)
    for left in (37, 54):
        pen.box(left, 61, left + 13, 100, (160, 76, 70))
        pen.stroke([(left, 62), (left + 13, 98)], CREAM, 2.4)
        pen.stroke([(left + 13, 62), (left, 98)], CREAM, 2.4)
    pen.box(42, 24, 62, 44, CREAM, 2)
    pen.box(45, 27, 59, 41, pane)


def draw_oak(pen: Pen, pane: Color) -> None:
    left, right = [(42, 132), (52, 108), (50, 70)], [(70, 70), (70, 108), (84, 132)]
    pen.poly(smooth(left) + smooth(right), WOOD_DARK)
    pen.stroke([(58, 96), (36, 72)], WOOD_DARK, 8)
    pen.stroke([(62, 96), (90, 68)], WOOD_DARK, 8)
    shade = (26, 66, 24), (96, 66, 24), (60, 72, 28), (34, 40, 28), (88, 40, 28), (62, 26, 28)
    for x, y, r in shade:
        pen.oval(x, y, r, r * 0.9, (98, 138, 84))
    leaves = (24, 56, 17), (56, 58, 20), (90, 54, 18), (36, 32, 19), (66, 18, 18), (84, 30, 16)
    for x, y, r in leaves:
        pen.oval(x, y, r, r * 0.8, (124, 162, 96))
    for x, y, r in ((18, 50, 8), (52, 50, 9), (86, 46, 8), (32, 24, 9), (62, 10, 9)):
        pen.oval(x, y, r, r * 0.7, (152, 184, 112))


def draw_pyramid(pen: Pen, pane: Color) -> None:
    pen.poly([(66, 0), (0, 96), (86, 96)], (228, 194, 134))
    pen.poly([(66, 0), (86, 96), (132, 92)], (184, 142, 98))
    for i in range(1, 8):
        y = i * 12
        pen.stroke([(66 - y * 0.6875, y), (66 + y * 0.208, y)], (204, 168, 112), 1.8)
        pen.stroke([(66 + y * 0.208, y), (66 + y * 0.7, y * 0.96)], (164, 124, 86), 1.8)
    pen.poly([(46, 96), (46, 78), (52, 72), (58, 78), (58, 96)], (112, 78, 60))


def draw_church(pen: Pen, pane: Color) -> None:
    pen.poly([(46, 70), (60, 52), (104, 52), (112, 74)], SLATE)
    pen.box(46, 72, 110, 114, CREAM)
    pen.box(16, 50, 48, 114, (240, 228, 208))
    pen.poly([(11, 52), (32, 2), (53, 52)], SLATE)
    pen.stroke([(32, -8), (32, 6)], (206, 166, 84), 3)
    pen.stroke([(27, -3), (37, -3)], (206, 166, 84), 3)
    pen.box(25, 90, 39, 114, WOOD_DARK, 7)
    pen.oval(32, 66, 7, 7, pane)
    for left in (58, 75, 92):
        pen.box(left, 82, left + 10, 104, pane, 5)


def draw_pagoda(pen: Pen, pane: Color) -> None:
    for i, width in enumerate((52, 42, 33)):
        top = 92 - i * 34
        pen.box(56 - width * 0.62, top, 56 + width * 0.62, top + 30, (226, 200, 170))
        for x in (-0.58, -0.2, 0.2, 0.58):
            pen.stroke([(56 + x * width, top + 1), (56 + x * width, top + 29)], (168, 74, 66), 3)
        pen.box(56 - width * 0.13, top + 12, 56 + width * 0.13, top + 30, pane)
        reach = width * 1.12
        eave = smooth([(56 - reach, top - 4), (56 - reach * 0.6, top + 1), (56, top + 4),
                       (56 + reach * 0.6, top + 1), (56 + reach, top - 4)])  # fmt: skip
        ridge = smooth([(56 + reach * 0.72, top - 6), (56 + width * 0.4, top - 16),
                        (56 - width * 0.4, top - 16), (56 - reach * 0.72, top - 6)])  # fmt: skip
        pen.poly(eave + ridge, (84, 116, 112))
    pen.stroke([(56, 8), (56, -8)], (206, 166, 84), 4)


def draw_castle(pen: Pen, pane: Color) -> None:
    def tower(left: float, right: float, top: float, roof: float) -> None:
        middle = (left + right) / 2
        pen.box(left, top, right, 112, STONE)
        pen.poly([(left - 5, top + 2), (middle, top - roof), (right + 5, top + 2)], (108, 104, 150))
        pen.box(middle - 4, top + 12, middle + 4, top + 26, pane, 4)

    for left in range(22, 110, 13):
        pen.box(left, 56, left + 8, 70, STONE_DARK)
    pen.box(16, 63, 116, 112, STONE_DARK)
    tower(52, 80, 34, 34)
    tower(4, 26, 50, 26)
    tower(106, 128, 50, 26)
    pen.box(54, 80, 78, 112, WOOD_DARK, 12)
    pen.poly([(66, 2), (66, -8), (82, -3)], ROOF)
    for x, y in ((36, 76), (90, 84), (40, 98), (86, 100), (62, 68)):
        pen.box(x, y, x + 9, y + 4, STONE)


def draw_clock_tower(pen: Pen, pane: Color) -> None:
    pen.box(16, 34, 56, 140, BRICK)
    pen.box(16, 34, 24, 140, (178, 102, 86))
    pen.box(11, 74, 61, 80, CREAM)
    pen.box(11, 30, 61, 36, CREAM)
    pen.poly([(10, 31), (24, 12), (36, -6), (48, 12), (62, 31)], (88, 124, 120))
    pen.oval(36, 55, 16, 16, WOOD_DARK)
    pen.oval(36, 55, 13.5, 13.5, (252, 246, 226))
    pen.stroke([(36, 56), (36, 45)], (60, 50, 60), 2.6)
    pen.stroke([(36, 56), (44, 59)], (60, 50, 60), 2.6)
    pen.box(28, 116, 44, 140, WOOD_DARK, 8)
    pen.box(29, 88, 43, 106, pane, 7)


def draw_water_tower(pen: Pen, pane: Color) -> None:
    for top, foot in ((18, 8), (78, 88), (40, 36), (56, 60)):
        pen.stroke([(top, 60), (foot, 138)], WOOD_DARK, 5)
    for y in (84, 110):
        pen.stroke([(14, y), (82, y)], WOOD_DARK, 3)
    pen.stroke([(15, 84), (85, 110)], WOOD_DARK, 2.4)
    pen.stroke([(81, 84), (11, 110)], WOOD_DARK, 2.4)
    pen.box(8, 20, 88, 68, (170, 136, 108), 8)
    for x in range(18, 88, 12):
        pen.stroke([(x, 22), (x, 66)], WOOD, 1.8)
    for y in (30, 58):
        pen.box(7, y, 89, y + 4, (104, 96, 104))
    pen.poly([(2, 24), (48, -4), (94, 24)], (122, 128, 146))


def draw_ferris_wheel(pen: Pen, pane: Color) -> None:
    for foot in (24, 108):
        pen.stroke([(66, 64), (foot, 140)], SLATE, 6)
    pen.ring(66, 64, 57, 4, (232, 226, 230))
    pen.ring(66, 64, 46, 2.4, (210, 204, 214))
    cabins = ((222, 138, 120), (236, 204, 136), (138, 176, 190), (160, 184, 136))
    for i in range(12):
        dx, dy = cos(i * pi / 6), sin(i * pi / 6)
        pen.stroke([(66, 64), (66 + dx * 55, 64 + dy * 55)], (222, 216, 224), 1.8)
    for i in range(12):
        x, y = 66 + cos(i * pi / 6) * 56, 64 + sin(i * pi / 6) * 56
        pen.box(x - 6, y - 3, x + 6, y + 9, cabins[i % 4], 4)
        pen.oval(x, y + 1, 2.4, 2.2, pane if pane == PANE_LIT else CREAM)
    pen.oval(66, 64, 7, 7, ROOF)


def draw_bridge(pen: Pen, pane: Color) -> None:
    deck = smooth([(-4, 52), (30, 30), (76, 22), (122, 30), (156, 52)])
    arches: list[Point] = []
    for center, half, top in ((132, 17, 58), (76, 28, 42), (20, 17, 58)):
        arch = smooth([(center + half, 78), (center + half * 0.7, top + 6), (center, top),
                       (center - half * 0.7, top + 6), (center - half, 78)])  # fmt: skip
        arches += [(center + half, 84), *arch, (center - half, 84)]
    pen.poly([*deck, (156, 84), *arches, (-4, 84)], STONE)
    pen.stroke([(-4, 49), (30, 27), (76, 19), (122, 27), (156, 49)], STONE_DARK, 6)
    for x, y in ((36, 50), (44, 62), (108, 50), (112, 64), (40, 76), (110, 76), (58, 36), (90, 36)):
        pen.box(x - 5, y - 2, x + 5, y + 2, STONE_DARK, 1)


LANDMARKS = {  # drawing function, width and height of its canvas, height in scene pixels
    "lighthouse": (draw_lighthouse, 72, 142, 104),
    "windmill": (draw_windmill, 114, 128, 100),
    "barn": (draw_barn, 104, 100, 76),
    "oak": (draw_oak, 122, 132, 98),
    "pyramid": (draw_pyramid, 132, 96, 82),
    "church": (draw_church, 114, 114, 94),
    "pagoda": (draw_pagoda, 112, 122, 96),
    "castle": (draw_castle, 132, 112, 88),
    "clock tower": (draw_clock_tower, 72, 140, 104),
    "water tower": (draw_water_tower, 96, 138, 98),
    "ferris wheel": (draw_ferris_wheel, 132, 140, 104),
    "bridge": (draw_bridge, 152, 84, 66),
}


@lru_cache(maxsize=64)
def landmark_sprite(name: str, lit: bool, scale: int) -> Image.Image:
    """RGBA image of a landmark, `scale` pixels per scene pixel; `lit` windows glow."""
    draw, width, height, pixels = LANDMARKS[name]
    pen = Pen(width, height)
    draw(pen, PANE_LIT if lit else PANE)
    finished = finish(pen, (84, 66, 74), outline=1.4, relief=0.7)
    zoom = pixels * scale / height / MASTER_SCALE
    shrunk_width, shrunk_height = (round(side * zoom) for side in finished.size)
    reduced = finished.resize((shrunk_width, shrunk_height), Image.Resampling.LANCZOS)
    return reduced.crop(reduced.getbbox())
