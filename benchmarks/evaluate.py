"""Features and a linear probe from class folders of photos on a CPU: ours, and CLIP_benchmark's loop.

CLIP_benchmark's loop is written out here: open_clip's transform on Pillow images in a torch DataLoader (batch 64, 2
workers), features of unit length; its probe is a linear layer, AdamW at 0.1 with a cosine over 10 epochs, the weight decay searched on
validation features among 97 from coarse to fine, which makes 25 fits, and a last one of the shots. Its feature loaders run without workers
here, which is faster than with them. Ours is `Encoder` and `evaluate linear`'s fit over 13 values of C on the same validation images. Both
see the same model and images and take turns; ratios are medians over the rounds, by the wall and by processor seconds
with children. `tiny-vit-64` and `tiny-rn-32` at 224 pixels are models of small studies, where decoding and resizing take a good part of the
time; `ViT-B-32` is one where the model takes nearly all of it, so that no loop can be much faster than another. The probe is fitted for
1, 5 and 10 shots and 3 seeds.

    python benchmarks/evaluate.py [--rounds 3] [--images 600] [--large 64]
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from _photos import origin, photos
from _record import record

from eval.data import open_examples
from eval.features import Encoded, Encoder
from eval.protocols import _shots
from eval.protocols._linear import fits_of
from eval.protocols.linear import Config
from train.models.load import Loaded, build_model

CLASSES = 10
TINY, LARGE = "tiny-rn-32", "ViT-B-32"
MODELS = (("tiny-vit-64", None), (TINY, 224), (LARGE, None))
SHOTS, SEEDS = (1, 5, 10), 3
BATCH, WORKERS = 64, 2
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
DECAYS = np.logspace(-6, 2, num=97)


def main() -> None:
    """Measure both models and the probe, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--large", type=int, default=64)
    arguments = parser.parse_args()
    values: dict[str, Any] = {"rounds": arguments.rounds, "photos": origin(), "load before": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory() as folder:
        many, few = written(Path(folder) / "many", arguments.images), written(Path(folder) / "few", arguments.large)
        for name, size in MODELS:
            root, n = (few, arguments.large) if name == LARGE else (many, arguments.images)
            values[name] = extraction(loaded(name, size), root, n, arguments.rounds)
        values["probe"] = probing(many, arguments.rounds)
    small, probe = values[TINY], values["probe"]
    whole = {kind: small[kind][0] + probe[kind][0] for kind in ("wall", "cpu")}, {k: small[k][1] + probe[k][1] for k in ("wall", "cpu")}
    values["both"] = {kind: [whole[0][kind], whole[1][kind]] for kind in ("wall", "cpu")}
    record("evaluate", values, line(values))


def written(root: Path, n: int) -> Path:
    """Write n photos of 375 pixels at the shorter side into class folders."""
    for i, (content, _) in enumerate(photos(n, short=375)):
        path = root / f"class{i % CLASSES}" / f"{i:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def loaded(name: str, image_size: int | None) -> Loaded:
    """Return an untrained model as evaluation takes it."""
    torch.manual_seed(0)
    model = build_model(name, image_size).eval()
    size = model.visual.image_size
    side = int(size[0] if isinstance(size, tuple) else size)
    return Loaded(model, lambda texts: texts, side, MEAN, STD, "digest", 0, 0, [], {})


def extraction(model: Loaded, root: Path, n: int, rounds: int) -> dict[str, Any]:
    """Time both extractions in turns; check that features agree."""
    Encoder(model).encode(open_examples(str(root)).take(range(4)))  # compiled loops are loaded
    ours, theirs = timed([lambda: by_us(model, root), lambda: by_them(model, root)], rounds)
    examples = open_examples(str(root))
    same = Encoder(model).encode(examples).features
    peer = by_them(model, root)[0]
    cosine = float((same * peer).sum(axis=1).min())
    assert cosine > 0.999, cosine
    return {"images": n, "wall": [ours["wall"], theirs["wall"]], "cpu": [ours["cpu"], theirs["cpu"]], "smallest cosine": cosine}


def by_us(model: Loaded, root: Path) -> np.ndarray:
    """Return features as `evaluate` makes them, hashing included."""
    return Encoder(model).encode(open_examples(str(root))).features


def by_them(model: Loaded, root: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return features and labels as CLIP_benchmark's Featurizer makes them."""
    from open_clip.transform import PreprocessCfg, image_transform_v2
    from torchvision.datasets import ImageFolder

    transform = image_transform_v2(PreprocessCfg(size=model.image_size, mean=MEAN, std=STD), is_train=False)
    loader = torch.utils.data.DataLoader(ImageFolder(str(root), transform=transform), batch_size=BATCH, num_workers=WORKERS)
    features, labels = [], []
    with torch.no_grad():
        for images, targets in loader:
            found = model.model.encode_image(images)
            features.append(torch.nn.functional.normalize(found, dim=-1))
            labels.append(targets)
    return torch.cat(features).numpy(), torch.cat(labels).numpy()


def probing(root: Path, rounds: int) -> dict[str, Any]:
    """Time both probes in turns on the same features: a third each trains, validates and tests."""
    encoded = Encoder(loaded(TINY, 224)).encode(open_examples(str(root)))
    parts = [_shots.part_of(encoded, np.arange(third, len(encoded.examples), 3)) for third in range(3)]
    wanted = parts[2].examples.labels
    accuracies: dict[str, list[float]] = {}

    def ours() -> None:
        sides = _shots.Sides(parts[0], parts[2], {})
        made = [fits_of(Config(data=("",), seeds=SEEDS), sides, parts[1], k) for k in SHOTS]
        accuracies["ours"] = [float((scores.argmax(1) == wanted).mean()) for fits in made for scores in fits.scores]

    def theirs() -> None:
        train = parts[0]
        draws = [_shots.part_of(train, _shots.draw(train.examples, k, seed)) for k in SHOTS for seed in range(SEEDS)]
        accuracies["clip_benchmark"] = [their_probe(drawn, *parts[1:]) for drawn in draws]

    mine, peer = timed([ours, theirs], rounds)
    return {"images": len(encoded.examples), "wall": [mine["wall"], peer["wall"]], "cpu": [mine["cpu"], peer["cpu"]], "acc1": accuracies}


def their_probe(train: Encoded, val: Encoded, test: Encoded) -> float:
    """Return the test accuracy of CLIP_benchmark's linear probe with a validation split."""

    def accuracy(decay: float, fitted: Encoded, judged: Encoded) -> float:
        x, y = torch.from_numpy(fitted.features), torch.from_numpy(fitted.examples.labels)
        data = torch.utils.data.TensorDataset(x, y)
        loader = torch.utils.data.DataLoader(data, batch_size=BATCH, shuffle=True)
        torch.manual_seed(0)
        layer = torch.nn.Linear(x.shape[1], CLASSES)
        optimiser = torch.optim.AdamW(layer.parameters(), lr=0.1, weight_decay=decay)
        steps, step = 10 * len(loader), 0
        for _ in range(10):
            for features, labels in loader:
                optimiser.param_groups[0]["lr"] = 0.05 * (1 + np.cos(np.pi * step / steps))
                optimiser.zero_grad()
                torch.nn.functional.cross_entropy(layer(features), labels).backward()
                optimiser.step()
                step += 1
        with torch.no_grad():
            return float((layer(torch.from_numpy(judged.features)).argmax(1).numpy() == judged.examples.labels).mean())

    def peak(places: list[int]) -> int:
        return max(places, key=lambda place: accuracy(float(DECAYS[place]), train, val))

    best, span = peak(list(range(0, len(DECAYS), 8))), 8
    while span > 0:
        best = peak([max(best - span, 0), best, min(best + span, len(DECAYS) - 1)])
        span //= 2
    return accuracy(float(DECAYS[best]), train, test)


def timed(works: list[Callable[[], object]], rounds: int) -> list[dict[str, float]]:
    """Return the median wall and processor seconds of each, with its children's, all in turns."""
    found: list[list[tuple[float, float]]] = [[] for _ in works]
    for _ in range(rounds):
        for work, times in zip(works, found, strict=True):
            wall, cpu = time.perf_counter(), processor()
            work()
            times.append((time.perf_counter() - wall, processor() - cpu))
    return [{kind: statistics.median(t[i] for t in times) for i, kind in enumerate(("wall", "cpu"))} for times in found]


def processor() -> float:
    """Return the processor seconds of this process and its children that have ended."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in usage)


def line(values: dict[str, Any]) -> str:
    """Return the figures in one line."""

    def ratio(part: dict[str, Any]) -> str:
        return f"{part['wall'][1] / part['wall'][0]:.1f}× by the wall, {part['cpu'][1] / part['cpu'][0]:.1f}× by processor seconds"

    texts = []
    for name, size in MODELS:
        part = values[name]
        speed = f"{part['images'] / part['wall'][0]:,.0f} against {part['images'] / part['wall'][1]:,.0f} images/s"
        texts.append(
            f"features of {name}{f' at {size} px' if size else ''} {speed}, {ratio(part)} (smallest cosine {part['smallest cosine']:.4f})"
        )
    probe = values["probe"]
    texts.append(
        f"linear probe, {len(SHOTS)} shots × {SEEDS} seeds, {probe['wall'][0]:.2f} s against {probe['wall'][1]:.2f} s, {ratio(probe)} "
        f"(mean acc1 {100 * statistics.mean(probe['acc1']['ours']):.1f}% and {100 * statistics.mean(probe['acc1']['clip_benchmark']):.1f}%)"
    )
    texts.append(f"features of {TINY} and the probe together {ratio(values['both'])} (target 3×)")
    sizes = f"{values[TINY]['images']} and {values[LARGE]['images']} photos of 375 px ({values['photos']})"
    return f"{sizes}, against CLIP_benchmark's loop (open_clip's transform, DataLoader with {WORKERS} workers): {'; '.join(texts)}"


if __name__ == "__main__":
    main()
