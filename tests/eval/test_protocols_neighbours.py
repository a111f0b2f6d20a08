"""Nearest neighbours and episodes against plain loops and scikit-learn; the rules for small classes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

from eval.cli import main
from eval.datasets.base import Examples
from eval.features import Encoded, Encoder
from eval.protocols import _shots, episodes, knn
from eval.protocols.base import Bench
from eval.protocols.probe import ridge
from shards.core.errors import UsageError
from shards.sample import rank_key


def encoded(counts: tuple[int, ...], d: int = 8, noise: float = 1.0, seed: int = 0) -> Encoded:
    """Return unit-length features around one corner per class, so many images of each class."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    features = np.eye(len(counts), d)[labels] + noise * rng.normal(size=(len(labels), d))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    names = tuple(f"c{i}" for i in range(len(counts)))
    ids = tuple(map(str, range(len(labels))))
    return Encoded(Examples("toy", names, ids, labels, lambda i: b"%d %d" % (seed, i)), features.astype(np.float32), "digest")


def test_neighbours_are_brute_force_and_ties_go_in_order() -> None:
    train, test = encoded((20, 20)).features, encoded((9, 9), seed=1).features
    places, cosines = knn.neighbours(train, test, 7)
    for row in range(len(test)):
        order = sorted(range(40), key=lambda i: (-float(train[i] @ test[row]), i))
        assert sorted(order[:7]) == places[row].tolist()
        assert cosines[row] == pytest.approx(train[places[row]] @ test[row], abs=1e-6)
    same = np.repeat(train[:2], 5, axis=0)  # each image five times
    assert knn.neighbours(same, train[:1], 3)[0].tolist() == [[0, 1, 2]]
    assert knn.neighbours(same, train[1:2], 7)[0].tolist() == [[0, 1, 5, 6, 7, 8, 9]]
    assert knn.neighbours(train[:3], test, 20)[0].tolist() == [[0, 1, 2]] * 18


def test_votes_are_scikit_learns() -> None:
    train, test = encoded((15, 12, 13), noise=0.6), encoded((9, 9, 9), noise=0.6, seed=1)
    config = knn.Config(data=("",), neighbours=5)
    weighted, plain = knn._answers(config, _shots.Sides(train, test, {}), None, 0)
    peer = KNeighborsClassifier(5, metric="cosine").fit(train.features, train.examples.labels)
    assert np.array_equal(plain.argmax(1), peer.predict(test.features))

    def dino(distances: np.ndarray) -> np.ndarray:
        return np.exp((1 - distances) / 0.07)

    peer = KNeighborsClassifier(5, metric="cosine", weights=dino).fit(train.features, train.examples.labels)
    assert weighted / weighted.sum(axis=1, keepdims=True) == pytest.approx(peer.predict_proba(test.features), abs=1e-4)


def test_knn_rows(checkpoint_file: str, class_folders: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--checkpoint", checkpoint_file, "--data", class_folders, "--results", str(tmp_path / "r.jsonl"), "--json"]
    assert main(["knn", *flags, "--k", "2,all", "--seeds", "2"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(r["k"], r["metric"]) for r in rows] == [(k, m) for k in (2, "all") for m in ("acc1", "mean_per_class", "acc1_majority")]
    assert [r["settings"]["neighbours"] for r in rows] == [6] * 3 + [12] * 3  # of 20, as many as there are
    assert rows[0]["settings"]["chance"] == pytest.approx(1 / 3)


def test_draws_nest_and_are_those_of_examples() -> None:
    examples = encoded((9, 12, 10)).examples
    for seed in range(3):
        assert _shots.draw(examples, 4, seed).tolist() == examples.shots(4, seed).tolist()
        assert set(_shots.draw(examples, 4, seed)) < set(_shots.draw(examples, 7, seed)) < set(_shots.draw(examples, None, seed))


def test_small_classes_are_refused_taken_whole_or_dropped() -> None:
    train, test = encoded((8, 3, 9, 2)), encoded((5, 5, 5, 5), seed=1)
    sides = _shots.Sides(train, test, {"split": "given"})
    with pytest.raises(UsageError, match="4 shots asked for, class 'c1' has 3 training images"):
        _shots.for_shots(sides, 4, "refuse")
    whole = _shots.for_shots(sides, 4, "take-all")
    assert np.bincount(train.examples.labels[_shots.draw(whole.train.examples, 4, 0)]).tolist() == [4, 3, 4, 2]
    assert (whole.settings["small_classes"], whole.settings["n_small_classes"]) == ("take-all", 2)
    dropped = _shots.for_shots(sides, 4, "drop")
    assert dropped.test.examples.classes == dropped.train.examples.classes == ("c0", "c2")
    assert dropped.test.examples.labels.tolist() == [0] * 5 + [1] * 5
    assert np.array_equal(dropped.test.features, test.features[[0, 1, 2, 3, 4, 10, 11, 12, 13, 14]])
    assert _shots.for_shots(sides, 2, "drop") is sides  # no class is small
    with pytest.raises(UsageError, match="1 classes have 9 training images"):
        _shots.for_shots(sides, 9, "drop")
    with pytest.raises(UsageError, match="class 'c1' has no training image"):
        _shots.check_counts(encoded((3, 0, 3)).examples, [2], "take-all")


def test_a_dropped_class_is_in_the_row(
    checkpoint_file: str, class_folders: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(class_folders, tmp_path / "toy")
    for i in range(5):
        (tmp_path / "toy" / "red_square" / f"{i}.png").unlink()
    flags = ["--checkpoint", checkpoint_file, "--data", str(tmp_path / "toy"), "--results", str(tmp_path / "r.jsonl"), "--json"]
    assert main(["probe", *flags, "--k", "1,3", "--seeds", "2"]) == 2
    assert "try: " not in capsys.readouterr().out
    assert main(["probe", *flags, "--k", "1,3", "--seeds", "2", "--small-classes", "drop"]) == 0
    rows = [row for row in json.loads(capsys.readouterr().out) if row["metric"] == "acc1"]
    assert [(r["k"], r["n"], r["settings"].get("n_small_classes")) for r in rows] == [(1, 10, None), (3, 8, 1)]
    assert [r["settings"]["chance"] for r in rows] == [pytest.approx(1 / 3), pytest.approx(1 / 2)]
    assert rows[1]["settings"]["such_as"] == ["red_square"]


def episode_config(**changes: object) -> episodes.Config:
    return episodes.Config(data=("",), **{"way": 3, "queries": 4, "episodes": 40, "k": "1,3", **changes})  # type: ignore[arg-type]


def test_an_episode_is_the_one_of_a_plain_loop() -> None:
    test = encoded((9, 10, 8, 12, 9))
    config = episode_config(seed=5)
    pools = episodes._pools(test.examples)
    drawn = episodes.draw(test.examples, pools, list(range(5)), config, 3, 7)
    names = sorted(test.examples.classes, key=lambda name: rank_key(5, f"7:{name}"))[:3]
    assert [test.examples.classes[label] for label in drawn.classes] == names
    for row, name in enumerate(names):
        mine = [i for i in range(len(test.examples)) if test.examples.classes[test.examples.labels[i]] == name]
        order = sorted(mine, key=lambda i: rank_key(5, f"7:{test.examples.hashes[i].decode()}"))
        assert drawn.support[row].tolist() == order[:3]
        assert drawn.query[row].tolist() == order[-4:]


def test_scores_of_episodes_are_those_of_a_plain_loop() -> None:
    test = encoded((9, 10, 8, 12, 9), noise=0.5)
    config = episode_config(k="3")
    scores = dict(episodes.run(config, Bench(Encoder(None), config), test))
    means, ridges = [], []
    for number in range(40):
        drawn = episodes.draw(test.examples, episodes._pools(test.examples), list(range(5)), config, 3, number)
        x, y = test.features[drawn.support.ravel()], np.repeat(np.arange(3), 3)
        asked, wanted = test.features[drawn.query.ravel()], np.repeat(np.arange(3), 4)
        centres = NearestCentroid().fit(x, y).centroids_
        centres /= np.linalg.norm(centres, axis=1, keepdims=True)
        means.append(float(((asked @ centres.T).argmax(1) == wanted).mean()))
        ridges.append(float((ridge(x, y, 3, 1024.0)(asked).argmax(1) == wanted).mean()))
    assert scores["acc1"].value == pytest.approx(np.mean(means))
    assert scores["acc1_ridge"].value == pytest.approx(np.mean(ridges))
    assert scores["acc1"].interval == "t over 40 episodes"
    assert 1 / 3 == scores["acc1"].chance < scores["acc1"].low
    again = dict(episodes.run(config, Bench(Encoder(None), config), test))
    assert again == scores
    other = episode_config(k="3", seed=1)
    assert dict(episodes.run(other, Bench(Encoder(None), other), test)) != scores


def test_equal_images_are_never_learnt_and_asked() -> None:
    whole = encoded((6, 6))
    doubled = whole.examples.take(np.repeat(np.arange(12), 2))
    pools = episodes._pools(doubled)
    assert [len(pool) for pool in pools] == [6, 6]
    drawn = episodes.draw(doubled, pools, [0, 1], episode_config(way=2), 2, 0)
    assert not set(doubled.hashes[drawn.support.ravel()]) & set(doubled.hashes[drawn.query.ravel()])


def test_episodes_beyond_the_set_are_refused_or_drop_classes() -> None:
    test = encoded((9, 5, 8, 9))
    with pytest.raises(UsageError, match="class 'c1' has 5 images, 3 shots and 4 queries need 7"):
        episodes.check(episode_config(), None, test.examples)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="3 classes with 7 images"):
        episodes.check(episode_config(way=4, small_classes="drop"), None, test.examples)  # type: ignore[arg-type]
    config = episode_config(small_classes="drop")
    scores = list(episodes.run(config, Bench(Encoder(None), config), test))
    assert scores[2][1].settings["n_small_classes"] == 1
    with pytest.raises(UsageError, match="--k all"):
        episodes.prepare(episode_config(k="all"))
