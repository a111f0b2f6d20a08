"""Fine-tuning: the trunk's own terms, its heads, what trains, and the loop against a plain one written by wise-ft's definition."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from shards.core.errors import UsageError
from tests.train import runs
from tests.train.runs import CPU, state, tensors
from train import loop, run
from train.data.augment.photometric import Photometric
from train.models.load import load_checkpoint
from train.models.zeroshot import class_weights, logit_scale
from train.tasks import finetune

pytestmark = pytest.mark.usefixtures("micro_models", "one_thread")
MakeShards = Callable[..., str]


@pytest.fixture
def trunk(make_shards: MakeShards, tmp_path: Path) -> Path:
    """A CLIP of two epochs, with a mean of its own."""
    out = tmp_path / "trunk"
    values: dict[str, Any] = {"augment": {"preset": "openclip", "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]}}
    assert loop.train(runs.config("clip", make_shards(32, classes=True), out, **values)) == 0
    return out


def config(trunk: Path | str, build: str, output: Path, **values: Any) -> Any:
    trunk_flags = {"from": str(trunk)} if trunk else {}
    return runs.config("finetune", build, output, **{"model": "", "epochs": 2.0, **trunk_flags, **values})


def test_model_size_mean_and_std_are_the_trunks(trunk: Path, make_shards: MakeShards, tmp_path: Path) -> None:
    tuned = config(trunk, "a", tmp_path)
    assert (tuned.model, tuned.augment.mean, tuned.augment.std) == ("micro-rn", (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    assert tuned.augment.flip == 0.5
    with pytest.raises(UsageError, match=r"--model micro-vit: .* is micro-rn"):
        config(trunk, "a", tmp_path, model="micro-vit")
    with pytest.raises(UsageError, match=r"augment.mean .* was trained with"):
        config(trunk, "a", tmp_path, augment={"preset": "finetune", "mean": [0.5, 0.5, 0.5]})
    assert config(trunk, "a", tmp_path, augment={"preset": "finetune", "mean": [0.4, 0.5, 0.6]}).augment.mean == (0.4, 0.5, 0.6)
    with pytest.raises(UsageError, match="no trunk"):
        config("", "a", tmp_path).check()
    assert runs.config("finetune", "a", tmp_path, epochs=None).epochs == 128


def test_a_zero_shot_head_is_the_text_towers(trunk: Path, make_shards: MakeShards, tmp_path: Path) -> None:
    build = make_shards(32, classes=True)
    made = run.build(config(trunk, build, tmp_path), CPU)
    loaded = load_checkpoint(str(trunk))
    classes = made.task.classes
    rows = class_weights(loaded, classes, finetune.TEMPLATES) * logit_scale(loaded.model)
    assert torch.equal(made.task.heads["classifier"].weight, rows)
    assert made.task.unit_features
    images = torch.randn((4, 3, 32, 32))
    made.task.model.eval()
    with torch.no_grad():
        ours = finetune.logits(made.task.model, made.task.heads["classifier"], images, unit_features=True)
        theirs = logit_scale(loaded.model) * loaded.embed_images(images) @ class_weights(loaded, classes, finetune.TEMPLATES).T
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_the_loop_is_wise_fts(trunk: Path, make_shards: MakeShards, tmp_path: Path) -> None:
    """AdamW on all weights, gradients clipped at 1, linear warm-up and cosine by step, cross entropy of a head on unit features."""
    build = make_shards(32, classes=True)
    tuned = config(trunk, build, tmp_path, lr=1e-3, warmup=1, decay_rule="all", eps=1e-3)  # a large eps: Adam makes steps of rounding
    made = run.build(tuned, CPU)
    encoder, head = made.task.model.train(), made.task.heads["classifier"]
    parameters = [*encoder.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=tuned.lr, betas=(0.9, 0.999), eps=1e-3, weight_decay=0.1)
    photometric, steps = Photometric(tuned.augment), made.plan.steps
    assert steps == 4
    with contextlib.closing(made.loader.batches(0)) as batches:  # type: ignore[type-var]
        for batch in batches:
            at = batch.step
            lr = tuned.lr * (at + 1) / 1 if at < 1 else tuned.lr * 0.5 * (1 + math.cos(math.pi * (at - 1) / (steps - 1)))
            for group in optimizer.param_groups:
                group["lr"] = lr
            images = photometric(batch.views[0].images, batch.views[0].params).contiguous(memory_format=torch.channels_last)
            assert batch.labels is not None
            F.cross_entropy(head(F.normalize(encoder(images), dim=-1)), batch.labels).backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            if at + 1 == steps:
                break
    fitted = loop.fit(tuned)
    for name, value in fitted.task.model.state_dict().items():
        assert torch.allclose(value, encoder.state_dict()[name], atol=2e-5), name
    assert torch.allclose(fitted.task.heads["classifier"].weight, head.weight, atol=2e-5)


@pytest.mark.parametrize("tune", ["all", "head"])
def test_fit_and_train_end_with_the_same_weights(tune: str, trunk: Path, make_shards: MakeShards, tmp_path: Path) -> None:
    """With images kept decoded and without; what is kept decides nothing."""
    build, out = make_shards(32, classes=True), tmp_path / "tuned"
    assert loop.train(config(trunk, build, out, tune=tune, keep_decoded=0.0)) == 0
    fitted = loop.fit(config(trunk, build, tmp_path / "none", tune=tune, keep_decoded=1.0))
    saved = tensors(out)
    ours = {f"model.{name}": value for name, value in fitted.task.model.state_dict().items()}
    assert all(torch.equal(saved[name], value) for name, value in ours.items())
    assert torch.equal(saved["heads.classifier.weight"], fitted.task.heads["classifier"].weight)
    assert not (tmp_path / "none").exists()
    before = load_checkpoint(str(trunk)).model.visual.state_dict()
    unchanged = all(torch.equal(saved[f"model.visual.{name}"], value) for name, value in before.items())
    assert unchanged is (tune == "head")  # running statistics, too


def test_lp_then_ft_starts_from_the_probes_head(trunk: Path, make_shards: MakeShards, tmp_path: Path) -> None:
    build, probe, tuned = make_shards(32, classes=True), tmp_path / "lp", tmp_path / "lpft"
    assert loop.train(config(trunk, build, probe, tune="head", head="normal", lr=3e-3)) == 0
    made = run.build(config(probe, build, tuned), CPU)
    assert isinstance(made.task, finetune.FinetuneTask)
    assert made.task.head_kind == "checkpoint"
    assert torch.equal(made.task.heads["classifier"].weight, tensors(probe)["heads.classifier.weight"])
    parent = made.parent
    assert parent is not None
    assert parent["task"] == "finetune"
    assert parent["parent"]["task"] == "clip"  # the whole way back to the pre-training's data
    assert parent["parent"]["manifests"] == state(trunk)["manifests"]
    other = make_shards(32, classes=True, folder="other")
    manifest = Path(other, "manifest.json")
    manifest.write_text(manifest.read_text().replace(f'"{made.task.classes[0]}"', '"another name"'))
    with pytest.raises(UsageError, match=r"--head checkpoint: .* classes"):
        run.build(config(probe, other, tuned), CPU)


def test_a_checkpoint_answers_as_the_training_did(trunk: Path, make_shards: MakeShards, tmp_path: Path) -> None:
    build, out = make_shards(32, classes=True), tmp_path / "tuned"
    assert loop.train(config(trunk, build, out)) == 0
    loaded = load_checkpoint(str(out))
    assert loaded.classes == load_checkpoint(str(out)).classes == tuple(state(out)["classes"])
    assert loaded.unit_features
    images = torch.randn((4, 3, 32, 32))
    with torch.no_grad():
        expected = loaded.classifier(F.normalize(loaded.model(images), dim=-1))
        assert torch.equal(loaded.classify(images), expected)
    with pytest.raises(UsageError, match="has no classifier"):
        load_checkpoint(str(trunk)).classify(images)


@pytest.mark.parametrize(
    ("head", "what"), [("zeroshot", "no text tower"), ("checkpoint", "no classifier"), ("nonsense", "zeroshot . checkpoint")]
)
def test_heads_that_cannot_be_are_refused(head: str, what: str, make_shards: MakeShards, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=what):
        run.build(config("", make_shards(16, classes=True), tmp_path, model="micro-rn", head=head), CPU)


def test_from_scratch_is_the_control(make_shards: MakeShards, tmp_path: Path) -> None:
    out = tmp_path / "scratch"
    assert loop.train(config("", make_shards(32, classes=True), out, model="micro-rn")) == 0
    assert state(out)["parent"] is None
    assert load_checkpoint(str(out)).config["task"] == "finetune"


def test_a_warm_up_longer_than_the_training_is_refused(trunk: Path, make_shards: MakeShards, tmp_path: Path) -> None:
    """One of the published protocol's flaws: 500 steps of warm-up in trainings of 128."""
    with pytest.raises(UsageError, match="500"):
        run.build(config(trunk, make_shards(16, classes=True), tmp_path, warmup=500), CPU)
