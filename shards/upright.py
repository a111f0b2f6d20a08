"""Encoded bytes to upright 8-bit sRGB pixels: the one way in which every room opens what is no plain JPEG.

Fetch, build, training, evaluation and reports see a picture alike: its first frame, turned as its EXIF or XMP says,
converted from its colour profile to sRGB, alpha on white. No other code of the project turns or converts pictures.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from shards import libtiff
from shards.decoding import FORMATS, MAX_PIXELS, UndecodableError, check_size, decoding

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "UndecodableError", "is_srgb", "open_image", "orientation", "profile_problem", "upright_pixels", "upright_rgb", "upright_size",
]  # fmt: skip

_ORIENTATION = 0x0112  # EXIF's tag
_TURNED = (5, 6, 7, 8)  # orientations that exchange width and height
# What makes an image of each orientation upright, in the words of Pillow's Transpose.
_TURNS = {
    2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270", 7: "TRANSVERSE", 8: "ROTATE_90",
}  # fmt: skip
_FROM_BOTTOM = (3, 4, 6, 7)  # orientations whose first row comes last
# Profiles of sRGB by several makers differ from lcms's own by 1 level; Display P3 by up to 96, Adobe RGB by up to 128.
_SAME_COLOUR = 2
# Pixels that are converted at once. Pillow holds 4 bytes a pixel in each step's image; of 100 megapixels, a whole
# image in each of four steps is 1.6 GB, and this much is 17 MB in each.
_STRIP = 1 << 22
_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")


def open_image(content: bytes, most: int = MAX_PIXELS) -> Any:
    """Return a Pillow image of which only the header was read.

    Args:
        content: a file of one of FORMATS.
        most: pixels; 0 is for those who decode none.

    Raises:
        UndecodableError: no image of a known format, or one of too many pixels.
    """
    from PIL import Image, UnidentifiedImageError

    Image.MAX_IMAGE_PIXELS = None  # our own limit names itself
    libtiff.listen()
    if not content:
        raise UndecodableError("no bytes")
    with decoding():
        try:
            image = Image.open(io.BytesIO(content), formats=FORMATS)
        except UnidentifiedImageError:
            # Pillow's own text holds a memory address, which is not the same twice.
            raise UndecodableError(f"no image of a known format (starts with {content[:8].hex()})") from None
    if most:
        check_size(*image.size, most)
    return image


def orientation(image: Any) -> int:
    """Return how an open image has still to be turned, as an EXIF orientation, 1 to 8; 1 where it states none or nonsense.

    Only headers are read: ask before the image is loaded.
    """
    from PIL import Image

    if image.format == "TIFF":  # Pillow turns these itself, and states the upright size
        return 1
    try:
        with decoding():
            if image.format == "PNG" and "exif" not in image.info and image.fp is not None:
                # Pillow's own getexif() decodes a PNG whole to see whether EXIF follows the pixels.
                image.info.update(_png_exif(image.fp.getvalue()))
            stated = Image.Image.getexif(image).get(_ORIENTATION, 1)
    except UndecodableError:  # torn EXIF is no reason to refuse the picture
        return 1
    return stated if isinstance(stated, int) and 1 <= stated <= 8 else 1


def _png_exif(content: bytes) -> dict[str, bytes]:
    """Return the EXIF chunk of a PNG, wherever it stands, under Pillow's name for it; nothing where there is none."""
    at = 8
    while at + 8 <= len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        if content[at + 4 : at + 8] == b"eXIf":
            return {"exif": content[at + 8 : at + 8 + length]}
        at += 12 + length
    return {}


def upright_size(image: Any) -> tuple[int, int]:
    """Return (height, width) of the image as it is seen, from its header."""
    width, height = image.size
    return (width, height) if orientation(image) in _TURNED else (height, width)


def upright_rgb(image: Any, least: int = 0) -> Any:
    """Return the first frame of an open image upright, converted to sRGB, alpha on white, 8 bits a channel, mode RGB.

    Args:
        image: what `open_image` returned; its pixels may be used up.
        least: a JPEG may be decoded at a half, a quarter or an eighth while both sides keep so many pixels; 0: never.

    Raises:
        UndecodableError: it does not decode, or has 32 bits a channel.
    """
    from PIL import Image

    with decoding():
        turn = orientation(image)
        if least:
            image.draft(None, (least, least))
        image.load()
        if turn == 1 and image.mode == "RGB" and not _has_more(image):
            image.info = {}  # comments and profiles would be written into whatever is made of it
            return image
        width, height = image.size
        out = Image.new("RGB", (height, width) if turn in _TURNED else (width, height))
        for strip, left, top in _strips(image, turn):
            out.paste(strip, (left, top))
        return out


def upright_pixels(image: Any) -> NDArray[np.uint8]:
    """Return the pixels of `upright_rgb`, (rows, columns, 3), without a second whole image beside them.

    Raises:
        UndecodableError: as `upright_rgb`.
    """
    import numpy as np

    with decoding():
        turn = orientation(image)
        image.load()
        width, height = image.size
        out = np.empty((width, height, 3) if turn in _TURNED else (height, width, 3), np.uint8)
        for strip, left, top in _strips(image, turn):
            out[top : top + strip.height, left : left + strip.width] = np.asarray(strip)
        return out


def profile_problem(image: Any) -> str:
    """Return why the colour profile of an open image cannot be applied, so that its pixels count as sRGB; "" where it can, or is none."""
    profile = image.info.get("icc_profile")
    with decoding():
        return _by_profile(image.mode, profile)[1] if profile else ""


def _has_more(image: Any) -> bool:
    """Return whether an RGB image has more than three colours of sRGB: a profile or a transparent colour."""
    profile = image.info.get("icc_profile")
    return "transparency" in image.info or bool(profile and not is_srgb(profile))


def _strips(image: Any, turn: int) -> Iterator[tuple[Any, int, int]]:
    """Yield a loaded image in upright RGB strips, each with its left and top in the upright whole."""
    from PIL import Image

    profile = image.info.get("icc_profile")
    convert = _by_profile(image.mode, profile)[0] if profile else None
    width, height = image.size
    rows = max(1, _STRIP // width)
    for start in range(0, height, rows):
        stop = min(start + rows, height)
        strip = image if rows >= height else image.crop((0, start, width, stop))
        strip = _rgb(strip, convert, image.format == "PPM")
        place = height - stop if turn in _FROM_BOTTOM else start
        if turn in _TURNS:
            strip = strip.transpose(Image.Transpose[_TURNS[turn]])
        yield (strip, place, 0) if turn in _TURNED else (strip, 0, place)


def _rgb(image: Any, convert: Callable[[Any], Any] | None, is_pnm: bool) -> Any:
    """Return an image in 8-bit RGB, by a profile where one is given, alpha on white."""
    from PIL import Image

    colours, alpha = _parts(image, is_pnm)
    if convert:
        colours = convert(colours)
    colours = colours.convert("RGB")
    if alpha is None:
        return colours
    colours.putalpha(alpha)
    white = Image.new("RGBA", colours.size, "white")
    return Image.alpha_composite(white, colours).convert("RGB")


def _parts(image: Any, is_pnm: bool) -> tuple[Any, Any]:
    """Return an image's colours (mode L, RGB or CMYK, 8 bits) and its alpha (mode L, or None).

    Raises:
        UndecodableError: 32 bits a channel.
    """
    mode, key = image.mode, image.info.get("transparency")
    if mode.startswith("I;16") or (mode == "I" and is_pnm):  # Pillow opens a PGM of 16 bits in 32, scaled to 65535
        return _of_16_bits(image, key)
    if mode in ("I", "F"):
        raise UndecodableError(f"{mode} pixels (32 bits a channel)", "unsupported")
    if isinstance(key, tuple) and max(key) > 255:  # a transparent colour of a PNG of 16 bits, whose pixels came in 8
        image = image.copy()
        image.info["transparency"] = tuple(value >> 8 for value in key)
    if mode == "La":
        image = image.convert("LA")
    if mode in _ALPHA or key is not None:
        rgba = image.convert("RGBA")
        gray = mode in ("L", "1", "LA", "La")
        return rgba.getchannel("R") if gray else rgba.convert("RGB"), rgba.getchannel("A")
    if mode == "1":
        return image.convert("L"), None
    return image if mode in ("L", "RGB", "CMYK") else image.convert("RGB"), None


def _of_16_bits(image: Any, key: Any) -> tuple[Any, Any]:
    import numpy as np
    from PIL import Image

    deep = np.asarray(image)
    alpha = Image.fromarray(np.where(deep == key, 0, 255).astype(np.uint8)) if isinstance(key, int) else None
    return Image.fromarray((deep >> 8).astype(np.uint8)), alpha


def is_srgb(profile: bytes) -> bool:
    """Return whether an ICC profile (RGB or gray) means what is meant without one: sRGB, to within 2 of 255 levels."""
    return profile[16:20] in (b"RGB ", b"GRAY") and _changes_nothing(profile)


@lru_cache(maxsize=32)  # a set has few different profiles; lcms takes 1 ms to look at one
def _changes_nothing(profile: bytes) -> bool:
    import numpy as np
    from PIL import Image

    if profile[16:20] == b"GRAY":
        before = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    else:
        steps = np.linspace(0, 255, 9).astype(np.uint8)
        red, green, blue = np.meshgrid(steps, steps, steps)
        before = Image.fromarray(np.stack([red, green, blue], axis=-1).reshape(27, 27, 3))
    convert, _ = _transform(before.mode, profile)
    if convert is None:
        return True
    change = np.asarray(convert(before)).astype(int) - np.asarray(before.convert("RGB")).astype(int)
    return int(np.abs(change).max()) <= _SAME_COLOUR


def _by_profile(mode: str, profile: bytes) -> tuple[Callable[[Any], Any] | None, str]:
    """Return what converts the colours of an image of a mode to sRGB, None where nothing does; and why not, where it should."""
    space = profile[16:20]
    if mode == "LAB":  # Pillow converts these itself; what profile they bring says no more
        return None, ""
    if space == b"GRAY" and mode not in ("1", "L", "LA", "La", "I;16", "I;16B", "I;16L", "I"):
        return None, f"a profile for gray in a picture of mode {mode}"
    if (space == b"CMYK") != (mode == "CMYK"):
        return None, f"a profile for {space.decode('ascii', 'replace').strip()} in a picture of mode {mode}"
    if space not in (b"RGB ", b"GRAY", b"CMYK"):
        return None, f"a profile for an unknown space of colours ({space.hex()})"
    expected = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}[space]
    convert, problem = _transform(expected, profile)
    return (None, problem) if convert is None or is_srgb(profile) else (convert, "")


@lru_cache(maxsize=32)
def _transform(mode: str, profile: bytes) -> tuple[Callable[[Any], Any] | None, str]:
    """Return what converts an image to sRGB by its profile; or None, and why the profile cannot be applied."""
    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        return None, f"a colour profile that cannot be applied: {error}"[:120]

    def convert(image: Any) -> Any:
        return ImageCms.applyTransform(image if image.mode == mode else image.convert(mode), transform)

    return convert, ""
