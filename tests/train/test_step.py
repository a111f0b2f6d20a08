"""The gradient of one step: whole or in parts it is the same, and open_clip's in parts is not."""

from __future__ import annotations

import functools
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from shards.core.errors import UsageError
from tests.train import runs
from train.data.batch import Batch
from train.run import Run
from train.step import gradient, mixed, outcome_of, parts_of, seed_models, total
from train.tasks.base import Step

pytestmark = pytest.mark.usefixtures("micro_models", "one_thread")
MakeShards = Callable[..., str]
AT = Step(3, 10, 0.0)


def after_a_step(task: str, build: str, **options: Any) -> tuple[Run, dict[str, torch.Tensor], dict[str, float]]:
    """Return a training after one backward pass, its gradients and the terms of its loss."""
    made, batch = runs.built(task, build, **options)
    terms, by_sample = gradient(made.module().train(), made.trained, batch, AT, made.scaler)
    assert float(by_sample.mean()) == pytest.approx(float(terms["loss"].detach()), rel=1e-5)  # every sample has a loss here
    gradients = {name: p.grad for name, p in made.trained.named_parameters() if p.grad is not None}
    return made, gradients, {name: float(value.detach()) for name, value in terms.items()}


def difference(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """Return the norm of the difference of two gradients over the norm of the first."""
    assert ours.keys() == theirs.keys()
    apart = sum(float((ours[name] - theirs[name]).square().sum()) for name in ours)
    return (apart / sum(float(value.square().sum()) for value in ours.values())) ** 0.5


CASES = [
    ("clip", {"model": "micro-vit"}),
    ("clip", {"bn_group": 4}),
    ("clip", {"model": "micro-vit", "loss": "siglip"}),
    ("clip", {"model": "micro-vit", "loss": "fastclip"}),
    ("simclr", {"bn_group": 4}),
    ("slip", {"bn_group": 4}),
    ("byol", {"bn_group": 4}),
    ("supervised", {"bn_group": 4, "smoothing": 0.1}),
    ("supervised", {"bn_group": 4, "mix": {"mixup": 0.4, "cutmix": 1.0}}),
]


@pytest.mark.parametrize(("task", "options"), CASES)
def test_parts_give_the_gradient_of_the_whole(task: str, options: dict[str, Any], make_shards: MakeShards) -> None:
    build = make_shards(20, classes=True)
    whole, expected, terms = after_a_step(task, build, **options)
    for accum in (2, 4):
        made, gradients, in_parts = after_a_step(task, build, accum=accum, **options)
        # SLIP's ResNet has 1.3e-5 on some processors; BatchNorm over other samples would make it 1e-2 (the next test).
        assert difference(expected, gradients) < 3e-5
        assert in_parts == pytest.approx(terms, rel=1e-5)
        for name, buffer in made.trained.named_buffers():  # running statistics, FastCLIP's table
            torch.testing.assert_close(buffer, whole.trained.get_buffer(name), rtol=1e-5, atol=1e-6)
    if "model.logit_scale" in expected:
        assert abs(float(expected["model.logit_scale"])) > 1e-4
        assert float(gradients["model.logit_scale"]) == pytest.approx(float(expected["model.logit_scale"]), rel=1e-5)


def test_without_groups_batchnorm_sees_the_parts(make_shards: MakeShards) -> None:
    """The bound of the test above can be missed: this is what it would find."""
    build = make_shards(20)
    _, expected, _ = after_a_step("clip", build)
    _, in_parts, _ = after_a_step("clip", build, accum=4)
    assert difference(expected, in_parts) > 1e-2


def test_parts_make_one_update_of_plain_running_statistics(make_shards: MakeShards) -> None:
    """Twin: each part by itself, from the first statistics; one update with the mean of what they would have made."""
    build = make_shards(20)
    made, batch = runs.built("clip", build, accum=4)
    trained = made.trained.train()
    first = {name: buffer.clone() for name, buffer in trained.named_buffers() if "running" in name}
    views, ready = trained.views(batch), trained.on_host(batch)
    sums = {name: torch.zeros_like(buffer) for name, buffer in first.items()}
    for rows in parts_of(len(batch), 4):
        for name, value in first.items():
            trained.get_buffer(name).copy_(value)
        with torch.no_grad():
            trained([view[rows] for view in views], ready.part(rows), None)
        for name, total_of in sums.items():
            total_of += trained.get_buffer(name)
    after, _, _ = after_a_step("clip", build, accum=4)
    assert sums
    for name, total_of in sums.items():
        torch.testing.assert_close(after.trained.get_buffer(name), total_of / 4, rtol=1e-4, atol=1e-6)
    tracked = [buffer for name, buffer in after.trained.named_buffers() if name.endswith("num_batches_tracked")]
    assert {int(buffer) for buffer in tracked} == {1}


def test_passes_that_are_done_again_update_running_statistics_once(make_shards: MakeShards) -> None:
    build = make_shards(20, classes=True)
    options = {"model": "timm/test_resnet", "image_size": 32}
    plain, expected, _ = after_a_step("supervised", build, **options)
    again, gradients, _ = after_a_step("supervised", build, grad_checkpointing=True, **options)
    assert difference(expected, gradients) < 1e-5
    for name, buffer in plain.trained.named_buffers():
        torch.testing.assert_close(again.trained.get_buffer(name), buffer, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["micro-rn", "torchvision/resnet18"])
@pytest.mark.parametrize("task", ["clip", "simclr"])
def test_checkpointing_that_would_have_no_effect_is_refused(task: str, name: str, make_shards: MakeShards) -> None:
    with pytest.raises(UsageError, match=f"gradient checkpointing: '{name}' has none"):
        runs.built(task, make_shards(20), model=name, image_size=32, grad_checkpointing=True)


def test_views_of_one_tower_are_normalised_alike(make_shards: MakeShards) -> None:
    build = make_shards(20)
    with pytest.raises(UsageError, match="views of one tower normalised by mean"):
        runs.built("slip", build, augment="openclip")
    made, _ = runs.built("slip", build)
    stated = {"preset": "simclr", "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}
    same, batch = runs.built("slip", build, augment={"mean": [0.5] * 3, "std": [0.2] * 3}, augment_ssl=stated)
    lowest = min(float(view.min()) for view in same.trained.views(batch))
    assert lowest >= -2.5 - 1e-5
    assert not torch.equal(made.trained.photometric.mean, same.trained.photometric.mean)


@pytest.mark.slow
@pytest.mark.parametrize(("accum", "backend"), [(1, "inductor"), (2, "aot_eager")])
def test_compiled_is_the_same_gradient_in_one_graph(
    accum: int, backend: str, make_shards: MakeShards, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In parts through the backend that traces the same graphs and makes no code of them: inductor takes a minute for them."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    build = make_shards(20)
    _, expected, terms = after_a_step("clip", build, model="micro-vit", accum=accum)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    _, gradients, compiled = after_a_step("clip", build, model="micro-vit", accum=accum, compile=True)
    counters = torch._dynamo.utils.counters
    assert counters["stats"]["unique_graphs"] >= 1
    assert not counters["graph_break"]
    assert compiled == pytest.approx(terms, rel=1e-4)
    assert difference(expected, gradients) < 1e-4


def test_ids_are_cut_by_eights_before_what_is_compiled(make_shards: MakeShards) -> None:
    build = make_shards(20)
    made, batch = runs.built("clip", build, model="micro-vit")
    compiled, _ = runs.built("clip", build, model="micro-vit", compile=True)
    assert batch.tokens is not None
    longest = int(batch.tokens.argmax(dim=1).max()) + 1
    lengths = [run.trained.on_host(batch).tokens.shape[1] for run in (made, compiled)]  # type: ignore[union-attr]
    assert lengths == [longest, min(24, -(-longest // 8) * 8)]


def test_both_passes_drop_the_same_patches(make_shards: MakeShards) -> None:
    """Twin: one graph over all parts, each drawn with the part's seed."""
    build = make_shards(20)
    options = {"model": "micro-vit", "patch_dropout": 0.5, "accum": 2}
    _, gradients, terms = after_a_step("clip", build, **options)
    made, batch = runs.built("clip", build, **options)
    made.module().train()
    views = made.trained.views(batch)
    parts = []
    for number, rows in enumerate((slice(0, 8), slice(8, 16))):
        seed_models(0, AT.step, number)
        parts.append(made.trained([view[rows] for view in views], batch.part(rows), None))
    features = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    loss = outcome_of(made.task.loss(features, batch, AT), batch).terms["loss"]
    loss.backward()
    expected = {name: p.grad for name, p in made.trained.named_parameters() if p.grad is not None}
    assert terms["loss"] == pytest.approx(float(loss.detach()), rel=1e-6)
    assert difference(expected, gradients) < 1e-6
    assert difference(after_a_step("clip", build, **options, seed=1)[1], gradients) > 1e-2


class _Batches:
    """What open_clip's trainer asks of a loader."""

    def __init__(self, images: torch.Tensor, texts: torch.Tensor, parts: int) -> None:
        self.pairs = list(zip(images.chunk(parts), texts.chunk(parts), strict=True))
        self.num_batches, self.num_samples = parts, len(images)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return iter(self.pairs)


def open_clips_gradients(made: Run, batch: Batch, parts: int) -> dict[str, torch.Tensor]:
    """Return what one step of open_clip's own trainer leaves in the gradients, with --accum-freq `parts`."""
    from open_clip.loss import ClipLoss
    from open_clip_train.train import train_one_epoch

    images, tokens = made.trained.views(batch)[0], batch.tokens
    assert tokens is not None
    loader = _Batches(images, tokens.long(), parts)
    data = {"train": Namespace(dataloader=loader, set_epoch=lambda epoch: None)}
    arguments = Namespace(
        device="cpu", precision="fp32", accum_freq=parts, distill=False, skip_scheduler=True, horovod=False, grad_clip_norm=None,
        log_every_n_steps=1000, rank=0, local_rank=0, world_size=1, distributed=False, batch_size=len(images) // parts, wandb=False,
    )  # fmt: skip
    made.task.model.output_dict = True
    optimizer = torch.optim.SGD(made.task.model.parameters(), lr=0.0)
    train_one_epoch(made.task.model, data, ClipLoss(), 0, optimizer, None, None, None, arguments)
    return {f"model.{name}": p.grad for name, p in made.task.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_open_clips_logit_scale_gradient_is_too_large(parts: int, make_shards: MakeShards) -> None:
    """With `--accum-freq k` open_clip 3.3 adds the gradient of logit_scale k times; ours has it once."""
    build = make_shards(20)
    _, ours, _ = after_a_step("clip", build, model="micro-vit", accum=parts)
    theirs = open_clips_gradients(*runs.built("clip", build, model="micro-vit"), parts)
    scale_ratio = float(theirs.pop("model.logit_scale") / ours.pop("model.logit_scale"))
    assert scale_ratio == pytest.approx(parts, rel=1e-4)
    assert difference(ours, theirs) < 1e-5  # the towers' gradients are the same


def test_groups_of_text_change_nothing(make_shards: MakeShards) -> None:
    build = make_shards(20)
    _, expected, terms = after_a_step("clip", build, model="micro-vit")
    for groups in (2, 4):
        _, gradients, grouped = after_a_step("clip", build, model="micro-vit", text_groups=groups)
        assert grouped == pytest.approx(terms, rel=1e-6)
        assert difference(expected, gradients) < 1e-5


def test_checkpointing_changes_nothing(make_shards: MakeShards) -> None:
    build = make_shards(20)
    _, expected, terms = after_a_step("clip", build, model="micro-vit")
    _, gradients, again = after_a_step("clip", build, model="micro-vit", grad_checkpointing=True)
    assert again == pytest.approx(terms, rel=1e-6)
    assert difference(expected, gradients) < 1e-6


def test_terms_that_are_no_loss_are_not_minimised() -> None:
    terms = {"clip_loss": torch.tensor(2.0), "simclr_loss": torch.tensor(0.5), "acc1": torch.tensor(9.0)}
    assert float(total(terms)) == 2.5


@pytest.mark.parametrize(("n", "parts"), [(16, 4), (7, 3), (5, 1)])
def test_parts_are_all_rows_in_order(n: int, parts: int) -> None:
    rows = [list(range(n))[part] for part in parts_of(n, parts)]
    assert len(rows) == parts
    assert [row for part in rows for row in part] == list(range(n))
    assert max(map(len, rows)) - min(map(len, rows)) <= 1


def test_the_seed_of_models_depends_on_seed_step_and_part_alone() -> None:
    def drawn(*numbers: int) -> float:
        seed_models(*numbers)
        return float(torch.rand(()))

    draws = {(seed, step, part): drawn(seed, step, part) for seed in (0, 1, 2**32 - 1) for step in (0, 1, 10**6) for part in (0, 1)}
    assert len(set(draws.values())) == len(draws)
    assert all(drawn(*numbers) == value for numbers, value in draws.items())


def test_only_labelled_samples_are_scored_and_mixed(make_shards: MakeShards) -> None:
    """acc1 by a plain loop over the samples that have a label."""
    made, batch = runs.built("supervised", make_shards(20, classes=True))
    assert batch.labels is not None
    batch.labels[::3] = -1
    guesses = (batch.labels + torch.arange(16) % 2).clamp(min=0) % 4  # every second one is wrong
    logits = torch.nn.functional.one_hot(guesses, 4).float()
    terms, by_sample = outcome_of(made.task.loss({"logits": logits}, batch, AT), batch)
    right = [int(row.argmax()) == label for row, label in zip(logits, batch.labels.tolist(), strict=True) if label >= 0]
    assert 0 < sum(right) < len(right) == 10
    assert float(terms["acc1"]) == pytest.approx(sum(right) / len(right))
    assert by_sample.isnan().tolist() == [label < 0 for label in batch.labels.tolist()]
    assert float(by_sample.nanmean()) == pytest.approx(float(terms["supervised_loss"]), rel=1e-6)


def test_what_cannot_be_mixed_is_refused(make_shards: MakeShards) -> None:
    build = make_shards(20, classes=True)
    for options in ({"mix": {"mixup": 0.2}}, {"smoothing": 0.1}):
        with pytest.raises(UsageError, match="--multi-label with Mixup or label smoothing"):
            runs.built("supervised", build, multi_label=True, **options)
    made, batch = runs.built("supervised", build, mix={"mixup": 0.2})
    assert batch.labels is not None
    batch.labels[3] = -1
    with pytest.raises(Exception, match=f"sample {batch.uids[3]} has no label"):
        mixed(made.trained, made.trained.views(batch), batch)


def test_a_constant_temperature_has_no_gradient(make_shards: MakeShards, tmp_path: Path) -> None:
    """FastCLIP v1: DDP refuses a parameter that is trained and gets no gradient."""
    made, gradients, _ = after_a_step("clip", make_shards(20), model="micro-vit", loss="fastclip", fastclip={"version": "v1"})
    assert "model.logit_scale" not in gradients
    assert all(p.grad is not None for p in made.trained.parameters() if p.requires_grad)
    assert float(made.task.model.logit_scale.detach().exp()) == pytest.approx(1 / 0.07, rel=1e-6)
