"""One picture of the toy web: a scene is a handful of choices made from a seed, a picture and words for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from demo.shapes import SHAPES, Pen

Colour = tuple[int, int, int]

# Things are bright, grounds are pale or dark.
COLOURS: dict[str, Colour] = {
    "red": (214, 40, 40),
    "orange": (242, 132, 30),
    "yellow": (247, 206, 50),
    "green": (50, 160, 70),
    "blue": (45, 95, 205),
    "purple": (130, 60, 170),
    "pink": (240, 130, 180),
    "brown": (130, 80, 45),
    "teal": (30, 160, 165),
}
GROUND_COLOURS: dict[str, Colour] = {
    "white": (240, 240, 236),
    "gray": (172, 174, 178),
    "black": (44, 42, 48),
    "beige": (226, 210, 180),
    "mint": (196, 228, 206),
    "sky blue": (186, 212, 236),
    "lavender": (212, 202, 232),
}
# Things have their usual colours half of the time, as in the world.
USUAL = {
    "boat": "brown",
    "butterfly": "purple",
    "car": "blue",
    "cat": "orange",
    "cup": "teal",
    "fish": "blue",
    "flower": "pink",
    "heart": "pink",
    "house": "brown",
    "key": "yellow",
    "moon": "yellow",
    "mushroom": "red",
    "rocket": "red",
    "star": "orange",
    "tree": "green",
    "umbrella": "purple",
}
GROUNDS = ("plain", "striped", "dotted", "checked", "cloudy", "grassy")
TEXTURES = ("plain", "plain", "plain", "striped", "spotted")
# A thing's extent, as a share of the picture's shorter side. Tiny is for two in one picture, and never said.
SIZES = {"tiny": (0.36, 0.44), "small": (0.48, 0.58), "": (0.62, 0.74), "big": (0.78, 0.94)}
TWO_THINGS = 0.12
CLASSES = tuple(sorted(SHAPES))


@dataclass(frozen=True)
class Thing:
    """One object, as words can tell it, and the middle of where it may lie, in shares of the picture's sides."""

    name: str
    colour: str
    texture: str
    size: str
    centre: tuple[float, float]


@dataclass(frozen=True)
class Scene:
    """What a picture shows, as words can tell it, and its size in pixels. Where and how exactly is `render`'s choice."""

    seed: tuple[int, ...]
    width: int
    height: int
    ground: str
    ground_colour: str
    things: tuple[Thing, ...]


def compose(seed: tuple[int, ...], name: str = "") -> Scene:
    """Choose a scene from a seed; with a name the scene shows that one thing alone."""
    import numpy as np

    rng = np.random.default_rng(seed)
    first = name or _pick(rng, CLASSES)
    if name or rng.random() > TWO_THINGS:
        things = [_thing(rng, first, _pick(rng, ("small", "", "big")), (0.5, 0.5))]
    else:
        side = 0.26 if rng.random() < 0.5 else 0.74
        second = _pick(rng, [c for c in CLASSES if c != first])
        things = [_thing(rng, first, "tiny", (side, 0.5)), _thing(rng, second, "tiny", (1 - side, 0.5))]
    width, height = (int(rng.integers(96, 145)) for _ in range(2))
    return Scene(seed, width, height, _pick(rng, GROUNDS), _pick(rng, list(GROUND_COLOURS)), tuple(things))


def _pick(rng: Any, choices: Any) -> Any:
    return choices[int(rng.integers(len(choices)))]


def _thing(rng: Any, name: str, size: str, centre: tuple[float, float]) -> Thing:
    colour = USUAL[name] if rng.random() < 0.5 else _pick(rng, list(COLOURS))
    return Thing(name, colour, _pick(rng, TEXTURES), size, centre)


def render(scene: Scene, attempt: int = 0) -> Any:
    """Draw a scene as an RGB picture: ground, things, light and grain. Another attempt places and lights it anew."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng((*scene.seed, 1, attempt))
    size = (scene.width, scene.height)
    picture = _ground(rng, scene, size)
    for thing in scene.things:
        _paste(rng, picture, thing)
    light = Image.fromarray(rng.normal(0, rng.uniform(10, 30), (4, 4)).astype("float32")).resize(size, Image.Resampling.BICUBIC)
    pixels = np.asarray(picture, dtype="float32") + np.asarray(light)[:, :, None]
    pixels += rng.standard_normal((scene.height, scene.width, 1), dtype="float32") * np.float32(rng.uniform(0, 11))
    return Image.fromarray(pixels.clip(0, 255).astype("uint8"))


def _shade(colour: Colour, factor: float) -> Colour:
    """Return a colour darker (factor < 1) or lighter (> 1)."""
    if factor <= 1:
        red, green, blue = (round(c * factor) for c in colour)
    else:
        red, green, blue = (round(255 - (255 - c) * (2 - factor)) for c in colour)
    return red, green, blue


def _jitter(rng: Any, colour: Colour) -> Colour:
    red, green, blue = (min(255, max(0, round(c + float(rng.normal(0, 10))))) for c in colour)
    return red, green, blue


def _ground(rng: Any, scene: Scene, size: tuple[int, int]) -> Any:
    """Draw the background: one colour, with a pattern in a second shade of it."""
    from PIL import Image

    colour = _jitter(rng, GROUND_COLOURS[scene.ground_colour])
    other = _shade(colour, 0.84 if sum(colour) > 330 else 1.2)
    picture = Image.new("RGB", size, colour)
    if scene.ground != "plain":
        picture.paste(other, (0, 0, *size), Image.fromarray(_pattern(rng, scene.ground, size)))
    return picture


def _pattern(rng: Any, ground: str, size: tuple[int, int]) -> Any:
    """Return where the second shade goes, as a mask (height, width) of 0…255."""
    import numpy as np

    x, y = np.arange(size[0], dtype="float32")[None, :], np.arange(size[1], dtype="float32")[:, None]
    if ground == "cloudy":
        return (_blobs(rng, size, 7) * 255).astype("uint8")
    if ground == "grassy":
        on = y > size[1] * float(rng.uniform(0.5, 0.75)) + 6 * np.sin(x / float(rng.uniform(3, 12)))
        return on.astype("uint8") * np.uint8(255)
    turn, wave = float(rng.uniform(0, np.pi)), 2 * np.pi / float(rng.uniform(14, 30))
    cos, sin = np.float32(np.cos(turn) * wave), np.float32(np.sin(turn) * wave)
    u, v = x * cos + y * sin, y * cos - x * sin
    on = {
        "striped": lambda: np.sin(u) > 0,
        "dotted": lambda: np.cos(u) + np.cos(v) > 1,
        "checked": lambda: np.sin(u / 2) * np.sin(v / 2) > 0,
    }[ground]()
    return on.astype("uint8") * np.uint8(255)


def _blobs(rng: Any, size: tuple[int, int], cells: int) -> Any:
    import numpy as np
    from PIL import Image

    coarse = Image.fromarray(rng.random((cells, cells)).astype("float32"))
    return np.asarray(coarse.resize(size, Image.Resampling.BICUBIC)).clip(0, 1)


def _paste(rng: Any, picture: Any, thing: Thing) -> None:
    """Draw a thing on its own layer at twice the size, give it its texture, turn it, and lay it on the picture."""
    from PIL import Image

    extent = float(rng.uniform(*SIZES[thing.size]))
    side = round(extent * min(picture.size))
    main = _jitter(rng, COLOURS[thing.colour])
    ink = (30, 28, 34) if sum(main) > 210 else (226, 222, 210)
    shades = {"main": main, "dark": _shade(main, 0.68), "light": _shade(main, 1.4), "ink": ink, "white": (246, 244, 238)}
    pen = Pen(side * 2, shades)
    SHAPES[thing.name](pen)
    if thing.texture != "plain":
        fill = Image.new("RGBA", pen.layer.size, (*_shade(main, 0.6 if sum(main) > 330 else 1.5), 255))
        pen.layer.paste(fill, (0, 0), _texture(rng, thing.texture, pen.mask))
    layer = pen.layer.reduce(2).rotate(float(rng.normal(0, 9)), Image.Resampling.BILINEAR, expand=True)
    play = (1 - extent) * (0.04 if thing.size == "tiny" else 0.3)
    x, y = (middle + float(rng.uniform(-play, play)) for middle in thing.centre)
    left, top = round(x * picture.width - layer.width / 2), round(y * picture.height - layer.height / 2)
    picture.paste(layer, (left, top), layer)


def _texture(rng: Any, texture: str, mask: Any) -> Any:
    """Return where the texture's second shade goes: stripes or spots, inside the mask."""
    import numpy as np
    from PIL import Image

    at = np.arange(mask.height, dtype="float32") / mask.height
    turn, wave = float(rng.uniform(0, np.pi)), 2 * np.pi / float(rng.uniform(0.14, 0.22))
    cos, sin = np.float32(np.cos(turn) * wave), np.float32(np.sin(turn) * wave)
    u, v = at[None, :] * cos + at[:, None] * sin, at[:, None] * cos - at[None, :] * sin
    on = np.sin(u) > 0.2 if texture == "striped" else np.cos(u) + np.cos(v) > 0.9
    return Image.fromarray(np.asarray(mask) * on.astype("uint8"))
