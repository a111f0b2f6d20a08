"""`train seen` tells the steps that the log, the checkpoints and a layer of losses tell."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from shards.core.errors import RunError, UsageError
from tests.train import runs
from train import loop
from train.commands.seen import SeenConfig, seen, show

pytestmark = pytest.mark.usefixtures("micro_models", "one_thread")
MakeShards = Callable[..., str]


def test_steps_are_those_of_the_log_and_of_the_named_batch(
    make_shards: MakeShards, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A training that stops at a loss that is no number names step and uids of that batch: the oracle is that file."""
    build, fine, torn = make_shards(32), tmp_path / "fine", tmp_path / "torn"
    options = {"warmup": 0, "samples_seen": 4 * 16, "log_every": 1}
    loop.train(runs.config("clip", build, fine, **options))
    with pytest.raises(RunError, match="not a number"):
        loop.train(runs.config("clip", build, torn, **{**options, "lr": 1e30}))
    batch = json.loads((torn / "bad-batch.json").read_text())
    # The order hangs on the seed and the build alone: the batches of both trainings are the same.
    at_step = {at.uid for at in seen(SeenConfig(str(fine), uid=tuple(batch["uids"]))) if at.step == batch["step"]}
    assert at_step == set(batch["uids"])
    steps = {at.step for at in seen(SeenConfig(str(fine), uid=tuple(batch["uids"])))}
    assert steps <= {row["step"] for row in runs.lines(fine)} == {1, 2, 3, 4}
    logged = [row["step"] for row in runs.lines(torn)]
    assert batch["step"] == len(logged) + 1  # the first line that is not there
    capsys.readouterr()
    assert show(SeenConfig(str(fine), uid=(batch["uids"][0],), until=0, json=True)) == 1
    assert json.loads(capsys.readouterr().out) == []
    with pytest.raises(UsageError, match="no sample 'nobody'"):
        list(seen(SeenConfig(str(fine), uid=("nobody",))))
