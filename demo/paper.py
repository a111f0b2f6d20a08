"""The world of examples/mini-paper.yaml: three sources and two targets with planted truths.

    python -m demo.paper [--output demo/paper]

`things` has captions that name the thing in a picture and nothing else, `grounds` such that name the ground behind it, and `noisy`
those of `things`, half of them of another picture. The targets ask for the thing (16 classes) and for the ground (6). So `things`
must win on things, `grounds` on grounds, `noisy` lose to `things`, and the gaps shrink with more labelled images.

Everything is drawn from a seed. Builds and packed sets are made by the commands that a user would type.
"""

from __future__ import annotations

import csv
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.scene import CLASSES, GROUNDS, Scene, compose, render
from shards.core.cli import Command, main
from shards.core.config import option
from shards.core.console import duration, say
from shards.core.errors import RunError, UsageError

SOURCES = ("things", "grounds", "noisy")
TARGETS = {"things": CLASSES, "grounds": GROUNDS}
MARK = ".made-by-the-demo"
NOISE = 0.5  # share of noisy's captions that belong to another picture
SIDE = 64  # pixels to the shorter side: the models take 32
_TEMPLATES = {
    "things": ("a {w}", "a picture of a {w}", "i drew a {w}", "{w} .", "look at this {w}"),
    "grounds": ("a {w} background", "a picture with a {w} background", "{w} behind it", "{w} ground .", "on a {w} wall"),
}
# What lies where in the seeds: pictures of sources and of targets never meet.
_SOURCE_SEEDS, _TARGET_SEEDS = 11, 12


@dataclass(frozen=True)
class PaperConfig:
    """The flags of `python -m demo.paper`."""

    output: str = option("demo/paper", "folder for everything; emptied first", metavar="DIR")
    seed: int = option(0, "seed of the pictures and the builds")
    pictures: int = option(2000, "pictures of each source", least=40)
    train: int = option(40, "labelled training images of each class of a target", least=2)
    test: int = option(40, "test images of each class of a target", least=2)


def paper(config: PaperConfig) -> None:
    """Draw the world, build the sources and pack the targets.

    Raises:
        UsageError: the folder holds something else.
        RunError: a command failed.
    """
    started = time.monotonic()
    out = Path(config.output)
    if out.exists() and any(out.iterdir()) and not (out / MARK).exists():
        raise UsageError(f"{out} holds something that the demo did not make", "an empty or new folder", "--output DIR")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / MARK).touch()
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for source in SOURCES:
            draw_source(out / "drawn" / source, source, config, pool)
        for target in TARGETS:
            draw_target(out / "drawn" / "targets" / target, target, config, pool)
    for source in SOURCES:
        options = f"--samples all --seed {config.seed} --no-near"  # one thing on one ground: many pictures are nearly alike by design
        call(out, f"curate build-shards --source folder --input drawn/{source} {options} --output shards/{source}")
        write_truth(out, source)
        call(out, f"curate layer add shards/{source} truth drawn/{source}/truth.csv")
    for target in TARGETS:
        call(out, f"evaluate pack {target} --kind folder --input drawn/targets/{target} --output targets/{target}")
    say(f"{out}: {len(SOURCES)} sources of {config.pictures:,} pictures, {len(TARGETS)} targets, in {duration(time.monotonic() - started)}")


def draw_source(folder: Path, source: str, config: PaperConfig, pool: ProcessPoolExecutor) -> None:
    """Draw a source's pictures, with captions.csv and what they show in shown.csv."""
    import numpy as np

    folder.mkdir(parents=True)
    rng = np.random.default_rng((config.seed, SOURCES.index(source)))
    seeds = [(config.seed, _SOURCE_SEEDS, SOURCES.index(source), i) for i in range(config.pictures)]
    scenes = [scene_of(seed, CLASSES[i % len(CLASSES)]) for i, seed in enumerate(seeds)]
    kind = "grounds" if source == "grounds" else "things"
    words = [word_of(kind, scene) for scene in scenes]
    said = list(words)
    if source == "noisy":
        wrong = rng.permutation(config.pictures)[: round(NOISE * config.pictures)]
        for place, other in zip(wrong, np.roll(wrong, 1), strict=True):
            said[place] = words[other]
    with (folder / "captions.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("image", "caption"))
        for i, word in enumerate(said):
            template = _TEMPLATES[kind][int(rng.integers(len(_TEMPLATES[kind])))]
            rows.writerow((f"{i:05d}.jpg", template.format(w=word)))
    with (folder / "shown.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerows((f"{i:05d}.jpg", TARGETS[kind].index(said[i])) for i in range(config.pictures))
    list(pool.map(draw, scenes, [folder / f"{i:05d}.jpg" for i in range(config.pictures)], chunksize=50))


def draw_target(folder: Path, target: str, config: PaperConfig, pool: ProcessPoolExecutor) -> None:
    """Draw a target's labelled pictures as class folders, train and test."""
    jobs: list[tuple[Scene, Path]] = []
    for number, name in enumerate(TARGETS[target]):
        for split, count in (("train", config.train), ("test", config.test)):
            place = folder / split / name
            place.mkdir(parents=True)
            for i in range(count):
                seed = (config.seed, _TARGET_SEEDS, len(target), number, len(split), i)
                thing = name if target == "things" else CLASSES[i % len(CLASSES)]
                ground = name if target == "grounds" else ""
                jobs.append((scene_of(seed, thing, ground), place / f"{i:03d}.jpg"))
    list(pool.map(draw, [scene for scene, _ in jobs], [path for _, path in jobs], chunksize=50))


def scene_of(seed: tuple[int, ...], thing: str, ground: str = "") -> Scene:
    """Return a scene of one thing; its ground is the seed's choice, or the one that is named."""
    scene = compose(seed, thing)
    return Scene(scene.seed, SIDE, SIDE, ground or scene.ground, scene.ground_colour, scene.things)


def word_of(kind: str, scene: Scene) -> str:
    """Return what captions of a kind say of a scene."""
    return scene.ground if kind == "grounds" else scene.things[0].name


def draw(scene: Scene, path: Path) -> None:
    """Draw a scene into a JPEG file."""
    render(scene).save(path, quality=90)


def write_truth(out: Path, source: str) -> None:
    """Write the number of what each picture's caption names by uid, as `curate layer add` reads it: what a supervised model learns."""
    import pyarrow.parquet as pq

    with (out / "drawn" / source / "shown.csv").open(newline="") as file:
        shown = dict(csv.reader(file))
    with (out / "drawn" / source / "truth.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("uid", "number"))
        for sidecar in sorted((out / "shards" / source).glob("*.parquet")):
            table: Any = pq.read_table(sidecar, columns=["uid", "source_id"]).to_pylist()
            rows.writerows((row["uid"], shown[Path(row["source_id"]).name]) for row in table)


def call(folder: Path, command: str) -> None:
    """Run one of this project's commands in a folder.

    Raises:
        RunError: it failed.
    """
    say(f"$ {command}")
    program, *arguments = shlex.split(command)
    done = subprocess.run([str(Path(sys.executable).parent / program), *arguments], cwd=folder, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RunError(f"`{command}` failed with exit code {done.returncode}: {done.stderr[-500:]}")


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    return main("python -m demo.paper", __doc__.splitlines()[0], {"draw": Command(PaperConfig, "demo.paper:paper", "draw the world")}, argv)


if __name__ == "__main__":
    sys.exit(run(["draw", *sys.argv[1:]]))
