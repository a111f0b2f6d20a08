"""Write one split of a labelled set as a build of ours: images as they are where every reader takes them, else encoded again.

A JPEG stays byte for byte where it is upright, 8 bits, gray or colour, of a common process; a PNG or WebP where it is upright, still,
8 bits, gray or RGB. All images of a split have one ending: that of most of its first ones. What is encoded again is decoded as everywhere
in the house (upright, sRGB, alpha on white); a PNG is then stored without compression, so that equal pixels give equal bytes.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from eval.png import png_of
from shards.core import fs
from shards.core.console import Progress
from shards.core.engines.local import threads_of
from shards.core.errors import ProvenderError, UsageError
from shards.decoding import UndecodableError
from shards.jpeg import KEPT_PROCESSES, jpeg_header
from shards.manifest import Manifest, ShardEntry
from shards.proof import prove, prove_jpeg
from shards.sample import rank_key, uid_of
from shards.schema import LEDGER, SIDECAR, arrow_schema
from shards.upright import open_image, orientation, upright_pixels
from shards.writer import write_shard

if TYPE_CHECKING:
    from eval.datasets.base import Examples

SEED = 0  # of the order in which samples lie
BUILDER = "provender 0.1.0"
MOST_BYTES = 256 << 20  # of the images of a shard, which are in memory together while it is written
QUALITY = 95
_FIRST = 100  # images whose formats decide the ending of all
_TOGETHER = 256
_SIGNATURES = {"jpg": b"\xff\xd8\xff", "png": b"\x89PNG\r\n\x1a\n"}


@dataclass(frozen=True)
class Image:
    """An image as a shard will hold it; without content, `reason` and `detail` say why. `encoded` is set where its bytes are new."""

    position: int
    content: bytes = b""
    width: int = 0
    height: int = 0
    format: str = ""
    original_sha256: str = ""
    encoded: bool = False
    reason: str = ""
    detail: str = ""


@dataclass
class Written:
    """What became of a split: its manifest, hashes of images by position in the set, and images that are left out or were encoded again."""

    manifest: Manifest
    positions: list[int] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)
    dropped: list[tuple[str, str, str]] = field(default_factory=list)
    encoded: list[str] = field(default_factory=list)
    ending: str = ""


def write_split(folder: str, examples: Examples, source: str, workers: int = 0) -> Written:
    """Write a split into a folder that is not there yet, samples in the order of their rank keys; its manifest goes last.

    Args:
        source: the set's name, from which uids follow.

    Raises:
        UsageError: no image decodes.
    """
    fs.make_dirs(folder)
    uids = [uid_of(source, id) for id in _distinct(examples.ids)]
    order = sorted(range(len(examples)), key=lambda i: (rank_key(SEED, uids[i]), uids[i]))
    ending = _ending(examples, order)
    size = min(10_000, max(1_000, len(examples) // 512))
    found = Written(Manifest(samples=0, bytes=0, shards=()), ending=ending)
    entries: list[ShardEntry] = []
    kept: list[Image] = []
    held = 0  # bytes
    ledger: list[dict[str, Any]] = []
    with Progress(f"pack {folder.rpartition('/')[2]}", len(examples), "images") as progress:
        for image in _images(examples, order, ending, workers):
            progress.add()
            if image.content:
                kept.append(image)
                held += len(image.content)
            else:
                found.dropped.append((examples.ids[image.position], image.reason, image.detail))
                ledger.append(_row(source, uids, examples, image, None, ""))
            if len(kept) == size or held > MOST_BYTES:
                entries.append(_shard(folder, len(entries), kept, examples, source, uids, found, ledger))
                kept, held = [], 0
        if kept:
            entries.append(_shard(folder, len(entries), kept, examples, source, uids, found, ledger))
    if not entries:
        id, _, detail = found.dropped[0]
        raise UsageError(f"{examples.name}: none of the {len(examples)} images decodes, such as {id}: {detail}", "images that Pillow opens")
    _write_ledger(folder, ledger)
    reasons = Counter(reason for _, reason, _ in found.dropped)
    counts = {"reader": "evaluate pack", "unit": "image", "inputs": len(examples), "kept": len(found.hashes), "dropped": dict(reasons)}
    found.manifest = Manifest(
        samples=len(found.hashes),
        bytes=sum(entry.bytes for entry in entries),
        shards=tuple(entries),
        builder=BUILDER,
        seed=SEED,
        members=(ending, "txt", "cls"),
        sources={source: counts},
        classes=examples.classes,
        folder=folder,
    )
    found.manifest.save(folder)
    return found


def _distinct(ids: Sequence[str]) -> list[str]:
    """Return ids of which none stands twice: the second of an id gets `#2`. A table may list a file twice, tars may share keys."""
    counts: Counter[str] = Counter()
    found = []
    for id in ids:
        counts[id] += 1
        found.append(id if counts[id] == 1 else f"{id}#{counts[id]}")
    return found


def _shard(
    folder: str,
    number: int,
    kept: Sequence[Image],
    examples: Examples,
    source: str,
    uids: Sequence[str],
    found: Written,
    ledger: list[dict[str, Any]],
) -> ShardEntry:
    """Write one shard, and note its samples in `found` and the ledger."""
    import pyarrow as pa

    name = f"{number:05d}"
    samples, rows = [], []
    for image in kept:
        i = image.position
        label, uid, rank = int(examples.labels[i]), uids[i], len(found.hashes)
        text = examples.classes[label].replace("_", " ")
        samples.append((uid, {found.ending: image.content, "txt": text.encode(), "cls": str(label).encode()}))
        sha256 = hashlib.sha256(image.content).hexdigest()
        stated: dict[str, Any] = {
            "key": uid,
            "uid": uid,
            "source": source,
            "source_id": examples.ids[i],
            "caption": text,
            "caption_raw": text,
        }
        stated |= {"width": image.width, "height": image.height, "original_width": image.width, "original_height": image.height}
        stated |= {"original_format": image.format, "bytes": len(image.content), "sha256": sha256, "rank": rank, "class": label}
        rows.append(stated | {"captions": [text], "original_sha256": image.original_sha256})
        found.positions.append(i)
        found.hashes.append(sha256)
        if image.encoded:
            found.encoded.append(examples.ids[i])
        ledger.append(_row(source, uids, examples, image, rank, name))
    return write_shard(folder, name, samples, pa.Table.from_pylist(rows, schema=arrow_schema(SIDECAR)))


def _row(source: str, uids: Sequence[str], examples: Examples, image: Image, rank: int | None, shard: str) -> dict[str, Any]:
    """Return an image's row in the ledger."""
    i = image.position
    decision = "kept" if rank is not None else "dropped"
    row = {"uid": uids[i], "source": source, "source_id": examples.ids[i], "input": "", "row": i, "decision": decision}
    return row | {"reason": image.reason, "detail": image.detail, "duplicate_of": "", "rank": rank, "shard": shard, "caption_raw": ""}


def _write_ledger(folder: str, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    fs.make_dirs(fs.join(folder, "ledger"))
    table = pa.Table.from_pylist(sorted(rows, key=lambda row: str(row["uid"])), schema=arrow_schema(LEDGER))
    with fs.atomic_write(fs.join(folder, "ledger", "00000.parquet")) as file:
        pq.write_table(table, file, compression="zstd")


def _images(examples: Examples, order: Sequence[int], ending: str, workers: int) -> Iterator[Image]:
    """Yield the images in order, decoded by threads, some ahead."""
    with ThreadPoolExecutor(threads_of(workers)) as pool:
        for at in range(0, len(order), _TOGETHER):
            yield from pool.map(lambda i: prepare(examples, i, ending), order[at : at + _TOGETHER])


def _ending(examples: Examples, order: Sequence[int]) -> str:
    """Return the ending of most of the first images; what is no JPEG, PNG or WebP becomes PNG."""
    counts: Counter[str] = Counter()
    for i in order[:_FIRST]:
        try:
            counts[ending_of(examples.read(i)) or "png"] += 1
        except (OSError, ProvenderError, UndecodableError):
            continue
    return counts.most_common(1)[0][0] if counts else "jpg"


def ending_of(content: bytes) -> str:
    """Return jpg, png or webp by a file's first bytes; nothing for other formats."""
    for ending, signature in _SIGNATURES.items():
        if content.startswith(signature):
            return ending
    return "webp" if content[:4] == b"RIFF" and content[8:12] == b"WEBP" else ""


def prepare(examples: Examples, position: int, ending: str) -> Image:
    """Return an image as a shard will hold it, or why it cannot: never an exception for what is wrong with one image."""
    try:
        content = examples.read(position)
    except FileNotFoundError as error:
        return Image(position, reason="image_missing", detail=f"no file {examples.ids[position]}: {error.strerror}")
    except (OSError, ProvenderError) as error:
        detail = error.found if isinstance(error, ProvenderError) else str(error)
        return Image(position, reason="image_missing", detail=detail[:200])
    original = hashlib.sha256(content).hexdigest()
    try:
        image = open_image(content)
        kind = image.format or ""
        if ending_of(content) == ending and _is_plain(image, content):
            width, height = prove(content)
            return Image(position, content, width, height, kind, original)
        if kind in ("JPEG", "MPO"):
            prove_jpeg(content, image.mode)
        pixels = upright_pixels(image)
    except UndecodableError as error:
        return Image(position, reason=error.reason, detail=str(error))
    return Image(position, _encoded(pixels, ending), pixels.shape[1], pixels.shape[0], kind, original, encoded=True)


def _is_plain(image: Any, content: bytes) -> bool:
    """Return whether every reader sees an image alike: one frame, upright, 8 bits, gray or RGB."""
    if image.mode not in ("L", "RGB") or orientation(image) != 1 or getattr(image, "n_frames", 1) != 1:
        return False
    if image.format == "JPEG":
        header = jpeg_header(content)
        return header is not None and header.process in KEPT_PROCESSES and not header.stray
    # A PNG of 16 bits a channel opens as RGB, one of 1, 2 or 4 bits as L; a transparent colour is no channel.
    return "transparency" not in image.info and (image.format != "PNG" or content[24:25] == b"\x08")


def _encoded(pixels: Any, ending: str) -> bytes:
    """Return pixels (rows, columns, 3) in the format of an ending: PNG and WebP without loss, JPEG of quality 95."""
    import io

    from PIL import Image as Pillow

    if ending == "png":
        return png_of(pixels)
    out = io.BytesIO()
    if ending == "webp":
        Pillow.fromarray(pixels).save(out, "WEBP", lossless=True)
    else:
        Pillow.fromarray(pixels).save(out, "JPEG", quality=QUALITY, subsampling=0)
    return out.getvalue()
