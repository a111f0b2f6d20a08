"""Pixels as a PNG whose bytes depend on the pixels alone."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_BLOCK = 65535  # bytes: the most that deflate stores in one


def png_of(pixels: np.ndarray) -> bytes:
    """Return uint8 pixels (rows, columns, 3) as a PNG whose data are stored, not compressed: equal pixels give equal bytes everywhere.

    A compressor's bytes depend on its version, so hashes of what it writes would differ from machine to machine.
    """
    import numpy as np

    rows, columns, _ = pixels.shape
    scanned = np.zeros((rows, 1 + 3 * columns), np.uint8)  # each row begins with its filter, 0
    scanned[:, 1:] = pixels.reshape(rows, -1)
    raw = scanned.tobytes()
    blocks = [raw[at : at + _BLOCK] for at in range(0, len(raw), _BLOCK)]
    stored = b"".join(
        struct.pack("<BHH", at == len(blocks) - 1, len(block), len(block) ^ 0xFFFF) + block for at, block in enumerate(blocks)
    )
    data = b"\x78\x01" + stored + struct.pack(">I", zlib.adler32(raw))
    header = struct.pack(">IIBBBBB", columns, rows, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
