"""The things of a demo scene, drawn in one hand: flat shapes, light from the upper left, a soft dark outline."""

from functools import lru_cache
from typing import NamedTuple

from PIL import Image

from demo.paint import MASTER_SCALE, Pen, finish, smooth, tones

INK = (58, 46, 56)
CREAM = (250, 240, 220)
GLASS = (206, 228, 236)


def legs(pen, color, top, bottom, *lefts, width=9):
    for left in lefts:
        pen.box(left, top, left + width, bottom, color, 4)


def draw_dog(pen, t):
    pen.stroke([(14, 46), (5, 34), (8, 18)], t.base, 8)
    legs(pen, t.dark, 54, 82, 29, 56, width=10)
    pen.blob([(10, 48), (16, 36), (40, 35), (62, 32), (77, 38), (78, 54), (60, 63), (34, 60), (16, 64)], t.base)
    legs(pen, t.base, 50, 84, 14, 66, width=12)
    pen.blob([(64, 40), (64, 18), (76, 10), (90, 14), (96, 24), (88, 38), (78, 46)], t.base)
    pen.box(82, 22, 102, 37, t.light, 7)
    pen.blob([(64, 12), (74, 12), (76, 28), (69, 40), (60, 30)], t.dark)
    pen.oval(83, 20, 2.8, 3.2, INK)
    pen.oval(100, 26, 3.8, 3.4, INK)
    pen.stroke([(64, 43), (80, 46)], CREAM, 5)


def draw_cat(pen, t):
    pen.stroke([(52, 86), (74, 84), (76, 64), (66, 52)], t.dark, 9)
    pen.blob([(20, 90), (14, 72), (24, 48), (40, 42), (54, 50), (62, 74), (56, 91), (38, 93)], t.base)
    pen.blob([(30, 88), (30, 64), (38, 56), (46, 64), (46, 88)], t.light)
    pen.poly([(14, 30), (12, 0), (36, 14)], t.base)
    pen.poly([(62, 30), (64, 0), (40, 14)], t.base)
    pen.poly([(18, 22), (16, 8), (28, 15)], t.dark)
    pen.poly([(58, 22), (60, 8), (48, 15)], t.dark)
    pen.oval(38, 31, 27, 22, t.base)
    pen.oval(38, 40, 12, 9, t.light)
    for side in (-1, 1):
        pen.oval(38 + side * 12, 29, 3.6, 4.6, INK)
        pen.stroke([(38 + side * 14, 40), (38 + side * 30, 38)], t.line, 1.4)
        pen.oval(38 + side * 10, 91, 8, 5, t.base)
    pen.poly([(34, 36), (42, 36), (38, 41)], INK)


def draw_horse(pen, t):
    pen.blob([(12, 46), (2, 54), (2, 84), (10, 80), (16, 56)], t.dark)
    legs(pen, t.dark, 58, 106, 28, 62, width=9)
    pen.blob([(8, 54), (16, 42), (44, 45), (66, 40), (80, 50), (78, 66), (58, 73), (34, 70), (16, 72)], t.base)
    legs(pen, t.base, 58, 104, 14, 68, width=10)
    for left in (14, 28, 62, 68):
        pen.box(left, 101, left + 11, 109, INK, 3)
    pen.poly(smooth([(62, 54), (72, 22), (80, 8), (96, 14), (92, 30), (82, 58)], closed=True), t.base)
    pen.blob([(76, 12), (88, 4), (102, 18), (112, 30), (106, 38), (92, 32), (80, 30)], t.base)
    pen.blob([(102, 24), (113, 29), (108, 39), (98, 34)], t.light)
    pen.poly([(80, 10), (82, -4), (90, 8)], t.dark)
    pen.blob([(80, 2), (68, 12), (58, 34), (54, 48), (64, 46), (74, 30), (82, 12)], t.line)
    pen.oval(92, 17, 2.6, 3, INK)


def draw_sheep(pen, t):
    legs(pen, (92, 76, 76), 58, 82, 24, 36, 60, 72, width=8)
    for x, y, r in ((24, 46, 20), (40, 56, 18), (60, 56, 19), (74, 46, 18), (32, 32, 19), (52, 28, 20), (68, 34, 17)):
        pen.oval(x, y, r, r * 0.92, t.base)
    for x, y in ((26, 36), (46, 24), (44, 48), (64, 42), (24, 54)):
        pen.stroke([(x - 7, y + 3), (x, y - 5), (x + 7, y + 3)], t.dark, 2.6)
    pen.blob([(78, 18), (92, 18), (101, 34), (97, 48), (86, 48), (78, 34)], (112, 92, 88))
    pen.blob([(80, 24), (66, 26), (66, 34), (78, 34)], (92, 76, 76))
    pen.oval(84, 16, 11, 8, t.light)
    pen.oval(90, 30, 2.6, 3, CREAM)
    pen.oval(91, 30, 1.6, 2, INK)


def draw_rabbit(pen, t):
    pen.oval(9, 76, 9, 9, CREAM)
    pen.blob([(8, 84), (12, 58), (32, 46), (52, 54), (60, 74), (56, 92), (30, 94), (14, 93)], t.base)
    pen.blob([(20, 88), (20, 70), (34, 66), (42, 80), (38, 92), (26, 94)], t.dark)
    pen.blob([(44, 34), (30, 14), (30, -4), (40, 0), (50, 28)], t.dark)
    pen.blob([(52, 34), (47, 10), (53, -7), (61, 0), (60, 30)], t.base)
    pen.blob([(53, 28), (51, 10), (54, 1), (57, 8), (57, 28)], t.light)
    pen.oval(56, 42, 18, 16, t.base)
    pen.oval(67, 47, 9, 8, t.light)
    pen.oval(60, 38, 3.2, 3.8, INK)
    pen.oval(75, 44, 2.6, 2.2, INK)
    pen.box(44, 84, 64, 94, t.base, 5)


def draw_duck(pen, t):
    for x in (38, 52):
        pen.stroke([(x, 66), (x, 78)], (226, 138, 40), 5)
        pen.box(x - 3, 76, x + 11, 81, (226, 138, 40), 2)
    pen.poly([(76, 22), (98, 26), (96, 33), (76, 34)], (238, 150, 44))
    pen.blob(
        [
            (2, 30),
            (18, 44),
            (44, 42),
            (54, 36),
            (54, 18),
            (66, 6),
            (80, 14),
            (80, 30),
            (74, 42),
            (76, 58),
            (60, 72),
            (32, 72),
            (12, 58),
        ],
        t.base,
    )
    pen.blob([(16, 48), (36, 44), (56, 50), (46, 64), (28, 62)], t.dark)
    pen.stroke([(26, 54), (38, 57), (48, 53)], t.line, 2)
    pen.stroke([(55, 36), (66, 40), (76, 37)], CREAM, 4.5)
    pen.oval(70, 19, 3, 3.4, INK)


def draw_bird(pen, t):
    pen.blob([(46, 44), (30, 22), (10, 4), (22, 0), (46, 10), (62, 36)], t.dark)
    pen.poly([(22, 48), (-2, 42), (2, 52), (-4, 60), (24, 60)], t.dark)
    pen.blob([(16, 52), (34, 42), (60, 36), (78, 30), (92, 34), (94, 46), (78, 60), (52, 68), (28, 64)], t.base)
    pen.blob([(40, 62), (60, 60), (80, 52), (74, 62), (54, 69)], t.light)
    pen.poly([(92, 36), (108, 43), (92, 47)], (240, 160, 50))
    pen.blob([(42, 50), (44, 26), (54, 2), (68, -6), (72, 14), (70, 36), (60, 50)], t.base)
    for x in (54, 61):
        pen.stroke([(x, 12), (x - 4, 40)], t.dark, 2.6)
    pen.oval(83, 39, 2.8, 3.2, INK)


def draw_boat(pen, t):
    pen.stroke([(52, 0), (52, 76)], (128, 92, 66), 5)
    pen.blob([(57, 6), (80, 26), (94, 58), (76, 62), (57, 60)], t.light)
    pen.poly([*smooth([(57, 34), (74, 34), (88, 44)]), (93, 56), *smooth([(90, 58), (74, 48), (57, 48)])], t.base)
    pen.blob([(47, 10), (34, 30), (16, 58), (32, 61), (47, 60)], t.base)
    pen.poly([(2, 70), (104, 68), (92, 88), (80, 98), (26, 98), (12, 88)], t.base)
    pen.poly([(2, 70), (104, 68), (101, 75), (5, 77)], CREAM)
    pen.stroke([(14, 87), (92, 86)], t.dark, 3)
    pen.poly([(52, -2), (52, -12), (68, -6)], t.base)


def draw_car(pen, t):
    pen.blob([(24, 30), (32, 6), (50, 0), (74, 2), (88, 14), (96, 32)], t.base)
    pen.blob([(32, 27), (37, 11), (54, 8), (54, 28)], GLASS)
    pen.blob([(60, 28), (60, 8), (76, 10), (86, 28)], GLASS)
    pen.blob([(2, 54), (4, 34), (24, 27), (60, 26), (96, 27), (114, 34), (117, 54), (108, 60), (10, 60)], t.base)
    pen.box(3, 48, 116, 56, t.dark, 4)
    pen.stroke([(57, 30), (57, 47)], t.dark, 2)
    pen.box(62, 34, 71, 37, t.line, 1)
    pen.oval(112, 40, 4, 5, (255, 240, 180))
    for x in (28, 90):
        pen.oval(x, 58, 15, 15, INK)
        pen.oval(x, 58, 7, 7, (214, 208, 204))


def draw_bus(pen, t):
    pen.box(0, 0, 126, 74, t.base, 11)
    pen.box(0, 52, 126, 72, t.dark, 8)
    pen.box(2, 47, 124, 52, CREAM)
    for left in (8, 34, 60):
        pen.box(left, 12, left + 21, 36, GLASS, 4)
    pen.box(87, 12, 103, 66, GLASS, 3)
    pen.stroke([(95, 14), (95, 65)], t.line, 2)
    pen.box(108, 12, 124, 38, GLASS, 4)
    pen.oval(121, 58, 4, 4, (255, 240, 180))
    for x in (28, 78):
        pen.oval(x, 74, 14, 14, INK)
        pen.oval(x, 74, 6, 6, (214, 208, 204))


def draw_bicycle(pen, t):
    for x in (24, 92):
        pen.ring(x, 52, 24, 5.5, INK)
        pen.ring(x, 52, 18.5, 4.5, t.base)
        pen.oval(x, 52, 5, 5, t.dark)
    for path in (
        ((24, 52), (44, 20)),
        ((44, 20), (56, 54)),
        ((24, 52), (56, 54)),
        ((46, 22), (80, 18)),
        ((56, 54), (81, 20)),
        ((92, 52), (77, 6)),
    ):
        pen.stroke(path, t.base, 8)
    pen.stroke([(44, 20), (41, 8)], t.dark, 6)
    pen.stroke([(30, 6), (50, 5)], INK, 8)
    pen.stroke([(77, 6), (86, 0), (94, 6)], INK, 6)
    pen.oval(56, 54, 7, 7, t.dark)


def draw_tent(pen, t):
    pen.poly([(40, 0), (84, 4), (122, 74), (80, 80)], t.dark)
    pen.poly([(40, 0), (0, 80), (82, 80)], t.base)
    pen.poly([(40, 8), (24, 80), (58, 80)], t.line)
    pen.poly([(40, 8), (24, 80), (12, 80), (30, 44)], t.light)
    pen.poly([(40, 8), (58, 80), (68, 80), (50, 44)], t.light)
    pen.stroke([(40, 0), (84, 4)], CREAM, 3)


def draw_bench(pen, t):
    for x in (14, 98):
        pen.stroke([(x, 4), (x, 70)], INK, 7)
        pen.stroke([(x + (10 if x < 50 else -10), 46), (x + (10 if x < 50 else -10), 72)], INK, 6)
    for top in (2, 19):
        pen.box(0, top, 112, top + 13, t.base, 4)
    pen.poly([(4, 38), (108, 38), (114, 52), (-2, 52)], t.base)
    pen.stroke([(2, 45), (110, 45)], t.dark, 2.5)
    pen.box(-2, 50, 114, 57, t.dark, 3)


def draw_umbrella(pen, t):
    pen.stroke([(54, 0), (54, 104)], (134, 98, 70), 5)
    pen.stroke([(54, 92), (54, 104), (64, 104), (65, 97)], (134, 98, 70), 5)
    rim = [(108, 52), (96, 46), (84, 52), (69, 46), (54, 52), (39, 46), (24, 52), (12, 46), (0, 52)]
    pen.poly(smooth([(0, 52), (10, 26), (30, 8), (54, 2), (78, 8), (98, 26), (108, 52)]) + smooth(rim), t.base)
    pen.poly(smooth([(24, 52), (34, 22), (54, 2)]) + smooth([(54, 2), (50, 24), (54, 52)]) + [(39, 46)], t.light)
    pen.poly(smooth([(84, 52), (76, 22), (54, 2)]) + smooth([(54, 2), (90, 18), (108, 52)]) + [(96, 46)], t.dark)
    pen.oval(54, 0, 4, 4, t.line)


def draw_ball(pen, t):
    pen.oval(44, 44, 43, 43, t.base)
    pen.poly(smooth([(30, 3), (14, 26), (14, 62), (30, 85)]) + smooth([(44, 86), (32, 62), (32, 26), (44, 2)]), CREAM)
    pen.poly(smooth([(60, 5), (74, 30), (74, 60), (60, 83)]) + smooth([(70, 78), (85, 56), (85, 34), (70, 10)]), t.dark)
    pen.oval(56, 20, 9, 6, t.light)
    pen.ring(44, 44, 43, 1.5, t.line)


def draw_kite(pen, t):
    pen.stroke([(46, 92), (34, 104), (44, 114), (30, 124)], t.line, 2.6)
    for x, y in ((36, 104), (41, 115)):
        pen.poly([(x, y), (x - 9, y - 6), (x - 9, y + 5)], t.base)
        pen.poly([(x, y), (x + 9, y - 5), (x + 9, y + 6)], t.base)
    pen.poly([(50, 0), (92, 38), (46, 94), (4, 34)], t.base)
    pen.poly([(50, 0), (92, 38), (48, 36)], t.light)
    pen.poly([(4, 34), (48, 36), (46, 94)], t.dark)
    pen.stroke([(50, 0), (46, 94)], CREAM, 2.6)
    pen.stroke([(4, 34), (92, 38)], CREAM, 2.6)


def draw_balloon(pen, t):
    for x in (28, 60):
        pen.stroke([(x, 84), (44 + (x - 44) * 0.5, 104)], (120, 92, 72), 2.4)
    pen.blob([(44, 0), (74, 8), (88, 36), (80, 62), (58, 90), (30, 90), (8, 62), (0, 36), (14, 8)], t.base)
    pen.blob([(44, 0), (60, 26), (60, 58), (50, 91), (38, 91), (28, 58), (28, 26)], t.light)
    pen.blob([(52, 0), (78, 14), (87, 38), (78, 64), (59, 89), (72, 62), (75, 30)], t.dark)
    pen.box(29, 87, 59, 92, CREAM, 2)
    pen.box(33, 102, 55, 118, (170, 122, 78), 4)
    pen.stroke([(34, 108), (54, 108)], (132, 92, 60), 2)


def draw_person(pen, t):
    legs(pen, (84, 78, 104), 84, 114, 14, 31, width=11)
    for left in (12, 31):
        pen.box(left, 109, left + 15, 117, INK, 3)
    pen.blob([(16, 36), (40, 36), (49, 66), (55, 94), (28, 98), (1, 94), (7, 66)], t.base)
    pen.stroke([(13, 44), (3, 60), (1, 74)], t.dark, 9)
    pen.stroke([(43, 44), (53, 60), (55, 74)], t.dark, 9)
    pen.oval(1, 78, 5, 5, (240, 200, 170))
    pen.oval(55, 78, 5, 5, (240, 200, 170))
    pen.stroke([(28, 46), (28, 96)], t.dark, 2.2)
    for y in (56, 68, 80):
        pen.oval(33, y, 2.2, 2.2, CREAM)
    pen.oval(28, 18, 18, 18, (104, 70, 54))
    pen.oval(29, 21, 14, 14, (244, 206, 176))
    pen.oval(24, 21, 1.9, 2.4, INK)
    pen.oval(34, 21, 1.9, 2.4, INK)
    pen.stroke([(25, 28), (29, 30), (33, 28)], (190, 100, 90), 1.8)
    pen.stroke([(15, 38), (28, 42), (41, 38)], CREAM, 7)


class Shape(NamedTuple):
    """How to draw a kind, the size of its design canvas, and the height in pixels of a small one."""

    draw: object
    width: int
    height: int
    small: int


SHAPES = {
    "dog": Shape(draw_dog, 104, 85, 44),
    "cat": Shape(draw_cat, 78, 96, 49),
    "horse": Shape(draw_horse, 114, 109, 54),
    "sheep": Shape(draw_sheep, 102, 83, 45),
    "rabbit": Shape(draw_rabbit, 78, 95, 49),
    "duck": Shape(draw_duck, 98, 82, 43),
    "bird": Shape(draw_bird, 108, 70, 38),
    "boat": Shape(draw_boat, 105, 99, 51),
    "car": Shape(draw_car, 118, 73, 40),
    "bus": Shape(draw_bus, 126, 88, 48),
    "bicycle": Shape(draw_bicycle, 118, 78, 43),
    "tent": Shape(draw_tent, 122, 81, 43),
    "bench": Shape(draw_bench, 114, 74, 40),
    "umbrella": Shape(draw_umbrella, 108, 107, 54),
    "ball": Shape(draw_ball, 88, 88, 36),
    "kite": Shape(draw_kite, 94, 125, 52),
    "balloon": Shape(draw_balloon, 88, 119, 56),
    "person": Shape(draw_person, 58, 118, 60),
}
LARGE = 1.45  # a large thing is this many times a small one


def shape_size(kind, size):
    """(width, height) in pixels of a thing by its design, up to the outline and what juts out a little."""
    shape = SHAPES[kind]
    height = shape.small * (LARGE if size == "large" else 1.0)
    return round(height * shape.width / shape.height), round(height)


@lru_cache(maxsize=1024)
def sprite(kind, rgb, size):
    """The picture of one thing, RGBA, cut to its outline; `size` "small" or "large"."""
    shape = SHAPES[kind]
    pen = Pen(shape.width, shape.height)
    tone = tones(rgb)
    shape.draw(pen, tone)
    finished = finish(pen, tone.line)
    zoom = shape.small * (LARGE if size == "large" else 1.0) / shape.height / MASTER_SCALE
    reduced = finished.resize([max(1, round(side * zoom)) for side in finished.size], Image.Resampling.LANCZOS)
    return reduced.crop(reduced.getchannel("A").point(lambda a: 255 * (a > 40)).getbbox())
