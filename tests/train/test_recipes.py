"""The recipes: each loads through its task, has the published numbers, is in the documentation, and starts on a CPU."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from shards.core import cli, recipes, registry
from shards.core.errors import UsageError
from tests.train import runs
from train.cli import commands, main
from train.commands.listing import ListConfig, headline, listed_recipes, show
from train.config import RECIPES, TrainConfig
from train.data.augment import presets
from train.data.augment.params import Augment
from train.models.towers import parse_name
from train.plan import make_plan

NAMES = recipes.names(RECIPES)
DOCUMENT = (runs.ROOT / "docs" / "training.md").read_text(encoding="utf-8")

# What the sources publish, as the comments of the recipes cite them: a value changed by accident fails here.
RESNET = {"optimizer": "adamw", "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
VIT = {"optimizer": "adamw", "beta1": 0.9, "beta2": 0.98, "eps": 1e-6}
SLIP = {"optimizer": "adamw", "beta1": 0.9, "beta2": 0.98, "eps": 1e-8, "schedule": "slip_cosine"}
SLIP_VIT = {**SLIP, "model": "timm/vit_base_patch16_224", "epochs": 25, "batch_size": 4096, "warmup_epochs": 1}
SSL_OF_SLIP = {"ssl_scale": 1.0, "ssl_temp": 0.1, "ssl_mlp_dim": 4096, "ssl_emb_dim": 256}
NT_XENT_OF_SLIP = {"temperature": 0.1, "mlp_hidden": 4096, "mlp_out": 256}
LARS = {"optimizer": "lars", "model": "torchvision/resnet50", "momentum": 0.9, "schedule": "cosine", "warmup_epochs": 10}
OF_PAPER = {"model": "RN50", "epochs": 16, "batch_size": 1024, "lr": 1e-3, "weight_decay": 0.1}
OF_OPENAI = {"epochs": 32, "batch_size": 32768, "lr": 5e-4, "warmup": 2000, "weight_decay": 0.2, "schedule": "cosine"}
SGD = {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 1e-4, "epochs": 90, "decay_rule": "all", "warmup": 0}

WISEFT = {**RESNET, "batch_size": 128, "weight_decay": 0.1, "warmup": 500, "decay_rule": "all", "grad_clip": 1.0, "schedule": "cosine"}

PUBLISHED: dict[str, dict[str, Any]] = {
    "finetune-paper": {**WISEFT, "epochs": 128, "lr": 1e-3},
    "finetune-wiseft": {**WISEFT, "epochs": 10, "batch_size": 512, "lr": 3e-5, "head": "zeroshot"},
    "clip-rn50-paper": {**RESNET, **OF_PAPER, "warmup": 5000, "schedule": "cosine"},
    "clip-rn50-openai": {**RESNET, **OF_OPENAI, "model": "RN50-quickgelu"},
    "clip-vit-b-32-openai": {**VIT, **OF_OPENAI, "model": "ViT-B-32-quickgelu"},
    "clip-rn50-openclip": {
        **RESNET, "model": "RN50", "epochs": 30, "batch_size": 1024, "lr": 1e-3, "warmup": 10000, "weight_decay": 0.1,
    },
    "clip-vit-b-32-openclip": {
        **VIT, "model": "ViT-B-32", "epochs": 32, "batch_size": 1024, "lr": 5e-4, "warmup": 10000, "weight_decay": 0.2,
    },
    "clip-vit-b-16-slip": {**SLIP_VIT, "text": "ViT-B-32", "lr": 5e-4, "weight_decay": 0.5},
    "fastclip-rn50-cc3m": {
        **RESNET, "loss": "fastclip", "model": "RN50", "epochs": 37, "batch_size": 1024, "lr": 1e-3, "warmup": 10000, "weight_decay": 0.1,
        "fastclip": {
            "version": "v3", "rho": 6.5, "eps": 1e-14, "gamma": 0.2, "gamma_epochs": 18, "gamma_schedule": "cosine",
            "temperature": 0.07, "temperature_weight": 2.0, "temperature_fall": 0.03,
        },
    },
    "siglip-vit-b-16": {
        "loss": "siglip", "model": "ViT-B-16", "optimizer": "adamw", "batch_size": 32768, "lr": 1e-3, "beta1": 0.9, "beta2": 0.95,
        "weight_decay": 0.1, "grad_clip": 1.0,
    },
    "simclr-rn50-paper": {**SLIP, **OF_PAPER, **NT_XENT_OF_SLIP, "warmup_epochs": 2},
    "simclr-rn50-lars": {
        **LARS, "epochs": 100, "batch_size": 4096, "lr": 0.3 * 4096 / 256, "weight_decay": 1e-6, "temperature": 0.1, "mlp_hidden": 2048,
        "mlp_out": 128,
    },
    "simclr-vit-b-16-slip": {**SLIP_VIT, **NT_XENT_OF_SLIP, "lr": 3.2e-3, "weight_decay": 0.1},
    "simclr-vit-b-16-mocov3": {
        **RESNET, "model": "timm/vit_base_patch16_224", "epochs": 300, "batch_size": 4096, "lr": 1.5e-4 * 4096 / 256, "weight_decay": 0.1,
        "schedule": "cosine", "warmup_epochs": 40, "frozen_patch_embed": True, "sincos": True, "temperature": 0.2, "mlp_hidden": 4096,
        "mlp_out": 256,
    },
    "slip-vit-b-16": {**SLIP_VIT, **SSL_OF_SLIP, "text": "ViT-B-32", "lr": 3e-3, "weight_decay": 0.1},
    "slip-rn50": {**SLIP, **OF_PAPER, **SSL_OF_SLIP, "warmup_epochs": 2},
    "supervised-rn50": {
        **SGD, "model": "torchvision/resnet50", "batch_size": 256, "lr": 0.1, "schedule": "step", "lr_every_epochs": 30, "smoothing": 0.0,
    },
    "supervised-rn50-paper": {**SGD, "model": "RN50", "batch_size": 64, "lr": 0.05, "schedule": "cosine"},
    "supervised-vit-b-16-augreg": {
        **RESNET, "model": "timm/vit_base_patch16_224", "epochs": 300, "batch_size": 4096, "lr": 1e-3, "weight_decay": 0.1,
        "schedule": "cosine", "warmup": 10000, "grad_clip": 1.0, "mix": {"mixup": 0.5, "cutmix": 0.0, "mix_p": 1.0, "cutmix_p": 0.5},
    },
    "byol-rn50": {
        **LARS, "epochs": 1000, "batch_size": 4096, "lr": 0.2 * 4096 / 256, "weight_decay": 1.5e-6, "teacher_momentum": 0.996,
        "mlp_hidden": 4096, "mlp_out": 256,
    },
}  # fmt: skip

# Of which preset an augmentation is.
AUGMENTED: dict[str, dict[str, str]] = {
    "clip-rn50-paper": {"augment": "paper"},
    "finetune-paper": {"augment": "finetune-paper"},
    "finetune-wiseft": {"augment": "openclip"},
    "clip-rn50-openai": {"augment": "openclip"},
    "clip-vit-b-32-openai": {"augment": "openclip"},
    "clip-rn50-openclip": {"augment": "openclip"},
    "clip-vit-b-32-openclip": {"augment": "openclip"},
    "clip-vit-b-16-slip": {"augment": "slip"},
    "fastclip-rn50-cc3m": {"augment": "openclip"},
    "simclr-rn50-paper": {"augment": "simclr"},
    "simclr-rn50-lars": {"augment": "simclr-strong"},
    "simclr-vit-b-16-slip": {"augment": "simclr"},
    "slip-vit-b-16": {"augment": "slip", "augment_ssl": "simclr"},
    "slip-rn50": {"augment": "slip", "augment_ssl": "simclr"},
    "supervised-rn50": {"augment": "supervised"},
    "supervised-rn50-paper": {"augment": "supervised"},
    "supervised-vit-b-16-augreg": {"augment": "augreg-medium2"},
    "byol-rn50": {"augment": "byol-1", "augment_second": "byol-2"},
}


def written(name: str) -> dict[str, Any]:
    """Return the keys and values of a recipe's file."""
    return dict(yaml.safe_load((RECIPES / f"{name}.yaml").read_text(encoding="utf-8")))


def loaded(name: str, **flags: Any) -> TrainConfig:
    """Return a recipe's configuration, through its own task."""
    task = written(name)["task"]
    module: Any = registry.get("train.tasks", task)
    trunk = {"model": "RN50"} if task == "finetune" else {}  # what is tuned is the user's, as the data are
    return module.Config.from_flags({"config": name, "manifest": ("a",), "output": "out", **trunk, **flags})


def plain(value: Any) -> Any:
    """Return a nested configuration as a dict, anything else as it is."""
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_loads_through_its_task_and_is_complete_but_for_the_data(name: str) -> None:
    config = loaded(name)
    config.check()
    parse_name(config.model)
    fields = {field.name for field in dataclasses.fields(config)}
    assert set(written(name)) - {"task"} <= fields
    assert (config.precision == "fp32") == name.endswith("-tiny-cpu")


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_begins_with_a_headline_and_its_source_and_then_its_task(name: str) -> None:
    lines = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    comments = [line for line in lines if line.startswith("#")]
    assert lines[: len(comments)] == comments  # first all comments, then the keys
    assert lines[len(comments)].startswith("task: ")
    text = " ".join(comments)
    has_commit = re.search(r"\b[0-9a-f]{7}\b", text) is not None
    assert has_commit or "No published source" in text
    assert len(headline(RECIPES / f"{name}.yaml")) >= 40


def test_a_recipe_of_another_task_is_refused_and_says_which_command_takes_it() -> None:
    module: Any = registry.get("train.tasks", "simclr")
    with pytest.raises(UsageError, match="a recipe of the task 'clip'"):
        module.Config.from_flags({"config": "clip-rn50-paper"})


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_published_recipes_have_the_published_numbers(name: str) -> None:
    config = loaded(name)
    different = {
        key: plain(getattr(config, key)) for key, value in PUBLISHED[name].items() if not is_same(plain(getattr(config, key)), value)
    }
    assert different == {}


def is_same(value: Any, expected: Any) -> bool:
    """Return whether a recipe's value is the published one; a learning rate may be a product of floats."""
    if isinstance(expected, int | float) and not isinstance(expected, bool):
        return isinstance(value, int | float) and math.isclose(value, expected, rel_tol=1e-12)
    return bool(value == expected)


@pytest.mark.parametrize("name", sorted(AUGMENTED))
def test_published_recipes_have_the_published_augmentation(name: str) -> None:
    config = loaded(name)
    assert {key: getattr(config, key) for key in AUGMENTED[name]} == {key: presets.preset(p) for key, p in AUGMENTED[name].items()}


def test_augmentations_that_are_no_preset() -> None:
    # SigLIP: big_vision's value_range(-1, 1). MoCo-v3: its own ColorJitter(0.4, 0.4, 0.2, 0.1).
    half = (0.5, 0.5, 0.5)
    assert loaded("siglip-vit-b-16").augment == dataclasses.replace(presets.preset("openclip"), mean=half, std=half)
    jitter = (0.4, 0.4, 0.2, 0.1)
    assert loaded("simclr-vit-b-16-mocov3").augment == dataclasses.replace(presets.preset("simclr"), color_jitter=jitter)
    assert isinstance(loaded("slip-rn50").augment, Augment)


def test_every_recipe_is_held_by_the_tables_above() -> None:
    tiny = {name for name in NAMES if name.endswith("-tiny-cpu")}
    assert {name.removesuffix("-tiny-cpu") for name in tiny} == set(runs.TASKS)
    assert set(NAMES) == set(PUBLISHED) | tiny
    assert set(PUBLISHED) == set(AUGMENTED) | {"siglip-vit-b-16", "simclr-vit-b-16-mocov3"}


@pytest.mark.parametrize(
    ("name", "samples", "steps", "warmup"),
    [
        ("clip-rn50-paper", 2_700_000, 42_188, 5_000),  # 2.7 M · 16 / 1024
        ("simclr-rn50-paper", 2_700_000, 42_188, 5_274),  # 2 of 16 epochs: 5,273.4 steps
        ("slip-vit-b-16", 14_689_580, 89_659, 3_587),  # YFCC15M as SLIP has it; one of 25 epochs
        ("fastclip-rn50-cc3m", 2_723_840, 98_420, 10_000),  # 2,660 batches an epoch, as the script's sample count says
        ("supervised-rn50", 1_281_167, 450_411, 0),  # three times the steps between two falls, less the rounding
        ("byol-rn50", 1_281_167, 312_785, 3_128),
    ],
)
def test_budgets_on_the_published_data(name: str, samples: int, steps: int, warmup: int) -> None:
    plan = make_plan(loaded(name), samples)
    assert (plan.steps, plan.warmup) == (steps, warmup)


def test_the_step_schedule_falls_after_30_and_60_of_90_epochs_of_imagenet() -> None:
    config = loaded("supervised-rn50")
    assert config.fall_steps(1_281_167) == math.ceil(30 * 1_281_167 / 256) == 150_137
    assert (config.steps_of(1_281_167) - 1) // config.fall_steps(1_281_167) == 2  # two falls


def test_the_list_names_every_recipe_with_its_task_and_headline(capsys: pytest.CaptureFixture[str]) -> None:
    assert show(ListConfig(json=True)) == 0
    printed = json.loads(capsys.readouterr().out)
    assert {row["name"]: row["task"] for row in printed["recipes"]} == {name: written(name)["task"] for name in NAMES}
    assert [row["name"] for row in printed["tasks"]] == sorted((*runs.TASKS, "finetune"))
    assert show(ListConfig("recipes")) == 0
    text = capsys.readouterr().out
    first = (RECIPES / "byol-rn50.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert first.removeprefix("# ") in text
    assert "Train BYOL" not in text


def test_the_list_of_a_folder_with_a_recipe_without_comment(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("task: clip\nlr: 1.0\n")
    assert listed_recipes(tmp_path) == [{"name": "own", "task": "clip", "about": ""}]


def test_the_document_names_every_recipe_and_no_other() -> None:
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| ([a-z]+) \|", DOCUMENT, re.MULTILINE)
    assert dict(rows) == {name: written(name)["task"] for name in NAMES}


def document_commands() -> list[list[str]]:
    """Return the `train` commands of the document, as lists of arguments."""
    lines: list[str] = []
    for block in re.findall(r"^```(?:sh|console)\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL):
        joined = block.replace("\\\n", " ").splitlines()
        lines += [line.removeprefix("$ ") for line in joined]
    words = [shlex.split(line, comments=True) for line in lines]
    found = [line[line.index("train") + 1 :] for line in words if "train" in line]
    return [line for line in found if line and line[0] in commands()]


def test_the_documents_commands_are_accepted() -> None:
    verbs = commands()
    lines = document_commands()
    assert len(lines) >= 5
    for line in lines:
        cli.parse(f"train {line[0]}", verbs[line[0]], line[1:])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_starts_on_a_cpu(
    name: str, make_shards: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Models and images are the recipe's. A batch of 4: ResNet-50 at 224 px takes 1 CPU-second a sample. fp32: a CPU without bfloat16
    # instructions emulates them, which took more than four times as long.
    build = make_shards(512, per_shard=256, classes=True, width=64, height=64)
    arguments = [written(name)["task"], "--config", name, "--manifest", build, "--output", str(tmp_path / "run")]
    if written(name)["task"] == "finetune":
        arguments += ["--model", "tiny-rn-64", "--head", "normal"]  # what is tuned is the user's; from scratch there is no text
    arguments += ["--samples", "512", "--steps", "3", "--batch-size", "4", "--precision", "fp32"]
    arguments += ["--device", "cpu", "--workers", "1", "--loader", "threads", "--no-tensorboard", "--log-every", "1", "--json"]
    assert main(arguments) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["steps"] == 3
    losses = [line["loss"] for line in runs.lines(tmp_path / "run")]
    assert len(losses) == 3
    assert all(math.isfinite(loss) for loss in losses)
