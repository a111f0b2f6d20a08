"""Every objective learns: five seeds of the toy web against an untrained trunk, exact decoding against fast, and real photos.

Three parts, each recorded whatever its sign:

- toy: a seed draws its own web and builds it as the demo does; first weights and order are that seed's too. Each objective trains
  the same trunk for the same samples seen. The bar is that seed's first weights, with BatchNorm's statistics of the data:
  without these the probe sees less (16.1% against 24.1%, seed 0), and the bar would be too low.
- levels: how far crops of real photos differ between `--decode exact` and `--decode fast`.
- photos: a tiny CLIP on captioned real photos; loss and retrieval, on pairs it has seen and on pairs it has not.

Settings were chosen on seed 0, which is not among the five. What is finished stays in the output folder, and the same command
goes on from there.

    python benchmarks/objectives.py [--seeds 5] [--output build/objectives] [--parts toy levels photos]
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import math
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _photos import REAL, ROOT
from _record import record

from demo import run as demo
from demo import server, toyweb
from demo.scene import CLASSES, compose

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PARTS = ("toy", "levels", "photos")
PAIRS = ("flickr8k", "flickr30k", "coco")
HELD_OUT = 80  # photos whose pairs are kept from training
KS = (1, 5)
SAMPLES_SEEN = 10240
COMMON = {
    "model": "tiny-rn-64",
    "image_size": 32,
    "samples_seen": SAMPLES_SEEN,
    "batch_size": 64,
    "lr": 2.0e-3,
    "beta2": 0.98,
    "eps": 1.0e-6,
    "grad_clip": 1.0,
    "report_to": [],
    "workers": 1,
    "device": "cpu",
}
# Gray copies make a network look at shapes: colours alone would tell most pairs, and most views, apart.
PAIR_VIEW = {"scale": [0.8, 1.0], "flip": 0.5, "gray": 0.3}
# The thing fills half of a picture's side, so a view of less than half of the area may show ground alone. No blur, as in SimCLR's own
# setting for small pictures (Chen et al. 2020, B.9).
SELF_VIEW = {"scale": [0.5, 1.0], "gray": 0.5, "blur": 0.0}
SIMCLR_VIEW = {"preset": "simclr", **SELF_VIEW}
SMALL_MLP = {"mlp_hidden": 256, "mlp_out": 64}
OBJECTIVES: dict[str, dict[str, Any]] = {
    "clip": {"augment": PAIR_VIEW},
    "simclr": {"augment": SIMCLR_VIEW, "lr": 1.0e-3, "temperature": 0.2, **SMALL_MLP},
    "slip": {"augment": PAIR_VIEW, "augment_ssl": SIMCLR_VIEW, "ssl_temp": 0.2, "ssl_mlp_dim": 256, "ssl_emb_dim": 64},
    # BYOL's own share of gray and harder crops: with SELF_VIEW its views agree too easily (16.6 against 21.6%). A slow trunk under
    # fast heads, and a fast teacher: 160 steps are few (docs/LOG.md).
    "byol": {
        "augment": {"preset": "byol-1", "scale": [0.2, 1.0], "blur": 0.0},
        "augment_second": {"preset": "byol-2", "scale": [0.2, 1.0], "blur": 0.0},
        "lr": 3.0e-4,
        "head_lr": 3.0e-3,
        "weight_decay": 1.0e-5,
        "teacher_momentum": 0.96,
        **SMALL_MLP,
    },
    "supervised": {"augment": {"preset": "supervised", "scale": [0.5, 1.0]}, "labels": "truth.number", "classes": len(CLASSES)},
}
UNTRAINED = "untrained"
# Steps of a rate that changes no float32 weight by a bit that counts: 40 of them take BatchNorm's means to 1 − 0.9^40 = 98.5%.
STANDING = {"augment": PAIR_VIEW, "lr": 1.0e-12, "samples_seen": 40 * COMMON["batch_size"]}  # type: ignore[operator]
FAST = ("clip", "simclr")
PHOTOS = {"image_size": 48, "captions": "sampled", "augment": {"scale": [0.6, 1.0], "flip": 0.5}}
LEVEL_SIDES = (64, 224)


def main() -> None:
    """Run the parts, and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--port", type=int, default=server.PORT)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--output", default=str(ROOT / "build/objectives"), help="keeps what is finished; the same command goes on")
    arguments = parser.parse_args()
    out = Path(arguments.output).resolve()
    claim(out)
    seeds = range(1, arguments.seeds + 1)
    figures: dict[str, Any] = {"settings": settings()}
    if "toy" in arguments.parts:
        figures["toy"] = toy_figures([toy_run(out / f"toy-{seed}", seed, arguments.port) for seed in seeds])
    if "photos" in arguments.parts and REAL.is_dir():
        figures["photos"] = photo_figures([photo_run(out / f"photos-{seed}", seed) for seed in seeds])
    if "levels" in arguments.parts and REAL.is_dir():
        figures["levels"] = levels(out / "photos-1", seed=1)
    record("objectives", figures, in_words(figures))


def settings() -> dict[str, Any]:
    """Return all that decides what the trainings are."""
    return {"common": COMMON, "objectives": OBJECTIVES, "untrained": STANDING, "photos": PHOTOS, "held_out": HELD_OUT}


def claim(out: Path) -> None:
    """Make the output folder, or go on in one of the same settings.

    Raises:
        SystemExit: what lies there was made with other settings, so that its figures would be mixed with these.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / "settings.json"
    text = json.dumps(settings(), indent=1) + "\n"
    if path.exists() and path.read_text() != text:
        raise SystemExit(f"{out} holds runs of other settings; give another --output, or remove it")
    path.write_text(text)


def call(folder: Path, command: str) -> None:
    """Run one of this project's commands in a folder.

    Raises:
        SystemExit: it failed; with what it wrote last.
    """
    program, *words = shlex.split(command)
    arguments = [str(Path(sys.executable).parent / program), *words]
    done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"`{command}` in {folder} failed with exit code {done.returncode}:\n{done.stderr[-2000:]}")


def train(folder: Path, task: str, name: str, manifest: str, seed: int, values: dict[str, Any]) -> None:
    """Train in a folder as `runs/NAME`; goes on from a checkpoint, and does nothing where the training is whole."""
    import yaml

    recipe = folder / f"{name}.yaml"
    recipe.write_text(yaml.safe_dump({"task": task, **COMMON, **values}, sort_keys=False))
    call(folder, f"train {task} --config {recipe.name} --manifest {manifest} --output runs/{name} --seed {seed}")


# The toy web


def toy_run(folder: Path, seed: int, port: int) -> dict[str, Any]:
    """Draw a web, build it, train everything, and return the accuracies of each network by protocol."""
    make_web(folder, seed, port)
    trainings = {UNTRAINED: ("clip", STANDING)}
    trainings |= {task: (task, values) for task, values in OBJECTIVES.items()}
    trainings |= {f"{task}-fast": (task, {**OBJECTIVES[task], "decode": "fast"}) for task in FAST}
    for name, (task, values) in trainings.items():
        protocols = ("probe", "zeroshot") if task in ("clip", "slip") else ("probe",)
        missing = [protocol for protocol in protocols if protocol not in accuracies(folder).get(name, {})]
        if missing:
            train(folder, task, name, "shards/curated", seed, values)
        for protocol in missing:
            evaluate(folder, name, protocol)
    scores = accuracies(folder)
    print(f"seed {seed}: " + ", ".join(f"{name} {scores[name]['probe']:.3f}" for name in trainings), file=sys.stderr, flush=True)
    return {"seed": seed, "accuracy": {name: scores[name] for name in trainings}}


def make_web(folder: Path, seed: int, port: int) -> None:
    """Draw a toy web, fetch it, build the demo's curated set, and lay the true classes beside it; once."""
    if (folder / "shards/curated/layers/truth/layer.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    plan = toyweb.draw(folder / "web", seed=seed, port=port)
    with server.serving(folder / "web", port):
        for source, files in demo.SOURCES.items():
            words = f"--source {source} --input '{files}' --output pool/{source} --seed {seed} --allow-private-hosts --workers 1"
            call(folder, f"curate fetch {words}")
    recipe = os.path.relpath(demo.HERE / demo.BUILDS["curated"], folder)
    call(folder, f"curate build-shards --config {recipe} --seed {seed} --work work --output shards/curated --workers 1")
    write_truth(folder / "truth.csv", plan)
    call(folder, "curate layer add shards/curated truth truth.csv")


def write_truth(path: Path, plan: dict[str, Any]) -> None:
    """Write the class numbers of a web's pictures as CSV: uid, number."""
    from shards.sample import uid_of

    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("uid", "number"))
        for (source, source_id), number in class_numbers(plan).items():
            rows.writerow((uid_of(source, source_id), number))


def class_numbers(plan: dict[str, Any]) -> dict[tuple[str, str], int]:
    """Return the class of each record whose picture shows one thing, by (source, id); with two things there is no one class.

    A source's scenes stand in its records in the order of their numbers, which their seeds are made of (`demo.toyweb`); copies
    show what their originals do.
    """
    drawn = dict.fromkeys(toyweb.SOURCES, 0)
    names: dict[tuple[str, str], list[str]] = {}
    for row in plan["records"]:
        source = row["source"]
        if row["defect"] in toyweb.WITHOUT_PICTURE:
            continue
        if row["of"]:
            names[source, row["source_id"]] = names[source, row["of"]]
            continue
        scene = compose((plan["seed"], toyweb.SOURCES.index(source) + 1, drawn[source]))
        drawn[source] += 1
        names[source, row["source_id"]] = [thing.name for thing in scene.things]
    return {key: CLASSES.index(things[0]) for key, things in names.items() if len(things) == 1}


def evaluate(folder: Path, name: str, protocol: str) -> None:
    """Evaluate runs/NAME on the labelled test set of a web; rows go to the folder's results.jsonl."""
    from eval.cli import main as evaluation

    heldout = folder / "web/heldout"
    words = ["--checkpoint", str(folder / "runs" / name), "--data", str(heldout / "test"), "--name", name, "--device", "cpu"]
    words += ["--results", str(folder / "results.jsonl"), "--cache", str(folder / "features"), "--json"]
    if protocol == "probe":
        words += ["--train", str(heldout / "train"), "--k", str(demo.SHOTS)]
    with contextlib.redirect_stdout(io.StringIO()):
        status = evaluation([protocol, *words])
    if status:
        raise SystemExit(f"evaluate {protocol} of {name} in {folder} failed with exit code {status}")


def accuracies(folder: Path) -> dict[str, dict[str, float]]:
    """Return the main numbers in a folder's results.jsonl, by network and protocol."""
    path = folder / "results.jsonl"
    numbers: dict[str, dict[str, float]] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        row = json.loads(line)
        if row["main"]:
            numbers.setdefault(row["name"], {})[row["protocol"]] = row["value"]
    return numbers


def toy_figures(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return means over seeds with t intervals: accuracies, what training adds to the first weights, and fast less exact."""
    accuracy: dict[str, Any] = {}
    over_untrained: dict[str, Any] = {}
    for name in (UNTRAINED, *OBJECTIVES, *(f"{task}-fast" for task in FAST)):
        protocols = runs[0]["accuracy"][name]
        accuracy[name] = {protocol: over_seeds(runs, name, protocol) for protocol in protocols}
        if name in OBJECTIVES:
            over_untrained[name] = {protocol: over_seeds(runs, name, protocol, UNTRAINED) for protocol in protocols}
    fast = {task: {p: over_seeds(runs, f"{task}-fast", p, task) for p in runs[0]["accuracy"][task]} for task in FAST}
    figures = {"chance": 1 / len(CLASSES), "runs": runs, "accuracy": accuracy}
    return figures | {"over_untrained": over_untrained, "fast_less_exact": fast}


def over_seeds(runs: list[dict[str, Any]], name: str, protocol: str, less: str = "") -> dict[str, float | None]:
    """Return the mean of an accuracy over runs, or of its paired difference to another network's, with its t interval."""
    values = [run["accuracy"][name][protocol] for run in runs]
    if less:
        values = [value - run["accuracy"][less][protocol] for value, run in zip(values, runs, strict=True)]
    return with_interval(values)


def with_interval(values: list[float]) -> dict[str, float | None]:
    """Return mean, low and high of Student's 95% interval; a single value has no interval."""
    from eval.metrics import t_interval

    low, high = t_interval(values) or (None, None)
    return {"mean": sum(values) / len(values), "low": low, "high": high}


# Real photos


def photo_run(folder: Path, seed: int) -> dict[str, Any]:
    """Build the captioned photos in an order of this seed, train a tiny CLIP on the first ones, and return loss and recalls."""
    finished = folder / "photos.json"
    if finished.exists():
        return json.loads(finished.read_text())
    samples = make_photos(folder, seed)
    n_train = samples - HELD_OUT
    train(folder, "clip", "clip", "shards", seed, {**PHOTOS, "samples": n_train})
    losses = [json.loads(line).get("loss") for line in (folder / "runs/clip/log.jsonl").read_text().splitlines()]
    losses = [loss for loss in losses if loss is not None]
    result: dict[str, Any] = {"seed": seed, "n_train": n_train, "n_held_out": HELD_OUT, "loss_first": losses[0], "loss_last": losses[-1]}
    images, texts, owners = features_of(folder)
    # As many training photos as held-out ones: recall depends on how many there are to choose from.
    for part, start in (("held_out", n_train), ("train", n_train - HELD_OUT)):
        kept = (owners >= start) & (owners < start + HELD_OUT)
        result[part] = recalls(images[start : start + HELD_OUT], texts[kept], owners[kept] - start)
    finished.write_text(json.dumps(result, indent=1) + "\n")
    print(f"photos, seed {seed}: {result}", file=sys.stderr, flush=True)
    return result


def make_photos(folder: Path, seed: int) -> int:
    """Build shards of the real captioned photos, if they are not there, and return how many samples they are."""
    import yaml

    from shards.manifest import read_manifest

    if not (folder / "shards/manifest.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        sources = [{"name": name, "reader": "folder", "input": str(REAL / "pairs" / name)} for name in PAIRS]
        sources[PAIRS.index("coco")]["images"] = str(REAL / "pairs/coco/images")
        # One picture must not be on both sides of the split, under whichever source.
        dedup = {"exact": True, "near": {"radius": 4}, "scope": "all"}
        (folder / "photos.yaml").write_text(yaml.safe_dump({"sources": sources, "samples": "all", "dedup": dedup}))
        call(folder, f"curate build-shards --config photos.yaml --seed {seed} --work work --output shards --workers 1")
    return read_manifest(str(folder / "shards")).samples


def features_of(folder: Path) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Return unit-length features of n images (n, d) and m captions (m, d), and each caption's image (m,), in the build's order."""
    import numpy as np
    import torch

    from eval.datasets.base import Examples
    from eval.features import Encoder
    from shards.manifest import read_manifest
    from shards.reader import read_samples
    from train.models.load import load_checkpoint

    loaded = load_checkpoint(str(folder / "runs/clip"))
    samples = list(read_samples(read_manifest(str(folder / "shards")), ("jpg",), ("captions",)))
    pictures = [sample.members["jpg"] for sample in samples]
    captions: list[str] = []
    owners: list[int] = []
    for number, sample in enumerate(samples):
        texts: Any = sample.row["captions"]
        captions += texts
        owners += [number] * len(texts)
    no_labels = np.zeros(len(samples), np.int64)
    examples = Examples("photos", ("",), tuple(sample.key for sample in samples), no_labels, pictures.__getitem__)
    encoded = Encoder(loaded).encode(examples)
    assert not encoded.undecodable, encoded.undecodable
    with torch.inference_mode():
        texts_of = loaded.embed_texts(captions).numpy()
    return encoded.features, texts_of, np.array(owners)


def recalls(images: NDArray[np.float32], texts: NDArray[np.float32], owners: NDArray[np.int64]) -> dict[str, float]:
    """Return recall at KS in both directions beside what chance gives, from unit-length features.

    Text to image: the share of texts whose image is among the k nearest. Image to text: the share of images with a text of theirs
    among the k nearest; by chance 1 − C(m − c, k) / C(m, k) for an image with c of the m texts.

    Args:
        images: (n, d).
        texts: (m, d).
        owners: (m,), the image that each text belongs to; each image has one at least.
    """
    import numpy as np

    similarity = texts @ images.T
    belongs = owners[:, None] == np.arange(len(images))[None, :]
    of_right = similarity[np.arange(len(texts)), owners]
    image_ranks = (similarity > of_right[:, None]).sum(axis=1)
    best_text = np.where(belongs, similarity, -np.inf).max(axis=0)
    text_ranks = (similarity > best_text[None, :]).sum(axis=0)
    m = len(texts)
    numbers: dict[str, float] = {}
    for k in KS:
        numbers[f"text_to_image_r{k}"] = float((image_ranks < k).mean())
        numbers[f"text_to_image_r{k}_chance"] = min(1.0, k / len(images))
        numbers[f"image_to_text_r{k}"] = float((text_ranks < k).mean())
        misses = [math.comb(m - int(c), k) / math.comb(m, k) for c in belongs.sum(axis=0)]
        numbers[f"image_to_text_r{k}_chance"] = 1 - sum(misses) / len(misses)
    return numbers


def photo_figures(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return means over splits with t intervals: the loss at the start and at the end, recalls, and their ratios to chance."""
    figures: dict[str, Any] = {"runs": runs}
    for name in ("loss_first", "loss_last"):
        figures[name] = with_interval([run[name] for run in runs])
    for part in ("held_out", "train"):
        names = [name for name in runs[0][part] if not name.endswith("_chance")]
        figures[part] = {name: with_interval([run[part][name] for run in runs]) for name in names}
        ratios = {name: with_interval([run[part][name] / run[part][f"{name}_chance"] for run in runs]) for name in names}
        figures[f"{part}_over_chance"] = ratios
    return figures


# Exact and fast decoding


def levels(folder: Path, seed: int) -> dict[str, Any]:
    """Return how far the same crops of the real photos differ between exact and fast decoding, in levels of 0 to 255."""
    import numpy as np

    from train.data.augment.presets import preset

    make_photos(folder, seed)
    figures: dict[str, Any] = {}
    for side in LEVEL_SIDES:
        for name in ("openclip", "simclr"):
            exact, fast = (crops(folder, preset(name), side, fast=fast) for fast in (False, True))
            apart = np.abs(exact.astype(np.int16) - fast.astype(np.int16))
            figures[f"{name} {side} px"] = {"mean": float(apart.mean()), "p99": float(np.percentile(apart, 99)), "max": int(apart.max())}
            figures["photos"] = len(exact)
    return figures


def crops(folder: Path, augment: Any, side: int, *, fast: bool) -> NDArray[np.uint8]:
    """Return the first epoch's crops of a build as the loader makes them, (n, 3, side, side); the same windows for exact and fast."""
    import numpy as np

    from shards.manifest import read_manifest
    from train.data.batch import Needs
    from train.data.loader import Loader

    manifest = read_manifest(str(folder / "shards"))
    needs = Needs(views=(augment,))
    loader = Loader([(manifest, None)], batch_size=32, image_size=side, seed=0, needs=needs, workers=1, fast=fast)
    with contextlib.closing(loader.batches()) as batches:  # type: ignore[type-var]
        parts = [next(batches).images.numpy().copy() for _ in range(manifest.samples // 32)]
    return np.concatenate(parts)


# In words


def in_words(figures: dict[str, Any]) -> str:
    """Return the line for RESULTS.md."""
    parts = []
    if "toy" in figures:
        parts += toy_words(figures["toy"])
    if "levels" in figures:
        measured = [(name, value) for name, value in figures["levels"].items() if name != "photos"]
        text = ", ".join(f"{name} {value['mean']:.2f} (p99 {value['p99']:.0f})" for name, value in measured)
        parts.append(f"levels between fast and exact crops of {figures['levels']['photos']} real photos: {text}")
    if "photos" in figures:
        parts.append(photo_words(figures["photos"]))
    if "note" in figures:
        parts.append(figures["note"])
    return "; ".join(parts) + "."


def toy_words(toy: dict[str, Any]) -> list[str]:
    """Return what the toy web gave: each objective against the first weights, then fast against exact."""
    n = len(toy["runs"])
    bar = toy["accuracy"][UNTRAINED]["probe"]
    head = f"toy web, {n} seeds, {SAMPLES_SEEN:,} samples seen, chance {toy['chance'] * 100:.2g}%"
    parts = [f"{head}, {demo.SHOTS}-shot probe of the untrained trunk {percent(bar)}"]
    for task, gains in toy["over_untrained"].items():
        accuracy = toy["accuracy"][task]
        text = f"{task} {percent(accuracy['probe'])}, {points(gains['probe'])}"
        if "zeroshot" in accuracy:
            text += f", zero-shot {percent(accuracy['zeroshot'])}"
        parts.append(text)
    for task, differences in toy["fast_less_exact"].items():
        parts.append(f"{task} by fast decoding {points(differences['probe'])}")
    return parts


def photo_words(photos: dict[str, Any]) -> str:
    """Return what the real photos gave."""
    one_run = photos["runs"][0]
    text = f"real photos, {one_run['n_train']} pairs, {len(photos['runs'])} splits: loss {photos['loss_first']['mean']:.2f} to "
    text += f"{photos['loss_last']['mean']:.2f}"
    for part, name in (("train", "seen"), ("held_out", "held-out")):
        ratio = photos[f"{part}_over_chance"]["text_to_image_r5"]
        text += f", R@5 of {HELD_OUT} {name} photos by text {percent(photos[part]['text_to_image_r5'])} = {spread(ratio, '{:.2f}')}× chance"
    return text


def percent(value: dict[str, Any]) -> str:
    """Return such as `41.0% (38.1 to 43.9)`."""
    hundredfold = {name: None if number is None else number * 100 for name, number in value.items()}
    mean, _, interval = spread(hundredfold, "{:.1f}").partition(" ")
    return f"{mean}% {interval}".strip()


def points(value: dict[str, Any]) -> str:
    """Return such as `+12.1 points (+4.1 to +20.1)`."""
    hundredfold = {name: None if number is None else number * 100 for name, number in value.items()}
    mean, _, interval = spread(hundredfold, "{:+.1f}").partition(" ")
    return f"{mean} points {interval}".strip()


def spread(value: dict[str, Any], form: str) -> str:
    """Return a mean, and behind it its interval if it has one."""
    mean = form.format(value["mean"])
    return mean if value["low"] is None else f"{mean} ({form.format(value['low'])} to {form.format(value['high'])})"


if __name__ == "__main__":
    main()
