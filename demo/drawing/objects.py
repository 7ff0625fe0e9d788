"""Sprites of objects, as functions that draw with a Pen."""

from demo.drawing.paint import CREAM, INK, Pen, Tones, smooth

GLASS = (206, 228, 236)


def draw_boat(pen: Pen, t: Tones) -> None:
    pen.stroke([(52, 0), (52, 76)], (128, 92, 66), 5)
    pen.blob([(57, 6), (80, 26), (94, 58), (76, 62), (57, 60)], t.light)
    upper, lower = smooth([(57, 34), (74, 34), (88, 44)]), smooth([(90, 58), (74, 48), (57, 48)])
    pen.poly([*upper, (93, 56), *lower], t.base)
    pen.blob([(47, 10), (34, 30), (16, 58), (32, 61), (47, 60)], t.base)
    pen.poly([(2, 70), (104, 68), (92, 88), (80, 98), (26, 98), (12, 88)], t.base)
    pen.poly([(2, 70), (104, 68), (101, 75), (5, 77)], CREAM)
    pen.stroke([(14, 87), (92, 86)], t.dark, 3)
    pen.poly([(52, -2), (52, -12), (68, -6)], t.base)


def draw_car(pen: Pen, t: Tones) -> None:
    pen.blob([(24, 30), (32, 6), (50, 0), (74, 2), (88, 14), (96, 32)], t.base)
    pen.blob([(32, 27), (37, 11), (54, 8), (54, 28)], GLASS)
    pen.blob([(60, 28), (60, 8), (76, 10), (86, 28)], GLASS)
    pen.blob([(2, 54), (4, 34), (24, 27), (60, 26), (96, 27), (114, 34), (117, 54), (108, 60),
              (10, 60)], t.base)  # fmt: skip
    pen.box(3, 48, 116, 56, t.dark, 4)
    pen.stroke([(57, 30), (57, 47)], t.dark, 2)
    pen.box(62, 34, 71, 37, t.line, 1)
    pen.oval(112, 40, 4, 5, (255, 240, 180))
    for x in (28, 90):
        pen.oval(x, 58, 15, 15, INK)
        pen.oval(x, 58, 7, 7, (214, 208, 204))


def draw_bus(pen: Pen, t: Tones) -> None:
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


def draw_bicycle(pen: Pen, t: Tones) -> None:
    for x in (24, 92):
        pen.ring(x, 52, 24, 5.5, INK)
        pen.ring(x, 52, 18.5, 4.5, t.base)
        pen.oval(x, 52, 5, 5, t.dark)
    frame = (((24, 52), (44, 20)), ((44, 20), (56, 54)), ((24, 52), (56, 54)),
             ((46, 22), (80, 18)), ((56, 54), (81, 20)), ((92, 52), (77, 6)))  # fmt: skip
    for path in frame:
        pen.stroke(path, t.base, 8)
    pen.stroke([(44, 20), (41, 8)], t.dark, 6)
    pen.stroke([(30, 6), (50, 5)], INK, 8)
    pen.stroke([(77, 6), (86, 0), (94, 6)], INK, 6)
    pen.oval(56, 54, 7, 7, t.dark)


def draw_tent(pen: Pen, t: Tones) -> None:
    pen.poly([(40, 0), (84, 4), (122, 74), (80, 80)], t.dark)
    pen.poly([(40, 0), (0, 80), (82, 80)], t.base)
    pen.poly([(40, 8), (24, 80), (58, 80)], t.line)
    pen.poly([(40, 8), (24, 80), (12, 80), (30, 44)], t.light)
    pen.poly([(40, 8), (58, 80), (68, 80), (50, 44)], t.light)
    pen.stroke([(40, 0), (84, 4)], CREAM, 3)


def draw_bench(pen: Pen, t: Tones) -> None:
    for x in (14, 98):
        pen.stroke([(x, 4), (x, 70)], INK, 7)
        pen.stroke([(x + (10 if x < 50 else -10), 46), (x + (10 if x < 50 else -10), 72)], INK, 6)
    for top in (2, 19):
        pen.box(0, top, 112, top + 13, t.base, 4)
    pen.poly([(4, 38), (108, 38), (114, 52), (-2, 52)], t.base)
    pen.stroke([(2, 45), (110, 45)], t.dark, 2.5)
    pen.box(-2, 50, 114, 57, t.dark, 3)


def draw_umbrella(pen: Pen, t: Tones) -> None:
    pen.stroke([(54, 0), (54, 104)], (134, 98, 70), 5)
    pen.stroke([(54, 92), (54, 104), (64, 104), (65, 97)], (134, 98, 70), 5)
    rim = [(108, 52), (96, 46), (84, 52), (69, 46), (54, 52), (39, 46), (24, 52), (12, 46), (0, 52)]
    dome = [(0, 52), (10, 26), (30, 8), (54, 2), (78, 8), (98, 26), (108, 52)]
    pen.poly(smooth(dome) + smooth(rim), t.base)
    left, right = smooth([(24, 52), (34, 22), (54, 2)]), smooth([(54, 2), (50, 24), (54, 52)])
    pen.poly([*left, *right, (39, 46)], t.light)
    left, right = smooth([(84, 52), (76, 22), (54, 2)]), smooth([(54, 2), (90, 18), (108, 52)])
    pen.poly([*left, *right, (96, 46)], t.dark)
    pen.oval(54, 0, 4, 4, t.line)


def draw_ball(pen: Pen, t: Tones) -> None:
    pen.oval(44, 44, 43, 43, t.base)
    outer, inner = [(30, 3), (14, 26), (14, 62), (30, 85)], [(44, 86), (32, 62), (32, 26), (44, 2)]
    pen.poly(smooth(outer) + smooth(inner), CREAM)
    inner, outer = [(60, 5), (74, 30), (74, 60), (60, 83)], [(70, 78), (85, 56), (85, 34), (70, 10)]
    pen.poly(smooth(inner) + smooth(outer), t.dark)
    pen.oval(56, 20, 9, 6, t.light)
    pen.ring(44, 44, 43, 1.5, t.line)


def draw_kite(pen: Pen, t: Tones) -> None:
    pen.stroke([(46, 92), (34, 104), (44, 114), (30, 124)], t.line, 2.6)
    for x, y in ((36, 104), (41, 115)):
        pen.poly([(x, y), (x - 9, y - 6), (x - 9, y + 5)], t.base)
        pen.poly([(x, y), (x + 9, y - 5), (x + 9, y + 6)], t.base)
    pen.poly([(50, 0), (92, 38), (46, 94), (4, 34)], t.base)
    pen.poly([(50, 0), (92, 38), (48, 36)], t.light)
    pen.poly([(4, 34), (48, 36), (46, 94)], t.dark)
    pen.stroke([(50, 0), (46, 94)], CREAM, 2.6)
    pen.stroke([(4, 34), (92, 38)], CREAM, 2.6)


def draw_balloon(pen: Pen, t: Tones) -> None:
    for x in (28, 60):
        pen.stroke([(x, 84), (44 + (x - 44) * 0.5, 104)], (120, 92, 72), 2.4)
    pen.blob([(44, 0), (74, 8), (88, 36), (80, 62), (58, 90), (30, 90), (8, 62), (0, 36),
              (14, 8)], t.base)  # fmt: skip
    pen.blob([(44, 0), (60, 26), (60, 58), (50, 91), (38, 91), (28, 58), (28, 26)], t.light)
    pen.blob([(52, 0), (78, 14), (87, 38), (78, 64), (59, 89), (72, 62), (75, 30)], t.dark)
    pen.box(29, 87, 59, 92, CREAM, 2)
    pen.box(33, 102, 55, 118, (170, 122, 78), 4)
    pen.stroke([(34, 108), (54, 108)], (132, 92, 60), 2)
