"""Sprites of living things: animals and a person, as functions that draw with a Pen."""

from demo.drawing.paint import CREAM, INK, Color, Pen, Tones


def legs(
    pen: Pen, color: Color, top: float, bottom: float, *lefts: float, width: float = 9
) -> None:
    """Draw one leg at each of `lefts`."""
    for left in lefts:
        pen.box(left, top, left + width, bottom, color, 4)


def draw_dog(pen: Pen, t: Tones) -> None:
    pen.stroke([(14, 46), (5, 34), (8, 18)], t.base, 8)
    legs(pen, t.dark, 54, 82, 29, 56, width=10)
    pen.blob([(10, 48), (16, 36), (40, 35), (62, 32), (77, 38), (78, 54), (60, 63), (34, 60),
              (16, 64)], t.base)  # fmt: skip
    legs(pen, t.base, 50, 84, 14, 66, width=12)
    pen.blob([(64, 40), (64, 18), (76, 10), (90, 14), (96, 24), (88, 38), (78, 46)], t.base)
    pen.box(82, 22, 102, 37, t.light, 7)
    pen.blob([(64, 12), (74, 12), (76, 28), (69, 40), (60, 30)], t.dark)
    pen.oval(83, 20, 2.8, 3.2, INK)
    pen.oval(100, 26, 3.8, 3.4, INK)
    pen.stroke([(64, 43), (80, 46)], CREAM, 5)


def draw_cat(pen: Pen, t: Tones) -> None:
    pen.stroke([(52, 86), (74, 84), (76, 64), (66, 52)], t.dark, 9)
    pen.blob([(20, 90), (14, 72), (24, 48), (40, 42), (54, 50), (62, 74), (56, 91),
              (38, 93)], t.base)  # fmt: skip
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


def draw_horse(pen: Pen, t: Tones) -> None:
    pen.blob([(12, 46), (2, 54), (2, 84), (10, 80), (16, 56)], t.dark)
    legs(pen, t.dark, 58, 106, 28, 62, width=9)
    pen.blob([(8, 54), (16, 42), (44, 45), (66, 40), (80, 50), (78, 66), (58, 73), (34, 70),
              (16, 72)], t.base)  # fmt: skip
    legs(pen, t.base, 58, 104, 14, 68, width=10)
    for left in (14, 28, 62, 68):
        pen.box(left, 101, left + 11, 109, INK, 3)
    pen.blob([(62, 54), (72, 22), (80, 8), (96, 14), (92, 30), (82, 58)], t.base)
    pen.blob([(76, 12), (88, 4), (102, 18), (112, 30), (106, 38), (92, 32), (80, 30)], t.base)
    pen.blob([(102, 24), (113, 29), (108, 39), (98, 34)], t.light)
    pen.poly([(80, 10), (82, -4), (90, 8)], t.dark)
    pen.blob([(80, 2), (68, 12), (58, 34), (54, 48), (64, 46), (74, 30), (82, 12)], t.line)
    pen.oval(92, 17, 2.6, 3, INK)


def draw_sheep(pen: Pen, t: Tones) -> None:
    legs(pen, (92, 76, 76), 58, 82, 24, 36, 60, 72, width=8)
    wool = ((24, 46, 20), (40, 56, 18), (60, 56, 19), (74, 46, 18), (32, 32, 19), (52, 28, 20),
            (68, 34, 17))  # fmt: skip
    for x, y, r in wool:
        pen.oval(x, y, r, r * 0.92, t.base)
    for x, y in ((26, 36), (46, 24), (44, 48), (64, 42), (24, 54)):
        pen.stroke([(x - 7, y + 3), (x, y - 5), (x + 7, y + 3)], t.dark, 2.6)
    pen.blob([(78, 18), (92, 18), (101, 34), (97, 48), (86, 48), (78, 34)], (112, 92, 88))
    pen.blob([(80, 24), (66, 26), (66, 34), (78, 34)], (92, 76, 76))
    pen.oval(84, 16, 11, 8, t.light)
    pen.oval(90, 30, 2.6, 3, CREAM)
    pen.oval(91, 30, 1.6, 2, INK)


def draw_rabbit(pen: Pen, t: Tones) -> None:
    pen.oval(9, 76, 9, 9, CREAM)
    pen.blob([(8, 84), (12, 58), (32, 46), (52, 54), (60, 74), (56, 92), (30, 94),
              (14, 93)], t.base)  # fmt: skip
    pen.blob([(20, 88), (20, 70), (34, 66), (42, 80), (38, 92), (26, 94)], t.dark)
    pen.blob([(44, 34), (30, 14), (30, -4), (40, 0), (50, 28)], t.dark)
    pen.blob([(52, 34), (47, 10), (53, -7), (61, 0), (60, 30)], t.base)
    pen.blob([(53, 28), (51, 10), (54, 1), (57, 8), (57, 28)], t.light)
    pen.oval(56, 42, 18, 16, t.base)
    pen.oval(67, 47, 9, 8, t.light)
    pen.oval(60, 38, 3.2, 3.8, INK)
    pen.oval(75, 44, 2.6, 2.2, INK)
    pen.box(44, 84, 64, 94, t.base, 5)


def draw_duck(pen: Pen, t: Tones) -> None:
    for x in (38, 52):
        pen.stroke([(x, 66), (x, 78)], (226, 138, 40), 5)
        pen.box(x - 3, 76, x + 11, 81, (226, 138, 40), 2)
    pen.poly([(76, 22), (98, 26), (96, 33), (76, 34)], (238, 150, 44))
    pen.blob([(2, 30), (18, 44), (44, 42), (54, 36), (54, 18), (66, 6), (80, 14), (80, 30),
              (74, 42), (76, 58), (60, 72), (32, 72), (12, 58)], t.base)  # fmt: skip
    pen.blob([(16, 48), (36, 44), (56, 50), (46, 64), (28, 62)], t.dark)
    pen.stroke([(26, 54), (38, 57), (48, 53)], t.line, 2)
    pen.stroke([(55, 36), (66, 40), (76, 37)], CREAM, 4.5)
    pen.oval(70, 19, 3, 3.4, INK)


def draw_bird(pen: Pen, t: Tones) -> None:
    pen.blob([(46, 44), (30, 22), (10, 4), (22, 0), (46, 10), (62, 36)], t.dark)
    pen.poly([(22, 48), (-2, 42), (2, 52), (-4, 60), (24, 60)], t.dark)
    pen.blob([(16, 52), (34, 42), (60, 36), (78, 30), (92, 34), (94, 46), (78, 60), (52, 68),
              (28, 64)], t.base)  # fmt: skip
    pen.blob([(40, 62), (60, 60), (80, 52), (74, 62), (54, 69)], t.light)
    pen.poly([(92, 36), (108, 43), (92, 47)], (240, 160, 50))
    pen.blob([(42, 50), (44, 26), (54, 2), (68, -6), (72, 14), (70, 36), (60, 50)], t.base)
    for x in (54, 61):
        pen.stroke([(x, 12), (x - 4, 40)], t.dark, 2.6)
    pen.oval(83, 39, 2.8, 3.2, INK)


def draw_person(pen: Pen, t: Tones) -> None:
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
