"""SSE, StarSSE and soups with micro models: steps by the published rates, cycles from the right weights, statistics, barriers, rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from published_rates import published_rates
from torch import nn

from eval import predictions
from eval.cli import main
from eval.data import open_examples
from eval.ensembles import cycles, report, softmax, soups
from eval.ensembles.cycles import Cycle
from eval.ensembles.trainings import Per, Trainings, resuming
from eval.features import Encoder
from eval.transfer.judge import Judge
from eval.transfer.tuning import Schedule, Trunk, Tuned
from tests.train import runs
from train.models import norm
from train.models.average import average

MakeShards = Callable[..., str]
EPOCHS = 2


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with runs.one_thread():
        yield


@pytest.fixture(scope="module")
def trunk(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An untrained CLIP with BatchNorm."""
    runs.know_models(tmp_path_factory.mktemp("models"))
    return runs.untrained_clip(tmp_path_factory.mktemp("trunk"), "micro-rn")


@pytest.fixture
def sets(make_shards: MakeShards) -> tuple[str, str]:
    """A training and a test build of four classes."""
    return make_shards(40, "train", classes=True), make_shards(24, "test", classes=True, seed=1)


def trainings(trunk: str, build: str, **changes: Any) -> Trainings:
    schedule = Schedule(batch_size=16, augment="finetune", workers=1)
    return Trainings(Trunk(trunk), schedule, build, 40, 0, {"optimizer": "adamw", "schedule": "cosine", **changes})


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize("per", ["step", "epoch"])
def test_each_step_has_the_published_rate(per: Per, trunk: str, sets: tuple[str, str]) -> None:
    """Of the first model and of both cycles; batches of 20 divide 40 images, so that epochs are whole steps."""
    rates: list[float] = []
    states: list[bool] = []

    def watched(begin: Any) -> Any:
        def begun(made: Any) -> None:
            if begin is not None:
                begin(made)
            states.append(len(made.optimizer.state) == 0)
            made.optimizer.register_step_post_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))

        return begun

    part = trainings(trunk, sets[0], batch_size=20)
    cycle = Cycle(2e-3, 3)
    first = part.fit(1e-3, EPOCHS, 0, watched(None), per=per)
    assert first is not None
    made = cycles.snapshots(
        first, 3, star=True, cycle=lambda start, number: part.fit(cycle.lr, cycle.epochs, number, watched(resuming(start)), per=per)
    )
    assert made is not None
    assert rates == pytest.approx(list(published_rates(1e-3, EPOCHS, cycle, 3, 2, per)))
    assert states == [True] * 3  # a new optimiser in each cycle


def test_cycles_start_from_the_snapshot_they_should(trunk: str, sets: tuple[str, str]) -> None:
    part = trainings(trunk, sets[0])
    first = part.fit(1e-3, EPOCHS, 0)
    assert first is not None
    train = cycles.train_cycle(part, Cycle(1e-3, 1), "step")
    star, chain = (cycles.snapshots(first, 3, star=star, cycle=train) for star in (True, False))
    assert star is not None
    assert chain is not None
    assert all(same(model.start, first.end) for model in star[1:])  # BatchNorm statistics, too
    assert same(chain[2].start, chain[1].end)
    assert same(star[1].end, chain[1].end)  # the first cycle is that of both
    assert not same(star[2].end, chain[2].end)
    assert not same(star[1].end, star[2].end)  # the same weights and rate, another order
    assert same(star[2].end, train(first, 2).end)  # type: ignore[union-attr]  # branches are independent: made alone, it is the same


@pytest.fixture
def two(trunk: str, sets: tuple[str, str]) -> list[Tuned]:
    part = trainings(trunk, sets[0])
    first = part.fit(1e-3, EPOCHS, 0)
    assert first is not None
    second = part.fit(3e-3, EPOCHS, 1, resuming(first, first.start))
    assert second is not None
    assert same(second.start, first.start)  # one start, head included
    return [first, second]


class Whole(nn.Module):
    """A classifier as one module, as torch's `update_bn` calls it."""

    def __init__(self, model: nn.ModuleDict) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model["head"](self.model["tower"](images))


def test_statistics_of_a_soup_are_torchs_update_bn(two: list[Tuned], sets: tuple[str, str]) -> None:
    encoder = Encoder(two[0].classifier, batch_size=16, workers=1)
    examples = open_examples(sets[0])
    weights = soups.uniform([model.end for model in two])
    assert same(weights, average([model.end for model in two]))
    refresher = soups.Refresher(examples, 32, encoder)
    assert refresher.used == 40  # 16 + 16 + 8
    classifier, said = soups.classifier_at(two[0], weights, refresher)
    assert said == "recomputed on 40 training images"
    peer = two[0].at(weights).model
    order = np.random.Generator(np.random.Philox(0)).permutation(40)
    mean, std = (torch.tensor(values)[:, None, None] for values in (two[0].classifier.mean, two[0].classifier.std))
    batches = [
        (torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(255) - mean) / std for pixels, _ in encoder.batches(examples, order)
    ]
    torch.optim.swa_utils.update_bn(batches, Whole(peer))
    for name, value in classifier.model.state_dict().items():
        assert torch.allclose(value, peer.state_dict()[name], atol=1e-5), name
    assert not torch.equal(classifier.model.state_dict()["tower.visual.bn1.running_var"], weights["tower.visual.bn1.running_var"])
    assert soups.Refresher(examples, 32, Encoder(two[0].classifier, batch_size=36)).used == 36  # a last batch of 4 would count as one of 36


def test_anew_leaves_modes_and_momenta_and_needs_no_batch_norm() -> None:
    batch_norm, dropout = nn.BatchNorm1d(3, momentum=0.3), nn.Dropout(0.5).eval()
    module = nn.Sequential(batch_norm, dropout)
    x = torch.randn((50, 3)) * 4 + 1
    with norm.running_stats_anew(module):
        assert not dropout.training
        module(x[:25])
        module(x[25:])
    assert (batch_norm.training, dropout.training, batch_norm.momentum) == (True, False, 0.3)
    assert torch.allclose(batch_norm.get_buffer("running_mean"), x.mean(0), atol=1e-6)
    assert torch.allclose(batch_norm.get_buffer("running_var"), (x[:25].var(0) + x[25:].var(0)) / 2, atol=1e-4)
    assert norm.has_running_stats(module)
    assert not norm.has_running_stats(nn.LayerNorm(3))


def run(capsys: pytest.CaptureFixture[str], *flags: str) -> list[dict[str, Any]]:
    assert main([*flags, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def flags_of(trunk: str, sets: tuple[str, str], tmp_path: Path) -> list[str]:
    data = ["--checkpoint", trunk, "--data", sets[1], "--train", sets[0], "--results", str(tmp_path / "r.jsonl")]
    return [*data, "--epochs", "2", "--batch", "16", "--workers", "1", "--device", "cpu", "--head", "normal"]


def value_of(rows: list[dict[str, Any]], protocol: str, metric: str, **settings: Any) -> float:
    chosen = [
        row["value"]
        for row in rows
        if (row["protocol"], row["metric"]) == (protocol, metric) and settings.items() <= row["settings"].items()
    ]
    assert len(chosen) == 1, (protocol, metric, settings)
    return float(chosen[0])


def answers(table: Path, rows: list[dict[str, Any]], protocol: str) -> list[predictions.Predictions]:
    chosen = [row for row in rows if row["protocol"] == protocol and row["metric"] == "acc1"]
    return [predictions.read(str(table), row["predictions"][0]) for row in chosen]


@pytest.mark.parametrize("schedule", ["star", "sse"])
def test_sse_as_a_command(schedule: str, trunk: str, sets: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = [*flags_of(trunk, sets, tmp_path), "--members", "3", "--cycle-lr", "1", "2", "--cycle-epochs", "0.5"]
    rows = run(capsys, "sse", *flags, "--schedule", schedule, "--soup", "--alphas", "1", "--lines", "1", "--val", sets[1])
    name = "starsse" if schedule == "star" else "sse"
    settings = rows[0]["settings"]
    assert (settings["schedule"], settings["cycle_epochs"], settings["chosen_by"], settings["per"]) == (
        schedule,
        1,
        "validation set",
        "step",
    )
    assert set(settings["acc1_by_cycle"]) == {"0.001 x 1", "0.002 x 1"}
    assert max(settings["acc1_by_cycle"].values()) == pytest.approx(settings["val"], abs=1e-6)
    assert settings["val"] == value_of(rows, name, "acc1", members=3)  # the validation set is the test set here
    snapshots = answers(tmp_path / "r.jsonl", rows, f"{name}-snapshot")
    for size in (1, 2, 3):
        expected = softmax.scores([part.logits for part in snapshots[:size]], snapshots[0].labels, size)
        for metric, score in expected.items():
            assert value_of(rows, name, metric, members=size) == pytest.approx(score.value, abs=2e-3), (size, metric)
    assert {row["metric"] for row in rows if row["settings"].get("pairs")} >= {"disagreement", "cka"}
    barriers = [row["settings"] for row in rows if row["metric"] == "barrier" and row["settings"]["side"] == "train"]
    assert [entry["line"] for entry in barriers] == ["start to 1", "start to 2", "start to 3", "1 to 2"]
    assert all("in_basin" in entry for entry in barriers[:3])
    assert "connected" in barriers[3]
    assert barriers[0]["losses"][0] == barriers[1]["losses"][0]  # one start: the trunk's
    assert barriers[3]["losses"][0] == barriers[0]["losses"][-1]
    assert next(row for row in rows if row["protocol"] == f"{name}-soup")["settings"]["bn"] == "recomputed on 40 training images"


def test_the_cycle_is_never_chosen_on_test_unasked(
    trunk: str, sets: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [*flags_of(trunk, sets, tmp_path), "--members", "2", "--cycle-lr", "1", "2", "--cycle-epochs", "0.5"]
    all_shots = run(capsys, "sse", *flags)[0]["settings"]
    assert (all_shots["chosen_by"], "selected_on" in all_shots) == ("a fifth of the shots", False)
    few = run(capsys, "sse", *flags, "--k", "2", "--seeds", "2")
    assert (few[0]["settings"]["chosen_by"], few[0]["settings"]["cycle_lr"], few[0]["k"]) == ("fixed in advance", 1e-3, 2)
    assert len(few[0]["runs"]) == 2
    on_test = run(capsys, "sse", *flags, "--select", "test")[0]["settings"]
    assert (on_test["chosen_by"], on_test["selected_on"], "val" in on_test) == ("best on test", "test", False)


def test_soups_as_a_command(trunk: str, sets: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = [*flags_of(trunk, sets, tmp_path), "--lr", "1e-3", "3e-3", "--runs", "2", "--alphas", "1", "--lines", "1"]
    rows = run(capsys, "soups", *flags)
    members = [row["settings"] for row in rows if row["protocol"] == "member" and row["metric"] == "acc1"]
    assert [(entry["lr"], entry["run"]) for entry in members] == [(1e-3, 0), (3e-3, 0), (1e-3, 1), (3e-3, 1)]
    assert members[0]["chosen_by"] == "a fifth of the shots"
    assert members[0]["n_tuned"] < members[0]["n_train"]  # no member has seen what soups are judged by
    held = [entry["val"] for entry in members]
    best = next(row["settings"] for row in rows if row["protocol"] == "best-member")
    greedy = next(row["settings"] for row in rows if row["protocol"] == "greedy-soup")
    assert best["member"] == [held.index(max(held)) + 1]
    assert greedy["chosen"][0][0] == best["member"][0]
    assert greedy["val"] >= best["val"] == pytest.approx(max(held))
    uniform = next(row["settings"] for row in rows if row["protocol"] == "uniform-soup")
    assert uniform["bn"] == f"recomputed on {members[0]['n_tuned']} training images"
    together = run(capsys, "ensemble", str(tmp_path / "r.jsonl"))
    assert {row["settings"]["of_protocol"] for row in together} == {"member"}  # ensembles and soups are no members
    for metric in ("nll", "brier"):
        expected = value_of(rows, "local-ensemble", metric, members=4)
        assert value_of(together, "ensemble", metric, members=4) == pytest.approx(expected, abs=2e-3)
    few = run(capsys, "soups", *flags_of(trunk, sets, tmp_path), "--lr", "1e-3", "--runs", "2", "--k", "2", "--seeds", "1")
    assert {"greedy-soup", "best-member"} & {row["protocol"] for row in few} == set()


def test_the_trunks_features_are_those_before_the_head(two: list[Tuned], sets: tuple[str, str]) -> None:
    class Shop:
        test = Judge(open_examples(sets[1]), 32, Encoder(two[0].classifier, batch_size=16, workers=1))

    features = report.tower_features(Shop(), two[0])  # type: ignore[arg-type]
    head: Any = two[0].classifier.model["head"]
    answers = features @ head.weight.detach().numpy().T + head.bias.detach().numpy()
    assert answers == pytest.approx(Shop.test.logits(two[0].classifier), abs=1e-4)


@pytest.mark.parametrize("kind", ["average", "recompute"])
def test_barriers_of_models_are_a_direct_evaluation(kind: str, two: list[Tuned], sets: tuple[str, str]) -> None:
    encoder = Encoder(two[0].classifier, batch_size=16, workers=1)
    test, train = (Judge(open_examples(path), 32, encoder) for path in (sets[1], sets[0]))
    shop: Any = SimpleNamespace(config=SimpleNamespace(norm=kind, alphas=3), size=32, encoder=encoder, test=test)
    walked, done = report.walk_all(shop, two, [(-1, 0), (0, 1)], train)
    assert done == ("averaged" if kind == "average" else "recomputed on 40 training images")
    for (start, end), sides in zip([(two[0].start, two[0].end), (two[0].end, two[1].end)], walked, strict=True):
        for judge, line in zip((test, train), sides, strict=True):
            labels = torch.from_numpy(judge.examples.labels)
            losses = []
            for step in range(5):
                by_hand = {name: start[name] + step / 4 * (end[name] - start[name]) for name in start if start[name].is_floating_point()}
                classifier = two[0].at({**end, **by_hand})
                if kind == "recompute":
                    soups.Refresher(train.examples, 32, encoder).refresh(classifier)
                logits = torch.from_numpy(judge.logits(classifier))
                losses.append(float(nn.functional.cross_entropy(logits, labels)))
                assert line.accuracies[step] == pytest.approx(float((logits.argmax(1) == labels).float().mean()))
            assert line.losses == pytest.approx(losses, abs=1e-5)
            above = [loss - (losses[0] * (4 - step) + losses[4] * step) / 4 for step, loss in enumerate(losses)]
            assert line.barrier == pytest.approx(max(above), abs=1e-5)


def test_flags_that_make_no_sense(trunk: str, sets: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = flags_of(trunk, sets, tmp_path)
    for verb, more, words in (
        ("sse", ["--cycle-epochs", "0.1"], "no epoch"),
        ("sse", ["--per", "epoch", "--epochs", "1.5"], "whole epochs"),
        ("sse", ["--members", "1"], "members"),
        ("soups", ["--lr", "1e-3"], "1 member"),
        ("soups", ["--small-classes", "drop"], "take-all"),
        ("sse", ["--k", "100"], "100"),
    ):
        assert main([verb, *flags, *more]) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "r.jsonl").exists()
