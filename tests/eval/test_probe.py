"""The probe: its classifier against scikit-learn's, its draws, its interval, what it refuses."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import Ridge

from eval.datasets.base import Examples
from eval.features import Encoded, Encoder
from eval.protocols._shots import parse_shots
from eval.protocols.base import Bench
from eval.protocols.probe import Config, ridge, run
from shards.core.errors import UsageError
from train.models.load import load_checkpoint


@pytest.mark.parametrize(("n", "d"), [(12, 40), (40, 12), (13, 12), (12, 12)])
def test_ridge_is_sklearns_on_the_same_design(n: int, d: int) -> None:
    rng = np.random.default_rng(n)
    labels = np.arange(n) % 4
    x, new = rng.normal(2, 3, (n, d)), rng.normal(2, 3, (9, d))
    x[:, 0] = new[:, 0] = 5  # a constant feature

    def design(raw: np.ndarray) -> np.ndarray:
        return np.hstack([(raw - x.mean(0)) / (x.std(0) + 1e-5), np.full((len(raw), 1), 100.0)])

    peer = Ridge(alpha=1024.0, fit_intercept=False, solver="svd").fit(design(x), 2.0 * np.eye(4)[labels] - 1)
    assert ridge(x, labels, 4, 1024.0)(new) == pytest.approx(peer.predict(design(new)), abs=1e-8)


def separable(n: int, noise: float, classes: int = 3) -> Encoded:
    """Return images with features around one corner per class."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % classes
    features = np.eye(classes, 16)[labels] + noise * rng.normal(size=(n, 16))
    names = tuple(f"c{i}" for i in range(classes))
    return Encoded(Examples("toy", names, tuple(map(str, range(n))), labels, lambda i: b"%d" % i), features.astype(np.float32), "digest")


def bench_for(config: Config, checkpoint_file: str) -> Bench:
    return Bench(Encoder(load_checkpoint(checkpoint_file)), config)


def scores_of(config: Config, checkpoint_file: str, test: Encoded) -> dict[tuple[str, object], object]:
    return {(name, score.k): score for name, score in run(config, bench_for(config, checkpoint_file), test)}


def test_scores_and_their_interval(checkpoint_file: str) -> None:
    config = Config(checkpoint="", data="", k="1,5,all", seeds=4)
    test = separable(240, 0.35)
    scores = scores_of(config, checkpoint_file, test)
    assert list(scores) == [(m, k) for k in (1, 5, "all") for m in ("acc1", "mean_per_class")]
    five = scores["acc1", 5]
    low, high = stats.t.interval(0.95, 3, loc=np.mean(five.runs), scale=stats.sem(five.runs))
    assert (five.value, five.low, five.high) == pytest.approx((np.mean(five.runs), low, high))
    assert five.interval == "t over 4 seeds"
    assert len(set(five.runs)) > 1
    assert 1 / 3 < scores["acc1", 1].value < five.value < scores["acc1", "all"].value
    assert scores["acc1", "all"].interval == "wilson over test images"
    assert {score.n for score in scores.values()} == {120}  # the other half trains; the test set is the same for every k
    assert scores == scores_of(config, checkpoint_file, test)


def test_a_number_is_what_a_plain_run_gives(checkpoint_file: str) -> None:
    test = separable(120, 0.5)
    train_side, test_side = test.examples.halves()
    view = test.examples.take(train_side)
    runs = []
    for seed in range(3):
        chosen = view.shots(2, seed)
        predicted = ridge(test.features[train_side][chosen], view.labels[chosen], 3, 1024.0)(test.features[test_side]).argmax(1)
        runs.append(np.mean(predicted == test.examples.labels[test_side]))
    scores = scores_of(Config(checkpoint="", data="", k="2", seeds=3), checkpoint_file, test)
    assert scores["acc1", 2].runs == pytest.approx(runs)


def test_training_set_of_its_own(class_folders: str, foreign_tars: str, checkpoint_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    config = Config(checkpoint="", data=class_folders, train=foreign_tars, k="8,all", seeds=2)
    bench = bench_for(config, checkpoint_file)
    test = bench.encode(bench.open(class_folders))
    scores = dict(run(config, bench, test))
    assert scores["acc1"].n == 24
    assert scores["acc1"].settings["overlap"] == 24
    assert scores["acc1"].value > 0.9  # trained on its own test images
    assert "24 of 24 test images are training images too" in capsys.readouterr().err


def test_other_classes_in_training_are_refused(class_folders: str, tmp_path: Path, checkpoint_file: str) -> None:
    shutil.copytree(class_folders, tmp_path / "train")
    (tmp_path / "train" / "red_square").rename(tmp_path / "train" / "red_circle")
    config = Config(checkpoint="", data=class_folders, train=str(tmp_path / "train"), k="1")
    bench = bench_for(config, checkpoint_file)
    with pytest.raises(UsageError, match="not in both: red_circle, red_square"):
        list(run(config, bench, bench.encode(bench.open(class_folders))))


def test_k_beyond_the_smallest_class_is_refused_before_any_number(checkpoint_file: str) -> None:
    test = separable(30, 0.1)
    with pytest.raises(UsageError, match="6 shots asked for, class 'c0' has 5 training images"):
        next(run(Config(checkpoint="", data="", k="1,6"), bench_for(Config(checkpoint="", data=""), checkpoint_file), test))


def test_the_list_of_shots() -> None:
    assert parse_shots("1, 5,all,5") == [1, 5, None]
    for wrong in ("", "0", "1,,2", "-1", "1.5", "²"):
        with pytest.raises(UsageError, match="--k"):
            parse_shots(wrong)
