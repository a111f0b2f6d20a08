"""Photos for benchmarks: mosaics of real ones at their own scale where the real sample is at hand, else drawn.

Real texture at its own resolution is what decides the size of a JPEG and the time of its decoding; enlarged or drawn pictures
have less of it.
"""

from __future__ import annotations

import csv
import io
import itertools
import os
import random
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
REAL = Path(os.environ.get("PROVENDER_REALDATA") or ROOT.parent / "shared" / "realdata")
_WORDS = "a the red old small dog street two men water bike light green photo of with near house woman table tree on sky".split()  # noqa: SIM905


def photos(n: int, short: int = 256, seed: int = 0) -> Iterator[tuple[bytes, str]]:
    """Yield n JPEGs, each unlike the others, whose shorter side is `short` pixels, quality 85 to 95, with a caption each."""
    real = _real()
    for i in range(n):
        rng = random.Random(f"{seed}/{i}")
        long = rng.randrange(short, short * 3 // 2)
        size = (long, short) if rng.random() < 0.7 else (short, long)
        out = io.BytesIO()
        (_mosaic(real, size, rng) if real else _drawn(size, rng)).save(out, "JPEG", quality=rng.randrange(85, 96))
        yield out.getvalue(), f"{' '.join(rng.choices(_WORDS, k=rng.randrange(6, 16)))}, number {i}"


def write_folder(folder: Path, n: int, short: int = 256) -> int:
    """Write n photos and their captions.csv; returns the photos' bytes."""
    folder.mkdir(parents=True)
    total = 0
    with (folder / "captions.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("image", "caption"))
        for i, (content, caption) in enumerate(photos(n, short)):
            total += (folder / f"{i:06d}.jpg").write_bytes(content)
            rows.writerow((f"{i:06d}.jpg", caption))
    return total


def write_tars(folder: Path, n: int, short: int = 256, per_tar: int = 1000) -> list[Path]:
    """Write n photos with their captions as plain WebDataset tars."""
    folder.mkdir(parents=True)
    made = photos(n, short)
    paths = [folder / f"{number:05d}.tar" for number in range(-(-n // per_tar))]
    for number, path in enumerate(paths):
        with tarfile.open(path, "w") as tar:
            for i, (content, caption) in enumerate(itertools.islice(made, per_tar)):
                for suffix, data in (("jpg", content), ("txt", caption.encode())):
                    info = tarfile.TarInfo(f"{number * per_tar + i:09d}.{suffix}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return paths


def origin() -> str:
    """Say what the photos are made of."""
    return "mosaics of real photos" if REAL.is_dir() else "drawn pictures"


def _real() -> list[Any]:
    from PIL import Image

    paths = sorted(p for p in (REAL / "pairs").rglob("*.jpg")) if REAL.is_dir() else []
    images = []
    for path in paths:
        with Image.open(path, formats=["JPEG"]) as image:
            if min(image.size) >= 128:
                images.append(image.convert("RGB"))
    return images


def _mosaic(real: list[Any], size: tuple[int, int], rng: random.Random) -> Any:
    """Return a canvas filled with random cuts of real photos, none enlarged."""
    from PIL import Image

    canvas = Image.new("RGB", size)
    x = 0
    while x < size[0]:
        y, width = 0, rng.randrange(96, 129)
        while y < size[1]:
            photo = rng.choice(real)
            left, top = rng.randrange(photo.width - width + 1) if photo.width > width else 0, 0
            canvas.paste(photo.crop((left, top, left + width, photo.height)), (x, y))
            y += photo.height
        x += width
    return canvas


def _drawn(size: tuple[int, int], rng: random.Random) -> Any:
    """Return a picture with shapes and noise: about as many bytes as a photo has."""
    from PIL import Image, ImageDraw

    width, height = size
    small = Image.frombytes("RGB", (12, 9), rng.randbytes(12 * 9 * 3)).resize(size, Image.Resampling.BICUBIC)
    noise = Image.frombytes("RGB", (width // 2, height // 2), rng.randbytes(width // 2 * (height // 2) * 3)).resize(size)
    image = Image.blend(small, noise, 0.12)
    pen = ImageDraw.Draw(image)
    for _ in range(12):
        x, y = rng.randrange(width), rng.randrange(height)
        box = (x, y, x + rng.randrange(8, width // 2), y + rng.randrange(8, height // 2))
        pen.ellipse(box, outline=tuple(rng.randbytes(3)), width=3)
    return image
