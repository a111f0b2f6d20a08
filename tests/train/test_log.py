"""What a training says of itself: FLOPs, waiting, spikes, norms by layer, lines of the log."""

from __future__ import annotations

import dataclasses
import json
import random
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from shards.core.errors import RunError, UsageError
from tests.train import runs
from train import loop
from train.data.batch import BadSample, Batch
from train.evaluators import is_better
from train.record import flops
from train.record.boards import numbers_of, open_boards
from train.record.gradients import SPIKE, GradientNorms, first_layer, layer_of
from train.record.log import RunLog

pytestmark = pytest.mark.usefixtures("micro_models", "one_thread")
MakeShards = Callable[..., str]


def batch(step: int, uids: tuple[str, ...] = ("a", "b"), **facts: Any) -> Batch:
    none = np.zeros(len(uids), np.int64)
    return Batch(step=step, epoch=none, sources=none, positions=none, uids=list(uids), views=(), **facts)


def a_log(output: Path, **values: Any) -> RunLog:
    output.mkdir(exist_ok=True)
    return RunLog(runs.config("clip", "none", output, log_every=1, batch_size=2, **values), 0, 100, ["none"])


NO_LOSSES = torch.zeros(2)


def transformer_flops(length: int, width: int, layers: int) -> int:
    """Return 2 FLOPs for each multiply-add of a transformer on one text or image: 12·d² weights a token, and L² scores twice."""
    return layers * (2 * length * 12 * width**2 + 2 * 2 * length**2 * width)


def test_flops_of_a_vit_are_the_closed_form(make_shards: MakeShards) -> None:
    """Patches of 8 pixels of 32: 16 and a class token, width 32, 2 blocks, 32 features; the classifier has 4 classes."""
    made, first = runs.built("supervised", make_shards(20, classes=True), model="micro-vit")
    patches = 2 * 16 * (3 * 8 * 8) * 32
    forward = patches + transformer_flops(17, 32, 2) + 2 * 32 * 32 + 2 * 32 * 4
    assert flops.flops_per_sample(made.trained, first) == 3 * forward
    assert torch.backends.mha.get_fastpath_enabled()
    assert made.trained.training


def test_flops_of_a_clip_have_its_text(make_shards: MakeShards) -> None:
    """Texts are cut behind the longest one of the whole batch, though two are counted."""
    made, first = runs.built("clip", make_shards(20), model="micro-vit")
    assert first.tokens is not None
    order = first.tokens.argmax(dim=1).argsort(stable=True)  # the two shortest are counted
    first = dataclasses.replace(first, tokens=first.tokens[order])
    length = int(first.tokens.argmax(dim=1).max()) + 1
    assert int(first.tokens[:2].argmax(dim=1).max()) + 1 < length
    image = 2 * 16 * (3 * 8 * 8) * 32 + transformer_flops(17, 32, 2) + 2 * 32 * 32
    text = transformer_flops(length, 16, 1) + 2 * 16 * 32
    assert flops.flops_per_sample(made.trained, first) == pytest.approx(3 * (image + text), rel=1e-3)


@pytest.mark.slow
def test_flops_of_convolutions_are_a_plain_loop(make_shards: MakeShards) -> None:
    made, first = runs.built("simclr", make_shards(20), mlp_hidden=8, mlp_out=4)
    counted = [0]

    def count(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            for _ in range(output.shape[2] * output.shape[3] * output.shape[1]):
                counted[0] += 2 * module.weight[0].numel()
        else:
            counted[0] += 2 * module.weight.numel()  # type: ignore[operator, union-attr]

    layers = [m for m in made.trained.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    handles = [m.register_forward_hook(count) for m in layers if "attnpool" not in str(m)]
    with torch.no_grad():
        made.trained.eval()
        made.trained([view[:1] for view in made.trained.views(first)], first.part(slice(0, 1)), None)
    for handle in handles:
        handle.remove()
    attention = made.task.model.visual.attnpool
    # Two positions, the mean and the one pixel: projections to questions, keys, values and answers, and scores twice.
    length, width = attention.positional_embedding.shape
    pooled = length * (3 * 2 * width * width + 2 * attention.c_proj.weight.numel()) + 2 * 2 * length**2 * width
    assert flops.flops_per_sample(made.trained, first) == 3 * (counted[0] + 2 * pooled)


def test_a_teacher_has_no_backward_pass(make_shards: MakeShards) -> None:
    """BYOL: student and teacher see two views each; closed form of the ViT and of the linear layers of the heads."""
    made, first = runs.built("byol", make_shards(20), model="micro-vit", mlp_hidden=8, mlp_out=4)
    tower = 2 * 16 * (3 * 8 * 8) * 32 + transformer_flops(17, 32, 2) + 2 * 32 * 32
    projection, prediction = 2 * (32 * 8 + 8 * 4), 2 * (4 * 8 + 8 * 4)
    student, teacher = 2 * (tower + projection + prediction), 2 * (tower + projection)
    assert flops.flops_per_sample(made.trained, first) == 3 * student + teacher


def test_utilisation_is_work_over_what_the_device_can_do(tmp_path: Path) -> None:
    log = a_log(tmp_path / "run")
    log.measure(3e6, 7e9)
    for step in range(3):
        log.add(batch(step), {"loss": torch.tensor(1.0)}, NO_LOSSES)
        log.write()
    log.close()
    for row in runs.lines(tmp_path / "run"):
        assert row["mfu"] == pytest.approx(row["samples_per_s"] * 3e6 / 7e9, rel=1e-12)


def test_the_peak_of_an_unknown_device_is_a_products_rate() -> None:
    peak = flops.peak_flops(runs.CPU, "fp32")
    assert 1e8 < peak < 1e14


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 NVL", "H100 NVL"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA GH200 480GB", "GH200"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA L40", "L40"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA A10G", "A10G"),
        ("NVIDIA A10", "A10"),
        ("Tesla V100-SXM2-16GB", "V100"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA RTX A1000", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None),
    ],
)
def test_a_card_is_known_by_whole_words(name: str, key: str | None) -> None:
    assert flops.stated_peak(name) == (None if key is None else flops.PEAKS[key])


@pytest.mark.parametrize(("loading", "computing"), [(0.09, 0.01), (0.01, 0.09)])
def test_waiting_is_the_loaders_share_of_time(loading: float, computing: float, tmp_path: Path) -> None:
    log = a_log(tmp_path / "run")

    def batches() -> Iterator[Batch]:
        for step in range(4):
            time.sleep(loading)
            yield batch(step)

    log.measure(1.0, 1.0)
    for made in log.timed(batches()):
        time.sleep(computing)
        log.add(made, {"loss": torch.tensor(0.0)}, NO_LOSSES)
    log.write()
    log.close()
    (row,) = runs.lines(tmp_path / "run")
    assert row["waiting"] == pytest.approx(loading / (loading + computing), abs=0.25)
    assert row["samples_per_s"] < 4 * 2 / (4 * (loading + computing))


def test_an_evaluation_is_none_of_the_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of 10 seconds, 4 of them waited for; 1,000 seconds of an evaluation and a checkpoint after each line."""
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    log = a_log(tmp_path / "run")
    log.measure(3.0, 5.0)

    def batches() -> Iterator[Batch]:
        for step in range(3):
            clock[0] += 4
            yield batch(step)

    for made in log.timed(batches()):
        clock[0] += 6
        log.add(made, {"loss": torch.tensor(0.0)}, NO_LOSSES)
        log.write()
        with log.paused(runs.CPU):
            clock[0] += 1000
    log.close()
    for row in runs.lines(tmp_path / "run"):
        assert (row["samples_per_s"], row["waiting"], row["mfu"]) == pytest.approx((0.2, 0.4, 0.2 * 3 / 5))


def test_numbers_that_json_has_not_are_null(tmp_path: Path) -> None:
    log = a_log(tmp_path / "run")
    log.add(batch(0), {"loss": torch.tensor(1.0), "grad_norm": torch.tensor(float("inf"))}, NO_LOSSES)
    log.write(more=[1.0, float("nan")], most={"a": float("-inf"), "b": 2})
    log.close()

    def refuse(name: str) -> None:
        raise AssertionError(name)

    (row,) = [json.loads(line, parse_constant=refuse) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert (row["grad_norm"], row["more"], row["most"]) == (None, [1.0, None], {"a": None, "b": 2})


def test_a_loss_that_the_scaler_skips_stops_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = a_log(tmp_path / "run")
    log.add(batch(0), {"loss": torch.tensor(float("inf"))}, NO_LOSSES)
    log.write(skips=True)
    assert "step 1: a loss that is not finite; the step is left out" in capsys.readouterr().err
    log.add(batch(1), {"loss": torch.tensor(float("inf"))}, NO_LOSSES)
    with pytest.raises(RunError, match="step 2: not a number"):
        log.write(skips=False)
    log.close()
    assert [row["loss"] for row in runs.lines(tmp_path / "run")] == [None]


@pytest.mark.parametrize(
    ("value", "best", "expected"),
    [
        (0.1, None, True),
        (0.1, 0.2, False),
        (0.3, 0.2, True),
        (float("nan"), None, False),
        (0.1, float("nan"), True),
        (float("nan"), 0.1, False),
    ],
)
def test_nan_is_never_the_best(value: float, best: float | None, expected: bool) -> None:
    assert is_better(value, {} if best is None else {"value": best}) == expected


def test_wandb_goes_on_with_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """wandb itself, offline: it names a run's folder by its id."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    ids = []
    for start in (0, 4, 0):
        (board,) = open_boards(runs.config("clip", "none", tmp_path, report_to=("wandb",)), start)
        board.add({"step": start + 1, "loss": 1.0})
        ids.append(board._package.run.id)  # type: ignore[attr-defined]
        board.close()
    assert ids[0] == ids[1] != ids[2]


def test_wandb_without_a_login_is_an_error_that_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """wandb itself, in a home without a login: it refuses before it asks any server."""
    wandb = pytest.importorskip("wandb")
    wandb.teardown()  # it keeps the settings of its first run in this process
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "WANDB_CONFIG_DIR", "NETRC"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    with pytest.raises(RunError, match=r"--report-to wandb: .*API key") as error:
        open_boards(runs.config("clip", "none", tmp_path, report_to=("wandb",)), 0)
    assert "wandb login" in error.value.advice
    assert "WANDB_MODE=offline" in error.value.advice


def test_lines_are_means_and_the_last_ones_are_kept(tmp_path: Path) -> None:
    log = a_log(tmp_path / "run")
    for step, (loss, scale) in enumerate([(1.0, 10.0), (2.0, 20.0), (6.0, 30.0)]):
        terms = {"loss": torch.tensor(loss), "logit_scale": torch.tensor(scale)}
        log.add(batch(step, replaced=step, captions=["", "a"]), terms, NO_LOSSES)
    log.write(lr=0.5)
    (row,) = runs.lines(tmp_path / "run")
    assert (row["step"], row["samples_seen"], row["loss"], row["logit_scale"], row["lr"]) == (3, 6, 3.0, 20.0, 0.5)
    assert (row["replaced"], row["empty_captions"]) == (3, 3)
    assert log.last == {"loss": 3.0, "logit_scale": 20.0}
    assert log.unusable == 6
    log.close()


def test_few_replaced_samples_are_named_and_the_rest_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = a_log(tmp_path / "run")
    for step in range(20):
        log.add(batch(step, replaced=1, bad=(BadSample(0, step, f"uid-{step}", "torn"),)), {"loss": torch.tensor(0.0)}, NO_LOSSES)
    log.write()
    log.say_counts()
    log.close()
    told = capsys.readouterr().err
    assert told.count("warning: replaced: uid-") == 5
    assert told.count("more samples; the checkpoint lists all") == 1
    assert "replaced: 20 samples that could not be decoded" in told


@pytest.mark.parametrize("name", ["loss", "clip_loss"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_losses_alone_must_be_numbers(name: str, value: float, tmp_path: Path) -> None:
    log = a_log(tmp_path / "run")
    fine = {"loss": torch.tensor(1.0), "clip_loss": torch.tensor(1.0), "grad_norm": torch.tensor(float("inf"))}
    log.add(batch(0), fine, NO_LOSSES)
    log.write()
    log.add(batch(1), fine, NO_LOSSES)
    log.add(batch(2, ("c", "d")), {**fine, name: torch.tensor(value)}, NO_LOSSES)
    with pytest.raises(RunError, match="step 3: not a number"):
        log.write()
    log.close()
    assert json.loads((tmp_path / "run" / "bad-batch.json").read_text()) == {"step": 3, "uids": ["c", "d"]}
    assert len(runs.lines(tmp_path / "run")) == 1


class _Net(nn.Module):
    """A stem, a numbered block and a head, whose gradients a test sets."""

    def __init__(self) -> None:
        super().__init__()
        self.visual = nn.Module()
        self.visual.token = nn.Parameter(torch.zeros(3))
        self.visual.conv1 = nn.Conv2d(1, 2, 3)
        self.visual.blocks = nn.ModuleList([nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))])
        self.head = nn.Linear(2, 1)

    def set(self, seed: int, factor: float = 1.0) -> None:
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            parameter.grad = factor * torch.randn(parameter.shape, generator=generator)


def test_norms_by_layer_are_plain_sums() -> None:
    net, norms = _Net(), GradientNorms()
    net.set(0)
    norms.take(net, every_layer=True)  # type: ignore[arg-type]
    row = norms.row()
    squares: dict[str, float] = {}
    for name, parameter in net.named_parameters():
        layer = "visual.blocks.0" if "blocks" in name else name.rpartition(".")[0]
        for value in parameter.grad.flatten().tolist():
            squares[layer] = squares.get(layer, 0.0) + value * value
    assert row["grad_norms"] == pytest.approx({layer: value**0.5 for layer, value in squares.items()}, rel=1e-5)
    assert row["first_layer_grad_norm"] == pytest.approx(squares["visual.conv1"] ** 0.5, rel=1e-5)
    assert row["spikes"] == 0
    assert norms.row() == {}


def test_spikes_are_counted_against_the_median_of_the_steps_before() -> None:
    net, norms = _Net(), GradientNorms()
    draw = random.Random(3)
    history: list[float] = []
    expected, counted = 0, 0
    for step in range(150):
        net.set(step, 20.0 if draw.random() < 0.1 else 1.0)
        norms.take(net, every_layer=False)  # type: ignore[arg-type]
        value = sum(float(p.grad.square().sum()) for p in net.visual.conv1.parameters()) ** 0.5
        before = history[-100:]
        if len(before) >= 10 and value > SPIKE * statistics.median_high(before):
            expected += 1
        history.append(value)
        if step % 7 == 0:
            counted += norms.row()["spikes"]
    counted += norms.row()["spikes"]
    assert 5 < expected < 40
    assert counted == expected


@pytest.mark.parametrize(("task", "layer"), [("clip", "model.visual.conv1"), ("simclr", "model.visual.conv1")])
@pytest.mark.parametrize("model", ["micro-rn", "micro-vit"])
def test_the_first_layer_is_the_image_towers(task: str, layer: str, model: str, make_shards: MakeShards) -> None:
    """The first parameter of open_clip's CLIP is the text's positions, that of its ViT the class token."""
    made, _ = runs.built(task, make_shards(20), model=model)
    named = list(made.trained.named_parameters())
    assert first_layer(named) == layer
    frozen = [(name, p) for name, p in named if "conv1" not in name]
    assert first_layer(frozen).startswith("model.visual")


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("model.visual.transformer.resblocks.3.attn.in_proj_weight", "model.visual.transformer.resblocks.3"),
        ("model.visual.conv1.weight", "model.visual.conv1"),
        ("model.logit_scale", "model"),
        ("weight", "weight"),
    ],
)
def test_layers_by_name(name: str, layer: str) -> None:
    assert layer_of(name) == layer


def test_a_training_logs_all_of_it(make_shards: MakeShards, tmp_path: Path) -> None:
    out = tmp_path / "run"
    loop.train(runs.config("clip", make_shards(40), out, samples_seen=6 * 16, log_every=2, tensorboard=True))
    rows = runs.lines(out)
    assert [row["step"] for row in rows] == [2, 4, 6]
    for row in rows:
        assert 0 < row["mfu"] < 1
        assert 0 <= row["waiting"] <= 1
        assert row["first_layer_grad_norm"] > 0
        assert row["grad_norms"]["model.visual.conv1"] > 0
        assert (row["spikes"], row["replaced"]) == (0, 0)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(row["step"], pytest.approx(row["loss"])) for row in rows]
    assert [event.value for event in events.Scalars("repeats/0")] == pytest.approx([row["repeats"][0] for row in rows])


def test_boards_get_numbers() -> None:
    row = {"step": 3, "loss": 1.5, "repeats": [1.0, 2.0], "grad_norms": {"a": 2.0, "b": "x"}, "note": "text", "flag": True}
    assert numbers_of(row) == {"loss": 1.5, "repeats/0": 1.0, "repeats/1": 2.0, "grad_norms/a": 2.0}


def test_a_board_that_is_not_installed_is_refused(tmp_path: Path) -> None:
    for name in ("wandb", "trackio"):
        try:
            __import__(name)
        except ImportError:
            with pytest.raises(UsageError, match=f"--report-to {name}: the package is not installed"):
                open_boards(runs.config("clip", "none", tmp_path, report_to=(name,)), 0)
