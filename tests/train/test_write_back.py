"""`--write-layer`: the last loss of every sample as a layer, against a dictionary; it survives kills, and others use it."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from curate import cli as curate_cli
from shards import cli as shards_cli
from shards.core.errors import RunError, UsageError
from shards.manifest import read_manifest
from shards.reader import read_samples
from tests.train import runs
from train import loop, run
from train.config import TrainConfig
from train.data.batch import Batch
from train.record import write_back
from train.record.by_sample import BYTES_PER_SAMPLE, SampleLosses, means_by_source, source_names
from train.record.log import RunLog

pytestmark = pytest.mark.usefixtures("micro_models", "one_thread")
MakeShards = Callable[..., str]
Seen = dict[str, list[tuple[int, float]]]


def config(build: str, output: Path | str, **values: Any) -> TrainConfig:
    small: dict[str, Any] = {"model": "micro-vit", "samples_seen": 5 * 16, "log_every": 2, "write_layer": "loss"}
    return runs.config("clip", build, output, **{**small, **values})


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """What a plain dictionary keeps of all that the log is told: {uid: [(step, loss), …]}."""
    seen: Seen = {}
    add = RunLog.add

    def note(log: RunLog, batch: Batch, terms: dict[str, torch.Tensor], by_sample: torch.Tensor) -> None:
        for uid, loss in zip(batch.uids, by_sample.tolist(), strict=True):
            seen.setdefault(uid, []).append((batch.step + 1, loss))
        add(log, batch, terms, by_sample)

    monkeypatch.setattr(RunLog, "add", note)
    return seen


def rows_of(build: str, layer: str = "loss") -> dict[str, tuple[float | None, int | None, int | None]]:
    """Return {uid: (loss, seen, last)} by the reader of builds."""
    columns = [f"{layer}.{column}" for column in ("loss", "seen", "last")]
    samples = read_samples(read_manifest(build), [], columns)
    return {sample.key: tuple(sample.row[column] for column in columns) for sample in samples}  # type: ignore[misc]


def expected(seen: Seen, uid: str) -> tuple[float | None, int, int | None]:
    """Return the mean of a sample's losses at the last step that saw it, how often it was seen, and that step."""
    if uid not in seen:
        return None, 0, None
    last = max(step for step, _ in seen[uid])
    losses = [loss for step, loss in seen[uid] if step == last]
    return pytest.approx(sum(losses) / len(losses), rel=1e-6), len(seen[uid]), last  # type: ignore[return-value]


def layer_files(build: str, layer: str = "loss") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((Path(build) / "layers" / layer).iterdir())}


def test_the_layer_is_a_dictionarys(make_shards: MakeShards, tmp_path: Path, noted: Seen, capsys: pytest.CaptureFixture[str]) -> None:
    build = make_shards(40)
    assert loop.train(config(build, tmp_path / "run")) == 0
    rows = rows_of(build)
    assert rows == {uid: expected(noted, uid) for uid in rows}
    assert len(rows) == 40
    assert sorted({seen for _, seen, _ in rows.values()}) == [2]
    for path in sorted(Path(build).glob("*.tar")):  # one row for each sample of the tar, in its order
        uids = pq.read_table(path.with_suffix(".parquet"))["uid"]
        layer = pq.read_table(Path(build) / "layers" / "loss" / f"{path.stem}.parquet")
        assert layer.column_names == ["uid", "loss", "seen", "last"]
        assert layer["uid"].to_pylist() == uids.to_pylist()
    about = json.loads((Path(build) / "layers" / "loss" / "layer.json").read_text())
    assert (about["samples"], about["without"], about["columns"]) == (40, 0, ["loss", "seen", "last"])
    assert about["training"]["step"] == 5
    assert f"layer loss: losses of 40 samples, beside the tars in {build}" in capsys.readouterr().err


def test_what_was_not_seen_is_null(make_shards: MakeShards, tmp_path: Path, noted: Seen) -> None:
    build = make_shards(40)
    loop.train(config(build, tmp_path / "run", samples_seen=32, samples=36))
    rows = rows_of(build)
    assert rows == {uid: expected(noted, uid) for uid in rows}
    assert sum(loss is None for loss, _, _ in rows.values()) == 8
    about = json.loads((Path(build) / "layers" / "loss" / "layer.json").read_text())
    assert (about["samples"], about["without"]) == (32, 8)


def test_samples_without_a_label_have_no_loss(make_shards: MakeShards, tmp_path: Path, noted: Seen) -> None:
    build = make_shards(40, classes=True)
    for sidecar in Path(build).glob("*.parquet"):
        table = pq.read_table(sidecar)
        labels = [-1 if row % 3 == 0 else label for row, label in enumerate(table["class"].to_pylist())]
        pq.write_table(table.set_column(table.column_names.index("class"), "class", [labels]), sidecar)
    loop.train(runs.config("supervised", build, tmp_path / "run", samples_seen=48, write_layer="loss"))
    unlabelled = {uid for uid, times in noted.items() if all(np.isnan(loss) for _, loss in times)}
    rows = rows_of(build)
    assert len(unlabelled) == 15
    assert {uid for uid, row in rows.items() if row == (None, 0, None)} == unlabelled
    assert all(rows[uid] == expected(noted, uid) for uid in rows.keys() - unlabelled)


def test_a_replaced_sample_counts_as_its_stand_in(make_shards: MakeShards, tmp_path: Path, noted: Seen) -> None:
    build = make_shards(32, recode=lambda i, jpeg: jpeg[:60] if i in (3, 8) else jpeg)
    loop.train(config(build, tmp_path / "run", samples_seen=96, max_bad_share=1.0))
    rows = rows_of(build)
    assert rows == {uid: expected(noted, uid) for uid in rows}
    torn = [sample.key for sample in read_samples(read_manifest(build)) if len(sample.members["jpg"]) == 60]
    assert [rows[uid] for uid in torn] == [(None, 0, None)] * 2
    assert sum(seen or 0 for _, seen, _ in rows.values()) == 96


def test_a_killed_training_ends_with_the_same_bytes(make_shards: MakeShards, tmp_path: Path) -> None:
    """From checkpoints inside a line of two steps and at its end, as if killed behind them; two epochs."""
    build, whole = make_shards(40), tmp_path / "whole"
    options: dict[str, Any] = {"checkpoint_every": 1}
    loop.train(config(build, whole, keep=9, **options))
    written = layer_files(build)
    for step in (1, 4):
        part = tmp_path / f"from-{step}"
        part.mkdir()
        shutil.copy(whole / f"checkpoint-{step:09d}.pt", part / "checkpoint.pt")
        shutil.rmtree(Path(build) / "layers")
        assert loop.train(config(build, part, **options)) == 0
        assert layer_files(build) == written
    size = sum(tensor.nbytes for tensor in runs.state(whole)["losses"].values())
    assert size == 40 * BYTES_PER_SAMPLE


def test_an_interrupted_training_writes_what_it_knows(make_shards: MakeShards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build, out = make_shards(40), tmp_path / "run"
    loop.train(config(build, tmp_path / "whole"))
    written = layer_files(build)
    shutil.rmtree(Path(build) / "layers")
    add = RunLog.add

    def add_and_signal(log: RunLog, batch: Batch, terms: dict[str, torch.Tensor], by_sample: torch.Tensor) -> None:
        add(log, batch, terms, by_sample)
        if batch.step == 1:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(RunLog, "add", add_and_signal)
    assert loop.train(config(build, out)) == 143
    monkeypatch.setattr(RunLog, "add", add)
    about = json.loads(layer_files(build)["layer.json"])
    assert (about["samples"], about["training"]["step"]) == (32, 2)
    assert loop.train(config(build, out)) == 0  # its own layer is replaced
    assert layer_files(build) == written


def test_a_finished_training_writes_its_layer_from_the_checkpoint(make_shards: MakeShards, tmp_path: Path) -> None:
    build, out = make_shards(40), tmp_path / "run"
    loop.train(config(build, out))
    written = layer_files(build)
    (Path(build) / "layers" / "loss" / "layer.json").unlink()  # as if killed before the last file
    assert loop.train(config(build, out)) == 0
    assert layer_files(build) == written
    stamp = (Path(build) / "layers" / "loss" / "layer.json").stat().st_mtime_ns
    assert loop.train(config(build, out)) == 0
    assert (Path(build) / "layers" / "loss" / "layer.json").stat().st_mtime_ns == stamp


def test_another_trainings_layer_is_refused(make_shards: MakeShards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = make_shards(40)
    loop.train(config(build, tmp_path / "run"))
    written = layer_files(build)
    monkeypatch.setattr(run.registry, "get", lambda *_: pytest.fail("a model was built"))
    other = dataclasses.replace(config_without_registry(build, tmp_path / "other"), lr=0.5)
    with pytest.raises(UsageError, match="a layer 'loss' that is not of this training"):
        loop.train(other)
    assert layer_files(build) == written
    assert not (tmp_path / "other").exists()


def config_without_registry(build: str, output: Path) -> TrainConfig:
    from train.tasks.clip import Config

    return Config(manifest=(build,), output=str(output), batch_size=16, samples_seen=80, write_layer="loss", device="cpu")


def test_a_training_from_other_weights_is_another_one(make_shards: MakeShards, tmp_path: Path) -> None:
    build = make_shards(40)
    loop.train(config(build, tmp_path / "run"))
    with pytest.raises(UsageError, match="not of this training"):
        loop.train(config(build, tmp_path / "child", from_=str(tmp_path / "run")))


@pytest.mark.parametrize(
    ("name", "message"), [("Loss", "layer name 'Loss'"), ("a.b", "layer name 'a.b'"), ("blur", "that no source or filter")]
)
def test_names_that_are_no_layers_are_refused(name: str, message: str, make_shards: MakeShards, tmp_path: Path) -> None:
    build = make_shards(20)
    for sidecar in Path(build).glob("*.parquet"):
        table = pq.read_table(sidecar)
        pq.write_table(table.append_column("blur.score", [[0.5] * len(table)]), sidecar)
    with pytest.raises(UsageError) as error:
        loop.train(config(build, tmp_path / "run", write_layer=name))
    assert message in str(error.value)
    assert not (Path(build) / "layers").exists()


def test_a_build_that_takes_no_files_is_refused_before_a_model_is_built(
    make_shards: MakeShards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = make_shards(20)
    settings = config(build, tmp_path / "run")
    (Path(build) / "layers").mkdir()
    (Path(build) / "layers" / "loss").write_text("a file where the folder should be")
    monkeypatch.setattr(run.registry, "get", lambda *_: pytest.fail("a model was built"))
    with pytest.raises(UsageError, match=r"layers/loss' is a file"):
        loop.train(settings)
    assert not (tmp_path / "run").exists()
    assert (Path(build) / "layers" / "loss").read_text() == "a file where the folder should be"


def test_conditions_and_lists_read_it(make_shards: MakeShards, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build, subset = make_shards(40), tmp_path / "easy"
    loop.train(config(build, tmp_path / "run", samples_seen=32))
    rows = rows_of(build)
    middle = sorted(loss for loss, _, _ in rows.values() if loss is not None)[16]
    wanted = {uid for uid, (loss, _, _) in rows.items() if loss is not None and loss < middle}
    assert shards_cli.main(["subset", build, "--output", str(subset), "--where", f"loss.loss < {middle!r}"]) == 0
    assert {sample.key for sample in read_samples(read_manifest(str(subset)), [])} == wanted
    assert len(wanted) == 16
    assert shards_cli.main(["subset", build, "--output", str(tmp_path / "new"), "--where", "loss.loss IS NULL"]) == 0
    assert read_manifest(str(tmp_path / "new")).samples == 8
    capsys.readouterr()
    assert curate_cli.main(["layer", "list", build, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["loss"]["columns"] == ["loss", "seen", "last"]
    # and the loss of one training weighs the samples of another one
    assert loop.train(config(str(subset), tmp_path / "next", weights="loss.loss", write_layer="")) == 0


def test_a_subset_writes_beside_the_tars_it_uses(make_shards: MakeShards, tmp_path: Path, noted: Seen) -> None:
    build, subset = make_shards(40), tmp_path / "sub"
    assert shards_cli.main(["subset", build, "--output", str(subset), "--window", "5:21"]) == 0
    loop.train(config(str(subset), tmp_path / "run", samples_seen=16))
    rows = rows_of(build)
    assert sum(loss is not None for loss, _, _ in rows.values()) == 16
    assert {uid: row for uid, row in rows.items() if row[0] is not None} == {uid: expected(noted, uid) for uid in noted}
    assert sorted(layer_files(build)) == ["00000.parquet", "00001.parquet", "00002.parquet", "layer.json"]


def test_overlapping_sources_share_one_layer(make_shards: MakeShards, tmp_path: Path, noted: Seen) -> None:
    """A window of a build beside the whole of it: what the later step saw counts."""
    build, other, subset = make_shards(40), make_shards(24, "other", seed=3), tmp_path / "sub"
    assert shards_cli.main(["subset", build, "--output", str(subset), "--window", "5:21"]) == 0
    out = tmp_path / "run"
    loop.train(config(build, out, manifest=(build, str(subset), other)))
    for folder in (build, other):
        rows = rows_of(folder)
        assert rows == {uid: expected(noted, uid) for uid in rows}
    for row in runs.lines(out):
        assert list(row["loss_by_source"]) == [build, str(subset), other]


def test_what_was_taken_down_has_no_row_of_its_own(make_shards: MakeShards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the training runs."""
    build = make_shards(40)
    uid = next(iter(read_samples(read_manifest(build), []))).key
    write = write_back.write_layer

    def take_down_and_write(made: run.Run, step: int, **how: Any) -> None:
        (tmp_path / "gone.txt").write_text(f"{uid}\n")
        assert shards_cli.main(["remove", build, "--uids", str(tmp_path / "gone.txt")]) == 0
        write(made, step, **how)

    monkeypatch.setattr(write_back, "write_layer", take_down_and_write)
    loop.train(config(build, tmp_path / "run"))
    table = pq.read_table(Path(build) / "layers" / "loss" / "00000.parquet").to_pylist()
    assert table[0] == {"uid": "", "loss": None, "seen": 0, "last": None}
    assert uid not in {row["uid"] for row in table}
    assert json.loads((Path(build) / "layers" / "loss" / "layer.json").read_text())["samples"] == 39


def test_resuming_without_losses_says_from_where_they_are_known(
    make_shards: MakeShards, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build, out = make_shards(40), tmp_path / "run"
    loop.train(config(build, out, write_layer="", checkpoint_every=2, keep=9))
    shutil.copy(out / "checkpoint-000000002.pt", out / "checkpoint.pt")
    capsys.readouterr()
    loop.train(config(build, out))
    assert "the checkpoint has no losses by sample; they are known from step 2 on" in capsys.readouterr().err
    assert max(last or 0 for _, _, last in rows_of(build).values()) == 5
    assert min(last for _, _, last in rows_of(build).values() if last is not None) == 3
    shutil.rmtree(Path(build) / "layers")
    loop.train(config(build, out, write_layer=""))
    assert "losses by sample, which end here" in capsys.readouterr().err
    assert not (Path(build) / "layers").exists()


def test_means_by_source_are_a_plain_loop() -> None:
    draw = np.random.default_rng(0)
    sources, losses = draw.integers(0, 3, (5, 16)), draw.normal(3, 1, (5, 16)).astype(np.float32)
    losses[2, 5] = np.nan
    means = means_by_source(["a", "b", "c", "none"], sources, losses)
    for number, name in enumerate("abc"):
        pairs = zip(sources.flat, losses.flat, strict=True)
        values = [float(loss) for source, loss in pairs if source == number and loss == loss]
        assert means[name] == pytest.approx(sum(values) / len(values), rel=1e-12)
    assert means["none"] is None


def test_the_log_has_a_curve_for_each_source(make_shards: MakeShards, tmp_path: Path, noted: Seen) -> None:
    a, b, out = make_shards(24, "a"), make_shards(40, "b", seed=3), tmp_path / "run"
    loop.train(config(a, out, manifest=(a, b), tensorboard=True, write_layer=""))
    uids = {path: {sample.key for sample in read_samples(read_manifest(path), [])} for path in (a, b)}
    first = 0
    for row in runs.lines(out):
        for path in (a, b):
            steps = range(first + 1, row["step"] + 1)
            losses = [loss for uid in noted.keys() & uids[path] for step, loss in noted[uid] if step in steps]
            assert row["loss_by_source"][path] == pytest.approx(sum(losses) / len(losses), rel=1e-6)
        first = row["step"]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    assert {tag for tag in events.Tags()["scalars"] if "by_source" in tag} == {"loss_by_source/a", "loss_by_source/b"}
    alone = tmp_path / "alone"
    loop.train(config(a, alone, write_layer=""))
    assert all("loss_by_source" not in row for row in runs.lines(alone))


def test_names_of_sources() -> None:
    assert source_names(["a", "x/b", "a", "a"]) == ["a", "x/b", "a#2", "a#3"]


def test_a_step_that_has_a_sample_twice_gives_the_mean() -> None:
    losses = SampleLosses([3, 2])
    sources, positions = np.array([[0, 1, 1, 0]]), np.array([[2, 0, 0, 1]])
    losses.take([4], sources, positions, np.array([[1.0, 2.0, 5.0, np.nan]], np.float32))
    assert losses.loss.tolist() == [0, 0, 1.0, 3.5, 0]
    assert losses.seen.tolist() == [0, 0, 1, 2, 0]
    assert losses.last.tolist() == [0, 0, 4, 4, 0]
    copy = SampleLosses([3, 2])
    copy.restore(losses.state())
    assert np.array_equal(copy.loss, losses.loss)
    with pytest.raises(RunError, match="losses of 5 samples in the checkpoint"):
        SampleLosses([4]).restore(losses.state())
