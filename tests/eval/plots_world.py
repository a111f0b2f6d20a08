"""A table of results with planted truths, for tests of plots: sources, sizes, objectives, targets, shots, seeds, ensembles, layers."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from eval import predictions, results
from eval.predictions import Predictions
from eval.results import Row
from shards.core.config import digest

N = 400
PETS = ("Abyssinian", "American Bulldog", "Basset Hound", "Beagle", "Bengal", "Birman", "Bombay", "Boxer", "Chihuahua", "Pug")
SOURCES = ("redcaps", "laion", "shutterstock")
ABOVE = {"redcaps": 0.06, "laion": 0.0, "shutterstock": -0.03}  # accuracy beyond laion's, at equal size
PER_DOUBLING = 0.03
SIZES = (1000, 2000, 4000)
SHOTS = (1, 5, "all")
FEW = {1: 0.25, 5: 0.4, "all": 0.55}
NAMES_DIGEST = digest(list(PETS))


def row(value: float, **changes: Any) -> Row:
    """Return a result on N test images of ten classes."""
    half = 1.96 * math.sqrt(max(value * (1 - value), 0.001) / N)
    whole = Row(
        name="m", data="pets", protocol="ft", metric="acc1", main=True, value=value, low=value - half, high=value + half,
        interval="wilson over test images", k=5, n=N, n_undecodable=0, n_classes=10, runs=(), checkpoint="c" * 64, step=10, samples_seen=100,
        manifests=(), train_config="t" * 64, dataset="d" * 64, classes=NAMES_DIGEST, config="e" * 64,
    )  # fmt: skip
    return replace(whole, **changes)


def labelled(source: str, size: int = 4000, objective: str = "clip", seed: int = 0, **more: Any) -> dict[str, Any]:
    """Return the fields of a model that a study has labelled."""
    labels = {"source": source, "size": size, "objective": objective, "model": "vit-t", "train_seed": seed, **more}
    name = f"{source}-{size}-{objective}-{seed}"
    manifest = {"digest": f"{source}{size}", "weight": None, "samples": size}
    return {"name": name, "checkpoint": digest(labels), "labels": labels, "manifests": (manifest,)}


def accuracy(source: str, size: int, k: Any, target: str = "pets", seed: int = 0) -> float:
    """Return the planted accuracy: linear in the logarithm of the size, the gap between sources shrinks with shots."""
    shrink = {1: 1.0, 5: 0.7, "all": 0.3}[k]
    shift = 0.0 if target == "pets" else -0.08
    rough = 0.004 * (seed - 0.5) + 0.002 * math.sin(size + len(source) + len(str(k)))
    return FEW[k] + ABOVE[source] * shrink + PER_DOUBLING * math.log2(size / 1000) + shift + rough


def curves() -> list[Row]:
    """Return sources × sizes × shots × two targets × two training seeds, fine-tuned from CLIP."""
    return [
        row(accuracy(source, size, k, target, seed), data=target, k=k, **labelled(source, size, seed=seed))
        for source in SOURCES
        for size in SIZES
        for target in ("pets", "eurosat")
        for k in SHOTS
        for seed in (0, 1)
    ]


def objectives() -> list[Row]:
    """Return two more objectives at the largest size."""
    less = {"simclr": 0.1, "supervised": 0.04}
    return [
        row(accuracy(source, 4000, k, target, seed) - less[objective], data=target, k=k, **labelled(source, 4000, objective, seed))
        for source in SOURCES
        for objective in less
        for target in ("pets", "eurosat")
        for k in SHOTS
        for seed in (0, 1)
    ]


def upstream() -> list[Row]:
    """Return zero-shot ImageNet accuracies in the order of the downstream ones."""
    return [
        row(
            0.1 + 0.8 * (accuracy(s, size, "all") - 0.5),
            data="imagenet",
            protocol="zeroshot",
            k=None,
            classes="i" * 64,
            **labelled(s, size, seed=seed),
        )
        for s in SOURCES
        for size in SIZES
        for seed in (0, 1)
    ]


def wise() -> list[Row]:
    """Return WiSE-FT curves that are highest between both ends."""
    found = []
    for source in SOURCES:
        for seed in (0, 1):
            curve = {
                f"{a / 10:g}": round(0.3 + ABOVE[source] + 0.3 * a / 10 + 0.3 * (a / 10) * (1 - a / 10) + 0.01 * seed, 6) for a in range(11)
            }
            settings = {"alpha": 0.5, "acc1_by_alpha": curve, "lr": 1e-3}
            found.append(row(curve["0.5"], protocol="wise-ft", settings=settings, **labelled(source, seed=seed)))
    return found


def layers() -> list[Row]:
    """Return probes on four layers and the model's own features; two poolings."""
    names = ["blocks.0", "blocks.1", "blocks.2", "blocks.3", "output"]
    found = []
    for source in SOURCES:
        settings = {"layers": names, "l2": 1024.0, "tokens": [1]}
        for at, name in enumerate(names):
            for pooled, less in (("cls", 0.0), ("1", 0.03)):
                metric = "acc1" if name == "output" else f"acc1@{name}:{pooled}"
                if name != "output" or pooled == "cls":
                    value = 0.3 + ABOVE[source] + 0.25 * (1 - math.exp(-at)) - less
                    found.append(
                        row(value, protocol="layers", metric=metric, main=metric == "acc1", k="all", settings=settings, **labelled(source))
                    )
        more = {**settings, "saturation_layer": "blocks.3"}
        found.append(
            row(
                0.8,
                protocol="layers",
                metric="saturation",
                main=False,
                k="all",
                low=None,
                high=None,
                interval="",
                settings=more,
                **labelled(source),
            )
        )
    return found


def ensembles() -> list[Row]:
    """Return two kinds of ensembles of one to five members."""
    found = []
    for kind, gain in (("global", 0.03), ("starsse", 0.02)):
        for members in range(1, 6):
            settings = {"members": members}
            config = digest([kind, members])
            worth = gain * (1 - 1 / members)
            for metric, value in (("acc1", 0.6 + 2 * worth), ("nll", 1.5 - 10 * worth), ("ece", 0.08 - worth)):
                changes = {"low": value * 0.98, "high": value * 1.02, "main": metric == "acc1", "metric": metric, "config": config}
                found.append(row(value, protocol=kind, settings=settings, **changes, **labelled("redcaps")))
    return found


def shifted() -> list[Row]:
    """Return accuracies on a set and its shifted twin: supervised models on a logit line, CLIP models 0.1 above it."""

    def line(x: float) -> float:
        return 1 / (1 + math.exp(-(0.9 * math.log(x / (1 - x)) - 0.8)))

    found = []
    for at, source in enumerate(("a", "b", "c", "d", "e", "f")):
        standard = 0.4 + 0.08 * at
        for objective, above in (("supervised", 0.0), ("clip", 0.1)):
            named = labelled(source, 1000, objective)
            found.append(row(standard, data="pacs", protocol="zeroshot", k=None, classes="p" * 64, **named))
            found.append(row(line(standard) + above, data="pacs/sketch", protocol="zeroshot", k=None, classes="p" * 64, **named))
    return found


COUNTS = {name: 10 * 3**at for at, name in enumerate(PETS[:-1])} | {"Pug": 0}
BELOW = "Birman"


def answered(path: str) -> list[Row]:
    """Return two zero-shot models with their answers kept: classes' accuracy is linear in ln(captions), but for one far below."""
    each = 40
    labels = np.repeat(np.arange(len(PETS)), each)
    uids = np.array([f"{at:032x}" for at in range(len(labels))], dtype="S32")
    found = []
    for source, above in (("redcaps", 0.0), ("laion", -0.05)):
        shares = [0.3 + above + 0.06 * math.log(max(COUNTS[name], 1)) for name in PETS]
        shares[PETS.index(BELOW)] = 0.05
        ranks = np.concatenate([(np.arange(each) >= round(each * share)).astype(np.int64) for share in shares])
        logits = np.where(np.arange(len(PETS))[None, :] == np.where(ranks == 0, labels, (labels + 1) % 10)[:, None], 0.0, -5.0).astype(
            np.float32
        )
        kept = predictions.write(path, Predictions(uids, labels, ranks, logits, {"source": source}))
        found.append(
            row(
                float((ranks == 0).mean()),
                data="pets10",
                protocol="zeroshot",
                k=None,
                predictions=(kept,),
                dataset="z" * 64,
                **labelled(source),
            )
        )
    return found


def write_counts(folder: Path) -> str:
    """Write the captions of each class as CSV, and return where."""
    path = folder / "counts.csv"
    path.write_text("class,count\n" + "".join(f"{name.lower().replace(' ', '_')},{count}\n" for name, count in COUNTS.items()))
    return str(path)


def write_names(folder: Path) -> str:
    """Write the class names in label order, and return where."""
    path = folder / "names.txt"
    path.write_text("".join(f"{name}\n" for name in PETS))
    return str(path)


def world(folder: Path) -> str:
    """Write a table that fills every plot, and return where."""
    path = str(folder / "results.jsonl")
    rows = [*curves(), *objectives(), *upstream(), *wise(), *layers(), *ensembles(), *shifted(), *answered(path)]
    results.append(path, rows)
    return path


def grid(rates: tuple[float, ...] = (1e-4, 1e-3), kept: tuple[float, ...] = (-0.02, 0.0)) -> list[Row]:
    """Return fine-tunings over learning rates, with validation scores that choose the last one."""
    return [
        replace(entry, value=entry.value + less, settings={"lr": lr, "val": 0.5 + less}, config=f"{lr}")
        for entry in curves()
        for lr, less in zip(rates, kept, strict=True)
    ]


def plain(rows: list[Row]) -> list[dict[str, Any]]:
    """Return rows as the table's lines are read."""
    return [asdict(entry) for entry in rows]
