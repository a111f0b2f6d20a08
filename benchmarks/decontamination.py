"""What decontamination finds: the recall on copies planted among real photos by kind and mode, CIFAR-10's own duplicates
between test and train, what is mistaken for a copy; and its speed.

`as it is` is what imagededup's pHash finds within the same radius: the hash is the same, bit for bit.

    python benchmarks/decontamination.py [--build 1e7] [--tests 50000]
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _photos import REAL
from _record import record

from curate.decontaminate.claims import recall
from curate.decontaminate.plant import KINDS
from curate.decontaminate.search import near_views
from curate.decontaminate.sets import ExcludedSet, HashTask, hash_batch, open_sets
from curate.decontaminate.views import VIEWS
from curate.images import ImagePolicy, open_image
from curate.recipe import Exclude

SETS = ("pairs", *(f"classification/{name}" for name in ("caltech101", "dtd", "eurosat", "imagenet-sample", "oxford-pets", "pacs")))
ALONE, ALL = "as it is", f"{len(VIEWS)} views"


def main() -> None:
    """Measure all of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=float, default=1e7, help="different hashes of a build")
    parser.add_argument("--tests", type=int, default=50_000, help="test images")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        sets = open_sets(tuple(str(REAL / name) for name in SETS), "reference", ImagePolicy(), True, work, 2, "local")
        (test,) = open_sets((str(REAL / "neardup/cifar10/test"),), "reference", ImagePolicy(), True, work, 2, "local")
    value = {
        "sets": {s.name: {"images": len(s.names), "low_information": int((~s.usable).sum()), "recall": recall(s, Exclude())} for s in sets},
        "recall": overall(sets), "mistaken": mistaken(sets), "cifar": cifar(test), "speed": speed(sets[0]),
        "search": search(int(arguments.build), arguments.tests),
    }  # fmt: skip
    record("decontamination", value, in_words(value))


def overall(sets: list[ExcludedSet]) -> dict[str, Any]:
    """Return the recall by mode and kind over all copies of all sets."""
    copies = sum(len(s.planted) for s in sets)
    found = [(len(s.planted), recall(s, Exclude())) for s in sets]
    shares = {mode: {kind: sum(n * r[mode][kind] for n, r in found) / copies for kind in KINDS} for mode in (ALONE, ALL)}
    plain = sum(int((s.planted[:, 0] == 0).sum()) for s in sets) / copies
    return {"copies": copies, "plain": plain, **shares}


def mistaken(sets: list[ExcludedSet]) -> dict[str, Any]:
    """Count the photos of other sets that would go on account of a set's views."""
    wrong = photos = 0
    for s in sets:
        for other in sets:
            if s is not other:
                hashes = np.unique(other.views[other.usable, 0])
                wrong += len(set(near_views(hashes, s.views, s.usable, 4).build.tolist()))
                photos += len(hashes)
    return {"photos": photos, "wrong": wrong}


def cifar(test: ExcludedSet) -> dict[str, Any]:
    """Return how many of ciFAIR's pairs each mode finds."""
    folder = REAL / "neardup/cifar10"
    with (folder / "pairs.csv").open() as file:
        pairs = list(csv.DictReader(file))
    found = {ALONE: 0, ALL: 0}
    for pair in pairs:
        own = np.array([open_image((folder / pair["train_file"]).read_bytes(), ImagePolicy(), "reference").phash], np.uint64)
        i = test.names.index(pair["test_file"].removeprefix("test/"))
        for mode, views in ((ALONE, test.views[i : i + 1, :1]), (ALL, test.views[i : i + 1])):
            found[mode] += len(near_views(own, views, test.usable[i : i + 1], 4).build)
    return {"pairs": len(pairs), **found}


def speed(s: ExcludedSet) -> dict[str, float]:
    """Return images hashed per CPU second, with all views and with one."""
    figures = {}
    for mode, views in ((ALONE, False), (ALL, True)):
        task = HashTask(0, tuple(s.pointers), frozenset(), "reference", ImagePolicy(), views)
        hash_batch(task)
        start = time.process_time()
        hash_batch(task)
        figures[mode] = len(s.pointers) / (time.process_time() - start)
    return figures


def search(build: int, tests: int) -> dict[str, Any]:
    """Time the search of so many hashes for the views of so many test images; one in a thousand hashes is near a view."""
    rng = np.random.default_rng(0)
    views = rng.integers(0, 2**64, (tests, len(VIEWS)), dtype=np.uint64)
    hashes = rng.integers(0, 2**64, build, dtype=np.uint64)
    planted = rng.choice(build, build // 1000, replace=False)
    bits = rng.permuted(np.tile(np.arange(64, dtype=np.uint64), (len(planted), 1)), axis=1)[:, :4]
    hashes[planted] = views.ravel()[rng.integers(0, views.size, len(planted))] ^ (np.uint64(1) << bits).sum(axis=1, dtype=np.uint64)
    near_views(hashes[:10_000], views[:1000], np.ones(1000, bool), 4)
    wall, cpu = time.perf_counter(), time.process_time()
    found = near_views(hashes, views, np.ones(tests, bool), 4)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert set(planted.tolist()) <= set(found.build.tolist())
    return {"build": build, "views": int(views.size), "wall_s": round(wall, 2), "cpu_s": round(cpu, 2), "planted": len(planted)}


def in_words(value: dict[str, Any]) -> str:
    """Return the line for RESULTS.md."""
    alone, views = value["recall"][ALONE], value["recall"][ALL]
    kinds = ", ".join(f"{kind} {views[kind]:.0%} ({alone[kind]:.0%})" for kind in KINDS)
    plain = value["recall"]["plain"]
    found, speeds, search, wrong = value["cifar"], value["speed"], value["search"], value["mistaken"]
    return (
        f"pHash within 4 bits of one of {len(VIEWS)} views of a test image (of the image as it is, as imagededup would): recall on "
        f"{value['recall']['copies']} planted copies of real photos each, {plain:.0%} of them too plain for a hash: {kinds}; "
        f"CIFAR-10 test–train duplicates {found[ALL]} ({found[ALONE]}) of {found['pairs']}; {wrong['wrong']} of {wrong['photos']:,} "
        f"unlike photos mistaken; {speeds[ALL]:.0f} ({speeds[ALONE]:.0f}) test images/CPU-s; {search['build']:,} hashes against "
        f"{search['views']:,} views in {search['wall_s']:.1f} s ({search['cpu_s']:.1f} CPU-s)."
    )


if __name__ == "__main__":
    main()
