"""How a picture becomes the bytes a server hands out: the usual formats, copies of copies, and everything that goes wrong."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from shards.decoding import FORMATS

PLACEHOLDER_TEXT = "image no longer available"
SOFT_404 = b"<!DOCTYPE html><html><head><title>Gone</title></head><body><h1>This picture has moved</h1></body></html>"


def encode(picture: Any, kind: str, rng: Any) -> bytes:
    """Return a picture's bytes in one of KINDS; `rng` chooses quality and size."""
    return KINDS[kind](picture, rng)


def copy(content: bytes, kind: str, rng: Any) -> bytes:
    """Return what a re-post makes of a file: the same bytes, the same picture encoded again, or another size of it."""
    from PIL import Image

    if kind == "exact_copy":
        return content
    picture = Image.open(io.BytesIO(content), formats=FORMATS).convert("RGB")
    if kind == "resized_copy":
        scale = float(rng.uniform(0.72, 1.4))
        picture = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BICUBIC)
    return _save(picture, "JPEG", quality=int(rng.integers(55, 80)), progressive=bool(rng.random() < 0.5))


def placeholder() -> bytes:
    """Return the picture that a host serves for what it no longer has: a line of pale text on gray."""
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (161, 81), (226, 226, 226))
    ImageDraw.Draw(picture).text((12, 34), PLACEHOLDER_TEXT, fill=(208, 208, 208))
    return _save(picture, "PNG")


def _save(picture: Any, form: str, **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, form, **options)
    return out.getvalue()


def _jpeg(picture: Any, rng: Any) -> bytes:
    return _save(picture, "JPEG", quality=int(rng.integers(78, 96)), progressive=bool(rng.random() < 0.2))


def _truncated(picture: Any, rng: Any) -> bytes:
    content = _jpeg(picture, rng)
    return content[: int(len(content) * float(rng.uniform(0.3, 0.8)))]


def _cmyk(picture: Any, rng: Any) -> bytes:
    return _save(picture.convert("CMYK"), "JPEG", quality=90)


def _animated(picture: Any, rng: Any) -> bytes:
    """Return three frames that drift, as a GIF or an animated WebP."""
    from PIL import ImageChops

    frames = [ImageChops.offset(picture, step * 4, 0) for step in range(3)]
    form = "GIF" if rng.random() < 0.5 else "WEBP"
    return _save(frames[0], form, save_all=True, append_images=frames[1:], duration=120, loop=0)


def _tiny(picture: Any, rng: Any) -> bytes:
    side = int(rng.integers(8, 25))
    return _save(picture.resize((side, side)), "PNG")


def _banner(picture: Any, rng: Any) -> bytes:
    return _save(picture.resize((int(rng.integers(380, 460)), 64)), "JPEG", quality=88)


def _rotated(picture: Any, rng: Any) -> bytes:
    """Return a picture stored lying on its side, with the EXIF orientation that puts it upright."""
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    return _save(picture.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=92, exif=exif)


KINDS: dict[str, Callable[[Any, Any], bytes]] = {
    "jpg": _jpeg,
    "png": lambda picture, rng: _save(picture.quantize(64), "PNG") if rng.random() < 0.3 else _save(picture, "PNG"),
    "webp": lambda picture, rng: _save(picture, "WEBP", quality=int(rng.integers(70, 95))),
    "truncated": _truncated,
    "cmyk": _cmyk,
    "animated": _animated,
    "tiny": _tiny,
    "banner": _banner,
    "rotated": _rotated,
}
