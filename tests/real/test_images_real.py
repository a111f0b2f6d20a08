"""The three pHashes on real files: how far apart they are, what they find, and that odd files end none of them."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from statistics import median

import pytest

from curate.images import ImagePolicy, open_image
from shards.phash import VERSIONS

KINDS = tuple(VERSIONS)
Pairs = set[tuple[str, str]]

CHILD = """
import json, sys
from curate.images import ImagePolicy, ImageRefusedError, open_image
kind, found = sys.argv[1], {}
for path in sys.argv[2:]:
    content = open(path, "rb").read()
    try:
        opened = open_image(content, ImagePolicy(), kind)
        found[path] = ["kept" if opened.encoded is None else "encoded", opened.width, opened.height, opened.frames]
    except ImageRefusedError as refused:
        found[path] = [refused.reason, refused.detail]
print(json.dumps(found))
"""


def test_odd_images_are_decided_alike_under_each_hash_and_none_crashes(realdata: Path) -> None:
    files = sorted(str(p) for p in (realdata / "odd-images").iterdir() if p.suffix != ".csv")
    found = {}
    for kind in KINDS:
        one = subprocess.run([sys.executable, "-c", CHILD, kind, *files], check=False, capture_output=True, text=True, timeout=120)
        assert one.returncode == 0, (kind, one.stderr[-500:])
        assert "Warning" not in one.stderr
        found[kind] = json.loads(one.stdout)
    assert found["reference"] == found["scaled"] == found["fast"]
    decided = {Path(path).name: what for path, what in found["reference"].items()}
    assert len(decided) == len(files) > 40
    assert sum(what[0] in ("kept", "encoded") for what in decided.values()) > 20
    assert all(what[1] for what in decided.values())
    animations = {name: what[3] for name, what in decided.items() if what[0] == "encoded" and what[3] > 1}
    assert {"image-rs__webp_extended_anim.webp", "pillow__apng_delay.png"} <= set(animations)


def photos(folder: Path, least: int) -> list[bytes]:
    """Return the JPEGs under a folder whose longer side has at least so many pixels."""
    from PIL import Image

    found = []
    for path in sorted(folder.rglob("*.jpg")):
        with Image.open(path) as image:
            if max(image.size) >= least:
                found.append(path.read_bytes())
    return found


def bits_apart(contents: list[bytes], kind: str) -> list[int]:
    keep = ImagePolicy()
    return sorted((open_image(c, keep, "reference").phash ^ open_image(c, keep, kind).phash).bit_count() for c in contents)


@pytest.mark.parametrize(("kind", "middle", "most", "furthest"), [("scaled", 0, 2, 4), ("fast", 2, 8, 12)])
def test_distances_to_the_reference(realdata: Path, kind: str, middle: int, most: int, furthest: int) -> None:
    found = bits_apart(photos(realdata / "pairs", 200), kind)
    assert len(found) > 300
    assert median(found) <= middle
    assert found[-(-len(found) * 99 // 100) - 1] <= most
    assert found[-1] <= furthest


def caltech(folder: Path) -> Pairs:
    with (folder / "groups.csv").open(newline="") as file:
        group = {row["file"]: row["group"] for row in csv.DictReader(file)}
    return {(a, b) for a, b in combinations(sorted(group), 2) if group[a] == group[b]}


def cifar(folder: Path) -> Pairs:
    with (folder / "pairs.csv").open(newline="") as file:
        return {tuple(sorted((r["test_file"], r["train_file"]))) for r in csv.DictReader(file) if r["judgment"] == "1"}  # type: ignore[misc]


def bridge(folder: Path) -> Pairs:
    return set(combinations(sorted(p.name for p in folder.glob("*.jpg")), 2))


@pytest.mark.parametrize(
    ("name", "pairs", "total", "found"),
    [
        ("caltech_rand_resize", caltech, 56, {"reference": 56, "scaled": 56, "fast": 53}),
        ("cifar10", cifar, 54, {"reference": 14, "scaled": 14, "fast": 14}),
        ("pdq_bridge", bridge, 10, {"reference": 10, "scaled": 10, "fast": 10}),
    ],
)
def test_recall_on_the_near_duplicate_sets(
    realdata: Path, name: str, pairs: Callable[[Path], Pairs], total: int, found: dict[str, int]
) -> None:
    folder = realdata / "neardup" / name
    true = pairs(folder)
    assert len(true) == total
    contents = {file: (folder / file).read_bytes() for pair in true for file in pair}
    for kind, least in found.items():
        hashes = {file: open_image(content, ImagePolicy(), kind).phash for file, content in contents.items()}
        assert sum((hashes[a] ^ hashes[b]).bit_count() <= 4 for a, b in true) >= least, kind
