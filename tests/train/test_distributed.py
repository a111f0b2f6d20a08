"""Two processes are one: the same curve, the same weights, the same gradients; and a signal to one of them stops both.

Run as a program (torchrun starts it twice), this file trains each of CASES, so that the processes are started once for all.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.train import runs
from tests.train.runs import lines, state, tensors
from train import distributed, loop, run
from train.losses.clip import clip_loss

pytestmark = pytest.mark.slow
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]

# Rounding differs by 1e-7 in the first step. BatchNorm over few samples multiplies it by ten in each step at a learning rate
# of 0.01 (1e-3 after five); at 0.001, over groups of 8, it stays small. ViTs without BatchNorm differ by 1e-6 in all steps.
# A large epsilon makes AdamW's step smooth in the gradient; with 1e-8 its first steps are the gradient's signs.
SMOOTH: dict[str, Any] = {"eps": 0.01, "lr": 0.01, "warmup": 0, "samples_seen": 6 * 16, "log_every": 1}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "clip-vit": ("clip", {"model": "micro-vit", "grad_clip": 5.0}),
    "clip-vit-accum": ("clip", {"model": "micro-vit", "accum": 2}),
    "clip-rn": ("clip", {"bn_group": 8, "lr": 1e-3, "ema": 0.9}),
    "clip-siglip": ("clip", {"model": "micro-vit", "loss": "siglip"}),
    "clip-fastclip-v1": ("clip", {"model": "micro-vit", "loss": "fastclip", "fastclip": {"version": "v1"}}),
    "simclr-vit": ("simclr", {"model": "micro-vit", "bn_group": 8, "lr": 1e-3}),
    "simclr-rn": ("simclr", {"bn_group": 8, "lr": 1e-3}),
    "slip-rn": ("slip", {"bn_group": 8, "lr": 1e-3}),
    "byol-rn": ("byol", {"bn_group": 8, "lr": 1e-3}),
    "supervised-rn": ("supervised", {"bn_group": 8, "lr": 1e-3, "classes": 4, "mix": {"mixup": 0.2}}),
    "clip-weights": ("clip", {"model": "micro-vit", "weights": "known.weight", "write_layer": "losses"}),
    "clip-siglip-weights-accum": ("clip", {"model": "micro-vit", "loss": "siglip", "weights": "known.weight", "accum": 2}),
    "supervised-weights": ("supervised", {"model": "micro-vit", "classes": 4, "weights": "known.weight", "mix": {"mixup": 0.2}}),
    "supervised-process": ("supervised", {"model": "micro-vit", "classes": 4, "loader": "process"}),
}


def configuration(name: str, build: str, output: Path) -> Any:
    task, options = CASES[name]
    return runs.config(task, build, output, **{**SMOOTH, **options})


def main(build: str, folder: Path) -> None:
    """Train every case on all processes, and measure the gradients of `measure`."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as models:
        runs.know_models(Path(models))
        with distributed.session("cpu"):
            numbers = measure()
            if distributed.rank() == 0:
                torch.save(numbers, folder / "gradients.pt")
            for name in CASES:
                assert loop.train(configuration(name, build, folder / name)) == 0


def measure() -> list[torch.Tensor]:
    """Return the mean over ranks of CLIP's loss, of its gradient in a projection that all share, and of that in the scale."""
    generator = torch.Generator().manual_seed(0)
    images, texts, project = (torch.randn(s, generator=generator, dtype=torch.float64) for s in ((8, 5), (8, 5), (5, 4)))
    n = 8 // distributed.world_size()
    mine = slice(n * distributed.rank(), n * distributed.rank() + n)
    project.requires_grad_()
    scale = torch.tensor(6.0, dtype=torch.float64, requires_grad=True)
    a, b = (F.normalize(x[mine] @ project, dim=-1) for x in (images, texts))
    loss = clip_loss(a, b, scale).mean()
    gradients = torch.autograd.grad(loss, [project, scale])
    assert distributed.gather_objects(distributed.rank()) == list(range(distributed.world_size()))
    return [distributed.mean(x.detach()) for x in (loss, *gradients)]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Captions and class numbers among the members of foreign tars, made once, and a layer of weights.

    An index names no classes: they are stated.
    """
    from curate import cli as curate_cli
    from shards import cli
    from tests.conftest import draw

    folder = tmp_path_factory.mktemp("sets") / "data"
    members = lambda i, jpeg, caption: {"cls": str(draw(i)[2]).encode(), "jpg": jpeg, "txt": caption.encode()}
    runs.write_tars(folder, members, n=40)
    assert cli.main(["index", str(folder)]) == 0
    weights = folder.parent / "weights.csv"
    weights.write_text("uid,weight\n" + "".join(f"s{i:06d},{i % 5 / 2}\n" for i in range(40)))
    assert curate_cli.main(["layer", "add", str(folder), "known", str(weights)]) == 0
    return str(folder)


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory, build: str) -> Path:
    folder = tmp_path_factory.mktemp("two")
    done = subprocess.run([*TORCHRUN, __file__, build, str(folder)], env=runs.ONE_THREAD, cwd=runs.ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-5000:]
    return folder


@pytest.fixture(autouse=True, scope="module")
def _models(tmp_path_factory: pytest.TempPathFactory) -> None:
    runs.know_models(tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize("name", CASES)
def test_two_processes_give_the_curve_of_one(name: str, build: str, of_two: Path, tmp_path: Path) -> None:
    one, two = tmp_path / name, of_two / name
    settings = configuration(name, build, one)
    with runs.one_thread():
        first = run.build(settings, runs.CPU).trained.state_dict()
        assert loop.train(settings) == 0
    curves = [[row["loss"] for row in lines(out)] for out in (one, two)]
    assert len(curves[0]) == 6
    assert curves[1][:3] == pytest.approx(curves[0][:3], rel=1e-5)
    # Sums in another order are amplified from step to step: 7e-5 in the last ones of SimCLR's ResNet on one processor, 6e-6 on another.
    assert curves[1] == pytest.approx(curves[0], rel=5e-4)
    ours, theirs = tensors(one), tensors(two)
    learned = [key for key in ours if key in first and ours[key].is_floating_point() and torch.isfinite(ours[key]).all()]
    moved = sum(float((ours[key] - first[key]).abs().sum()) for key in learned)
    apart = sum(float((ours[key] - theirs[key]).abs().sum()) for key in learned)
    assert moved > 0
    assert apart < 1e-3 * moved  # running statistics are among them
    if settings.ema is not None:
        averages = [state(out)["ema"] for out in (one, two)]
        for key, value in averages[0].items():
            if isinstance(value, torch.Tensor):
                torch.testing.assert_close(averages[1][key], value, rtol=1e-3, atol=1e-4)
    logged = [sum(row["replaced"] for row in lines(out)) for out in (one, two)]
    assert logged == [0, 0]


def test_two_processes_know_the_losses_of_one(build: str, of_two: Path, tmp_path: Path) -> None:
    with runs.one_thread():
        assert loop.train(configuration("clip-weights", build, tmp_path / "one")) == 0
    ours, theirs = state(tmp_path / "one")["losses"], state(of_two / "clip-weights")["losses"]
    torch.testing.assert_close(theirs["loss"], ours["loss"], rtol=1e-4, atol=0)
    assert torch.equal(theirs["seen"], ours["seen"])
    assert torch.equal(theirs["last"], ours["last"])
    assert int(ours["seen"].sum()) == 6 * 16


def test_mean_gradients_of_two_ranks_are_those_of_the_global_batch(of_two: Path) -> None:
    for ours, expected in zip(torch.load(of_two / "gradients.pt", weights_only=True), measure(), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_signal_to_one_process_stops_and_saves_both(build: str, tmp_path: Path) -> None:
    out, port = tmp_path / "run", free_port()
    fixed = ["--model=micro-vit", "--batch-size=8", "--samples-seen=100000", "--log-every=2", "--loader=threads", "--workers=1"]
    command = [sys.executable, "-m", "tests.train.runs", "clip", "--manifest", build, "--output", str(out), *fixed, "--no-tensorboard"]
    ranks = []
    for rank in range(2):
        world = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        ranks.append(subprocess.Popen([*command, "--device=cpu"], env={**runs.ONE_THREAD, **world}, cwd=runs.ROOT, stderr=subprocess.PIPE))
    while not (out / "log.jsonl").exists() or len(lines(out)) < 2:
        assert ranks[0].poll() is None
        time.sleep(0.05)
    os.kill(ranks[1].pid, signal.SIGTERM)
    told = [process.communicate(timeout=120)[1].decode() for process in ranks]
    assert [process.returncode for process in ranks] == [143, 143], told
    step = state(out)["step"]
    assert step % 2 == 0
    assert f"interrupted at step {step:,}, saved" in told[0]
    assert json.loads((out / "log.jsonl").read_text().splitlines()[-1])["step"] == step


def test_outside_of_torchrun_there_is_one_process() -> None:
    rows = torch.arange(6.0).reshape(3, 2)
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
    assert distributed.gather(rows) is rows
    assert distributed.mean(rows) is rows
    assert distributed.gather_objects("x") == ["x"]
    assert distributed.barrier_any(True, runs.CPU)
    assert not distributed.barrier_any(False, runs.CPU)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
