"""Few-shot fine-tuning over draws and learning rates on a CPU: `evaluate transfer`, and wise-ft's loop.

wise-ft's loop is written out here from its definition: for each draw and learning rate a fresh copy of the trunk with a linear head, a
torch DataLoader (2 workers) over the files that decodes every image in every epoch with open_clip's training transform, AdamW with weight
decay 0.1 on all weights, a cosine with warm-up, cross-entropy, gradients clipped at 1; the validation images are judged after the last
epoch. Of each draw the learning rate that is best on the validation images is then judged on the test images. Ours is the whole command:
checkpoint, checks and table included, images kept decoded. Both take 5 shots of 10 classes, 5 draws, 4 learning rates, and take turns; the
ratio is of medians over the rounds. wise-ft judges every epoch, which here would only make it slower.

    python benchmarks/finetuning.py [--rounds 3] [--epochs 16]
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from _photos import origin, photos
from _record import record
from evaluate import timed

from eval import results
from eval.cli import main as evaluate
from eval.data import open_examples
from eval.protocols import _shots
from train.models.load import build_model

CLASSES, SHOTS, DRAWS = 10, 5, 5
RATES = (1e-4, 3e-4, 1e-3, 3e-3)
MODEL, SIZE = "tiny-vit-64", 64
PARTS = {"train": 100, "val": 100, "test": 200}
BATCH, WORKERS, DECAY = 128, 2, 0.1
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def main() -> None:
    """Measure both, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=16)
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        parts = written(root)
        packed = [f"{split}={path}" for split, path in parts.items()]
        checked(["pack", "photos", "--kind", "folder", "--parts", *packed, "--output", str(root / "packed")])
        torch.manual_seed(0)
        trunk = build_model(MODEL, None)
        torch.save(trunk.state_dict(), root / "trunk.pt")
        accuracies: dict[str, float] = {}

        def ours() -> None:
            accuracies["ours"] = by_us(root, arguments.epochs)

        def theirs() -> None:
            accuracies["wise-ft"] = by_them(trunk, parts, arguments.epochs)

        mine, peer = timed([ours, theirs], arguments.rounds)
    figures = {
        "rounds": arguments.rounds,
        "epochs": arguments.epochs,
        "photos": origin(),
        "load before": load,
        "trainings": DRAWS * len(RATES),
        "wall": [mine["wall"], peer["wall"]],
        "cpu": [mine["cpu"], peer["cpu"]],
        "acc1": accuracies,
    }
    record("finetuning", figures, line(figures))


def written(root: Path) -> dict[str, Path]:
    """Write photos of 375 pixels at the shorter side into class folders, one folder for each split."""
    made = photos(sum(PARTS.values()), short=375)
    for split, n in PARTS.items():
        for i in range(n):
            path = root / split / f"class{i % CLASSES}" / f"{i:04d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(next(made)[0])
    return {split: root / split for split in PARTS}


def checked(arguments: list[str]) -> None:
    """Run a command of ours without its words.

    Raises:
        RuntimeError: it fails.
    """
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = evaluate(arguments)
    if code:
        raise RuntimeError(said.getvalue())


def by_us(root: Path, epochs: int) -> float:
    """Return the mean test accuracy of `evaluate transfer`."""
    table = root / "results.jsonl"
    table.unlink(missing_ok=True)
    flags = ["--checkpoint", str(root / "trunk.pt"), "--model", MODEL, "--data", str(root / "packed"), "--results", str(table)]
    flags += ["--k", str(SHOTS), "--seeds", str(DRAWS), "--epochs", str(epochs), "--head", "normal", "--lr", *map(str, RATES)]
    checked(["transfer", *flags])
    return float(next(row["value"] for row in results.read(str(table)) if row["metric"] == "acc1"))


def by_them(trunk: torch.nn.Module, parts: dict[str, Path], epochs: int) -> float:
    """Return the mean test accuracy of wise-ft's loop over the same draws."""
    from open_clip.transform import PreprocessCfg, image_transform_v2
    from torchvision.datasets import ImageFolder

    settings = PreprocessCfg(size=SIZE, mean=MEAN, std=STD)
    training, judging = (image_transform_v2(settings, is_train=is_train) for is_train in (True, False))
    train = ImageFolder(str(parts["train"]), transform=training)
    val, test = (ImageFolder(str(parts[split]), transform=judging) for split in ("val", "test"))
    examples = open_examples(str(parts["train"]))
    places = {Path(path).name: place for place, (path, _) in enumerate(train.samples)}
    tested = []
    for seed in range(DRAWS):
        drawn = [places[Path(examples.ids[i]).name] for i in _shots.draw(examples, SHOTS, seed)]
        subset = torch.utils.data.Subset(train, drawn)
        models = [tuned(trunk, subset, rate, epochs, seed) for rate in RATES]
        validated = [accuracy(model, val) for model in models]
        tested.append(accuracy(models[int(np.argmax(validated))], test))
    return statistics.mean(tested)


def tuned(trunk: torch.nn.Module, data: Any, rate: float, epochs: int, seed: int) -> torch.nn.Module:
    """Return a copy of the trunk with a head, trained by wise-ft's loop."""
    torch.manual_seed(seed)
    visual = copy.deepcopy(trunk.visual)
    with torch.no_grad():
        width = visual(torch.zeros(1, 3, SIZE, SIZE)).shape[1]
    model = torch.nn.Sequential(visual, torch.nn.Linear(width, CLASSES)).train()
    loader = torch.utils.data.DataLoader(data, batch_size=BATCH, shuffle=True, num_workers=WORKERS)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=DECAY)
    steps = epochs * len(loader)
    warmup = steps // 10
    step = 0
    for _ in range(epochs):
        for images, labels in loader:
            share = (step + 1) / warmup if step < warmup else 0.5 * (1 + np.cos(np.pi * (step - warmup) / (steps - warmup)))
            optimizer.param_groups[0]["lr"] = rate * share
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(images), labels).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            step += 1
    return model.eval()


def accuracy(model: torch.nn.Module, data: Any) -> float:
    """Return the share of a set's images that a model classifies rightly."""
    loader = torch.utils.data.DataLoader(data, batch_size=BATCH, num_workers=WORKERS)
    with torch.no_grad():
        right = sum(int((model(images).argmax(1) == labels).sum()) for images, labels in loader)
    return right / len(data)


def line(figures: dict[str, Any]) -> str:
    """Return the figures in one line."""
    (mine, peer), (mine_cpu, peer_cpu) = figures["wall"], figures["cpu"]
    acc1 = figures["acc1"]
    return (
        f"{figures['trainings']} fine-tunings of {MODEL} ({SHOTS} shots of {CLASSES} classes, {DRAWS} draws, {len(RATES)} learning rates, "
        f"{figures['epochs']} epochs) on photos of 375 px, whole `evaluate transfer` {mine:.1f} s, wise-ft's loop with {WORKERS} workers "
        f"{peer:.1f} s: {peer / mine:.1f}× by the wall, {peer_cpu / mine_cpu:.1f}× by processor seconds (goal 2×); acc1 "
        f"{100 * acc1['ours']:.1f}% and {100 * acc1['wise-ft']:.1f}% (mosaics carry no classes: chance 10%)"
    )


if __name__ == "__main__":
    main()
