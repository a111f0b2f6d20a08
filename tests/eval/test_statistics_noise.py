"""How large a difference a study sees: by simulation of the study, and from results with planted spreads."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import nct, t

from eval import predictions, results
from eval.cli import main
from eval.predictions import Predictions
from eval.results import Row
from eval.statistics.levels import crossed_interval
from eval.statistics.planning import Plan, detectable
from eval.statistics.proportions import detectable_paired

PLAN = Plan(500, 0.7, 0.2, 3, 1, 1, {"draw": 0.02})


def test_without_units_it_is_mcnemars_difference() -> None:
    assert detectable(replace(PLAN, draws=1)) == detectable_paired(0.2, 500)


def test_with_images_without_end_it_is_the_t_tests() -> None:
    found = detectable(replace(PLAN, images=10**9, draws=4))
    shift = found / (2 * 0.02**2 / 4) ** 0.5
    bound = t.ppf(0.975, 3)
    assert nct.sf(bound, 3, shift) + np.nan_to_num(nct.cdf(-bound, 3, shift)) == pytest.approx(0.8, abs=1e-6)


def test_the_topmost_level_with_two_units_counts() -> None:
    deviations = {"draw": 0.03, "train_seed": 0.02, "shots": 0.01}
    plan = replace(PLAN, draws=1, train_seeds=3, shots=5, deviations=deviations)
    assert plan.units == ("train_seed", 3)
    assert plan.variance_of_unit() == pytest.approx(0.02**2 + 0.01**2 / 5)
    assert replace(plan, draws=2).variance_of_unit() == pytest.approx(0.03**2 + (0.02**2 + 0.01**2 / 5) / 3)
    assert replace(plan, train_seeds=1, shots=1).units == ("images", 1)
    for units in range(2, 8):
        assert np.isfinite(detectable(replace(plan, draws=units)))


def _power(plan: Plan, difference: float, alike: float, studies: int) -> tuple[float, float]:
    """Return how often a simulated study finds a difference, and the discordance of its runs."""
    rng = np.random.default_rng(0)
    found, discordances = [], []
    for _ in range(studies):
        difficulty, own = rng.random(plan.images), rng.random(plan.images)
        other = np.where(rng.random(plan.images) < alike, difficulty, own)
        shifts = rng.normal(0, plan.deviations["draw"], (2, plan.draws, 1))
        first = difficulty < plan.accuracy + shifts[0]
        second = other < plan.accuracy - difference + shifts[1]
        interval = crossed_interval(first.astype(float) - second, bounds=(-1.0, 1.0))
        found.append(interval.low > 0 or interval.high < 0)
        discordances.append((first != second).mean())
    return float(np.mean(found)), float(np.mean(discordances))


@pytest.mark.parametrize("studies", [300, pytest.param(3000, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("draws", "deviation"), [(3, 0.02), (5, 0.01)])
def test_a_simulated_study_finds_it_four_times_in_five(draws: int, deviation: float, studies: int) -> None:
    plan = replace(PLAN, draws=draws, deviations={"draw": deviation})
    _, discordance = _power(plan, 0.06, 0.6, 50)
    plan = replace(plan, discordance=discordance)
    power, _ = _power(plan, detectable(plan), 0.6, studies)
    assert power == pytest.approx(0.8, abs=0.07)


def _row(name: str, draw: int, seed: int, runs: tuple[float, ...], kept: tuple[str, ...] = ()) -> Row:
    return Row(
        name=name, data="pets", protocol="probe", metric="acc1", main=True, value=float(np.mean(runs)), low=None, high=None, interval="",
        k=5, n=400, n_undecodable=0, n_classes=37, runs=runs, checkpoint=f"{name}{draw}{seed}", step=0, samples_seen=0,
        manifests=({"digest": f"{draw}"},), train_config="", dataset="d", classes="c", config="e", predictions=kept,
        labels={"source": name, "draw": draw, "train_seed": seed},
    )  # fmt: skip


def test_spreads_and_discordance_come_from_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    path = str(tmp_path / "results.jsonl")
    answers = {name: rng.random(400) < 0.6 for name in ("a", "b")}
    digests = {}
    for name, right in answers.items():
        kept = Predictions(
            np.array([b"%032d" % i for i in range(400)]), np.zeros(400, int), (~right).astype(int), np.zeros((400, 2), np.float32)
        )
        digests[name] = predictions.write(path, kept)
    rows = []
    for name in ("a", "b"):
        for draw in range(40):
            base = 0.6 + rng.normal(0, 0.04)
            for seed in range(3):
                trained = base + rng.normal(0, 0.02)
                kept = (digests[name],) * 4 if draw == seed == 0 else ()
                rows.append(_row(name, draw, seed, tuple(float(trained + rng.normal(0, 0.01)) for _ in range(4)), kept))
    results.append(path, rows)
    assert main(["noise", path, "--draws", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    planted = {"draw": 0.04, "train_seed": 0.02, "shots": 0.01}
    assert found["plan"]["deviations"] == pytest.approx(planted, rel=0.2)
    assert found["estimates"]["freedom"] == {"draw": 78, "train_seed": 160, "shots": 720}
    assert found["plan"]["images"] == 400
    assert found["plan"]["discordance"] == pytest.approx((answers["a"] != answers["b"]).mean())
    plan = Plan(**found["plan"])
    assert found["detectable"][2] == {
        "varied": "data draw",
        "draws": 3,
        "seeds": 1,
        "shots": 1,
        "detectable": pytest.approx(detectable(plan)),
    }


def test_plans_that_cannot_be_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["noise", "--images", "500"]) == 2
    assert "--classes" in capsys.readouterr().err
    assert main(["noise", "--images", "500", "--classes", "10", "--accuracy", "0.9", "--discordance", "0.5"]) == 2
    assert "at most 0.2" in capsys.readouterr().err
    assert main(["noise", "--images", "500", "--classes", "10", "--accuracy", "0.1"]) == 0
    assert "not above chance" in capsys.readouterr().err
    assert main(["noise", "--images", "500", "--classes", "10", "--draws", "0"]) == 2
