"""Images a second of training loaders: ours against open_clip's, two SimCLR views against torchvision's, at 1, 2, … workers.

Photos of 500 and of 256 pixels with captions, as plain WebDataset tars; batches of 64, crops of 224 pixels. open_clip's loader
delivers normalised float32 and tokens. Ours: uint8 crops and tokens as a device takes them (exact, fast, and decoded by
DALI), and the same normalised on the CPU, by the process that consumes. All run in turns, round after round, in one call;
a loader is started anew each time, and its first batches are not timed. Processor seconds are those of all its processes.
Crops are compared with Pillow's antialiased bicubic ones of the same windows.

    python benchmarks/loader.py [--samples 2048] [--rounds 3] [--seconds 2] [--workers 1 2]
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import json
import os
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _photos import origin, write_tars
from _record import record

SETS = {"d500": 375, "d256": 256}  # the shorter side; the longer one is up to half as long again
CONTEXT = 77
WARM = 4  # batches before the clock starts: what is made ahead is gone by then
AT_LEAST, MULTIPLE = 8, 4  # batches under the clock: workers deliver by turns, so whole rounds of 1, 2 or 4 of them
COMPARED = 256  # crops compared with Pillow's
GOALS = {  # of the issue: least ratio to open_clip's loader by (what, set)
    "uint8": {"d500": 2.6, "d256": 2.6},
    "fast": {"d500": 3.5, "d256": 4.0},
    "float32": {"d500": 2.3, "d256": 2.3},
    "bfloat16": {"d500": 2.3, "d256": 2.3},
    "dali cubic": {"d500": 1.5, "d256": 1.5},
    "dali linear": {"d500": 1.8, "d256": 1.8},
}
SIMCLR_GOAL = 4.0
TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Contestant:
    """A loader that can be started again and again. `key` is (what, workers)."""

    key: tuple[str, int]
    start: Callable[[], Iterator[Any]]


def main() -> None:
    """Measure all, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="under the clock, at least, of each loader in each round")
    parser.add_argument("--workers", type=int, nargs="+", help="of the curve (default: 1, 2, 4, 8, 16 where cores exist)")
    parser.add_argument("--limit", type=float, default=330, help="seconds; no further round begins that would end later")
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--output", help="write the figures to this file alone")
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    curve = options.workers or [n for n in (1, 2, 4, 8, 16) if n <= max(cores, 2)]
    ends = time.monotonic() + options.limit
    values: dict[str, Any] = {"photos": origin(), "cores": cores, "curve": curve, **vars(options)}
    with tempfile.TemporaryDirectory() as folder:
        sets = write_sets(Path(folder), options.sets, options.samples, options.batch)
        for left, (name, tars) in zip(range(len(sets), 0, -1), sets.items(), strict=True):
            loaders = contestants(tars, options.batch, options.side, curve)
            until = time.monotonic() + (ends - time.monotonic()) / left  # an equal part of the time for each set
            values[name] = {
                "bytes": sum(Path(tar).stat().st_size for tar in tars) // options.samples,
                "levels": differences(tars, options.side, min(COMPARED, options.samples)),
                "rates": measured(loaders, options.rounds, options.seconds, options.batch, until),
            }
            values[name]["ratios"] = ratios(values[name]["rates"])
    keep("loader", values, line(values), options.output)


def keep(name: str, values: dict[str, Any], text: str, output: str | None) -> None:
    """Write the figures where all benchmarks' stand, or to one file alone."""
    if output is None:
        record(name, values, text)
        return
    Path(output).write_text(json.dumps(values, indent=1) + "\n")
    print(f"{name}: {text}")


def write_sets(folder: Path, names: list[str], samples: int, batch: int) -> dict[str, list[str]]:
    """Write and index the sets, each by a process of its own; returns their tars."""
    # open_clip refuses fewer tars than workers, and its workers drop what is left behind the last whole batch of their tars.
    wanted = samples // max(4, 2 * len(os.sched_getaffinity(0)))
    per_tar = max(wanted // batch, 1) * batch
    with ProcessPoolExecutor(len(names), mp_context=get_context("spawn")) as pool:
        written = {name: pool.submit(write_set, folder / name, samples, SETS[name], per_tar) for name in names}
        return {name: task.result() for name, task in written.items()}


def write_set(folder: Path, samples: int, short: int, per_tar: int) -> list[str]:
    """Write and index one set; returns its tars."""
    from shards.index import index

    tars = [str(path) for path in write_tars(folder, samples, short, per_tar)]
    index(str(folder))
    return tars


def contestants(tars: list[str], batch: int, side: int, curve: list[int]) -> list[Contestant]:
    """Return all loaders over one set: all kinds with two workers, the two main ones at each point of the curve."""
    import _open_clip as peer

    shape = {"batch": batch, "side": side}
    made = []
    for workers in sorted({*curve, 2}):
        made.append(Contestant(("open_clip", workers), lambda n=workers: peer.batches(tars, workers=n, **shape)))
        made.append(Contestant(("uint8", workers), lambda n=workers: ours(tars, workers=n, **shape)))
    kinds: dict[str, dict[str, Any]] = {
        "fast": {"fast": True},
        "float32": {"normalise": "float32"},
        "bfloat16": {"normalise": "bfloat16"},
        "dali cubic": {"engine": "dali"},
        "dali linear": {"engine": "dali", "interpolation": "bilinear"},
    }
    for kind, settings in kinds.items():
        made.append(Contestant((kind, 2), lambda s=settings: ours(tars, workers=2, **shape, **s)))
    made.append(Contestant(("SLIP views", 2), lambda: peer.two_views(tars, workers=2, **shape)))
    for kind, settings in (("views uint8", {}), ("views float32", {"normalise": "float32"})):
        made.append(Contestant((kind, 2), lambda s=settings: ours(tars, workers=2, simclr=True, **shape, **s)))
    return made


def ours(
    tars: list[str],
    *,
    batch: int,
    side: int,
    workers: int,
    engine: str = "cpu",
    fast: bool = False,
    interpolation: str = "bicubic",
    normalise: str = "",
    simclr: bool = False,
    process: bool = True,
) -> Iterator[Any]:
    """Yield our loader's batches without end, or with `normalise` the normalised views of each.

    Args:
        interpolation: of crops; fast ones are always bilinear.
        normalise: `float32` or `bfloat16`: flip, colour, blur and normalise in this process.
        simclr: two views of SimCLR's augmentation and no captions, instead of one of CLIP's with captions.
    """
    import torch

    from shards.manifest import read_manifest
    from train.data.augment import presets
    from train.data.augment.params import Augment
    from train.data.augment.photometric import Photometric
    from train.data.batch import Needs
    from train.data.loader import Loader

    augment = presets.preset("simclr") if simclr else Augment(interpolation="bilinear" if fast else interpolation)  # type: ignore[arg-type]
    needs = Needs(views=(augment, augment)) if simclr else Needs(views=(augment,), captions=True, context_length=CONTEXT)
    manifest = read_manifest(str(Path(tars[0]).parent))
    settings: dict[str, Any] = {"batch_size": batch, "image_size": side, "seed": 0, "needs": needs}
    loader = Loader([(manifest, None)], process=process, engine=engine, fast=fast, workers=workers, **settings)
    photometric = Photometric(augment, getattr(torch, normalise)) if normalise else None
    with contextlib.closing(loader.batches()) as batches:  # type: ignore[type-var]
        for made in batches:
            yield made if photometric is None else [photometric(view.images, view.params) for view in made.views]


def measured(loaders: list[Contestant], rounds: int, seconds: float, batch: int, until: float) -> dict[str, Any]:
    """Run all in turns; return for each samples a second by the wall and by processor seconds: median, least and most.

    Args:
        until: when the last round should have ended, on the monotonic clock; the first one is made in any case.
    """
    walls: dict[tuple[str, int], list[float]] = {loader.key: [] for loader in loaders}
    cpus: dict[tuple[str, int], list[float]] = {loader.key: [] for loader in loaders}
    took = 0.0
    for number in range(rounds):
        began = time.monotonic()
        if number and began + took > until:
            break
        for loader in loaders if number % 2 == 0 else loaders[::-1]:  # a drift of the machine then favours none
            wall, cpu = timed(loader.start, seconds, batch)
            walls[loader.key].append(wall)
            cpus[loader.key].append(cpu)
            print(f"round {number + 1}, {loader.key[0]}, {loader.key[1]} workers: {wall:,.0f} samples/s", file=sys.stderr)
        took = time.monotonic() - began
    return {
        f"{what}, {workers} workers": spread(rates) | {"per_cpu_s": spread(cpus[what, workers]), "rounds": len(rates)}
        for (what, workers), rates in walls.items()
    }


def timed(start: Callable[[], Iterator[Any]], seconds: float, batch: int) -> tuple[float, float]:
    """Start a loader and return its samples a second by the wall, and by processor seconds of all processes."""
    with contextlib.closing(start()) as batches:  # type: ignore[type-var]
        for _ in range(WARM):
            next(batches)
        taken = 0
        began, began_cpu = time.perf_counter(), cpu_seconds()
        while taken < AT_LEAST or taken % MULTIPLE or time.perf_counter() - began < seconds:
            next(batches)
            taken += 1
        wall, cpu = time.perf_counter() - began, cpu_seconds() - began_cpu
    gc.collect()
    return taken * batch / wall, taken * batch / max(cpu, 1 / TICK)


def cpu_seconds() -> float:
    """Return the processor seconds, user and system, of this process and all its living descendants (Linux)."""
    parents, ticks = {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):  # it has just ended
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                parents[int(folder.name)], ticks[int(folder.name)] = int(fields[1]), int(fields[11]) + int(fields[12])
    family = descendants(os.getpid(), parents)
    return sum(ticks[process] for process in family) / TICK


def descendants(root: int, parents: dict[int, int]) -> set[int]:
    """Return a process and all below it."""
    family, added = {root}, {root}
    while added:
        added = {child for child, parent in parents.items() if parent in added and child not in family}
        family |= added
    return family


def spread(values: list[float]) -> dict[str, float]:
    """Return median, least and most."""
    return {"median": round(statistics.median(values), 1), "least": round(min(values), 1), "most": round(max(values), 1)}


def ratios(rates: dict[str, Any]) -> dict[str, Any]:
    """Return how many times the peer each of ours is, by the wall and by processor seconds, and the goal."""
    compared: dict[str, Any] = {}
    for name, rate in rates.items():
        what, workers = name.split(", ")
        rival = "SLIP views" if what.startswith("views") else "open_clip"
        if what == rival or what == "SLIP views":
            continue
        other = rates[f"{rival}, {workers}"]
        compared[name] = {
            "wall": round(rate["median"] / other["median"], 2),
            "cpu": round(rate["per_cpu_s"]["median"] / other["per_cpu_s"]["median"], 2),
        }
    return compared


def differences(tars: list[str], side: int, n: int) -> dict[str, Any]:
    """Return how far crops are from Pillow's antialiased bicubic ones of the same windows, in levels of 255: mean and p99."""
    contents = images_of(tars)
    kinds: dict[str, dict[str, Any]] = {
        "uint8": {},
        "fast": {"fast": True},
        "dali cubic": {"engine": "dali"},
        "dali linear": {"engine": "dali", "interpolation": "bilinear"},
    }
    return {kind: apart(contents, ours(tars, batch=n, side=side, workers=2, **settings)) for kind, settings in kinds.items()}


def apart(contents: dict[str, bytes], batches: Iterator[Any]) -> dict[str, float]:
    """Return mean and 99th percentile of the difference of a batch's crops from Pillow's."""
    import numpy as np

    with contextlib.closing(batches) as made:  # type: ignore[type-var]
        batch = next(made)
        crops = batch.images.permute(0, 2, 3, 1).numpy()
        expected = np.stack(
            [by_pillow(contents[uid], window, crops.shape[1]) for uid, window in zip(batch.uids, batch.windows, strict=True)]
        )
        levels = np.abs(crops.astype(np.int16) - expected)
    return {"mean": round(float(levels.mean()), 3), "p99": float(np.percentile(levels, 99))}


def by_pillow(content: bytes, window: Any, side: int) -> Any:
    """Return a crop as open_clip's transform makes it: cut out, then resized with antialiased bicubic interpolation."""
    import numpy as np
    from PIL import Image

    image = Image.open(io.BytesIO(content), formats=["JPEG"]).convert("RGB")
    cut = image.crop((window.left, window.top, window.left + window.width, window.top + window.height))
    return np.asarray(cut.resize((side, side), Image.Resampling.BICUBIC), np.int16)


def images_of(tars: list[str]) -> dict[str, bytes]:
    """Return the images of tars by key."""
    contents = {}
    for path in tars:
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".jpg"):
                    contents[member.name.removesuffix(".jpg")] = tar.extractfile(member).read()  # type: ignore[union-attr]
    return contents


def line(values: dict[str, Any]) -> str:
    """Return the line of RESULTS.md."""
    parts = [f"batches of {values['batch']}, {values['side']} px, {values['photos']}"]
    for name in values["sets"]:
        figures = values[name]
        rates, compared = figures["rates"], figures["ratios"]
        told = [
            f"medians of {rates['open_clip, 2 workers']['rounds']} rounds in turns",
            f"open_clip's loader, 2 workers {rates['open_clip, 2 workers']['median']:,.0f} samples/s",
        ]
        for what, goals in GOALS.items():
            ratio = compared[f"{what}, 2 workers"]
            told.append(f"{what} {ratio['wall']:.1f}× ({ratio['cpu']:.1f}× by CPU-s; at least {goals[name]:g}×)")
        told.append(f"SLIP's two views by torchvision {rates['SLIP views, 2 workers']['median']:,.0f}/s")
        for what in ("views uint8", "views float32"):
            ratio = compared[f"{what}, 2 workers"]
            told.append(f"{what} {ratio['wall']:.1f}× ({ratio['cpu']:.1f}× by CPU-s; goal {SIMCLR_GOAL:g}×)")
        curve = ", ".join(f"{n}: {rates[f'uint8, {n} workers']['median']:,.0f}" for n in values["curve"])
        told.append(f"uint8 samples/s by workers {curve}")
        told.append("mean levels from Pillow's bicubic " + ", ".join(f"{kind} {d['mean']:.2f}" for kind, d in figures["levels"].items()))
        parts.append(f"{name} ({figures['bytes'] / 1000:.0f} kB): " + "; ".join(told))
    return ". ".join(parts)


if __name__ == "__main__":
    main()
