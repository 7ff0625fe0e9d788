"""Drawing primitives of the demo: colour tones, a pen, outlines and relief, gradients, shadows."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

SIZE = 224  # width and height of a scene image in pixels
FINE = 2  # backdrops are drawn this many times larger and then reduced
# shapes are drawn at this many pixels per design unit and then reduced, which smooths their edges
MASTER_SCALE = 2.5
MARGIN = 9  # design units left free around a shape for its outline
INK, CREAM = (58, 46, 56), (250, 240, 220)

Color = tuple[int, ...]  # RGB or RGBA, 0..255 per channel
Point = tuple[float, float]


class Tones(NamedTuple):
    """Shades of one colour: base, lighter, darker, and dark enough for lines."""

    base: Color
    light: Color
    dark: Color
    line: Color


def blend(first: Sequence[int], second: Sequence[int], share: float) -> Color:
    """Mix two RGB colours; `share` 0..1 is the weight of `second`."""
    return tuple(round(a + (b - a) * share) for a, b in zip(first, second, strict=False))


def tones(rgb: Color) -> Tones:
    """Derive the Tones of an RGB colour."""
    return Tones(
        rgb,
        blend(rgb, (255, 250, 235), 0.35),
        blend(rgb, (70, 20, 50), 0.28),
        blend(rgb, (45, 30, 50), 0.68),
    )


class Pen:
    """Draws in design units (x right, y down) on a transparent image, `scale` pixels per unit."""

    def __init__(self, width: float, height: float, scale: float = MASTER_SCALE) -> None:
        self.scale = scale
        self.image = Image.new(
            "RGBA", (round((width + 2 * MARGIN) * scale), round((height + 2 * MARGIN) * scale))
        )
        self.draw = ImageDraw.Draw(self.image)

    def _at(self, points: Sequence[Point]) -> list[Point]:
        return [((x + MARGIN) * self.scale, (y + MARGIN) * self.scale) for x, y in points]

    def poly(self, points: Sequence[Point], color: Color) -> None:
        """Fill a polygon."""
        self.draw.polygon(self._at(points), fill=color)

    def blob(self, points: Sequence[Point], color: Color) -> None:
        """Fill a smooth closed outline through `points`."""
        self.poly(smooth(points, closed=True), color)

    def oval(self, x: float, y: float, rx: float, ry: float, color: Color) -> None:
        """Fill an ellipse around (x, y)."""
        self.draw.ellipse(self._at([(x - rx, y - ry), (x + rx, y + ry)]), fill=color)

    def ring(self, x: float, y: float, radius: float, width: float, color: Color) -> None:
        """Draw a circle around (x, y) with a line of `width`."""
        self.draw.ellipse(
            self._at([(x - radius, y - radius), (x + radius, y + radius)]),
            outline=color,
            width=round(width * self.scale),
        )

    def box(
        self, left: float, top: float, right: float, bottom: float, color: Color, radius: float = 0
    ) -> None:
        """Fill a rectangle with rounded corners."""
        self.draw.rounded_rectangle(
            self._at([(left, top), (right, bottom)]), radius * self.scale, fill=color
        )

    def stroke(self, points: Sequence[Point], color: Color, width: float) -> None:
        """Draw a smooth line with round ends."""
        path = self._at(smooth(points)) if len(points) > 2 else self._at(points)
        thick = width * self.scale
        self.draw.line(path, fill=color, width=max(1, round(thick)), joint="curve")
        for x, y in (path[0], path[-1]):
            self.draw.ellipse(
                (x - thick / 2, y - thick / 2, x + thick / 2, y + thick / 2), fill=color
            )


def smooth(points: Sequence[Point], closed: bool = False, steps: int = 8) -> list[Point]:
    """Interpolate `points` by a Catmull-Rom spline, `steps` points per segment."""
    knots = [points[-1], *points, *points[:2]] if closed else [points[0], *points, points[-1]]
    curve = []
    for p0, p1, p2, p3 in zip(knots, knots[1:], knots[2:], knots[3:], strict=False):
        for step in range(steps):
            t = step / steps
            x, y = (_catmull_rom(*axis, t) for axis in zip(p0, p1, p2, p3, strict=False))
            curve.append((x, y))
    return curve if closed else [*curve, points[-1]]


def _catmull_rom(a: float, b: float, c: float, d: float, t: float) -> float:
    """One coordinate between knots `b` (t = 0) and `c` (t = 1)."""
    return 0.5 * (
        2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t * t + (3 * b - a - 3 * c + d) * t**3
    )


def finish(pen: Pen, line: Color, outline: float = 2.0, relief: float = 1.0) -> Image.Image:
    """Shade the flat shapes of `pen` and add an outline of colour `line`; returns RGBA."""
    alpha = pen.image.getchannel("A")
    reach = round(5 * pen.scale)
    soft = alpha.filter(ImageFilter.GaussianBlur(reach * 0.7))
    lit = 1 - np.asarray(ImageChops.offset(soft, reach, reach), np.float32) / 255
    shaded = 1 - np.asarray(ImageChops.offset(soft, -reach // 2, -reach), np.float32) / 255
    rgb: np.ndarray = np.asarray(pen.image.convert("RGB"), np.float32)
    rgb = rgb + relief * ((255 - rgb) * 0.26 * lit[..., None] - rgb * 0.30 * shaded[..., None])
    body = Image.fromarray(rgb.clip(0, 255).astype(np.uint8))
    wide = round(outline * pen.scale / 2) * 2 + 1
    edge = alpha.filter(ImageFilter.MaxFilter(wide)).filter(ImageFilter.GaussianBlur(0.8))
    finished = Image.new("RGBA", alpha.size, (*line, 0))
    finished.paste(Image.new("RGBA", alpha.size, (*line, 255)), mask=edge)
    finished.paste(body, mask=alpha)
    return finished


def ramp(stops: Sequence[Color], height: int) -> np.ndarray:
    """Gradient through `stops` from the first row to the last: (height, 3) float32."""
    rows = np.linspace(0, len(stops) - 1, height)
    return np.stack(
        [np.interp(rows, range(len(stops)), channel) for channel in zip(*stops, strict=False)], 1
    ).astype(np.float32)


def picture(rows: np.ndarray, width: int) -> Image.Image:
    """RGB image in which every column is `rows`, (height, 3)."""
    return Image.fromarray(np.repeat(rows[:, None].clip(0, 255).astype(np.uint8), width, 1))


def grained(image: Image.Image, seed: int, strength: float) -> Image.Image:
    """Copy of `image` with the soft grain of watercolour paper."""
    noise = np.random.Generator(np.random.PCG64(seed)).random(
        (image.height // 2 + 1, image.width // 2 + 1)
    )
    small = Image.fromarray((noise * 160 + 48).astype(np.uint8)).filter(
        ImageFilter.GaussianBlur(1.2)
    )
    coarse = np.asarray(small.resize(image.size, Image.Resampling.BILINEAR), np.float32) - 128
    rgb = np.asarray(image.convert("RGB"), np.float32) + strength * coarse[..., None] / 8
    mottled = Image.fromarray(rgb.clip(0, 255).astype(np.uint8))
    if image.mode == "RGBA":
        mottled.putalpha(image.getchannel("A"))
    return mottled


def relit(
    image: Image.Image, factor: Sequence[float], veil: Color = (0, 0, 0), share: float = 0.0
) -> Image.Image:
    """Copy of `image` with each channel scaled by `factor` and mixed with `veil`; alpha is kept."""
    tables = [
        min(255, round(value * scale * (1 - share) + color * share))
        for scale, color in zip(factor, veil, strict=False)
        for value in range(256)
    ]
    return image.point(tables + list(range(256)) if image.mode == "RGBA" else tables)


def cast_shadow(
    image: Image.Image, x: float, y: float, half: float, tall: float, strength: int = 95
) -> None:
    """Darken a soft ellipse on the ground around (x, y)."""
    left, top = round(x - half * 1.5), round(y - tall * 1.5)
    right, bottom = round(x + half * 1.5), round(y + tall * 1.5)
    mask = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(mask).ellipse((half * 0.4, tall * 0.5, half * 2.6, tall * 2.5), fill=strength)
    mask = mask.filter(ImageFilter.GaussianBlur(max(1.5, tall * 0.3)))
    image.paste((44, 40, 70) if image.mode == "RGB" else (44, 40, 70, 255), (left, top), mask)
