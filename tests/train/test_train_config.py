"""The configuration of a training: flags over file over defaults, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from shards.core.errors import UsageError
from train.config import RECIPES, TrainConfig


def config(**values: Any) -> TrainConfig:
    return TrainConfig.from_flags({"manifest": ("a",), "output": "out", "epochs": 1.0, **values})


def test_flags_override_the_file_even_with_the_default(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("manifest: [x@2]\noutput: there\nlr: 0.5\nseed: 7\nepochs: 3\naugment: {flip: 0.5}\n")
    got = TrainConfig.from_flags({"config": str(file), "seed": 0, "model": "RN101"})
    assert (got.lr, got.seed, got.model, got.epochs, got.augment.flip) == (0.5, 0, "RN101", 3.0, 0.5)
    assert got.sources() == [("x", 2.0)]


def test_a_budget_on_the_command_line_replaces_the_files(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("manifest: [x]\noutput: there\nepochs: 3\nwarmup: 5\n")
    got = TrainConfig.from_flags({"config": str(file), "samples_seen": 100, "warmup_samples": 10})
    assert (got.epochs, got.samples_seen, got.warmup, got.warmup_samples) == (None, 100, None, 10)
    got.check()


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    before = config(lr=1e-4, samples=10, grad_clip=1.0)
    file = tmp_path / "config.yaml"
    file.write_text(before.to_yaml())
    assert TrainConfig.from_flags({"config": str(file)}) == dataclasses.replace(before, config=str(file))


@pytest.mark.parametrize("name", sorted(p.stem for p in RECIPES.glob("*.yaml")))
def test_recipes_are_complete_but_for_the_data(name: str) -> None:
    TrainConfig.from_flags({"config": name, "manifest": ("a",), "output": "out"}).check()


def test_the_published_recipe_has_the_published_numbers() -> None:
    got = TrainConfig.from_flags({"config": "clip-rn50-paper"})
    optimiser = (got.lr, got.beta1, got.beta2, got.eps, got.weight_decay, got.warmup)
    assert (got.model, got.batch_size, got.epochs, optimiser) == ("RN50", 1024, 16, (1e-3, 0.9, 0.999, 1e-8, 0.1, 5000))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"manifest": ()}, "no data"),
        ({"output": ""}, "no output"),
        ({"epochs": None}, "no budget"),
        ({"samples_seen": 5}, "two budgets"),
        ({"warmup": 1, "warmup_samples": 1}, "two warm-ups"),
        ({"batch_size": 0}, "batch_size: 0"),
        ({"epochs": -1.0}, "epochs: -1"),
    ],
)
def test_what_cannot_be_trained_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        config(**values).check()


def test_unknown_recipes_and_keys_are_refused_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        TrainConfig.from_flags({"config": "clip-rn50-papr"})
    assert "did you mean 'clip-rn50-paper'?" in str(error.value)
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump({"learning_rate": 1}))
    with pytest.raises(UsageError, match="learning_rate"):
        TrainConfig.from_flags({"config": str(tmp_path / "bad.yaml")})
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(UsageError, match="found"):
        TrainConfig.from_flags({"config": str(tmp_path / "list.yaml")})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", ("a", None)),
        ("a@2", ("a", 2.0)),
        ("a@0.25", ("a", 0.25)),
        ("me@home/x", ("me@home/x", None)),
        ("s3://b/x@1e1", ("s3://b/x", 10.0)),
    ],
)
def test_paths_with_shares(text: str, expected: tuple[str, float | None]) -> None:
    assert config(manifest=(text,)).sources() == [expected]


@pytest.mark.parametrize("text", ["a@0", "a@-1", "a@nan", "a@inf"])
def test_a_share_must_be_a_positive_number(text: str) -> None:
    with pytest.raises(UsageError, match="share"):
        config(manifest=(text,)).sources()


def test_steps_and_warmup() -> None:
    assert config(epochs=2.0, batch_size=32).steps(100) == 7  # 200 samples need 6.25 batches
    assert config(epochs=None, samples_seen=64, batch_size=32).steps(100) == 2
    assert config(epochs=0.5, batch_size=50).steps(100) == 1
    assert config(warmup_samples=65, batch_size=32).warmup_steps(100) == 3
    assert config(warmup=9).warmup_steps(10) == 9
    assert [config().warmup_steps(n) for n in (5, 100, 10**6)] == [0, 10, 2000]


def test_the_digest_ignores_where_and_how_fast() -> None:
    base = config()
    same = config(output="elsewhere", workers=3, device="cpu", manifest=("b",), log_every=1, json=True)
    assert base.digest == same.digest
    assert base.digest != config(lr=2e-3).digest
    assert base.digest != config(augment={"flip": 0.5}).digest
