"""The linear classifier: its fits against scikit-learn and torch, its choice of C, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

from eval.cli import main
from eval.datasets.base import Examples
from eval.features import Encoded
from eval.linear import choice, descent, logistic
from eval.protocols import _shots
from eval.protocols._linear import Space, fits_of
from eval.protocols.linear import Config
from shards.core.errors import UsageError
from train.optim.schedules import warmup_cosine

CLASSES = 4


def clouds(draws: int, n: int, d: int, noise: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return features (draws, n, d) around one corner per class, and labels (n,)."""
    rng = np.random.default_rng(seed)
    labels = np.sort(np.arange(n) % CLASSES)
    return rng.normal(size=(CLASSES, d))[labels] + noise * rng.normal(size=(draws, n, d)), labels


@pytest.mark.parametrize(("n", "d"), [(60, 8), (24, 40)])
def test_fits_together_are_scikit_learns_one_by_one(n: int, d: int) -> None:
    x, labels = clouds(2, n, d)
    weights = torch.ones((2, 3, n), dtype=torch.float64)
    weights[:, 2, ::3] = 0  # a fold
    c = torch.tensor([[0.01, 1.0, 10.0]] * 2, dtype=torch.float64)
    y = torch.from_numpy(np.stack([labels] * 2))
    fitted = logistic.fit(torch.from_numpy(x), y, CLASSES, weights, c, tolerance=1e-9)
    assert fitted.open == 0
    for draw in range(2):
        for fit in range(3):
            seen = weights[draw, fit].numpy() > 0
            peer = LogisticRegression(C=float(c[draw, fit]), tol=1e-10, max_iter=10_000).fit(x[draw][seen], labels[seen])
            own = fitted.weights[draw, fit].numpy()
            assert own[:-1] == pytest.approx(peer.coef_.T, abs=2e-5)
            assert own[-1] - own[-1].mean() == pytest.approx(peer.intercept_ - peer.intercept_.mean(), abs=2e-4)


def test_fewer_images_than_features_are_the_same_problem_in_fewer_columns() -> None:
    x, labels = clouds(1, 16, 50)
    space = Space.of(torch.from_numpy(x))
    inside = space.inside(torch.from_numpy(x))
    assert inside.shape == (1, 16, 16)
    assert float(inside.square().sum(-1).mean()) == pytest.approx(1)
    weights = torch.ones((1, 1, 16), dtype=torch.float64)
    fitted = logistic.fit(inside, torch.from_numpy(labels)[None], CLASSES, weights, torch.full((1, 1), 5.0).double(), tolerance=1e-9)
    new = np.random.default_rng(3).normal(size=(7, 50)).astype(np.float32)
    scale = float(space.scale)
    peer = LogisticRegression(C=5.0 / scale**2, tol=1e-10, max_iter=10_000).fit(x[0], labels)
    own = logistic.scores(fitted.weights, space.inside_of(new))[0, 0].softmax(-1).numpy()
    assert own == pytest.approx(peer.predict_proba(new), abs=1e-4)


def test_folds_choose_what_scikit_learns_folds_choose() -> None:
    x, labels = clouds(1, 40, 6, noise=2.5)
    places = torch.arange(40) % 10
    held = choice.folds(places, 1, CLASSES)
    assert held is not None
    assert held.how == "5 folds within the shots"
    features, wanted = torch.from_numpy(x), torch.from_numpy(labels)[None]
    grid = (1e-3, 1e-2, 1e-1, 1.0)
    right: list[float] = []

    def fit(c: float, weights: torch.Tensor, before: torch.Tensor | None) -> torch.Tensor:
        return logistic.fit(features, wanted, CLASSES, weights, torch.full(weights.shape[:2], c).double(), before, tolerance=1e-8).weights

    def judge(weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = logistic.scores(weights, features)
        correct = ((logits.argmax(-1) == wanted[:, None]) * (1 - held.weights)).sum((1, 2))
        right.append(float(correct))
        loss = -torch.log_softmax(logits, -1).gather(-1, wanted[:, None, :, None].expand(-1, 5, -1, -1))[..., 0]
        return correct, (loss * (1 - held.weights)).sum((1, 2))

    chosen = choice.choose(grid, held, fit, judge)
    folds = [(np.flatnonzero(places.numpy() % 5 != fold), np.flatnonzero(places.numpy() % 5 == fold)) for fold in range(5)]
    peer = [40 * cross_val_score(LogisticRegression(C=c, tol=1e-9, max_iter=5000), x[0], labels, cv=folds).mean() for c in grid]
    assert right == pytest.approx(peer)
    assert chosen.values[0] in [c for c, hits in zip(grid, peer, strict=True) if hits == max(peer)]


@pytest.mark.parametrize("solver", ["adamw", "sgd"])
def test_steps_are_torchs(solver: str) -> None:
    """One fit, and one of two together with a fold, against a layer of torch in a plain loop."""
    x, labels = clouds(2, 22, 5)
    recipe = descent.Recipe(solver, epochs=3, batch=8, weight_decay=0.01, warmup=0.25)  # type: ignore[arg-type]
    weights = torch.ones((2, 2, 22), dtype=torch.float64)
    weights[:, 1, ::4] = 0
    rates = torch.tensor([[0.05, 0.1]] * 2, dtype=torch.float64)
    y = torch.from_numpy(np.stack([labels] * 2))
    together = descent.train(torch.from_numpy(x), y, CLASSES, weights, rates, recipe, [3, 4])
    for draw, fit in ((0, 0), (1, 1)):
        layer = torch.nn.Linear(5, CLASSES).double()
        for parameter in layer.parameters():
            torch.nn.init.zeros_(parameter)
        rate = float(rates[draw, fit])
        if solver == "sgd":
            optimiser: torch.optim.Optimizer = torch.optim.SGD(layer.parameters(), lr=rate, momentum=0.9, weight_decay=0.01)
        else:
            optimiser = torch.optim.AdamW(layer.parameters(), lr=rate, weight_decay=0.01)
        step, steps = 0, 9
        assert recipe.steps(22) == steps
        for epoch in range(3):
            order = descent.order_of(3 + draw, epoch, 22)
            for first in range(0, 22, 8):
                optimiser.param_groups[0]["lr"] = warmup_cosine(step, rate, 2, steps)
                batch = [i for i in order[first : first + 8] if weights[draw, fit, i] > 0]
                loss = torch.nn.functional.cross_entropy(layer(torch.from_numpy(x[draw][batch])), torch.from_numpy(labels[batch]))
                optimiser.zero_grad()
                loss.backward()
                if solver == "adamw":
                    torch.nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
                optimiser.step()
                step += 1
        assert together[draw, fit, :-1].numpy() == pytest.approx(layer.weight.detach().numpy().T, abs=1e-8)
        assert together[draw, fit, -1].numpy() == pytest.approx(layer.bias.detach().numpy(), abs=1e-8)


def test_the_rate_is_wise_ft_s() -> None:
    rates = [warmup_cosine(step, 2.0, 4, 10) for step in range(10)]
    assert rates[:4] == [0.5, 1.0, 1.5, 2.0]
    assert rates[4] == 2.0
    assert rates[7] == pytest.approx(0.5 * 2 * (1 + np.cos(np.pi * 3 / 6)))


def test_a_warm_up_that_takes_all_steps_is_refused() -> None:
    with pytest.raises(UsageError, match="500 steps of warm-up, and 20 images × 8 epochs are 8 steps"):
        descent.Recipe("adamw", epochs=8, warmup=500).warmup_steps(20)
    assert descent.Recipe("adamw", epochs=8, warmup=0.5).warmup_steps(20) == 4


def sides(n: int = 64, d: int = 6) -> _shots.Sides:
    x, labels = clouds(2, n, d, noise=1.5)
    names = tuple(f"c{i}" for i in range(CLASSES))
    parts = []
    for side in range(2):
        examples = Examples("toy", names, tuple(map(str, range(n))), labels, lambda i, side=side: b"%d %d" % (side, i))
        parts.append(Encoded(examples, x[side].astype(np.float32), "digest"))
    return _shots.Sides(parts[0], parts[1], {})


def test_the_protocols_fit_is_scikit_learns_on_the_same_shots() -> None:
    both = sides()
    config = Config(data=("",), k="4", seeds=3, c=(2.0,))
    made = fits_of(config, both, None, 4)
    assert made.chosen.values == (2.0,) * 3
    for seed in range(3):
        chosen = both.train.examples.shots(4, seed)
        x = both.train.features[chosen].astype(float)
        scale = np.sqrt(((x - x.mean(0)) ** 2).sum(1).mean())
        peer = LogisticRegression(C=2.0 / scale**2, tol=1e-10, max_iter=10_000).fit(x, both.train.examples.labels[chosen])
        own = torch.from_numpy(made.scores[seed]).softmax(-1).numpy()
        assert own == pytest.approx(peer.predict_proba(both.test.features), abs=1e-3)
        assert np.array_equal(own.argmax(1), peer.predict(both.test.features))


def test_validation_images_choose_c_and_one_shot_has_none_to_choose_with() -> None:
    both = sides()
    config = Config(data=("",), k="1", seeds=2, c=(1e-4, 1.0, 1e4))
    made = fits_of(config, both, None, 1)
    assert (made.chosen.values, made.chosen.how) == ((1.0, 1.0), "fixed: one shot leaves none to choose with")
    by_val = fits_of(config, both, both.test, 1)  # the test set as validation data: no other C may do better there
    right = [(np.mean(s.argmax(1) == both.test.examples.labels)) for s in by_val.scores]
    for c in config.c:
        alone = fits_of(Config(data=("",), k="1", seeds=2, c=(c,)), both, None, 1)
        assert all((s.argmax(1) == both.test.examples.labels).mean() <= r for s, r in zip(alone.scores, right, strict=True))
    assert by_val.chosen.how == "validation images"


def test_linear_from_the_command_line(checkpoint_file: str, class_folders: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--data", class_folders, "--results", str(tmp_path / "r.jsonl"), "--json", "--seeds", "2", "--cache", str(tmp_path / "cache")]
    assert main(["linear", "--checkpoint", checkpoint_file, *flags, "--k", "2,all"]) == 0
    rows = json.loads(capsys.readouterr().out)
    metrics = ["acc1", "mean_per_class", "nll", "ece", "brier"]
    assert [(r["k"], r["metric"]) for r in rows] == [(k, m) for k in (2, "all") for m in metrics]
    assert rows[0]["settings"]["chosen_by"] == "2 folds within the shots"
    assert len(rows[0]["predictions"]) == 2
    assert len(rows[5]["predictions"]) == 1
    assert main(["linear", "--checkpoint", checkpoint_file, *flags, "--solver", "sgd", "--lr", "1", "--epochs", "4", "--k", "2"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["settings"]["weight_decay"] == 0
    assert main(["linear", "--checkpoint", checkpoint_file, *flags, "--solver", "adamw", "--warmup", "500", "--k", "2"]) == 2
    assert "500 steps of warm-up" in capsys.readouterr().err
