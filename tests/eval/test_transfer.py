"""Fine-tuning as an evaluation: what is trained, how the learning rate is chosen, and that rows say it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eval import predictions, results
from eval.cli import main
from eval.datasets.base import Columns
from eval.datasets.webdataset import load
from eval.features import Encoder
from eval.protocols import _shots, transfer
from eval.transfer import fisher, grid, heads, inputs
from eval.transfer.judge import Classifier, Judge
from eval.transfer.subset import write_subset
from eval.transfer.tuning import Schedule, Trunk, tune_on
from shards.core.errors import RunError, UsageError
from shards.manifest import read_manifest
from tests.train import runs
from train import loop
from train.models.load import load_checkpoint

MakeShards = Callable[..., str]


@pytest.fixture(scope="module", autouse=True)
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    runs.know_models(tmp_path_factory.mktemp("models"))
    with runs.one_thread():
        yield


@pytest.fixture
def sets(make_shards: MakeShards) -> tuple[str, str]:
    """(train, test): builds of other pictures with the same four classes."""
    return make_shards(48, "train", classes=True), make_shards(24, "test", classes=True, seed=1)


@pytest.fixture
def trunk(make_shards: MakeShards, tmp_path: Path) -> str:
    out = tmp_path / "trunk"
    assert loop.train(runs.config("clip", make_shards(32, "pretrain", seed=2), out)) == 0
    return str(out)


def evaluated(trunk: str, sets: tuple[str, str], tmp_path: Path, *flags: str) -> list[dict[str, Any]]:
    table = str(tmp_path / "results.jsonl")
    common = ["--checkpoint", trunk, "--train", sets[0], "--data", sets[1], "--results", table, "--epochs", "2", "--name", "tiny"]
    assert main(["transfer", *common, *flags]) == 0
    return results.read(table)


def test_rows_name_the_classes_that_gave_all_they_have(trunk: str, make_shards: MakeShards, tmp_path: Path) -> None:
    sets = make_shards(18, "few", classes=True), make_shards(24, "test", classes=True, seed=1)
    rows = evaluated(trunk, sets, tmp_path, "--k", "1,5", "--seeds", "1", "--lr", "1e-3", "--small-classes", "take-all")
    by_k = {row["k"]: row["settings"] for row in rows}
    assert "small_classes" not in by_k[1]
    small = int((np.bincount(load(sets[0], Columns()).labels) < 5).sum())
    assert (by_k[5]["small_classes"], by_k[5]["n_small_classes"]) == ("take-all", small)
    assert 0 < small < 4


@pytest.mark.parametrize("verb", ["transfer", "soups", "sse"])
def test_adapters_without_a_place_are_refused_before_images_are_read(
    verb: str,
    trunk: str,
    sets: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def encode(*_: Any) -> None:
        raise AssertionError("an image was encoded")

    monkeypatch.setattr(Encoder, "encode", encode)
    table = str(tmp_path / "results.jsonl")
    flags = ["--checkpoint", trunk, "--train", sets[0], "--data", sets[1], "--results", table, "--tune", "lora"]
    assert main([verb, *flags]) == 2
    assert "which has no blocks of a ViT" in capsys.readouterr().err


@pytest.mark.parametrize(("stop", "code"), [(KeyboardInterrupt(), 130), (RunError("ft, 5 shots: the training diverged"), 1)])
def test_finished_shots_are_appended_whatever_stops_the_next(
    stop: BaseException,
    code: int,
    trunk: str,
    sets: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scores = grid.Study.scores

    def stopped_at_five(study: grid.Study, k: int | None) -> Iterator[Any]:
        if k == 5:
            raise stop
        yield from scores(study, k)

    monkeypatch.setattr(grid.Study, "scores", stopped_at_five)
    table = str(tmp_path / "results.jsonl")
    common = ["--checkpoint", trunk, "--train", sets[0], "--data", sets[1], "--results", table, "--epochs", "2", "--lr", "1e-3"]
    assert main(["transfer", *common, "--k", "1,5,all", "--seeds", "2"]) == code
    rows = results.read(table)
    assert {row["k"] for row in rows} == {1}
    assert f"{len(rows)} results of what was finished appended to {table}" in capsys.readouterr().err
    assert [len(predictions.read(table, digest)) for digest in rows[0]["predictions"]] == [24, 24]


def test_a_subset_reads_the_images_that_were_chosen(sets: tuple[str, str], tmp_path: Path) -> None:
    whole = load(sets[0], Columns())
    positions = np.array([40, 3, 17, 9, 10, 11])
    part = load(write_subset(read_manifest(sets[0]), positions, str(tmp_path / "part")), Columns())
    assert sorted(part.hashes.tolist()) == sorted(whole.hashes[positions].tolist())
    assert part.classes == whole.classes
    assert [part.labels[i] for i in range(6)] == [whole.labels[whole.hashes.tolist().index(h)] for h in part.hashes.tolist()]


@pytest.mark.slow
def test_rows_of_all_strategies_with_their_settings(trunk: str, sets: tuple[str, str], tmp_path: Path) -> None:
    flags = ["--strategies", "ft", "lp-ft", "wise-ft", "scratch", "--k", "1,5", "--seeds", "2", "--lr", "1e-3", "3e-3"]
    rows = [row for row in evaluated(trunk, sets, tmp_path, *flags) if row["metric"] == "acc1"]
    assert [(row["protocol"], row["k"]) for row in rows] == [(name, k) for k in (1, 5) for name in ("ft", "wise-ft", "lp-ft", "scratch")]
    for row in rows:
        settings = row["settings"]
        assert row["n"] == 24  # the whole test set, whatever the shots
        assert len(row["runs"]) == len(row["predictions"]) == 2
        assert settings["chosen_by"] == (grid.FIXED if row["k"] == 1 else grid.ON_SHOTS)
        assert settings["lr"] in settings["grid"]
        kept = [predictions.read(str(tmp_path / "results.jsonl"), digest) for digest in row["predictions"]]
        assert [part.correct().mean() for part in kept] == pytest.approx(row["runs"])
        if row["k"] == 5:
            by_lr = {float(lr): value for lr, value in settings["acc1_by_lr"].items()}
            assert settings["lr"] == grid.best_of(by_lr)
            assert settings["val"] == pytest.approx(by_lr[settings["lr"]], abs=1e-5)
    heads_of = {row["protocol"]: row["settings"]["head"] for row in rows}
    assert heads_of == {"ft": "zeroshot", "wise-ft": "zeroshot", "lp-ft": "probe", "scratch": "normal"}
    curve = next(row for row in rows if row["protocol"] == "wise-ft")
    assert curve["settings"]["acc1_by_alpha"]["1"] == pytest.approx(next(r["value"] for r in rows if r["protocol"] == "ft"), abs=1e-5)
    assert curve["settings"]["acc1_by_alpha"]["0.5"] == pytest.approx(curve["value"], abs=1e-5)


def test_alpha_0_is_the_zero_shot_model(trunk: str, sets: tuple[str, str], tmp_path: Path) -> None:
    rows = evaluated(trunk, sets, tmp_path, "--strategies", "wise-ft", "--k", "2", "--seeds", "1", "--lr", "1e-3")
    table = str(tmp_path / "zero.jsonl")
    assert main(["zeroshot", "--checkpoint", trunk, "--data", sets[1], "--results", table]) == 0
    zero = next(row["value"] for row in results.read(table) if row["metric"] == "acc1")
    curve = next(row for row in rows if row["metric"] == "acc1")["settings"]["acc1_by_alpha"]
    assert curve["0"] == pytest.approx(zero, abs=1e-5)


def test_a_line_by_fisher_information_has_the_same_ends(trunk: str, sets: tuple[str, str], tmp_path: Path) -> None:
    flags = ["--strategies", "ft", "wise-ft", "wise-ft-fisher", "--k", "3", "--seeds", "1", "--lr", "1e-3"]
    rows = [row for row in evaluated(trunk, sets, tmp_path, *flags) if row["metric"] == "acc1"]
    assert [row["protocol"] for row in rows] == ["ft", "wise-ft", "wise-ft-fisher"]
    plain, by_fisher = (row["settings"]["acc1_by_alpha"] for row in rows[1:])
    assert (by_fisher["0"], by_fisher["1"]) == pytest.approx((plain["0"], plain["1"]), abs=1e-5)
    assert rows[2]["value"] == pytest.approx(by_fisher["0.5"], abs=1e-5)


def test_fisher_information_is_that_of_a_softmax_regression() -> None:
    """E over y of (∂ log p(y | x) / ∂W)² = Σ_y p(y) (1[y = c] − p(c))² x², on average over draws of y."""
    generator = torch.Generator().manual_seed(0)
    head = torch.nn.Linear(12, 3)
    model = torch.nn.ModuleDict({"tower": torch.nn.Flatten(), "head": head})
    images = torch.randn(4, 3, 2, 2, generator=generator)
    classifier = Classifier(model, False, 2, (0.5,) * 3, (0.5,) * 3)
    draws = [fisher.diagonal(classifier, [images[:3], images[3:]], seed) for seed in range(1500)]
    estimated = torch.stack([draw["head.weight"] for draw in draws]).mean(dim=0)
    x = images.flatten(1).double()
    chances = (x @ head.weight.double().T + head.bias.double()).softmax(dim=1)
    gradients = torch.eye(3, dtype=torch.float64)[None] - chances[:, None, :]  # (images, y, c)
    squared = (chances[:, :, None] * gradients**2).sum(dim=1)  # (images, c)
    expected = (squared[:, :, None] * x[:, None, :] ** 2).mean(dim=0)
    torch.testing.assert_close(estimated, expected.detach(), rtol=0.15, atol=2e-3)
    assert set(draws[0]) == {"head.weight", "head.bias"}


def test_a_tuned_model_is_the_trainers(trunk: str, sets: tuple[str, str], tmp_path: Path) -> None:
    """The logits of a cell equal those of `train finetune` on the same images, seed and learning rate, one image at a time."""
    build, whole = read_manifest(sets[0]), load(sets[1], Columns())
    every = np.arange(build.samples)
    tuned = tune_on(Trunk(trunk), Schedule(epochs=2, batch_size=16), build, every, 1e-3, 3)
    assert tuned is not None
    out = tmp_path / "tuned"
    flags = {"from": trunk, "model": "", "seed": 3, "lr": 1e-3, "head": "normal", "decay_rule": "all", "batch_size": 16}
    assert loop.train(runs.config("finetune", sets[0], out, **flags)) == 0
    loaded = load_checkpoint(str(out))
    judge = Judge(whole, loaded.image_size, Encoder(loaded, batch_size=7))
    ours = judge.logits(tuned.classifier)
    assert (judge.logits(tuned.classifier) == ours).all()  # from kept pixels
    encoder = Encoder(loaded)
    pixels = [next(encoder.batches(whole, np.array([i])))[0] for i in range(len(whole))]
    mean, std = (torch.tensor(values)[:, None, None] for values in (loaded.mean, loaded.std))
    with torch.no_grad():
        theirs = [loaded.classify(((torch.from_numpy(p).permute(0, 3, 1, 2).float() / 255) - mean) / std).numpy() for p in pixels]
    assert np.abs(ours - np.concatenate(theirs)).max() < 1e-4


def test_a_validation_set_chooses_and_the_test_set_never_does(trunk: str, sets: tuple[str, str], tmp_path: Path) -> None:
    flags = ["--k", "2", "--seeds", "1", "--lr", "1e-6", "3e-3"]
    by_val = evaluated(trunk, sets, tmp_path, *flags, "--val", sets[0])[0]["settings"]
    assert by_val["chosen_by"] == grid.ON_VAL
    assert by_val["lr"] == grid.best_of({float(lr): value for lr, value in by_val["acc1_by_lr"].items()})
    assert all(round(48 * value) == pytest.approx(48 * value, abs=1e-3) for value in by_val["acc1_by_lr"].values())  # of 48 images, not 24
    assert "selected_on" not in by_val
    by_test = evaluated(trunk, sets, tmp_path / "paper", *flags, "--procedure", "paper")[0]["settings"]
    assert by_test["chosen_by"] == grid.ON_TEST
    assert by_test["selected_on"] == "test"
    assert by_test["augment"] == "finetune-paper"
    assert by_test["epoch"][0] in (1, 2)


def test_the_best_epoch_is_the_judges_and_judging_changes_no_weight(trunk: str, sets: tuple[str, str]) -> None:
    build, whole = read_manifest(sets[0]), load(sets[1], Columns())
    every = np.arange(build.samples)
    schedule = Schedule(epochs=4, batch_size=16)
    judge = Judge(whole, 32, Encoder(load_checkpoint(trunk), batch_size=8))
    answers: list[np.ndarray] = []

    def liked(classifier: Classifier) -> float:
        answers.append(judge.logits(classifier))
        return [0.2, 0.7, 0.7, 0.1][len(answers) - 1]

    tuned = tune_on(Trunk(trunk), schedule, build, every, 1e-3, 3, judge=liked)
    plain = tune_on(Trunk(trunk), schedule, build, every, 1e-3, 3)
    assert tuned is not None
    assert plain is not None
    assert (tuned.epoch, plain.epoch, len(answers)) == (2, None, 4)
    assert np.array_equal(judge.logits(tuned.classifier), answers[1])
    assert np.array_equal(judge.logits(plain.classifier), answers[3])


def test_a_fifth_of_each_class_is_held_out() -> None:
    labels = np.repeat([0, 1, 2], [10, 4, 1])
    draw = np.random.default_rng(0).permutation(15)
    kept, held = heads.split(draw, labels, 0.2)
    assert sorted([*kept, *held]) == list(range(15))
    assert np.bincount(labels[held], minlength=3).tolist() == [2, 1, 0]
    for label in (0, 1):
        assert held[labels[held] == label].tolist() == draw[labels[draw] == label][-len(held[labels[held] == label]) :].tolist()


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        (["--strategies", "soup"], "soup"),
        (["--k", "40"], "40 shots asked for"),
        (["--small-classes", "drop"], "a fine-tuning keeps its build's classes"),
        (["--tune", "lora", "--strategies", "scratch"], "adapters on random weights"),
        (["--head", "normal", "--strategies", "ft", "wise-ft-fisher"], "its line starts at class names"),
    ],
)
def test_what_cannot_be_is_refused_before_an_image_is_read(
    flags: list[str], what: str, trunk: str, sets: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "r.jsonl"
    common = ["--checkpoint", trunk, "--train", sets[0], "--data", sets[1], "--results", str(table)]
    assert main(["transfer", *common, *flags]) == 2
    captured = capsys.readouterr()
    assert what in captured.err
    assert "encode" not in captured.err
    assert not table.exists()


def test_other_orders_of_classes_and_folders_are_refused(trunk: str, sets: tuple[str, str], class_folders: str, tmp_path: Path) -> None:
    config = transfer.Config(data=(sets[1],), checkpoint=trunk, train=class_folders)
    with pytest.raises(UsageError, match="no build of ours"):
        inputs.build_of(config)
    manifest = Path(sets[0], "manifest.json")
    text = json.loads(manifest.read_text())
    text["classes"] = text["classes"][::-1]
    manifest.write_text(json.dumps(text))
    with pytest.raises(UsageError, match="another order"):
        transfer.check(
            transfer.Config(data=(sets[1],), checkpoint=trunk, train=sets[0], k="1"), _sets(sets, trunk), load(sets[1], Columns())
        )


def _sets(sets: tuple[str, str], trunk: str) -> Any:
    from eval.protocols.base import Sets

    return Sets(transfer.Config(data=(sets[1],), checkpoint=trunk))


def test_shots_nest_and_are_the_same_as_other_protocols(sets: tuple[str, str]) -> None:
    whole = load(sets[0], Columns())
    one, five = _shots.draw(whole, 1, 7), _shots.draw(whole, 5, 7)
    assert set(one.tolist()) <= set(five.tolist())
    assert np.bincount(whole.labels[five]).tolist() == [5, 5, 5, 5]


def test_validation_images_that_test_are_said_and_marked(
    trunk: str, sets: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = evaluated(trunk, sets, tmp_path, "--k", "1", "--seeds", "1", "--lr", "1e-4", "1e-3", "--val", sets[1])
    assert rows[0]["settings"]["selected_on"] == "test"
    assert "24 validation images are test images too" in capsys.readouterr().err


def test_a_learning_rate_at_which_a_draw_diverges_is_not_chosen(
    trunk: str, sets: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the row named it, and its numbers were those of another one."""
    real = grid.tune_on

    def diverging(*arguments: Any) -> Any:
        lr, seed = arguments[4], arguments[5]
        return None if lr == 3e-3 and seed == 1 else real(*arguments)

    monkeypatch.setattr(grid, "tune_on", diverging)
    monkeypatch.setattr(grid.Judge, "accuracy", lambda self, classifier: 1.0)
    rows = evaluated(trunk, sets, tmp_path, "--k", "2", "--seeds", "2", "--lr", "1e-3", "3e-3", "--val", sets[0])
    assert rows[0]["settings"]["lr"] == 1e-3
    assert list(rows[0]["settings"]["acc1_by_lr"]) == ["0.001"]


@pytest.mark.parametrize("flag", [["--image-size", "64"], ["--mean", "0.1", "0.1", "0.1"], ["--std", "1", "1", "1"]])
def test_what_a_checkpoint_knows_is_not_stated_beside_it(
    flag: list[str], trunk: str, sets: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for verb in ("transfer", "linear"):
        assert main([verb, "--checkpoint", trunk, "--data", sets[1], "--train", sets[0], "--results", str(tmp_path / "r"), *flag]) == 2
        assert f"{flag[0]} without --model" in capsys.readouterr().err


def test_a_zero_shot_head_needs_a_trunk_that_reads_text(sets: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "supervised"
    assert loop.train(runs.config("supervised", sets[0], out)) == 0
    capsys.readouterr()
    common = ["--checkpoint", str(out), "--train", sets[0], "--data", sets[1], "--results", str(tmp_path / "r.jsonl"), "--k", "1"]
    assert main(["transfer", *common, "--strategies", "wise-ft"]) == 2
    said = capsys.readouterr().err
    assert "reads no text" in said
    assert "encode" not in said
