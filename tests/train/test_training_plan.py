"""What `--dry-run` says: every number against a closed form, the measurement against calls of known length."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from shards.core.errors import UsageError
from tests.train import runs
from train import loop, plan
from train.commands.profile import MEASURED, WARM, Forecast, Timed, timed
from train.models.ema import Ema
from train.plan import Plan, Source
from train.record.activations import Activations
from train.tasks.clip import Config, FastClipOptions

pytestmark = pytest.mark.usefixtures("micro_models", "one_thread")
MakeShards = Callable[..., str]


def dry_run(output: Path, build: str, **values: Any) -> int:
    return loop.train(runs.config("clip", build, output, dry_run=True, **values))


def test_a_plan_is_printed_and_nothing_written(make_shards: MakeShards, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build = make_shards(40)
    assert dry_run(tmp_path / "run", build, epochs=3.0, warmup=2, model="micro-vit") == 0
    captured = capsys.readouterr()
    numbers = json.loads(captured.out)
    assert (numbers["steps"], numbers["warmup"], numbers["warmup_share"]) == (8, 2, 0.25)
    assert (numbers["samples_seen"], numbers["epochs"], numbers["epoch_samples"]) == (128, 3.2, 40)
    assert (numbers["batch_size"], numbers["batch_per_process"], numbers["processes"]) == (16, 16, 1)
    assert numbers["batches_per_epoch"] == 2.5
    (source,) = numbers["sources"]
    assert (source["path"], source["samples"], source["share"], source["passes"]) == (build, 40, 1.0, 3.2)
    made, _ = runs.built("clip", build, model="micro-vit")
    count = sum(p.numel() for p in made.trained.parameters())
    buffers = sum(buffer.numel() * buffer.element_size() for buffer in made.trained.buffers())
    assert (numbers["parameters"], numbers["state_bytes"]) == (count, 16 * count + buffers)
    assert numbers["expected_seconds"] == pytest.approx(8 * 16 / numbers["samples_per_s"])
    assert (numbers["measured_steps"], numbers["warm_steps"]) == (MEASURED, WARM)
    assert 0 < numbers["samples_per_s"] < numbers["loader_samples_per_s"]
    assert numbers["activation_bytes"] > 16 * 3 * 32 * 32 * 4  # the pixels alone
    assert numbers["recipe"]["epochs"] == 3.0
    for told in ("steps      8, of which 2 warm-up (25.0%)", "batch      16; 2.50 batches to an epoch", "time       ", "speed      "):
        assert told in captured.err
    assert not (tmp_path / "run").exists()


def test_a_warm_up_that_does_not_fit_is_refused(make_shards: MakeShards, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a warm-up of 8 steps in a training of 8"):
        dry_run(tmp_path / "run", make_shards(40), epochs=3.0, warmup=8)
    assert not (tmp_path / "run").exists()


def test_the_printed_recipe_is_the_same_training(make_shards: MakeShards, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build, file = make_shards(20), tmp_path / "printed.yaml"
    assert dry_run(tmp_path / "run", build, measure=False, json=False, model="micro-vit", lr=3e-4) == 0
    captured = capsys.readouterr()
    file.write_text(captured.out)
    assert "time " not in captured.err
    printed = Config.from_flags({"config": str(file)})
    assert dataclasses.replace(printed, config="") == runs.config("clip", build, tmp_path / "run", model="micro-vit", lr=3e-4, json=False)


def plan_of(samples: int, batch_size: int, steps: int = 10) -> Plan:
    return Plan(samples, batch_size, steps, 1, 1)


def test_what_may_not_be_meant_is_warned_of() -> None:
    config = Config(manifest=("a@3", "b@1"), epochs=1.0)
    a, b = Source("a", "one", 20, 0.75, 1.0), Source("b", "two", 400, 0.25, 1.0)
    assert plan.warnings(plan_of(420, 24), config, (a, b), 16) == ()
    (told,) = plan.warnings(plan_of(420, 32), config, (a, b), None)
    assert told == "a: a batch takes 24 of its 20 samples, some more than once"
    (told,) = plan.warnings(plan_of(420, 421), config, (a, b), None)
    assert told == "a batch of 421 holds samples more than once: there are 420"
    (told,) = plan.warnings(plan_of(420, 16), config, (a, Source("c", "one", 20, 0.25, 1.0)), None)
    assert "a build is named twice" in told
    (told,) = plan.warnings(plan_of(420, 16), config, (a, b), 15)
    assert "BatchNorm's statistics are over 15 samples" in told
    (told,) = plan.warnings(plan_of(420, 16), Config(manifest=("a",), epochs=1.0, batch_size=16, steps=10), (a, b), 16)
    assert "a trial of 10 steps" in told


@pytest.mark.parametrize(
    ("steps", "values", "expected"),
    [
        (12, {}, ["a trial of 12 steps: neither its length nor its warm-up of 1 is the recipe's"]),
        (13, {}, []),
        (40, {}, ["--steps 40 is more than the budget's 13: the budget decides"]),
        (13, {"warmup": 9}, ["--steps cuts the warm-up of 9 steps to 6"]),
    ],
)
def test_a_trial_is_told_by_what_it_changes(steps: int, values: dict[str, Any], expected: list[str]) -> None:
    config = Config(manifest=("a",), samples_seen=13 * 16, batch_size=16, steps=steps, **values)
    made = plan.make_plan(config, 400)
    assert list(plan.warnings(made, config, (), None)) == expected


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"cooldown": 3}, "--cooldown 3 has no effect with --schedule cosine"),
        ({"lr_every": 3}, "--lr-every 3 has no effect with --schedule cosine"),
        ({"lr_every_epochs": 1.5}, "--lr-every-epochs 1.5 has no effect with --schedule cosine"),
        ({"lr_floor": 1e-5, "schedule": "constant"}, "--lr-floor 1e-05 has no effect with --schedule constant"),
        ({"momentum": 0.8}, "--momentum 0.8 has no effect with --optimizer adamw"),
        ({"beta1": 0.8, "optimizer": "sgd"}, "--beta1 0.8 has no effect with --optimizer sgd"),
        ({"beta2": 0.98, "optimizer": "lars"}, "--beta2 0.98 has no effect with --optimizer lars"),
        ({"eval_every": 5}, "--eval-every 5 has no effect with no --eval-data"),
        ({"fastclip": FastClipOptions(rho=7.0)}, "fastclip (options) has no effect with --loss clip"),
    ],
)
def test_an_option_without_effect_is_warned_of(values: dict[str, Any], told: str) -> None:
    assert plan.warnings(plan_of(420, 16), Config(manifest=("a",), epochs=1.0, **values), (), None) == (told,)


@pytest.mark.parametrize(
    "values",
    [
        {"cooldown": 3, "schedule": "constant_cooldown", "lr_floor": 1e-5},
        {"lr_every": 3, "lr_every_epochs": 1.5, "schedule": "step"},
        {"momentum": 0.8, "optimizer": "sgd"},
        {"beta1": 0.8, "beta2": 0.9},
        {"beta1": 0.8, "optimizer": "sgd", "loss": "fastclip", "fastclip": FastClipOptions(rho=7.0)},
        {"eval_every": 5, "eval_data": ("x",)},
        {"optimizer": "lars"},
    ],
)
def test_an_option_with_effect_is_not_warned_of(values: dict[str, Any]) -> None:
    assert plan.warnings(plan_of(420, 16), Config(manifest=("a",), epochs=1.0, **values), (), None) == ()


def test_noise_stands_in_the_preflight(make_shards: MakeShards, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build = make_shards(20)
    dry_run(tmp_path / "run", build, measure=False, noise={"captions": 0.25, "seed": 3})
    assert "noise      25.0% of captions and 0.0% of labels are made wrong (seed 3)" in capsys.readouterr().err
    dry_run(tmp_path / "run", build, measure=False)
    assert "noise   " not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("task", "values", "told"),
    [
        ("clip", {"noise": {"labels": 0.1}}, "noise.labels 0.1 with train clip, which reads no labels"),
        ("supervised", {"noise": {"captions": 0.1}}, "noise.captions 0.1 with train supervised, which reads no captions"),
        ("simclr", {"captions": "sampled"}, "--captions sampled with train simclr, which reads no captions"),
    ],
)
def test_noise_and_captions_that_a_task_does_not_read_are_refused(
    task: str, values: dict[str, Any], told: str, make_shards: MakeShards, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=told):
        loop.train(runs.config(task, make_shards(20, classes=True), tmp_path / "run", dry_run=True, measure=False, **values))


def test_state_is_counted_by_the_byte() -> None:
    """A matrix of 6 and a bias of 3; BatchNorm's 3 + 3 weights, 3 + 3 running numbers of 4 bytes and a counter of 8."""
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    assert plan.state_bytes(module, "adamw", None) == 15 * 16 + 6 * 4 + 8
    assert plan.state_bytes(module, "sgd", None) == 15 * 12 + 6 * 4 + 8
    assert plan.state_bytes(module, "lars", Ema(module, 0.9)) == 15 * 12 + 6 * 4 + 8 + 15 * 4 + 6 * 4 + 8
    module[0].requires_grad_(False)
    assert plan.state_bytes(module, "adamw", None) == 6 * 16 + 9 * 4 + 6 * 4 + 8


def test_activations_are_what_autograd_keeps() -> None:
    """Both matrices' inputs are kept; ReLU's result is the second one's input and counts once."""
    module = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    counted = Activations(module)
    with counted:
        loss = module(torch.ones(8, 16)).sum()
        assert counted.now == counted.peak == 4 * (8 * 16 + 8 * 32)
        loss.backward()
        assert counted.now == 0
        module(torch.ones(3, 16)).sum().backward()  # a smaller pass after it changes no peak
    assert counted.peak == 4 * (8 * 16 + 8 * 32)
    module(torch.ones(80, 16)).sum().backward()
    assert counted.peak == 4 * (8 * 16 + 8 * 32)


def test_parts_of_a_batch_keep_less(make_shards: MakeShards) -> None:
    peaks = []
    for accum in (1, 4):
        made, batch = runs.built("clip", make_shards(20), model="micro-vit", accum=accum)
        with Activations(made.trained) as counted:
            loop.take_step(made, made.module().train(), batch)
        assert counted.now == 0
        peaks.append(counted.peak)
    assert peaks[1] < 0.4 * peaks[0]


@pytest.mark.parametrize(
    ("budget", "calls", "warm", "called"),
    [(float("inf"), MEASURED, WARM, MEASURED + WARM), (0.015, 1, 0, 1), (0.025, 1, 1, 2), (0.085, 5, WARM, 8)],
)
def test_a_measurement_keeps_to_its_budget(budget: float, calls: int, warm: int, called: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call takes 10 ms of a clock that only calls move."""
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    def call() -> None:
        clock[0] += 0.01

    result = timed(call, runs.CPU, budget)
    assert (result.calls, result.warm) == (calls, warm)
    assert result.seconds == pytest.approx(0.01)
    assert clock[0] == pytest.approx(0.01 * called)


def test_a_forecast_is_steps_times_seconds() -> None:
    told = Forecast(Timed(0.5, 12, 3), Timed(90.0, 1, 0), 64, 40, activation_bytes=3 * 2**30, peak_bytes=None)
    assert told.seconds == 3600
    assert told.text().splitlines() == [
        "measured   3.00 GiB of activations, kept for the backward pass, in each process",
        "speed      128 samples/s from the loader alone, 0.71 with the model (1 step after 0 to warm up)",
        "time       1 h 0 min for 40 steps, without evaluations and checkpoints",
    ]
