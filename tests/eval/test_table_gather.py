"""`evaluate table`: the best of a grid, means over seeds and draws, paired differences, signs, filters and orders."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import t

from eval import predictions, results
from eval.cli import main
from eval.compare import against
from eval.fields import chance, covers, is_like, where
from eval.gather import best, common_name, groups, over
from eval.predictions import Predictions
from eval.results import Row
from eval.statistics.levels import crossed_interval
from eval.statistics.proportions import mcnemar
from eval.statistics.resampling import paired_bootstrap
from shards.core.errors import UsageError

N = 300


def row(value: float = 0.5, **changes: Any) -> Row:
    """Return a result on 300 test images of 4 classes; `labels` and `settings` as given."""
    whole = Row(
        name="a", data="pets", protocol="finetune", metric="acc1", main=True, value=value, low=value - 0.05, high=value + 0.05,
        interval="wilson over test images", k=5, n=N, n_undecodable=0, n_classes=4, runs=(), checkpoint="c" * 64, step=10, samples_seen=100,
        manifests=({"digest": "m" * 64, "weight": None, "samples": 10},), train_config="t" * 64, dataset="d" * 64,
        classes="k" * 64, config="e" * 64,
    )  # fmt: skip
    return replace(whole, **changes)


def grid(name: str, values: list[float], vals: list[float | None]) -> list[dict[str, Any]]:
    """Return a grid over learning rates, each with a checkpoint of its own."""
    rows = []
    for at, (value, val) in enumerate(zip(values, vals, strict=True)):
        settings = {"lr": 10.0 ** (at - 4), "epochs": 128, **({} if val is None else {"val": val})}
        rows.append(asdict(row(value, name=name, checkpoint=f"{name}{at}", config=f"{name}{at}", settings=settings)))
    return rows


def test_the_best_is_chosen_by_validation() -> None:
    (found,) = best(grid("a", [0.5, 0.7, 0.6], [0.4, 0.5, 0.6]), ["lr"])
    assert found["value"] == 0.6  # the best on test is 0.7
    assert found["chosen"] == {"by": "val", "of": 3, "mean": pytest.approx(0.6), "values": {"lr": 0.01}}
    assert found["interval"] == "wilson over test images"


def test_the_best_on_test_is_marked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [*grid("a", [0.5, 0.7, 0.6], [None] * 3), *grid("b", [0.4, 0.3, 0.2], [0.1, 0.2, 0.3])]
    path = str(tmp_path / "r.jsonl")
    results.append(path, [Row(**entry) for entry in rows])
    assert main(["table", path, "--best", "lr"]) == 0
    shown = capsys.readouterr()
    first, second = shown.out.splitlines()[2:]
    assert first.startswith("a †")
    assert "lr 0.001 of 3, best on test" in first
    assert "best of 3 on test" in first
    assert "lr 0.01 of 3, by validation" in second
    assert "†: best on test" in shown.err
    assert main(["table", path, "--best", "lr", "--rows", "name", "--columns", "data,k"]) == 0
    header, _, first, second = capsys.readouterr().out.splitlines()
    assert header.split() == ["name", "pets", "k=5"]
    assert "70.0† [65.0, 75.0]" in first
    assert "20.0 [15.0, 25.0]" in second
    assert main(["table", path, "--best", "learning_rate"]) == 2
    assert "no field 'learning_rate'" in capsys.readouterr().err


def test_only_the_named_setting_may_differ() -> None:
    rows = grid("a", [0.5, 0.7], [None] * 2) + grid("a", [0.6, 0.4], [None] * 2)
    for entry in rows[2:]:
        entry["settings"] = {**entry["settings"], "epochs": 64}
    assert [len(group) for group in groups(rows, ["lr"])] == [2, 2]
    assert [len(group) for group in groups(rows, ["lr", "epochs"])] == [4]
    losses = [{**entry, "metric": "nll"} for entry in grid("a", [0.5, 0.7], [None] * 2)]
    assert best(losses, ["lr"])[0]["value"] == 0.5


def test_two_models_of_one_setting_stay_apart() -> None:
    rows = grid("a", [0.5, 0.7], [None] * 2) + grid("b", [0.6, 0.4], [None] * 2)
    assert [len(group) for group in groups(rows, ["lr"])] == [2, 2]
    assert [(r["name"], r["value"]) for r in best(rows, ["lr"])] == [("a", 0.7), ("b", 0.6)]


def test_models_with_a_name_for_each_run_are_gathered_by_their_labels() -> None:
    rows = [asdict(row(0.5 + seed / 10, name=f"run-s{seed}", labels={"source": "x", "train_seed": seed})) for seed in range(3)]
    (found,) = over(rows, ["train_seed"], "none.jsonl")
    assert found["value"] == pytest.approx(0.6)
    assert found["name"] == "run-s*"
    assert common_name(["a", "b"]) == "a, …"


def _kept(path: str, rights: np.ndarray, labels: np.ndarray | None = None) -> str:
    uids = np.array([b"%032d" % at for at in range(len(rights))])
    classes = np.zeros(len(rights), int) if labels is None else labels
    return predictions.write(path, Predictions(uids, classes, (~rights).astype(int), np.zeros((len(rights), 4), np.float32)))


def study(path: str, name: str, shape: tuple[int, int, int], accuracy: float, rng: np.random.Generator) -> tuple[list[Row], np.ndarray]:
    """Return the rows of draws × seeds, each with runs over shots and kept answers, and the answers (draws, seeds, shots, images)."""
    difficulty = np.random.default_rng(9).random(N)
    rights = difficulty < accuracy + rng.normal(0, 0.03, (*shape, 1)) + rng.normal(0, 0.1, (*shape, N))
    rows = []
    for draw in range(shape[0]):
        for seed in range(shape[1]):
            answers = rights[draw, seed]
            values = tuple(float(run.mean()) for run in answers)
            entry = row(
                float(np.mean(values)), name=f"{name}-{draw}-{seed}", checkpoint=f"{name}{draw}{seed}", runs=values,
                manifests=({"digest": f"{name}{draw}"},), labels={"source": name, "draw": draw, "train_seed": seed},
                predictions=tuple(_kept(path, run) for run in answers),
            )  # fmt: skip
            rows.append(entry)
    return rows, rights


def test_a_mean_over_levels_is_the_statistics_module(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "r.jsonl")
    rng = np.random.default_rng(0)
    rows, rights = study(path, "x", (3, 2, 4), 0.6, rng)
    others, other_rights = study(path, "y", (3, 2, 4), 0.5, rng)
    results.append(path, [*rows, *others])
    flags = ["table", path, "--over", "draw,train_seed,shots", "--against", "source=y", "--json"]
    assert main(flags) == 0
    first, second = json.loads(capsys.readouterr().out)
    units = rights.mean(axis=(1, 2))
    expected = crossed_interval(units)
    assert (first["value"], first["low"], first["high"]) == pytest.approx((expected.value, expected.low, expected.high))
    assert first["over"] == {"draw": 3, "train_seed": 2, "shots": 4}
    assert first["covers"] == ["data draw", "training seed", "shots", "test images"]
    assert first["interval"] == "3 draws × 2 training seeds × 4 draws of shots × 300 test images"
    difference = crossed_interval(units - other_rights.mean(axis=(1, 2)), bounds=(-1, 1))
    found = first["against"]
    assert (found["difference"], found["low"], found["high"]) == pytest.approx((difference.value, difference.low, difference.high))
    assert (found["p"] < 0.05) == (difference.low > 0 or difference.high < 0)
    assert found["covers"] == first["covers"]
    assert "against" not in second
    assert main([*flags[:-1]]) == 0
    assert "intervals cover: data draw, training seed, shots, test images" in capsys.readouterr().err


def test_the_topmost_level_that_varies_gives_the_units(tmp_path: Path) -> None:
    path = str(tmp_path / "r.jsonl")
    rows, rights = study(path, "x", (1, 1, 4), 0.6, np.random.default_rng(0))
    (found,) = over([asdict(entry) for entry in rows], ["draw", "train_seed", "shots"], path)
    expected = crossed_interval(rights[0, 0])
    assert (found["low"], found["high"]) == pytest.approx((expected.low, expected.high))
    assert found["covers"] == ["shots", "test images"]
    (alone,) = over([asdict(entry) for entry in rows], ["draw", "train_seed"], path)
    assert alone["interval"] == "wilson over test images"  # nothing varies: the row's own


def test_without_answers_the_interval_is_an_upper_bound() -> None:
    rows = [asdict(row(0.5 + seed / 100, labels={"train_seed": seed}, checkpoint=str(seed))) for seed in range(3)]
    (found,) = over(rows, ["train_seed"], "none.jsonl")
    half = (t.ppf(0.975, 2) ** 2 * 0.0001 / 3 + 1.959964**2 * 0.51 * 0.49 / N) ** 0.5
    assert (found["low"], found["high"]) == pytest.approx((0.51 - half, 0.51 + half), rel=1e-6)
    assert found["interval"] == "3 training seeds × 300 test images at most"
    losses = [{**entry, "metric": "nll"} for entry in rows]
    (loss,) = over(losses, ["train_seed"], "none.jsonl")
    assert loss["covers"] == ["training seed"]
    assert loss["high"] - loss["value"] == pytest.approx(t.ppf(0.975, 2) * 0.01 / 3**0.5)


def test_seeds_are_gathered_though_each_chose_its_own_learning_rate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "r.jsonl")
    for seed, vals in enumerate(([0.1, 0.9], [0.9, 0.1], [0.1, 0.9])):
        for source, value in (("x", 0.6), ("y", 0.5)):
            for at, val in enumerate(vals):
                settings = {"lr": [1e-4, 1e-3][at], "val": val}
                labels = {"source": source, "train_seed": seed}
                results.append(
                    path,
                    [row(value + seed / 100 + at / 10, checkpoint=f"{source}{seed}{at}", config=f"{at}", settings=settings, labels=labels)],
                )
    assert main(["table", path, "--best", "lr", "--over", "train_seed", "--against", "source=y", "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert first["value"] == pytest.approx((0.7 + 0.61 + 0.72) / 3)
    assert first["over"] == {"train_seed": 3}
    assert first["against"]["difference"] == pytest.approx(0.1)
    assert "against" not in second


def test_draws_that_are_the_same_data_are_no_draws(tmp_path: Path) -> None:
    path = str(tmp_path / "r.jsonl")
    rows, _ = study(path, "x", (3, 2, 1), 0.6, np.random.default_rng(0))
    same = [asdict(replace(entry, manifests=({"digest": "one"},))) for entry in rows]
    (found,) = over(same, ["draw", "train_seed"], path)
    assert found["over"] == {"train_seed": 2}
    assert "all 3 draws are the same data" in found["interval"]
    assert "data draw" not in found["covers"]
    (single,) = over([entry for entry in same if entry["labels"]["train_seed"] == 0], ["draw"], path)
    assert single["interval"] == "wilson over test images (all 3 draws are the same data)"
    assert single["covers"] == ["test images"]


def test_runs_that_all_give_the_same_leave_the_test_images() -> None:
    rows = [asdict(row(0.5, labels={"draw": draw}, manifests=({"digest": f"{draw}"},))) for draw in range(3)]
    (found,) = over(rows, ["draw"], "none.jsonl")
    assert found["interval"] == "over test images (all of 3 draws give the same)"
    assert found["covers"] == ["test images"]
    assert 0 < found["low"] < 0.5 < found["high"] < 1


def test_single_runs_are_compared_image_by_image(tmp_path: Path) -> None:
    path = str(tmp_path / "r.jsonl")
    rng = np.random.default_rng(0)
    labels = np.arange(N) % 4
    first, second = rng.random(N) < 0.7, rng.random(N) < 0.6
    rows = []
    for name, right in (("a", first), ("b", second)):
        rows.append(asdict(row(float(right.mean()), name=name, predictions=(_kept(path, right, labels),))))
    found = against(rows, "b", [], path)[0]["against"]
    expected = paired_bootstrap(first.astype(float), second.astype(float))
    assert (found["difference"], found["low"], found["high"], found["p"]) == pytest.approx(
        (expected.value, expected.low, expected.high, expected.p)
    )
    assert found["mcnemar"] == pytest.approx(mcnemar(first, second))
    assert found["covers"] == ["test images"]
    per_class = [{**entry, "metric": "mean_per_class"} for entry in rows]
    assert "mcnemar" not in against(per_class, "b", [], path)[0]["against"]


def test_without_answers_differences_come_from_both_intervals() -> None:
    rows = [asdict(row(0.7, name="a")), asdict(row(0.6, name="b"))]
    found = against(rows, "b", [], "none.jsonl")[0]["against"]
    assert (found["low"], found["high"]) == pytest.approx((0.1 - 0.05 * 2**0.5, 0.1 + 0.05 * 2**0.5))
    assert found["how"] == "unpaired: from both intervals"
    none = [asdict(row(0.7, name="a", low=None, high=None)), rows[1]]
    assert against(none, "b", [], "none.jsonl")[0]["against"]["low"] is None
    with pytest.raises(UsageError, match="no such row"):
        against(rows, "c", [], "none.jsonl")
    with pytest.raises(UsageError, match="same data"):
        against([{**rows[0], "data": "dtd"}, rows[1]], "b", [], "none.jsonl")


def test_guessing_has_its_column() -> None:
    entry = asdict(row())
    assert chance(entry) == 0.25
    assert chance({**entry, "metric": "acc5", "n_classes": 50}) == 0.1
    assert chance({**entry, "settings": {"majority": 0.6}}) == 0.6
    assert chance({**entry, "metric": "mean_per_class", "settings": {"majority": 0.6}}) == 0.25
    assert chance({**entry, "metric": "ece"}) is None
    assert chance({**entry, "metric": "nll", "settings": {"chance": 1.386}}) == 1.386


def test_filters_signs_and_orders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "r.jsonl")
    rows = [row(value, name=name, labels={"source": name, "size": size, "data": "unknown" if name == "z" else "known"}) for name, size, value in
            [("x", 1e6, 0.5), ("x", 1e5, 0.4), ("y", 1e6, 0.7), ("z", 1e6, 0.6)]]  # fmt: skip
    results.append(path, rows)
    assert main(["table", path, "--where", "source=x,z", "size=1000000", "--json"]) == 0
    assert [entry["value"] for entry in json.loads(capsys.readouterr().out)] == [0.5, 0.6]
    assert main(["table", path, "--sort", "value"]) == 0
    shown = capsys.readouterr()
    assert [line.split()[0] for line in shown.out.splitlines()[2:]] == ["y", "z", "x", "x"]
    assert "z ?" in shown.out
    assert "?: nothing is known of what the model was trained on (1 of 4 rows)" in shown.err
    assert main(["table", path, "--rows", "source", "--columns", "size"]) == 0
    assert capsys.readouterr().out.splitlines()[0].split() == ["source", "100000", "1e+06"]
    assert main(["table", path, "--where", "sauce=x"]) == 2
    assert "did you mean 'source'?" in capsys.readouterr().err
    assert main(["table", path, "--where", "source=none"]) == 2
    capsys.readouterr()
    assert main(["table", path, "--against", "y", "--csv", "--sort", "difference"]) == 0
    parsed = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [entry["labels.source"] for entry in parsed] == ["z", "x", "x", "y"]
    assert float(parsed[0]["against.difference"]) == pytest.approx(-0.1)
    assert parsed[0]["chance"] == "0.25"
    assert float(parsed[0]["detectable"]) == pytest.approx(0.11, abs=0.01)
    assert parsed[0]["covers"] == "test images"


def test_what_an_interval_covers() -> None:
    entry = asdict(row())
    assert covers(entry) == ["test images"]
    assert covers({**entry, "interval": "t over 5 seeds"}) == ["shots"]
    assert covers({**entry, "low": None}) == []
    assert is_like(0.001, "1e-3")
    assert not is_like(True, "1")
    assert where([entry], {"k": "5"}) == [entry]


def test_rows_of_a_real_probe_are_gathered_over_their_shots(
    class_folders: str, checkpoint_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "r.jsonl")
    flags = ["probe", "--checkpoint", checkpoint_file, "--data", class_folders, "--k", "2", "--results", path]
    for name in ("x", "y"):
        assert main([*flags, "--seeds", "5", "--label", f"source={name}", "--name", name]) == 0
    capsys.readouterr()
    assert main(["table", path, "--metric", "acc1", "--over", "shots", "--against", "x", "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert first["over"] == {"shots": 5}
    kept = [predictions.read(path, digest).correct() for digest in results.read(path)[0]["predictions"]]
    expected = crossed_interval(np.array(kept))
    assert (first["value"], first["low"], first["high"]) == pytest.approx((expected.value, expected.low, expected.high))
    assert first["covers"] == [*(["shots"] if expected.spread else []), "test images"]
    assert second["against"]["difference"] == 0  # the same checkpoint
    assert second["against"]["p"] == 1


def test_a_loss_is_no_percentage() -> None:
    """2.75 nats were once shown as 275.0 %."""
    from eval.tables import shown

    assert shown("nll", 2.75) == "2.750"
    assert shown("brier", 1.082) == "1.082"
    assert shown("acc1", 0.25) == "25.0"
    assert shown("ece", 0.471) == "47.1"


def test_runs_whose_chosen_learning_rates_differ_are_gathered() -> None:
    """Each run chooses from one grid: what it chose is an outcome, as its accuracy is."""
    from eval.gather import groups

    def row(seed: int, lr: float, **more: object) -> dict[str, object]:
        settings = {"lr": lr, "grid": [1e-4, 1e-2], **more}
        names = {"name": f"run {seed}", "checkpoint": str(seed), "data": "d", "protocol": "ft", "metric": "acc1", "k": 5}
        return {**names, "value": 0.5, "labels": {"train_seed": seed}, "settings": settings}

    chosen = [row(1, 1e-4, chosen_by="validation set"), row(2, 1e-2, chosen_by="validation set")]
    assert [len(group) for group in groups(chosen, ["train_seed"])] == [2]
    assert [len(group) for group in groups([row(1, 1e-4), row(2, 1e-2)], ["train_seed"])] == [1, 1]


def test_a_difference_of_losses_is_in_nats() -> None:
    from eval.tables import _difference

    assert _difference("nll", {"difference": 0.109, "low": -0.028, "high": 0.246}) == "+0.109 [-0.028, +0.246]"
    assert _difference("acc1", {"difference": 0.109, "low": -0.028, "high": 0.246}) == "+10.9 [-2.8, +24.6]"
