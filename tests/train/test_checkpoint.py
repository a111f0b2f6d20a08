"""Checkpoints: whole or absent, safe to load, refused for another training."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from shards.core.errors import RunError, TornFileError, UsageError
from train import checkpoint
from train.config import TrainConfig
from train.tasks import clip, simclr

MANIFESTS = [{"digest": "d" * 64, "weight": None, "samples": 64}]


def config(**values: Any) -> TrainConfig:
    return clip.Config.from_flags({"manifest": ("a",), "output": "out", "epochs": 1.0, **values})


def state(step: int = 5, **changes: Any) -> dict[str, Any]:
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return {
        "task": "clip",
        "state_dict": model.state_dict(),
        "heads": {"table": torch.arange(4)},
        "ema": None,
        "optimizer": optimizer.state_dict(),
        "scaler": {},
        "seed": 0,
        "step": step,
        "samples_seen": step * 8,
        "bad": [[0, 7, "b", "torn"]],
        "manifests": MANIFESTS,
        "parent": {"file": "x.pt", "sha256": "a" * 64, "kind": "open_clip", "provenance": "unknown"},
        "best": {"step": 3, "value": 0.5, "name": "acc1"},
        "config": config().essence(),
        **changes,
    }


def test_what_is_saved_is_what_is_read(tmp_path: Path) -> None:
    before = state()
    path = checkpoint.save(str(tmp_path), before)
    after = checkpoint.read(path)
    assert torch.equal(after["state_dict"]["weight"], before["state_dict"]["weight"])
    assert torch.equal(after["heads"]["table"], before["heads"]["table"])
    assert torch.equal(after["optimizer"]["state"][0]["exp_avg"], before["optimizer"]["state"][0]["exp_avg"])
    plain = ("task", "ema", "seed", "step", "samples_seen", "bad", "manifests", "parent", "best", "config")
    assert {k: after[k] for k in plain} == {k: before[k] for k in plain}
    assert (after["format"], after["format_version"]) == ("provender-checkpoint", 2)
    assert checkpoint.path_in(str(tmp_path)) == path == checkpoint.path_in(path)
    assert os.listdir(tmp_path) == ["checkpoint.pt"]


def test_older_ones_are_kept_as_asked(tmp_path: Path) -> None:
    for step in (1, 2, 10, 300):
        checkpoint.save(str(tmp_path), state(step), keep=2)
    assert sorted(os.listdir(tmp_path)) == ["checkpoint-000000010.pt", "checkpoint-000000300.pt", "checkpoint.pt"]
    assert checkpoint.read(str(tmp_path / "checkpoint.pt"))["step"] == 300


def test_the_best_one_is_a_file_of_its_own(tmp_path: Path) -> None:
    checkpoint.save(str(tmp_path), state(1), keep=2)
    checkpoint.save(str(tmp_path), state(1), keep=2, name=checkpoint.BEST)
    checkpoint.save(str(tmp_path), state(2), keep=1)
    assert sorted(os.listdir(tmp_path)) == ["best.pt", "checkpoint-000000002.pt", "checkpoint.pt"]
    assert checkpoint.read(str(tmp_path / "best.pt"))["step"] == 1


def test_what_a_killed_run_left_is_swept(tmp_path: Path) -> None:
    for name in (".checkpoint.pt.tmp-123", ".checkpoint-000000001.pt.tmp-4", ".best.pt.tmp-5", "mine.pt.tmp-1"):
        (tmp_path / name).write_bytes(b"half")
    checkpoint.save(str(tmp_path), state())
    assert sorted(os.listdir(tmp_path)) == ["checkpoint.pt", "mine.pt.tmp-1"]


def test_a_torn_file_and_a_foreign_one_are_told_apart(tmp_path: Path) -> None:
    path = Path(checkpoint.save(str(tmp_path), state()))
    whole = path.read_bytes()
    for length in (len(whole) - 900, len(whole) // 2, 100):
        path.write_bytes(whole[:length])
        with pytest.raises(TornFileError, match="not a whole checkpoint"):
            checkpoint.read(str(path))
    torch.save({"epoch": 3, "state_dict": {}}, path)
    with pytest.raises(UsageError, match="not a checkpoint of ours"):
        checkpoint.read(str(path))
    torch.save([1, 2], path)
    with pytest.raises(UsageError, match="not a checkpoint of ours"):
        checkpoint.read(str(path))
    torch.save({**state(), "format": checkpoint.FORMAT, "format_version": 1}, path)
    with pytest.raises(UsageError, match="format version 1") as error:
        checkpoint.read(str(path))
    assert error.value.allowed == "2"
    for absent in (tmp_path / "absent.pt", tmp_path):
        with pytest.raises(UsageError, match="no checkpoint"):
            checkpoint.read(str(absent))


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "an empty file"),
        (b"hello, this is no checkpoint", "a text file that begins 'hello"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "an HTML page"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "a PNG image"),
        (bytes(range(256)) * 4, "a binary file of an unknown kind"),
    ],
)
def test_what_is_no_checkpoint_is_described(content: bytes, what: str, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(content)
    with pytest.raises(UsageError) as error:
        checkpoint.read(str(path))
    assert what in str(error.value)
    assert "weights_only" not in str(error.value)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.mkdir, (str(tmp_path / "owned"),)

    torch.save({"format": checkpoint.FORMAT, "payload": Payload()}, tmp_path / "evil.pt")
    with pytest.raises(TornFileError) as error:
        checkpoint.read(str(tmp_path / "evil.pt"))
    assert "weights_only" not in str(error.value)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("keep", [0, 2])
@pytest.mark.parametrize("earlier", [True, False])
def test_a_disk_that_fails_leaves_the_checkpoint_of_before(keep: int, earlier: bool, tmp_path: Path) -> None:
    """A named pipe's other end has gone: the operating system refuses the write, as a full disk does."""
    if earlier:
        checkpoint.save(str(tmp_path), state(1), keep)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    name = f"checkpoint-{2:09d}.pt" if keep else "checkpoint.pt"
    target = tmp_path / f".{name}.tmp-{os.getpid()}"
    target.symlink_to("/dev/full")
    with pytest.raises(RunError) as error:
        checkpoint.save(str(tmp_path), state(2), keep)
    said = str(error.value)
    assert f"{tmp_path}/{name}: No space left on device, while saving step 2" in said
    assert (f"the checkpoint of before, {tmp_path}/checkpoint.pt, is whole" in said) == earlier
    assert ("there is no earlier checkpoint" in said) != earlier
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_same_training_may_go_on_elsewhere(tmp_path: Path) -> None:
    moved = {"output": "moved", "workers": 7, "device": "cpu", "log_every": 3, "manifest": ("moved-too",), "loader": "threads"}
    now = config(**moved, tensorboard=False, accum=2, checkpoint_minutes=1.0, max_bad_share=0.5, strict=True, from_="x")
    checkpoint.check("c.pt", state(), now, MANIFESTS)


@pytest.mark.parametrize(
    ("values", "manifests", "message"),
    [
        ({"lr": 0.5}, MANIFESTS, "lr: 0.001 then, 0.5 now"),
        ({"epochs": 2.0}, MANIFESTS, "epochs: 1.0 then, 2.0 now"),
        ({"augment": {"flip": 0.5}}, MANIFESTS, "augment"),
        ({"bn_group": 8}, MANIFESTS, "bn_group: None then, 8 now"),
        ({"loss": "siglip"}, MANIFESTS, "loss: 'clip' then, 'siglip' now"),
        ({}, [{**MANIFESTS[0], "digest": "e" * 64}], "data: dddddddddddd"),
        ({}, [{**MANIFESTS[0], "weight": 2.0}], "@2"),
        ({}, [{**MANIFESTS[0], "samples": 32}], "32 samples"),
        ({}, MANIFESTS * 2, "data"),
    ],
)
def test_another_training_is_refused(values: dict[str, Any], manifests: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(UsageError) as error:
        checkpoint.check("c.pt", state(), config(**values), manifests)
    assert message in str(error.value)
    assert "--from c.pt --output NEW" in error.value.advice


def test_another_task_is_refused() -> None:
    now = simclr.Config.from_flags({"manifest": ("a",), "output": "out", "epochs": 1.0})
    with pytest.raises(UsageError, match="task: 'clip' then, 'simclr' now"):
        checkpoint.check("c.pt", state(), now, MANIFESTS)
    checkpoint.check_task("c.pt", state(), ("clip", "slip"))
    with pytest.raises(UsageError, match=r"c\.pt: a checkpoint of clip"):
        checkpoint.check_task("c.pt", state(), ("simclr",))
