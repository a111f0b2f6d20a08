"""Open an image once: prove that it decodes to its last row, bring it into the form shards hold, hash it.

What a shard holds is a JPEG, always; its hash (curate/phash.py) is of the bytes it stores, and taking it decodes all of
them. So a JPEG that is kept as it is gets decoded once.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from dataclasses import dataclass
from typing import Any

from curate.phash import phash
from shards.core.config import option
from shards.jpeg import KEPT_PROCESSES, JpegHeader, jpeg_header
from shards.proof import JPEGS, MAX_PIXELS, prove_jpeg

VERSION = 4
logging.getLogger("PIL").addHandler(logging.NullHandler())  # what is wrong with a file stands in the ledger, not on stderr
# Below this many gray levels the hash says too little for a near match: exact copies are all that dedup looks for.
# None of 390 real photos lies below (their least is 15), flat fills and one-line text banners do (docs/LOG.md).
LOW_INFORMATION = 12.0
# Frames are counted in files up to this size; in a larger one that has several, 2 stands for them: counting reads it all.
_COUNTED = 16 * 2**20


@dataclass(frozen=True)
class ImagePolicy:
    """What an image becomes. Without a size, bytes are kept wherever the format allows."""

    size: int | None = option(None, "pixels of the side that `mode` names")
    mode: str = option("keep_ratio_largest", "keep_ratio_largest | keep_ratio | center_crop")
    only_if_bigger: bool = option(True, "never enlarge")
    quality: int = option(95, "JPEG quality of what is encoded again")


class ImageRefusedError(Exception):
    """An image that cannot enter a shard; the arguments are the ledger's reason and detail."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Opened:
    """A measured image. `encoded` is None where the original bytes are kept."""

    encoded: bytes | None
    width: int
    height: int
    original_width: int
    original_height: int
    original_format: str
    phash: int
    information: float
    frames: int


def open_image(content: bytes, policy: ImagePolicy, hash: str = "reference") -> Opened:
    """Decode, convert where needed, and hash one image.

    Raises:
        ImageRefusedError: with the reason `undecodable`, `unsupported` or `too_large`.
    """
    from PIL import Image, UnidentifiedImageError

    Image.MAX_IMAGE_PIXELS = None  # our own limit comes first and names itself
    if not content:
        raise ImageRefusedError("undecodable", "empty file")
    try:
        with warnings.catch_warnings():  # Pillow's, of odd metadata
            warnings.simplefilter("ignore")
            return _open(content, policy, hash)
    except ImageRefusedError:
        raise
    except MemoryError:
        raise ImageRefusedError("too_large", "out of memory") from None
    except UnidentifiedImageError:
        raise ImageRefusedError("undecodable", f"no known image format (starts with {content[:8].hex()})") from None
    except Exception as error:  # noqa: BLE001  decoders raise anything on hostile bytes; the sample becomes a row
        raise ImageRefusedError("undecodable", f"{type(error).__name__}: {error}"[:200]) from None


def _open(content: bytes, policy: ImagePolicy, hash: str) -> Opened:
    from PIL import Image

    header = jpeg_header(content)
    if header and header.plain and policy.size is None:
        _check_size(header.width, header.height)
        size = header.width, header.height
        return Opened(None, *size, *size, "JPEG", *phash(content, size, header.gray, hash), frames=1)
    image = Image.open(io.BytesIO(content))
    width, height = size = image.size
    _check_size(width, height)
    original_format, gray = image.format or "", image.mode == "L"
    frames = 1 if original_format == "JPEG" else _frames(image, len(content))
    encoded = None
    if not _kept_as_is(image, header) or _resizes(image, policy):
        if original_format in JPEGS:
            prove_jpeg(content, image.mode)
        image.load()
        stored = _resized(_upright_rgb(image), policy)
        size, gray, encoded = stored.size, False, _encode(stored, policy.quality)
    bits, information = phash(encoded or content, size, gray, hash)
    return Opened(encoded, *size, width, height, original_format, bits, information, frames)


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ImageRefusedError("too_large", f"{width}x{height} pixels; at most {MAX_PIXELS:,}")
    if width < 1 or height < 1:
        raise ImageRefusedError("undecodable", f"{width}x{height} pixels")


def _frames(image: Any, bytes: int) -> int:
    """Return the number of frames or pages; a file that is broken behind its first has as many as can be reached."""
    if not getattr(image, "is_animated", False):
        return 1
    frames = 2
    if bytes <= _COUNTED:
        with contextlib.suppress(Exception):  # the first frame is all that is kept, and its decoding has the word
            frames = min(image.n_frames, 2**31 - 1)
    image.seek(0)
    return frames


def _kept_as_is(image: Any, header: JpegHeader | None) -> bool:
    """Say whether the bytes may enter a shard unchanged: an upright 8-bit gray or colour JPEG of a common process."""
    if image.format != "JPEG" or image.mode not in ("L", "RGB") or header is None:
        return False
    return image.getexif().get(0x0112, 1) in (0, 1) and header.process in KEPT_PROCESSES and not header.stray


def _upright_rgb(image: Any) -> Any:
    """Return the first frame upright, alpha on white, in 8-bit RGB."""
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        import numpy as np

        image = Image.fromarray((np.asarray(image) >> 8).astype("uint8"))
    elif image.mode in ("I", "F"):
        raise ImageRefusedError("unsupported", f"{image.format} with {image.mode} pixels (32 bits a channel)")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _resizes(image: Any, policy: ImagePolicy) -> bool:
    return policy.size is not None and _target(image.size, policy) != image.size


def _target(size: tuple[int, int], policy: ImagePolicy) -> tuple[int, int]:
    """Return the size an image gets before a centre crop."""
    assert policy.size is not None
    side = max(size) if policy.mode == "keep_ratio_largest" else min(size)
    if policy.only_if_bigger and side <= policy.size and policy.mode != "center_crop":
        return size
    scale = policy.size / side
    if policy.mode == "center_crop" and policy.only_if_bigger:
        scale = min(1.0, scale)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _resized(image: Any, policy: ImagePolicy) -> Any:
    from PIL import Image

    if policy.size is None:
        return image
    target = _target(image.size, policy)
    if target != image.size:
        image = image.resize(target, Image.Resampling.LANCZOS)
    if policy.mode == "center_crop":
        side = min(policy.size, *image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    return image


def _encode(image: Any, quality: int) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()
