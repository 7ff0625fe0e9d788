"""The painting tools of the demo: tones of a colour, a pen for shapes, light and outline, washes and paper grain."""

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

SIZE = 224  # pixels of a scene picture, wide and high
FINE = 2  # backdrops are painted this many times as large and reduced
MASTER_SCALE = 2.5  # shapes are drawn at this many pixels per design unit and then reduced, which smooths their edges
MARGIN = 9  # design units left free around a shape, room for its outline


class Tones(NamedTuple):
    """One colour as a painter would mix it: itself, lighter, darker, and dark enough for a line."""

    base: tuple
    light: tuple
    dark: tuple
    line: tuple


def blend(first, second, share):
    """RGB between `first` and `second`; `share` 0..1 is the part of `second`."""
    return tuple(round(a + (b - a) * share) for a, b in zip(first, second, strict=False))


def tones(rgb):
    """The four Tones of one RGB."""
    return Tones(rgb, blend(rgb, (255, 250, 235), 0.35), blend(rgb, (70, 20, 50), 0.28), blend(rgb, (45, 30, 50), 0.68))


class Pen:
    """Draws in design units (x right, y down) on a transparent picture that is `scale` times as large."""

    def __init__(self, width, height, scale=MASTER_SCALE):
        self.scale = scale
        self.image = Image.new("RGBA", (round((width + 2 * MARGIN) * scale), round((height + 2 * MARGIN) * scale)))
        self.draw = ImageDraw.Draw(self.image)

    def _at(self, points):
        return [((x + MARGIN) * self.scale, (y + MARGIN) * self.scale) for x, y in points]

    def poly(self, points, color):
        self.draw.polygon(self._at(points), fill=color)

    def blob(self, points, color):
        """A closed smooth outline through `points`."""
        self.poly(smooth(points, closed=True), color)

    def oval(self, x, y, rx, ry, color):
        self.draw.ellipse(self._at([(x - rx, y - ry), (x + rx, y + ry)]), fill=color)

    def ring(self, x, y, radius, width, color):
        self.draw.ellipse(
            self._at([(x - radius, y - radius), (x + radius, y + radius)]),
            outline=color,
            width=round(width * self.scale),
        )

    def box(self, left, top, right, bottom, color, radius=0):
        self.draw.rounded_rectangle(self._at([(left, top), (right, bottom)]), radius * self.scale, fill=color)

    def stroke(self, points, color, width):
        """A smooth line with round ends."""
        path = self._at(smooth(points)) if len(points) > 2 else self._at(points)
        thick = width * self.scale
        self.draw.line(path, fill=color, width=max(1, round(thick)), joint="curve")
        for x, y in (path[0], path[-1]):
            self.draw.ellipse((x - thick / 2, y - thick / 2, x + thick / 2, y + thick / 2), fill=color)


def smooth(points, closed=False, steps=8):
    """Catmull-Rom curve through `points`; a list of (x, y)."""
    knots = [points[-1], *points, *points[:2]] if closed else [points[0], *points, points[-1]]
    curve = []
    for p0, p1, p2, p3 in zip(knots, knots[1:], knots[2:], knots[3:], strict=False):
        for step in range(steps):
            t = step / steps
            curve.append(
                tuple(
                    0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t * t + (3 * b - a - 3 * c + d) * t**3)
                    for a, b, c, d in zip(p0, p1, p2, p3, strict=False)
                )
            )
    return curve if closed else [*curve, points[-1]]


def finish(pen, line, outline=2.0, relief=1.0):
    """Model the flat shapes of `pen` in light and shade and lay a `line`-coloured outline around them: RGBA."""
    alpha = pen.image.getchannel("A")
    reach = round(5 * pen.scale)
    soft = alpha.filter(ImageFilter.GaussianBlur(reach * 0.7))
    lit = 1 - np.asarray(ImageChops.offset(soft, reach, reach), np.float32) / 255
    shaded = 1 - np.asarray(ImageChops.offset(soft, -reach // 2, -reach), np.float32) / 255
    rgb = np.asarray(pen.image.convert("RGB"), np.float32)
    rgb = rgb + relief * ((255 - rgb) * 0.26 * lit[..., None] - rgb * 0.30 * shaded[..., None])
    body = Image.fromarray(rgb.clip(0, 255).astype(np.uint8))
    wide = round(outline * pen.scale / 2) * 2 + 1
    edge = alpha.filter(ImageFilter.MaxFilter(wide)).filter(ImageFilter.GaussianBlur(0.8))
    finished = Image.new("RGBA", alpha.size, (*line, 0))
    finished.paste(Image.new("RGBA", alpha.size, (*line, 255)), mask=edge)
    finished.paste(body, mask=alpha)
    return finished


def ramp(stops, height):
    """(height, 3) float32: colours that run through `stops` from the first row to the last."""
    rows = np.linspace(0, len(stops) - 1, height)
    return np.stack([np.interp(rows, range(len(stops)), channel) for channel in zip(*stops, strict=False)], 1).astype(
        np.float32
    )


def picture(rows, width):
    """RGB picture whose every column is `rows`."""
    return Image.fromarray(np.repeat(rows[:, None].clip(0, 255).astype(np.uint8), width, 1))


def grained(image, seed, strength):
    """`image` with the soft mottling of watercolour paper."""
    noise = np.random.Generator(np.random.PCG64(seed)).random((image.height // 2 + 1, image.width // 2 + 1))
    coarse = Image.fromarray((noise * 160 + 48).astype(np.uint8)).filter(ImageFilter.GaussianBlur(1.2))
    coarse = np.asarray(coarse.resize(image.size, Image.Resampling.BILINEAR), np.float32) - 128
    rgb = np.asarray(image.convert("RGB"), np.float32) + strength * coarse[..., None] / 8
    mottled = Image.fromarray(rgb.clip(0, 255).astype(np.uint8))
    if image.mode == "RGBA":
        mottled.putalpha(image.getchannel("A"))
    return mottled


def relit(image, factor, veil=(0, 0, 0), share=0.0):
    """`image` with each channel scaled by `factor` and mixed with `veil`; RGBA keeps its alpha."""
    tables = [
        min(255, round(value * scale * (1 - share) + color * share))
        for scale, color in zip(factor, veil, strict=False)
        for value in range(256)
    ]
    return image.point(tables + list(range(256)) if image.mode == "RGBA" else tables)


def cast_shadow(image, x, y, half, tall, strength=95):
    """A soft dark ellipse on the ground around (x, y)."""
    box = [round(x - half * 1.5), round(y - tall * 1.5), round(x + half * 1.5), round(y + tall * 1.5)]
    mask = Image.new("L", (box[2] - box[0], box[3] - box[1]))
    ImageDraw.Draw(mask).ellipse((half * 0.4, tall * 0.5, half * 2.6, tall * 2.5), fill=strength)
    mask = mask.filter(ImageFilter.GaussianBlur(max(1.5, tall * 0.3)))
    image.paste((44, 40, 70) if image.mode == "RGB" else (44, 40, 70, 255), tuple(box[:2]), mask)
