"""Pictures for tests of decoders: drawn photographs in many encodings, and colour profiles made from their definitions."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Primaries in the profile connection space (D50), rows X, Y, Z and columns red, green, blue: what each standard's primaries
# and white become by Bradford's adaptation.
SRGB = np.array([[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]])
ADOBE_RGB = np.array([[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]])
DISPLAY_P3 = np.array([[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]])
GAMMA = 563 / 256  # Adobe RGB's


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """Return smooth coloured noise: the spectrum of a photograph, roughly."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for cells, share in ((4, 0.5), (16, 0.3), (64, 0.2)):
        noise = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), np.uint8))
        total += share * np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC))
    return Image.fromarray(total.astype(np.uint8))


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    """Return an image in a file format."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def exif(orientation: Any) -> bytes:
    """Return EXIF that states an orientation."""
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def stray(data: bytes) -> bytes:
    """Return a JPEG with bytes between two of its segments that mean nothing, as some cameras leave them."""
    scan = data.index(b"\xff\xda")
    return data[:scan] + b"\x00\x11\x22" + data[scan:]


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """Return a chunk of a PNG."""
    import zlib

    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def profile(primaries: NDArray[np.float64] | None, gamma: float = GAMMA) -> bytes:
    """Return an ICC profile, version 2.4, of three primaries and one gamma; of gray where there are no primaries."""

    def fixed(*values: float) -> bytes:
        return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))

    curve = b"curv" + bytes(4) + struct.pack(">IHxx", 1, round(gamma * 256))
    tags = {b"wtpt": b"XYZ " + bytes(4) + fixed(0.9642, 1.0, 0.8249)}
    if primaries is None:
        tags[b"kTRC"] = curve
    else:
        for column, colour in enumerate((b"r", b"g", b"b")):
            tags[colour + b"XYZ"] = b"XYZ " + bytes(4) + fixed(*primaries[:, column])
            tags[colour + b"TRC"] = curve
    table, content, at = b"", b"", 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        table += name + struct.pack(">II", at + len(content), len(value))
        content += value
    space = b"GRAY" if primaries is None else b"RGB "
    head = bytes(4) + bytes.fromhex("02400000") + b"mntr" + space + b"XYZ " + bytes(12) + b"acsp" + bytes(28)
    head += fixed(0.9642, 1.0, 0.8249)
    body = head.ljust(124, b"\0") + struct.pack(">I", len(tags)) + table + content
    return struct.pack(">I", len(body) + 4) + body


def as_srgb(pixels: NDArray[Any], primaries: NDArray[np.float64], gamma: float = GAMMA) -> NDArray[np.float64]:
    """Return what 8-bit pixels of a profile are in sRGB, in levels, by the definitions (IEC 61966-2-1's transfer curve)."""
    linear = (np.asarray(pixels) / 255) ** gamma
    mixed = np.clip(linear @ primaries.T @ np.linalg.inv(SRGB).T, 0, 1)
    return 255 * np.where(mixed <= 0.0031308, 12.92 * mixed, 1.055 * mixed ** (1 / 2.4) - 0.055)


def differences(one: Any, two: Any) -> tuple[float, float]:
    """Return mean and 99th percentile of the absolute difference in levels."""
    apart = np.abs(np.asarray(one).astype(float) - np.asarray(two).astype(float))
    return float(apart.mean()), float(np.percentile(apart, 99))
