"""Pictures unlike one another, for the tests of this folder."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def picture(i: int, width: int = 80, height: int = 64) -> Image.Image:
    """Return picture i: smooth random colour, so that two of them are no near duplicates and copies of one are."""
    rng = np.random.default_rng(i)
    small = rng.integers(0, 256, (7, 7, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str = "JPEG", **options: Any) -> bytes:
    """Return an image's file."""
    out = io.BytesIO()
    image.save(out, form, **({"quality": 92} if form == "JPEG" else {}) | options)
    return out.getvalue()


def captioned_folder(folder: Path, rows: Iterable[tuple[str, bytes | None, str]]) -> Path:
    """Write (name, bytes, caption) rows as a folder with captions.csv and return its path; no bytes, no file."""
    folder.mkdir(exist_ok=True)
    with (folder / "captions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "caption"))
        for name, content, caption in rows:
            writer.writerow((name, caption))
            if content is not None:
                (folder / name).write_bytes(content)
    return folder
