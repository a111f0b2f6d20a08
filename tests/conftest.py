"""Corpora for all tests: small builds of real JPEGs, drawn here."""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shards.manifest import Manifest
from shards.sample import rank_key, uid_of
from shards.schema import SIDECAR, arrow_schema
from shards.writer import write_shard

COLOURS = ("red", "green", "blue", "yellow", "black", "white")
SHAPES = ("circle", "square", "stripe", "cross")


def draw(i: int, width: int = 56, height: int = 48, seed: int = 0) -> tuple[bytes, str, int]:
    """Return (JPEG, caption, class) of picture i: one coloured shape on textured ground. Class = shape."""
    from PIL import Image, ImageDraw

    rng = random.Random(f"{seed}:{i}")
    small = Image.frombytes("RGB", (8, 6), bytes(rng.randrange(60, 200) for _ in range(8 * 6 * 3)))
    image = small.resize((width, height), Image.Resampling.BICUBIC)
    colour, shape = rng.choice(COLOURS), rng.randrange(len(SHAPES))
    pen, side = ImageDraw.Draw(image), min(width, height) // 2
    x, y = rng.randrange(width - side), rng.randrange(height - side)
    box = (x, y, x + side, y + side)
    if shape == 0:
        pen.ellipse(box, fill=colour)
    elif shape == 1:
        pen.rectangle(box, fill=colour)
    elif shape == 2:
        pen.rectangle((0, y, width, y + side // 3), fill=colour)
    else:
        pen.line(box, fill=colour, width=5)
        pen.line((x + side, y, x, y + side), fill=colour, width=5)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=90)
    return out.getvalue(), f"a {colour} {SHAPES[shape]}, picture {i}", shape


@pytest.fixture
def make_shards(tmp_path: Path) -> Callable[..., str]:
    """Return a function that writes a build-like folder of n drawn samples and returns its path.

    Options: `folder` (name under tmp_path, or a path), `per_shard`, `width`, `height`, `seed` (other pictures),
    `classes` (adds `.cls`), `captions` (how many per sample in the sidecar), `source`, `recode` (a function from
    (i, JPEG bytes) to other bytes).
    """

    def make(n: int = 20, folder: str = "build", *, per_shard: int = 8, classes: bool = False, **options: Any) -> str:
        out = str(tmp_path / folder)
        Path(out).mkdir(parents=True, exist_ok=True)
        samples = [_sample(i, classes, **options) for i in range(n)]
        samples.sort(key=lambda s: (rank_key(0, s[0]), s[0]))
        entries = []
        for number, start in enumerate(range(0, n, per_shard)):
            part = samples[start : start + per_shard]
            table = _sidecar([{**row, "rank": start + i} for i, (_, _, row) in enumerate(part)])
            entries.append(write_shard(out, f"{number:05d}", [(key, members) for key, members, _ in part], table))
        source = options.get("source", "drawn")
        Manifest(
            samples=n,
            bytes=sum(e.bytes for e in entries),
            shards=tuple(entries),
            builder="tests",
            seed=0,
            members=("jpg", "txt", "cls") if classes else ("jpg", "txt"),
            sources={source: {"reader": "drawn", "unit": "image", "inputs": n, "kept": n, "holdout": 0, "spare": 0, "dropped": {}}},
            classes=SHAPES if classes else (),
        ).save(out)
        return out

    return make


def _sample(
    i: int,
    classes: bool,
    *,
    width: int = 56,
    height: int = 48,
    seed: int = 0,
    captions: int = 1,
    source: str = "drawn",
    recode: Callable[[int, bytes], bytes] | None = None,
) -> tuple[str, dict[str, bytes], dict[str, Any]]:
    jpeg, caption, label = draw(i, width, height, seed)
    jpeg = recode(i, jpeg) if recode else jpeg
    uid = uid_of(source, f"{seed}/{i}")
    members = {"jpg": jpeg, "txt": caption.encode()} | ({"cls": str(label).encode()} if classes else {})
    digest = hashlib.sha256(jpeg).hexdigest()
    row = {
        "key": uid,
        "uid": uid,
        "source": source,
        "source_id": f"{seed}/{i}",
        "url": f"https://example.org/{seed}/{i}.jpg",
        "caption": caption,
        "caption_raw": caption,
        "captions": [caption, *(f"{caption}, again {k}" for k in range(1, captions))],
        "width": width,
        "height": height,
        "original_width": width,
        "original_height": height,
        "original_format": "JPEG",
        "bytes": len(jpeg),
        "sha256": digest,
        "original_sha256": digest,
        "phash": f"{rank_key(1, uid):016x}",
        "information": 20.0 + i,
        "rank": 0,
        "class": label if classes else -1,
        "licence": "",
    }
    return uid, members, row


def _sidecar(rows: list[dict[str, Any]]) -> Any:
    import pyarrow as pa

    return pa.Table.from_pylist(rows, schema=arrow_schema(SIDECAR))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Count the tests on real data apart, and say how to get some where they were skipped."""
    outcomes = {
        name: [r for r in terminalreporter.stats.get(name, []) if "tests/real/" in r.nodeid] for name in ("passed", "failed", "skipped")
    }
    if not any(outcomes.values()):
        return
    counts = ", ".join(f"{len(reports)} {name}" for name, reports in outcomes.items() if reports)
    hint = "; tests/real/README.md says what they need" if outcomes["skipped"] else ""
    terminalreporter.write_line(f"of these on real data: {counts}{hint}")
