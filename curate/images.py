"""Open an image once: prove that it decodes to its last row, bring it into the form shards hold, hash it.

What a shard holds is a JPEG, always; its hash (shards/phash.py) is of the bytes it stores, and taking it decodes all of
them. So a JPEG that is kept as it is gets decoded once.
"""

from __future__ import annotations

import contextlib
import io
import logging
from dataclasses import dataclass
from typing import Any

from shards import upright
from shards.core.config import option
from shards.decoding import UndecodableError, check_size, decoding
from shards.jpeg import KEPT_PROCESSES, JpegHeader, jpeg_header
from shards.phash import DEFAULT, phash
from shards.proof import JPEGS, prove_jpeg

VERSION = 5
logging.getLogger("PIL").addHandler(logging.NullHandler())  # what is wrong with a file stands in the ledger, not on stderr
# A picture whose sixteen parts lie nearer to gray than this, in levels, has no colours. A gray photo stored in colour has 0 at
# any quality; of 400 photos 3 have 0 and the next 3.2.
GRAY = 2.0
# Frames are counted in files up to this size; in a larger one that has several, 2 stands for them: counting reads it all.
_COUNTED = 16 * 2**20


@dataclass(frozen=True)
class ImagePolicy:
    """What an image becomes. Without a size, bytes are kept wherever the format allows."""

    size: int | None = option(None, "pixels of the side that `mode` names", least=1)
    mode: str = option("keep_ratio_largest", "keep_ratio_largest | keep_ratio | center_crop")
    only_if_bigger: bool = option(True, "never enlarge")
    quality: int = option(95, "JPEG quality of what is encoded again", least=1, most=100)


class ImageRefusedError(Exception):
    """An image that cannot enter a shard; the arguments are the ledger's reason and detail."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Opened:
    """A measured image. `encoded` is None where the original bytes are kept; `warning` says what was passed over.

    The last four are those of `shards.phash.Hashed`.
    """

    encoded: bytes | None
    width: int
    height: int
    original_width: int
    original_height: int
    original_format: str
    frames: int
    warning: str
    phash: int
    information: float
    colours: str
    colour: float


def open_image(content: bytes, policy: ImagePolicy, hash: str = DEFAULT) -> Opened:
    """Decode, convert where needed, and hash one image.

    Raises:
        ImageRefusedError: with the reason `undecodable`, `unsupported` or `too_large`.
    """
    try:
        with decoding():
            return _open(content, policy, hash)
    except UndecodableError as error:
        raise ImageRefusedError(error.reason, str(error)) from None


def _open(content: bytes, policy: ImagePolicy, hash: str) -> Opened:
    header = jpeg_header(content)
    if header and header.plain and policy.size is None:
        check_size(header.width, header.height)
        size = header.width, header.height
        hashed = phash(content, size, header.gray, hash)
        return Opened(None, *size, *size, "JPEG", 1, "", hashed.phash, hashed.information, hashed.colours, hashed.colour)
    image = upright.open_image(content)
    width, height = size = image.size
    original_format, gray = image.format or "", image.mode == "L"
    frames = 1 if original_format == "JPEG" else _frames(content)
    encoded, warning = None, ""
    if not _kept_as_is(image, header) or _resizes(image, policy):
        if original_format in JPEGS:
            prove_jpeg(content, image.mode)
        warning = upright.profile_problem(image)
        stored = _resized(upright.upright_rgb(image), policy)
        size, gray, encoded = stored.size, False, _encode(stored, policy.quality)
    hashed = phash(encoded or content, size, gray, hash)
    hashes = (hashed.phash, hashed.information, hashed.colours, hashed.colour)
    return Opened(encoded, size[0], size[1], width, height, original_format, frames, warning, *hashes)


def _frames(content: bytes) -> int:
    """Return the number of frames or pages; a file that is broken behind its first has as many as can be reached.

    They are counted in an image of their own: what breaks behind the first frame must not touch the one that is decoded.
    """
    frames = 1
    with contextlib.suppress(UndecodableError), decoding():
        image = upright.open_image(content)
        if getattr(image, "is_animated", False):
            frames = 2
            frames = min(image.n_frames, 2**31 - 1) if len(content) <= _COUNTED else frames
    return frames


def _kept_as_is(image: Any, header: JpegHeader | None) -> bool:
    """Say whether the bytes may enter a shard unchanged: an upright 8-bit gray or colour JPEG of a common process."""
    if image.format != "JPEG" or image.mode not in ("L", "RGB") or header is None:
        return False
    return upright.orientation(image) == 1 and header.process in KEPT_PROCESSES and not header.stray


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
