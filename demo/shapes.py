"""The things of the toy web: each draws itself with a pen in a unit square; the file's last line lists them by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

Point = tuple[float, float]


class Pen:
    """Draws in unit coordinates on a square layer. The shades are main, dark, light, ink and white.

    What is drawn in the main shade also marks the mask, which tells where a texture may go.
    """

    def __init__(self, size: int, shades: dict[str, tuple[int, int, int]]) -> None:
        from PIL import Image, ImageDraw

        self.size, self.shades = size, shades
        self.layer = Image.new("RGBA", (size, size), (*shades["main"], 0))
        self.mask = Image.new("L", (size, size), 0)
        self._draw, self._mark = ImageDraw.Draw(self.layer), ImageDraw.Draw(self.mask)

    def poly(self, points: Sequence[Point], shade: str = "main") -> None:
        """Fill a polygon."""
        self._both("polygon", [self._at(p) for p in points], shade)

    def disc(self, x: float, y: float, r: float, shade: str = "main") -> None:
        """Fill a disc."""
        self.oval(x - r, y - r, x + r, y + r, shade)

    def oval(self, x0: float, y0: float, x1: float, y1: float, shade: str = "main") -> None:
        """Fill an ellipse in a box."""
        self._both("ellipse", [self._at((x0, y0)), self._at((x1, y1))], shade)

    def box(self, x0: float, y0: float, x1: float, y1: float, shade: str = "main") -> None:
        """Fill a rectangle."""
        self._both("rectangle", [self._at((x0, y0)), self._at((x1, y1))], shade)

    def pie(self, x: float, y: float, r: float, start: float, end: float, shade: str = "main") -> None:
        """Fill a slice of a disc, angles in degrees clockwise from three o'clock."""
        self._both("pieslice", [self._at((x - r, y - r)), self._at((x + r, y + r))], shade, start, end)

    def line(self, points: Sequence[Point], width: float, shade: str = "ink") -> None:
        """Draw a line of a width in units."""
        flat, wide = [self._at(p) for p in points], max(1, round(width * self.size))
        self._draw.line(flat, fill=(*self.shades[shade], 255), width=wide, joint="curve")
        self._mark.line(flat, fill=255 if shade == "main" else 0, width=wide, joint="curve")

    def hole(self, x: float, y: float, r: float) -> None:
        """Cut a disc out of what is drawn."""
        box = [self._at((x - r, y - r)), self._at((x + r, y + r))]
        self._draw.ellipse(box, fill=(*self.shades["main"], 0))
        self._mark.ellipse(box, fill=0)

    def _at(self, point: Point) -> Point:
        return point[0] * (self.size - 1), point[1] * (self.size - 1)

    def _both(self, method: str, shape: Any, shade: str, *angles: float) -> None:
        getattr(self._draw, method)(shape, *angles, fill=(*self.shades[shade], 255))
        getattr(self._mark, method)(shape, *angles, fill=255 if shade == "main" else 0)


def _ring(n: int, radius: Callable[[int], float]) -> list[Point]:
    """Return n points around the middle, clockwise from the top, each at its own radius."""
    turns = [2 * math.pi * i / n - math.pi / 2 for i in range(n)]
    return [(0.5 + radius(i) * math.cos(t), 0.5 + radius(i) * math.sin(t)) for i, t in enumerate(turns)]


def star(pen: Pen) -> None:
    """Five points."""
    pen.poly(_ring(10, lambda i: 0.5 if i % 2 == 0 else 0.2))


def heart(pen: Pen) -> None:
    """The curve (16 sin³ t, 13 cos t − 5 cos 2t − 2 cos 3t − cos 4t)."""
    turns = [2 * math.pi * i / 60 for i in range(60)]
    rise = [13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t) for t in turns]
    pen.poly([(0.5 + 16 * math.sin(t) ** 3 / 34, 0.46 - y / 34) for t, y in zip(turns, rise, strict=True)])


def house(pen: Pen) -> None:
    """Walls, a roof, a door and a window."""
    pen.box(0.15, 0.45, 0.85, 0.98)
    pen.poly([(0.02, 0.47), (0.5, 0.03), (0.98, 0.47)], "dark")
    pen.box(0.26, 0.62, 0.46, 0.98, "ink")
    pen.box(0.57, 0.6, 0.76, 0.78, "white")


def tree(pen: Pen) -> None:
    """A trunk and three storeys of branches."""
    pen.box(0.43, 0.78, 0.57, 1.0, "ink")
    for top, bottom, half in ((0.42, 0.82, 0.44), (0.2, 0.58, 0.35), (0.0, 0.34, 0.25)):
        pen.poly([(0.5 - half, bottom), (0.5, top), (0.5 + half, bottom)])


def fish(pen: Pen) -> None:
    """A body, a tail, a fin and an eye."""
    pen.poly([(0.62, 0.5), (1.0, 0.2), (0.92, 0.5), (1.0, 0.8)], "dark")
    pen.oval(0.0, 0.22, 0.78, 0.78)
    pen.poly([(0.35, 0.5), (0.55, 0.36), (0.55, 0.64)], "dark")
    pen.disc(0.17, 0.42, 0.07, "white")
    pen.disc(0.16, 0.42, 0.035, "ink")


def flower(pen: Pen) -> None:
    """Six petals, a heart and no stem."""
    for x, y in _ring(6, lambda _: 0.3):
        pen.disc(x, y, 0.19)
    pen.disc(0.5, 0.5, 0.16, "light")


def boat(pen: Pen) -> None:
    """A hull, a mast and two sails."""
    pen.poly([(0.0, 0.7), (1.0, 0.7), (0.82, 0.97), (0.18, 0.97)])
    pen.box(0.48, 0.02, 0.52, 0.72, "ink")
    pen.poly([(0.46, 0.04), (0.46, 0.62), (0.06, 0.62)], "white")
    pen.poly([(0.55, 0.14), (0.55, 0.62), (0.9, 0.62)], "light")


def car(pen: Pen) -> None:
    """A body, a cabin with windows and two wheels."""
    pen.poly([(0.2, 0.46), (0.32, 0.2), (0.68, 0.2), (0.82, 0.46)], "dark")
    pen.poly([(0.28, 0.44), (0.36, 0.26), (0.48, 0.26), (0.48, 0.44)], "white")
    pen.poly([(0.53, 0.44), (0.53, 0.26), (0.65, 0.26), (0.73, 0.44)], "white")
    pen.box(0.0, 0.44, 1.0, 0.7)
    for x in (0.24, 0.76):
        pen.disc(x, 0.71, 0.14, "ink")
        pen.disc(x, 0.71, 0.06, "white")


def mushroom(pen: Pen) -> None:
    """A pale stem under a dotted cap."""
    pen.poly([(0.37, 0.5), (0.63, 0.5), (0.7, 0.98), (0.3, 0.98)], "white")
    pen.pie(0.5, 0.52, 0.49, 180, 360)
    for x, y, r in ((0.27, 0.36, 0.08), (0.53, 0.2, 0.09), (0.76, 0.38, 0.07)):
        pen.disc(x, y, r, "white")


def cat(pen: Pen) -> None:
    """A face: two ears, two eyes, a nose and whiskers."""
    pen.poly([(0.08, 0.02), (0.48, 0.3), (0.1, 0.6)], "dark")
    pen.poly([(0.92, 0.02), (0.52, 0.3), (0.9, 0.6)], "dark")
    pen.oval(0.06, 0.18, 0.94, 0.96)
    for x in (0.32, 0.68):
        pen.oval(x - 0.1, 0.4, x + 0.1, 0.58, "white")
        pen.oval(x - 0.035, 0.41, x + 0.035, 0.57, "ink")
    pen.poly([(0.44, 0.66), (0.56, 0.66), (0.5, 0.74)], "ink")
    for y in (0.68, 0.78):
        pen.line([(0.02, y), (0.36, 0.72)], 0.02)
        pen.line([(0.98, y), (0.64, 0.72)], 0.02)


def umbrella(pen: Pen) -> None:
    """A scalloped canopy on a hooked stick."""
    pen.line([(0.5, 0.05), (0.5, 0.86), (0.46, 0.94), (0.38, 0.95), (0.32, 0.88)], 0.05)
    pen.pie(0.5, 0.52, 0.49, 180, 360)
    pen.pie(0.5, 0.52, 0.18, 180, 360, "light")
    for x in (0.175, 0.5, 0.825):
        pen.oval(x - 0.15, 0.46, x + 0.15, 0.58, "dark")


def key(pen: Pen) -> None:
    """A ring, a shaft and two teeth."""
    pen.disc(0.24, 0.5, 0.24)
    pen.hole(0.24, 0.5, 0.11)
    pen.box(0.45, 0.44, 1.0, 0.56)
    pen.box(0.72, 0.5, 0.8, 0.76)
    pen.box(0.9, 0.5, 0.99, 0.7)


def cup(pen: Pen) -> None:
    """A mug with a handle, dark inside."""
    pen.disc(0.78, 0.54, 0.22, "dark")
    pen.hole(0.78, 0.54, 0.12)
    pen.poly([(0.06, 0.22), (0.76, 0.22), (0.7, 0.96), (0.12, 0.96)])
    pen.oval(0.06, 0.1, 0.76, 0.34, "ink")


def moon(pen: Pen) -> None:
    """A crescent."""
    pen.disc(0.5, 0.5, 0.48)
    pen.hole(0.74, 0.4, 0.42)


def butterfly(pen: Pen) -> None:
    """Four wings, a body and feelers."""
    for side in (-1, 1):
        pen.oval(0.5 + side * 0.27 - 0.23, 0.04, 0.5 + side * 0.27 + 0.23, 0.56)
        pen.oval(0.5 + side * 0.22 - 0.18, 0.5, 0.5 + side * 0.22 + 0.18, 0.96, "light")
        pen.disc(0.5 + side * 0.28, 0.3, 0.09, "dark")
        pen.line([(0.5, 0.24), (0.5 + side * 0.12, 0.02)], 0.025)
    pen.oval(0.45, 0.16, 0.55, 0.9, "ink")


def rocket(pen: Pen) -> None:
    """A nose, a window, two fins and a flame."""
    pen.poly([(0.36, 0.78), (0.64, 0.78), (0.5, 1.0)], "light")
    pen.poly([(0.34, 0.5), (0.08, 0.88), (0.36, 0.8)], "dark")
    pen.poly([(0.66, 0.5), (0.92, 0.88), (0.64, 0.8)], "dark")
    pen.oval(0.3, 0.0, 0.7, 0.62)
    pen.box(0.3, 0.3, 0.7, 0.8)
    pen.disc(0.5, 0.36, 0.12, "white")
    pen.disc(0.5, 0.36, 0.07, "ink")


SHAPES: dict[str, Callable[[Pen], None]] = {
    draw.__name__: draw
    for draw in (boat, butterfly, car, cat, cup, fish, flower, heart, house, key, moon, mushroom, rocket, star, tree, umbrella)
}
