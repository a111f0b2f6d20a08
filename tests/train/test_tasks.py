"""Every task: it learns, it goes on to the bit from what it saved, and it starts from another one's weights."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from shards.core.errors import UsageError
from tests.train import runs
from tests.train.runs import TASKS, lines, same_bits, state, tensors
from train import loop, run
from train.models.load import load_checkpoint
from train.tasks.base import Step

pytestmark = pytest.mark.usefixtures("micro_models", "one_thread")
MakeShards = Callable[..., str]
# Terms of the loss, whose sum it is, and what else the log shows.
TERMS = {
    "clip": ({"clip_loss"}, {"logit_scale"}),
    "simclr": ({"simclr_loss"}, set()),
    "slip": ({"clip_loss", "simclr_loss"}, {"logit_scale"}),
    "supervised": ({"supervised_loss"}, {"acc1"}),
    "byol": ({"byol_loss"}, set()),
}


@pytest.mark.parametrize("task", TASKS)
def test_it_learns_and_goes_on_to_the_bit(task: str, make_shards: MakeShards, tmp_path: Path) -> None:
    build, whole, part = make_shards(64, classes=True), tmp_path / "whole", tmp_path / "part"
    options: dict[str, Any] = {"samples_seen": 24 * 32, "batch_size": 32, "bn_group": 8, "ema": 0.9, "log_every": 1, "warmup": 2}
    assert loop.train(runs.config(task, build, whole, checkpoint_every=13, keep=9, **options)) == 0
    rows = lines(whole)
    losses, gauges = TERMS[task]
    assert {name for name in rows[0] if name.endswith("_loss")} == losses
    assert gauges <= rows[0].keys()
    for row in rows:
        assert row["loss"] == pytest.approx(sum(row[name] for name in losses), rel=1e-6)
    first, last = (sum(row["loss"] for row in some) / 4 for some in (rows[:4], rows[-4:]))
    assert last < first - 0.05
    assert state(whole)["task"] == task

    part.mkdir()
    shutil.copy(whole / "checkpoint-000000013.pt", part / "checkpoint.pt")
    assert loop.train(runs.config(task, build, part, checkpoint_every=100, accum=1, **options)) == 0
    assert same_bits(part, whole)
    averages = [state(path)["ema"] for path in (part, whole)]
    assert all(torch.equal(averages[0][name], value) for name, value in averages[1].items() if isinstance(value, torch.Tensor))
    assert [row["loss"] for row in lines(part)] == [row["loss"] for row in rows[13:]]


@pytest.mark.parametrize("task", TASKS)
def test_a_checkpoint_of_another_task_is_refused(task: str, make_shards: MakeShards, tmp_path: Path) -> None:
    build, out = make_shards(16, classes=True), tmp_path / "run"
    other = TASKS[(TASKS.index(task) + 1) % len(TASKS)]
    assert loop.train(runs.config(task, build, out, epochs=1.0)) == 0
    before = (out / "checkpoint.pt").read_bytes()
    with pytest.raises(UsageError, match=f"task: '{task}' then, '{other}' now") as error:
        loop.train(runs.config(other, build, out, epochs=1.0))
    assert "--from" in error.value.advice
    assert (out / "checkpoint.pt").read_bytes() == before


@pytest.mark.parametrize("task", TASKS)
def test_a_new_training_starts_from_the_weights_of_another_one(task: str, make_shards: MakeShards, tmp_path: Path) -> None:
    """Its image tower is the other's, the parent is recorded, and a resume keeps it."""
    build, parent, child = make_shards(16, classes=True), tmp_path / "parent", tmp_path / "child"
    loop.train(runs.config("clip", build, parent, epochs=2.0))
    options: dict[str, Any] = {"from_": str(parent), "seed": 5, "epochs": 2.0, "checkpoint_every": 1, "keep": 5}
    made = run.build(runs.config(task, build, child, **options), runs.CPU)
    started = {name: value for name, value in made.task.model.state_dict().items() if name.startswith("visual.")}
    theirs = state(parent)["state_dict"]
    assert len(started) > 20
    assert all(torch.equal(value, theirs[name]) for name, value in started.items())

    loop.train(runs.config(task, build, child, **options))
    digest = hashlib.sha256((parent / "checkpoint.pt").read_bytes()).hexdigest()
    lineage = {"task": "clip", "model": "micro-rn", "step": 2, "samples_seen": 32, "parent": None, "manifests": state(parent)["manifests"]}
    expected = {"file": "checkpoint.pt", "sha256": digest, "kind": "provender", "provenance": "recorded", **lineage}
    assert state(child)["parent"] == expected
    shutil.copy(child / "checkpoint-000000001.pt", child / "checkpoint.pt")
    ended = tensors(child, "checkpoint-000000002.pt")
    loop.train(runs.config(task, build, child, **options))
    assert state(child)["parent"] == expected
    assert all(torch.equal(value, ended[name]) for name, value in tensors(child).items())


def test_a_parent_that_the_checkpoint_does_not_have_is_refused(make_shards: MakeShards, tmp_path: Path) -> None:
    """By digest: a parent that was moved is the same one. A finished training is looked at, too."""
    build, moved = make_shards(16), tmp_path / "moved.pt"
    for name, seed in (("one", 1), ("two", 2)):
        loop.train(runs.config("clip", build, tmp_path / name, epochs=1.0, seed=seed))
    one, two = (str(tmp_path / name / "checkpoint.pt") for name in ("one", "two"))
    with pytest.raises(UsageError, match="started from fresh weights") as error:
        loop.train(runs.config("clip", build, tmp_path / "one", epochs=1.0, seed=1, from_=two))
    assert f"--from {two} (sha256 " in str(error.value)
    child = tmp_path / "child"
    loop.train(runs.config("clip", build, child, epochs=1.0, from_=one))
    digest = hashlib.sha256(Path(one).read_bytes()).hexdigest()
    with pytest.raises(UsageError, match=f"started from checkpoint.pt .sha256 {digest[:12]}"):
        loop.train(runs.config("clip", build, child, epochs=1.0, from_=two))
    shutil.copy(one, moved)
    assert loop.train(runs.config("clip", build, child, epochs=1.0, from_=str(moved))) == 0
    assert loop.train(runs.config("clip", build, child, epochs=1.0)) == 0


def test_weights_of_another_model_are_refused(make_shards: MakeShards, tmp_path: Path) -> None:
    build, parent = make_shards(16), tmp_path / "parent"
    loop.train(runs.config("clip", build, parent, epochs=1.0))
    for source, message in ((parent, "visual"), (tmp_path / "absent", "no file of weights")):
        with pytest.raises(UsageError, match=message):
            loop.train(runs.config("clip", build, tmp_path / "child", epochs=1.0, model="micro-vit", from_=str(source)))
    assert not (tmp_path / "child").exists()


@pytest.mark.parametrize("task", TASKS)
def test_a_task_says_what_it_needs(task: str, make_shards: MakeShards) -> None:
    made, batch = runs.built(task, make_shards(20, classes=True))
    views = {"clip": 1, "simclr": 2, "slip": 3, "supervised": 1, "byol": 2}[task]
    assert len(batch.views) == views
    assert (batch.tokens is None) == (task not in ("clip", "slip"))
    assert (batch.labels is None) == (task != "supervised")
    made.trained.train()
    features = made.trained(made.trained.views(batch), batch, None)
    assert all(len(feature) == 16 and feature.dtype == torch.float32 for feature in features.values())


def test_byols_teacher_is_a_plain_loop(make_shards: MakeShards, tmp_path: Path) -> None:
    """θ' ← m·θ' + (1 − m)·θ, m = 1 − (1 − 0.9)·(cos(π·k/K) + 1)/2, from the saved student of every step; the tower and the projection."""
    out = tmp_path / "run"
    options: dict[str, Any] = {"samples_seen": 5 * 16, "teacher_momentum": 0.9, "checkpoint_every": 1, "keep": 9}
    loop.train(runs.config("byol", make_shards(40), out, **options))
    made = run.build(runs.config("byol", make_shards(40), out, **options), runs.CPU)
    names = [("0.", "model.", dict(made.task.model.named_parameters()))]
    names.append(("1.", "heads.projection.", dict(made.task.heads["projection"].named_parameters())))
    saved = [tensors(out, f"checkpoint-{step:09d}.pt") for step in range(1, 6)]
    for inside, outside, parameters in names:
        for name, parameter in parameters.items():
            teacher = parameter.detach().clone()
            for step, weights in enumerate(saved):
                momentum = 1 - 0.1 * (math.cos(math.pi * step / 5) + 1) / 2
                teacher = momentum * teacher + (1 - momentum) * weights[outside + name]
            ours = saved[-1][f"heads.teacher.module.{inside}{name}"]
            torch.testing.assert_close(ours, teacher, rtol=1e-5, atol=1e-7)
    assert not torch.equal(saved[-1]["heads.teacher.module.0.visual.conv1.weight"], saved[-1]["model.visual.conv1.weight"])


def test_the_logit_scale_stays_within_clips_bounds(make_shards: MakeShards) -> None:
    made, _ = runs.built("clip", make_shards(20))
    for value, kept in ((9.0, 100.0), (-3.0, 1.0), (2.0, math.exp(2.0))):
        with torch.no_grad():
            made.task.model.logit_scale.fill_(value)
        made.task.after_step(Step(0, 1, 0.0))
        assert float(made.task.gauges()["logit_scale"]) == pytest.approx(kept, rel=1e-5)


def test_a_classifier_needs_to_know_its_classes(make_shards: MakeShards, tmp_path: Path) -> None:
    build = make_shards(20)
    with pytest.raises(UsageError) as error:
        loop.train(runs.config("supervised", build, tmp_path / "run"))
    assert error.value.allowed == "--classes N"
    with pytest.raises(UsageError, match="label"):  # the build has none at all
        loop.train(runs.config("supervised", build, tmp_path / "run", classes=4))
    labelled = make_shards(20, "labelled", classes=True)
    with pytest.raises(UsageError, match="label"):  # numbers up to 3
        loop.train(runs.config("supervised", labelled, tmp_path / "run", classes=2))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("task", ["simclr", "supervised", "byol"])
def test_towers_without_text_serve_images_alone(task: str, make_shards: MakeShards, tmp_path: Path) -> None:
    loop.train(runs.config(task, make_shards(16, classes=True), tmp_path / "run", epochs=1.0))
    loaded = load_checkpoint(str(tmp_path / "run"))
    assert not loaded.reads_text
    with torch.no_grad():
        features = loaded.embed_images(torch.rand(3, 3, 32, 32))
    torch.testing.assert_close(features.norm(dim=1), torch.ones(3))
    with pytest.raises(UsageError, match=f"was trained by {task} and reads no text"):
        loaded.embed_texts(["a red circle"])
    assert json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[0])["step"] == 1
