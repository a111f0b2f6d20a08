"""The benchmark of all objectives: what it counts against naive twins, and a small training of it that has to learn."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from demo import toyweb
from demo.scene import CLASSES

ROOT = Path(__file__).resolve().parents[2]
SMALL = toyweb.Size(scale=0.06, test_per_class=1, train_per_class=1)


@pytest.fixture(scope="module")
def objectives() -> Any:
    """Import the benchmark, which finds its neighbours by name."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        return importlib.import_module("objectives")
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


def unit_rows(rng: np.random.Generator, n: int) -> Any:
    rows = rng.standard_normal((n, 6)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_recalls_equal_a_search_one_by_one(objectives: Any) -> None:
    rng = np.random.default_rng(3)
    owners = np.array([0, 0, 0, 1, 2, 2, 3, 4, 4, 4, 4, 5, 6])
    images, texts = unit_rows(rng, 7), unit_rows(rng, len(owners))
    counted = objectives.recalls(images, texts, owners)
    for k in (1, 5):
        by_text = [owner in sorted(range(7), key=lambda i, t=t: -float(t @ images[i]))[:k] for t, owner in zip(texts, owners, strict=True)]
        assert counted[f"text_to_image_r{k}"] == pytest.approx(np.mean(by_text))
        by_image = []
        for number, image in enumerate(images):
            nearest = sorted(range(len(texts)), key=lambda j, image=image: -float(texts[j] @ image))[:k]
            by_image.append(any(owners[j] == number for j in nearest))
        assert counted[f"image_to_text_r{k}"] == pytest.approx(np.mean(by_image))


def test_chance_is_what_random_features_give(objectives: Any) -> None:
    """2,000 draws: a share near 0.5 has a standard error of 0.004 over 7 images or 13 texts each."""
    rng = np.random.default_rng(4)
    owners = np.array([0, 0, 0, 1, 2, 2, 3, 4, 4, 4, 4, 5, 6])
    draws = [objectives.recalls(unit_rows(rng, 7), unit_rows(rng, len(owners)), owners) for _ in range(2000)]
    for name in ("text_to_image_r1", "text_to_image_r5", "image_to_text_r1", "image_to_text_r5"):
        assert np.mean([draw[name] for draw in draws]) == pytest.approx(draws[0][f"{name}_chance"], abs=0.02)


def test_intervals_are_scipys(objectives: Any) -> None:
    from scipy import stats

    values = [0.31, 0.36, 0.29, 0.4, 0.33]
    expected = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    counted = objectives.with_interval(values)
    assert (counted["low"], counted["high"]) == pytest.approx(expected)
    assert objectives.with_interval([0.5]) == {"mean": 0.5, "low": None, "high": None}


def test_differences_are_paired(objectives: Any) -> None:
    """Accuracies that differ much over seeds and hardly within a seed: the interval is that of the second."""
    pairs = [(0.2, 0.21), (0.5, 0.52), (0.8, 0.81)]
    runs = [{"accuracy": {"first": {"probe": a}, "second": {"probe": b}}} for a, b in pairs]
    counted = objectives.over_seeds(runs, "second", "probe", "first")
    assert counted["mean"] == pytest.approx(0.04 / 3)
    assert counted["high"] - counted["low"] < 0.04
    alone = objectives.over_seeds(runs, "second", "probe")
    assert alone["high"] - alone["low"] > 1


def test_class_numbers_are_what_captions_say(objectives: Any, tmp_path: Path) -> None:
    """Captions name each thing that a picture shows; so a record with a class names that one alone."""
    plan = toyweb.draw(tmp_path, seed=3, size=SMALL, workers=1)
    numbers = objectives.class_numbers(plan)
    without = set(toyweb.WITHOUT_PICTURE)
    with_picture = [row for row in plan["records"] if row["defect"] not in without]
    told = 0
    for row in with_picture:
        caption = row["source_id"].partition("\n")[2].lower()
        words = {name for name in CLASSES if name in caption}
        spoiled = row["defect"] in toyweb.IN_WORDS or row["defect"] == "viral_copy"
        if row["source"] == "redcaps" or spoiled:  # RedCaps' ids hold no caption
            continue
        number = numbers.get((row["source"], row["source_id"]))
        assert len(words) == 2 if number is None else words == {CLASSES[number]}, (row, words)
        told += 1
    assert told > 50
    assert 0.8 < len(numbers) / len(with_picture) < 0.95  # 12% of the scenes show two things


def test_a_folder_of_other_settings_is_refused(objectives: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objectives.claim(tmp_path)
    objectives.claim(tmp_path)
    monkeypatch.setitem(objectives.COMMON, "lr", 1.0)
    with pytest.raises(SystemExit, match="other settings"):
        objectives.claim(tmp_path)


def test_what_was_recorded_says_what_stands_in_the_table(objectives: Any) -> None:
    figures = json.loads((ROOT / "benchmarks/objectives.json").read_text())
    line = objectives.in_words(figures)
    assert line in (ROOT / "benchmarks/RESULTS.md").read_text()
    for task in objectives.OBJECTIVES:
        values = [run["accuracy"][task]["probe"] for run in figures["toy"]["runs"]]
        assert figures["toy"]["accuracy"][task]["probe"]["mean"] == pytest.approx(np.mean(values))


def small_scores(objectives: Any, folder: Path, seed: int) -> dict[str, float]:
    """Return the probe's accuracy by network: the first weights, and clip and simclr on half of the benchmark's samples."""
    size = toyweb.Size(scale=0.06, test_per_class=40, train_per_class=64)
    toyweb.draw(folder / "web", seed=seed, size=size, workers=1)
    build = "curate build-shards --source folder --input web/heldout/train --template 'a photo of a {}' --samples all"
    objectives.call(folder, f"{build} --output shards --workers 1")
    trainings = {"untrained": ("clip", objectives.STANDING)}
    trainings |= {task: (task, {**objectives.OBJECTIVES[task], "samples_seen": 5120}) for task in ("clip", "simclr")}
    for name, (task, values) in trainings.items():
        objectives.train(folder, task, name, "shards", seed, values)
        objectives.evaluate(folder, name, "probe")
    return {name: protocols["probe"] for name, protocols in objectives.accuracies(folder).items()}


@pytest.mark.slow
def test_clip_and_simclr_learn(objectives: Any, tmp_path: Path) -> None:
    """Each probe beats that of the same first weights. Gains seen with seeds 7 and 8: clip 14.6 and 13.1 points, simclr 3.9 and 3.1."""
    scores = small_scores(objectives, tmp_path, seed=7)
    assert scores["clip"] > scores["untrained"] + 0.07, scores
    assert scores["simclr"] > scores["untrained"] + 0.01, scores
