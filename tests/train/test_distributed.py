"""Two processes are one: the same weights, the same gradients; and a killed training ends as if it had not been."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from train.losses.clip import clip_loss

pytestmark = pytest.mark.slow
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]


def flags(build: str, output: Path, *more: str) -> list[str]:
    fixed = ["--batch-size=16", "--samples-seen=96", "--workers=1", "--no-tensorboard", "--device=cpu", "--log-every=1"]
    return ["-m", "train", "clip", "--manifest", build, "--output", str(output), *fixed, *more]


def weights(output: Path) -> dict[str, torch.Tensor]:
    return torch.load(output / "checkpoint.pt", weights_only=True)["model"]


def test_two_processes_end_where_one_does(make_shards: Callable[..., str], tmp_path: Path) -> None:
    build = make_shards(40)
    # A large epsilon makes AdamW's step smooth in the gradient; with 1e-8 its first steps are the gradient's signs.
    same = ("--model=tiny-vit-32", "--eps=0.01", "--lr=0.01", "--warmup=0", "--grad-clip=5")
    subprocess.run([sys.executable, *flags(build, tmp_path / "one", *same)], check=True, env=ONE_THREAD)
    subprocess.run([*TORCHRUN, *flags(build, tmp_path / "two", *same)], check=True, env=ONE_THREAD)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    torch.manual_seed(0)
    from train.model import build_model

    first = build_model("tiny-vit-32").state_dict()
    moved = sum(float((one[n] - first[n]).abs().sum()) for n in one)
    apart = sum(float((one[n] - two[n]).abs().sum()) for n in one)
    assert moved > 0
    assert apart < 1e-3 * moved


GRADIENTS = """
import sys, torch, torch.nn.functional as F
from train import distributed
from train.losses.clip import clip_loss

with distributed.session("cpu"):
    generator = torch.Generator().manual_seed(0)
    images, texts, project = (torch.randn(s, generator=generator, dtype=torch.float64) for s in ((8, 5), (8, 5), (5, 4)))
    mine = slice(4 * distributed.rank(), 4 * distributed.rank() + 4)
    project.requires_grad_()
    scale = torch.tensor(6.0, dtype=torch.float64, requires_grad=True)
    a, b = (F.normalize(x[mine] @ project, dim=-1) for x in (images, texts))
    loss = clip_loss(a, b, scale)
    loss.backward()
    numbers = [distributed.mean(x) for x in (loss, project.grad, scale.grad)]
    parts = distributed.gather_objects(distributed.rank())
    if distributed.rank() == 0:
        assert parts == [0, 1]
        torch.save(numbers, sys.argv[1])
"""


def test_mean_gradients_of_two_ranks_are_those_of_the_global_batch(tmp_path: Path) -> None:
    script, out = tmp_path / "gradients.py", tmp_path / "gradients.pt"
    script.write_text(GRADIENTS)
    subprocess.run([*TORCHRUN, str(script), str(out)], check=True, env=ONE_THREAD)
    generator = torch.Generator().manual_seed(0)
    images, texts, project = (torch.randn(s, generator=generator, dtype=torch.float64) for s in ((8, 5), (8, 5), (5, 4)))
    scale = torch.tensor(6.0, dtype=torch.float64, requires_grad=True)
    project.requires_grad_()
    loss = clip_loss(*(F.normalize(x @ project, dim=-1) for x in (images, texts)), scale)
    loss.backward()
    for ours, expected in zip(torch.load(out, weights_only=True), (loss.detach(), project.grad, scale.grad), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)


def test_a_killed_training_ends_with_the_same_bits(make_shards: Callable[..., str], tmp_path: Path) -> None:
    build = make_shards(40)
    same = ("--model=tiny-rn-32", "--checkpoint-every=1")
    subprocess.run([sys.executable, *flags(build, tmp_path / "whole", *same)], check=True, env=ONE_THREAD)
    command = [sys.executable, *flags(build, tmp_path / "killed", *same)]
    draw = random.Random(0)
    for _ in range(2):
        running = subprocess.Popen(command, env=ONE_THREAD)
        log = tmp_path / "killed" / "log.jsonl"
        before = log.stat().st_size if log.exists() else 0
        while running.poll() is None and not (log.exists() and log.stat().st_size > before):
            time.sleep(0.02)
        time.sleep(draw.random() * 0.1)
        running.send_signal(signal.SIGKILL)
        running.wait()
    subprocess.run(command, check=True, env=ONE_THREAD)
    expected, got = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(torch.equal(got[name], expected[name]) for name in expected)
    assert not list((tmp_path / "killed").glob(".checkpoint*"))
