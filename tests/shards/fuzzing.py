"""Mutated pictures of every format that may be opened, and what is done to each: headers, proof, hashes, crops."""

from __future__ import annotations

import random
import sys
from functools import cache
from typing import Any

import numpy as np
from pictures import ADOBE_RGB, encoded, exif, photo, profile
from PIL import Image

MOST_CROPPED = 20_000_000  # pixels: a whole file may state 100 megapixels in good faith, and takes seconds


def fresh(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    """Return a file of a copy: Pillow leaves the options of one format's writer on the image for the next."""
    return encoded(image.copy(), kind, **options)


@cache
def seeds() -> tuple[bytes, ...]:
    """Return whole files: each format, and each way of storing pixels that has code of its own."""
    image = photo(48, 40)
    gray, alpha = image.convert("L"), image.convert("RGBA")
    alpha.putalpha(gray)
    deep = Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
    frames: dict[str, Any] = {"save_all": True, "append_images": [photo(48, 40, 1), photo(48, 40, 2)]}
    wide = profile(ADOBE_RGB)
    plain = [
        fresh(image), fresh(image, progressive=True), fresh(gray), fresh(image.convert("CMYK")),
        fresh(image, restart_marker_blocks=2), fresh(image, exif=exif(6)), fresh(image, icc_profile=wide),
        fresh(image, "MPO", **frames), fresh(image, "PNG"), fresh(alpha, "PNG", exif=exif(8)),
        fresh(image.convert("P"), "PNG", transparency=3, icc_profile=wide), fresh(gray.convert("1"), "PNG"), fresh(deep, "PNG"),
        fresh(image, "PNG", **frames), fresh(image, "WEBP"), fresh(alpha, "WEBP", lossless=True), fresh(image, "WEBP", **frames),
        fresh(image, "GIF", **frames), fresh(image, "BMP"), fresh(image, "TIFF"), fresh(deep, "TIFF"),
        fresh(image, "TIFF", compression="jpeg"), fresh(image, "TIFF", compression="tiff_lzw"),
        fresh(image, "PPM"), fresh(gray, "PPM"), fresh(image, "AVIF"), fresh(alpha, "AVIF"),
    ]  # fmt: skip
    return tuple(plain)


def mutated(rng: random.Random) -> bytes:
    """Return one of the files, changed: cut, bytes replaced, taken out or put in, or a length made huge."""
    content = bytearray(rng.choice(seeds()))
    head = min(len(content), 700)
    kind = rng.randrange(5)
    if kind == 0:
        del content[rng.randrange(len(content)) :]
    elif kind == 1:
        for _ in range(rng.randrange(1, 6)):
            content[rng.randrange(head)] = rng.randrange(256)
    elif kind == 2:
        start = rng.randrange(len(content))
        del content[start : start + rng.randrange(1, 200)]
    elif kind == 3:
        start = rng.randrange(head)
        content[start:start] = rng.randbytes(rng.randrange(1, 20))
    else:
        start = rng.randrange(max(1, head - 4))
        content[start : start + 4] = rng.choice((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\x20\0", b"\0\x20\0\0", b"\0\0\0\0"))
    return bytes(content)


def reasons(content: bytes, kind: str) -> tuple[str, str, str]:
    """Return what proof, build and training say of a file: "" or a reason. Any other exception than theirs is a fault."""
    from curate.images import ImagePolicy, ImageRefusedError, open_image
    from curate.report.thumbnail import thumbnail
    from shards.decoding import UndecodableError
    from shards.proof import prove
    from train.data.augment.params import Augment, uniforms, window
    from train.data.decode.cpu import EncodedImage, decode

    proof = build = training = ""
    try:
        prove(content)
    except UndecodableError as error:
        proof = error.reason
    try:
        opened = open_image(content, ImagePolicy(), kind)
        prove(opened.encoded or content)  # what enters a shard is whole
    except ImageRefusedError as refused:
        build = refused.reason
    try:
        image = EncodedImage(content)
        if image.height * image.width <= MOST_CROPPED:
            decode(content, window(Augment(), uniforms(0, 0, "0"), image.height, image.width), 32)
    except UndecodableError as error:
        training = error.reason
    thumbnail(content)
    return proof, build, training


def main(first: int, last: int) -> None:
    """Try the mutated files of some numbers; print how many there were of each outcome, and the most memory, in MiB."""
    import signal
    from collections import Counter
    from pathlib import Path

    found: Counter[str] = Counter()
    for number in range(first, last):
        signal.alarm(20)  # a hang ends the process, and with it the test
        kind = ("scaled", "reference", "fast")[number % 3]
        outcome = reasons(mutated(random.Random(number)), kind)
        found["/".join(reason or "fine" for reason in outcome)] += 1
    status = Path("/proc/self/status").read_text()  # getrusage would count the parent's memory, from before this program began
    sys.stdout.write(f"{dict(found)}\n{int(status.partition('VmHWM:')[2].split()[0]) // 1024}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
