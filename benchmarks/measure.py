"""The measure pass against imagededup's `PHash.encode_image` alone, on one core, on photos of 500 px.

The whole pass is timed: file read, integrity proven over all entropy-coded data, pHash, sha256, captions cleaned,
default filters, rows written. CPU seconds of one process, the four taken in turns; a ratio is the median over the rounds.
The photos are random crops of real ones whose longer side has 400 px or more, drawn where there are none, at quality 85
to 95. Beside the speed: each hash's distance from imagededup's on the same files, and which true copies it finds at r = 4. The default
is `scaled`; curate/recipe.py states these figures to users, and a test holds that they are the recorded ones.

    python benchmarks/measure.py [--photos 2000] [--rounds 5]
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import io
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _record import record
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
REAL = Path(os.environ.get("PROVENDER_REALDATA") or ROOT.parent / "shared" / "realdata")
KINDS = ("reference", "scaled", "fast")
SIDE, RADIUS = 500, 4
TARGETS = {"scaled": 2.5, "fast": 3.0}


def main() -> None:
    """Make the photos, time the four in turns, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "photos"
        bases = base_photos()
        bytes_each = write_photos(folder, bases, arguments.photos)
        value: dict[str, Any] = {"photos": arguments.photos, "bases": len(bases), "mean_bytes": bytes_each, "real": REAL.is_dir()}
        value |= speeds(folder, Path(scratch), arguments.rounds)
        value["recall"] = {"planted": planted(bases)} | ({name: pairs(name) for name in SETS} if REAL.is_dir() else {})
    record("measure", value, in_words(value))


def base_photos() -> list[Image.Image]:
    """Return real photos of 400 px and more, as they are; without them, drawn ones."""
    found = []
    for path in sorted(REAL.glob("pairs/**/*.jpg")):
        with Image.open(path, formats=["JPEG"]) as image:
            if max(image.size) >= 400:
                found.append(image.convert("RGB"))
    return found or [drawn(i) for i in range(60)]


def drawn(i: int) -> Image.Image:
    """Return smooth random colour with noise at several scales."""
    import numpy as np

    rng = np.random.default_rng(i)
    total = np.zeros((400, 600, 3))
    for side in (5, 20, 80, 400):
        coarse = Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).resize((600, 400), Image.Resampling.BICUBIC)
        total += np.asarray(coarse, float) / side**0.5
    return Image.fromarray((total / total.max() * 255).astype("uint8"))


def write_photos(folder: Path, bases: list[Image.Image], n: int) -> int:
    """Write n crops of 80 to 100% of each side, longer side 500, and their captions; return the mean bytes of a file."""
    folder.mkdir()
    lines = ["image,caption"]
    for i in range(n):
        rng = random.Random(i)
        base = bases[i % len(bases)]
        wide, high = (int(side * rng.uniform(0.8, 1.0)) for side in base.size)
        left, top = rng.randint(0, base.width - wide), rng.randint(0, base.height - high)
        scale = SIDE / max(wide, high)
        crop = base.crop((left, top, left + wide, top + high)).resize((round(wide * scale), round(high * scale)), Image.Resampling.LANCZOS)
        crop.save(folder / f"{i:05d}.jpg", "JPEG", quality=rng.randint(85, 95))
        lines.append(f"{i:05d}.jpg,A photo of the {i}th thing we saw on our way &amp; liked; caf\u00e9 no. {rng.randint(1, 99)}")
    (folder / "captions.csv").write_text("\n".join(lines) + "\n")
    return sum(path.stat().st_size for path in folder.glob("*.jpg")) // n


def speeds(folder: Path, scratch: Path, rounds: int) -> dict[str, Any]:
    """Time imagededup and the three kinds in turns; return rates, ratios and distances."""
    files = sorted(folder.glob("*.jpg"))
    passes: dict[str, Callable[[], dict[str, int]]] = {"imagededup": lambda: imagededup(files)}
    passes |= {kind: measure_pass(folder, scratch, kind) for kind in KINDS}
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    hashes: dict[str, dict[str, int]] = {}
    imagededup(files[:1])  # its imports are not timed
    for _ in range(rounds):
        for name, run in passes.items():
            start = time.process_time()
            hashes[name] = run()
            seconds[name].append(time.process_time() - start)
    reference = hashes.pop("imagededup")
    ratio = {kind: statistics.median(a / b for a, b in zip(seconds["imagededup"], seconds[kind], strict=True)) for kind in KINDS}
    distances = {kind: distance(found, reference) for kind, found in hashes.items()}
    rate = {name: len(files) / statistics.median(s) for name, s in seconds.items()}
    return {"per_cpu_second": rate, "ratio": ratio, "distance": distances, "cpu_seconds": seconds}


def imagededup(files: list[Path]) -> dict[str, int]:
    """Hash files with imagededup alone."""
    hasher = imagededup_hasher()
    return {path.name: int(hasher.encode_image(image_file=path), 16) for path in files}


def imagededup_hasher() -> Any:
    """Return imagededup's PHash."""
    from imagededup.methods import PHash

    return PHash(verbose=False)


def measure_pass(folder: Path, scratch: Path, kind: str) -> Callable[[], dict[str, int]]:
    """Return the whole measure pass with one kind of hash, over records that are listed already."""
    import pyarrow.parquet as pq

    from curate.config import BuildConfig, resolve
    from curate.listing import list_records
    from curate.measure import measure

    recipe = resolve(BuildConfig(source="folder", input=(str(folder),), samples="all"))
    recipe = dataclasses.replace(recipe, dedup=dataclasses.replace(recipe.dedup, near=dataclasses.replace(recipe.dedup.near, hash=kind)))
    work = str(scratch / kind)
    files, _ = list_records(recipe, recipe.sources[0], work, 1, "inline")
    fresh: Iterator[int] = iter(range(10**6))

    def run() -> dict[str, int]:
        parts = measure(recipe, [(recipe.sources[0], files)], f"{work}/{next(fresh)}", 1, "inline")
        rows = [row for part in parts for row in pq.read_table(part.path, columns=["source_id", "phash", "status"]).to_pylist()]
        if any(row["status"] for row in rows):
            raise SystemExit("a photo of the benchmark was refused")
        return {row["source_id"]: row["phash"] for row in rows}

    return run


def distance(found: dict[str, int], reference: dict[str, int]) -> dict[str, float]:
    """Return how many bits two hashes of one file differ in: median, 99th percentile, most; and the share that is equal."""
    bits = sorted((found[name] ^ value).bit_count() for name, value in reference.items())
    rank = min(len(bits) - 1, -(-len(bits) * 99 // 100) - 1)
    return {"median": statistics.median(bits), "p99": bits[rank], "max": bits[-1], "equal": bits.count(0) / len(bits)}


def recall(images: dict[str, bytes], true: set[tuple[str, str]]) -> dict[str, list[int]]:
    """Return, per kind, how many true pairs lie within the radius, of how many, and how many other pairs do."""
    from curate.images import ImagePolicy, open_image

    result = {}
    for kind in KINDS:
        hashes = {name: open_image(content, ImagePolicy(), kind).phash for name, content in images.items()}
        names = sorted(hashes)
        near = {(a, b) for i, a in enumerate(names) for b in names[i + 1 :] if (hashes[a] ^ hashes[b]).bit_count() <= RADIUS}
        result[kind] = [len(near & true), len(true), len(near - true)]
    return result


def planted(bases: list[Image.Image]) -> dict[str, list[int]]:
    """Find each base photo's three copies: at quality 60, at half the side, at 30% of the side."""
    images: dict[str, bytes] = {}
    for i, base in enumerate(bases):
        for k, (scale, quality) in enumerate(((1.0, 95), (1.0, 60), (0.5, 85), (0.3, 85))):
            out = io.BytesIO()
            base.resize((round(base.width * scale), round(base.height * scale)), Image.Resampling.LANCZOS).save(
                out, "JPEG", quality=quality
            )
            images[f"{i:04d}-{k}"] = out.getvalue()
    true = {(f"{i:04d}-{a}", f"{i:04d}-{b}") for i in range(len(bases)) for a in range(4) for b in range(a + 1, 4)}
    return recall(images, true)


def pairs(name: str) -> dict[str, list[int]]:
    """Find the pairs of one of the near-duplicate sets."""
    folder = REAL / "neardup" / name
    files, true = SETS[name](folder)
    return recall({file: (folder / file).read_bytes() for file in sorted(files)}, true)


def _caltech(folder: Path) -> tuple[set[str], set[tuple[str, str]]]:
    with (folder / "groups.csv").open(newline="") as file:
        group = {row["file"]: row["group"] for row in csv.DictReader(file)}
    names = sorted(group)
    return set(names), {(a, b) for i, a in enumerate(names) for b in names[i + 1 :] if group[a] == group[b]}


def _cifar(folder: Path) -> tuple[set[str], set[tuple[str, str]]]:
    with (folder / "pairs.csv").open(newline="") as file:
        rows = [(*sorted((r["test_file"], r["train_file"])), r["judgment"]) for r in csv.DictReader(file)]
    return {name for a, b, _ in rows for name in (a, b)}, {(a, b) for a, b, judged in rows if judged == "1"}


def _bridge(folder: Path) -> tuple[set[str], set[tuple[str, str]]]:
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.jpg"))
    upright = [name for name in names if "/" not in name]
    return set(names), {(a, b) for i, a in enumerate(upright) for b in upright[i + 1 :]}


SETS = {"caltech_rand_resize": _caltech, "cifar10": _cifar, "pdq_bridge": _bridge}


def in_words(value: dict[str, Any]) -> str:
    """Return the line for RESULTS.md."""
    rate, ratio = value["per_cpu_second"], value["ratio"]
    parts = []
    for kind in KINDS:
        d = value["distance"][kind]
        goal = f", target {TARGETS[kind]}×" if kind in TARGETS else ""
        bits = f"distance median {d['median']:.0f}, p99 {d['p99']}, max {d['max']}"
        parts.append(f"{kind} {rate[kind]:.0f}/s = {ratio[kind]:.2f}×{goal} ({bits})")
    finds = []
    for name, found in value["recall"].items():
        counts = ", ".join(f"{found[kind][0]} + {found[kind][2]} others" if found[kind][2] else str(found[kind][0]) for kind in KINDS)
        finds.append(f"{name} {counts} of {found['reference'][1]}")
    what = f"{value['photos']:,} {'crops of real photos' if value['real'] else 'drawn pictures'}, 500 px, {value['mean_bytes'] // 1000} kB"
    return (
        f"whole measure pass, images per CPU-second of one core, {what}: imagededup's `encode_image` alone {rate['imagededup']:.0f}; "
        f"{'; '.join(parts)}. True pairs found within r = {RADIUS} by {', '.join(KINDS)}: {'; '.join(finds)}."
    )


if __name__ == "__main__":
    main()
