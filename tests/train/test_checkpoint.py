"""Checkpoints: whole or absent, safe to load, refused for another training."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from shards.core.errors import TornFileError, UsageError
from train import checkpoint
from train.config import TrainConfig

MANIFESTS = [{"digest": "d" * 64, "weight": None, "samples": 64}]


def config(**values: Any) -> TrainConfig:
    return TrainConfig.from_flags({"manifest": ("a",), "output": "out", "epochs": 1.0, **values})


def state(step: int = 5, **changes: Any) -> dict[str, Any]:
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": {},
        "seed": 0,
        "step": step,
        "samples_seen": step * 8,
        "replaced": [["a", "b", "torn"]],
        "manifests": MANIFESTS,
        "config": config().essence(),
        **changes,
    }


def test_what_is_saved_is_what_is_read(tmp_path: Path) -> None:
    before = state()
    path = checkpoint.save(str(tmp_path), before)
    after = checkpoint.read(path)
    assert torch.equal(after["model"]["weight"], before["model"]["weight"])
    assert torch.equal(after["optimizer"]["state"][0]["exp_avg"], before["optimizer"]["state"][0]["exp_avg"])
    plain = ("seed", "step", "samples_seen", "replaced", "manifests", "config")
    assert {k: after[k] for k in plain} == {k: before[k] for k in plain}
    assert checkpoint.path_in(str(tmp_path)) == path == checkpoint.path_in(path)
    assert os.listdir(tmp_path) == ["checkpoint.pt"]


def test_older_ones_are_kept_as_asked(tmp_path: Path) -> None:
    for step in (1, 2, 10, 300):
        checkpoint.save(str(tmp_path), state(step), keep=2)
    assert sorted(os.listdir(tmp_path)) == ["checkpoint-000000010.pt", "checkpoint-000000300.pt", "checkpoint.pt"]
    assert checkpoint.read(str(tmp_path / "checkpoint.pt"))["step"] == 300


def test_what_a_killed_run_left_is_swept(tmp_path: Path) -> None:
    (tmp_path / ".checkpoint.pt.tmp-123").write_bytes(b"half")
    checkpoint.save(str(tmp_path), state())
    assert os.listdir(tmp_path) == ["checkpoint.pt"]


def test_a_torn_file_and_a_foreign_one_are_told_apart(tmp_path: Path) -> None:
    path = Path(checkpoint.save(str(tmp_path), state()))
    path.write_bytes(path.read_bytes()[:-900])
    with pytest.raises(TornFileError, match="not a whole checkpoint"):
        checkpoint.read(str(path))
    path.write_bytes(b"")
    with pytest.raises(TornFileError):
        checkpoint.read(str(path))
    torch.save({"epoch": 3, "state_dict": {}}, path)
    with pytest.raises(UsageError, match="not a checkpoint of ours"):
        checkpoint.read(str(path))
    with pytest.raises(UsageError, match="no checkpoint"):
        checkpoint.read(str(tmp_path / "absent.pt"))


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.mkdir, (str(tmp_path / "owned"),)

    torch.save({"format": checkpoint.FORMAT, "payload": Payload()}, tmp_path / "evil.pt")
    with pytest.raises(TornFileError):
        checkpoint.read(str(tmp_path / "evil.pt"))
    assert not (tmp_path / "owned").exists()


def test_the_same_training_may_go_on_elsewhere(tmp_path: Path) -> None:
    now = config(output="moved", workers=7, device="cpu", log_every=3, manifest=("moved-too",))
    checkpoint.check("c.pt", state(), now, MANIFESTS)


@pytest.mark.parametrize(
    ("values", "manifests", "message"),
    [
        ({"lr": 0.5}, MANIFESTS, "lr: 0.001 then, 0.5 now"),
        ({"epochs": 2.0}, MANIFESTS, "epochs: 1.0 then, 2.0 now"),
        ({"augment": {"flip": 0.5}}, MANIFESTS, "augment"),
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
