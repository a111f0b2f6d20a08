"""The benchmarks of training: what they count against closed forms and twins, and each of them run at tiny size."""

from __future__ import annotations

import importlib
import io
import itertools
import json
import os
import random
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"


def module_of(name: str) -> Any:
    """Import a benchmark, which finds its neighbours by name."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def loader() -> Any:
    return module_of("loader")


@pytest.fixture(scope="module")
def peer() -> Any:
    return module_of("_open_clip")


@pytest.fixture(scope="module")
def resume_large() -> Any:
    return module_of("resume_large")


def figures_of(name: str, output: Path, *words: str) -> dict[str, Any]:
    """Run a benchmark as a command and return its figures."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), *words, "--output", str(output)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert done.stdout.startswith(f"{name}: ") or done.stdout.startswith(f"{name}_small: ")
    return json.loads(output.read_text())


# What is counted


def test_processor_seconds_of_a_child_are_counted(loader: Any) -> None:
    """A child computes for 0.3 s and says how long it has computed in all; the clock's ticks are 10 ms."""
    busy = "import time\nwhile time.process_time() < 0.3: pass\nprint(time.process_time(), flush=True)\ninput()"
    before, before_here = loader.cpu_seconds(), time.process_time()
    child = subprocess.Popen([sys.executable, "-c", busy], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    stated = float(child.stdout.readline())
    counted = loader.cpu_seconds() - before
    here = time.process_time() - before_here
    child.communicate("\n")
    assert counted == pytest.approx(stated + here, abs=0.06)  # the measurement itself takes some of it


def test_descendants_equal_a_walk_from_below(loader: Any) -> None:
    rng = random.Random(5)
    parents = {child: rng.randrange(child) for child in range(1, 60)}

    def is_below(process: int, root: int) -> bool:
        return process == root or (process in parents and is_below(parents[process], root))

    for root in (0, 1, 7, 59):
        assert loader.descendants(root, parents) == {process for process in range(60) if is_below(process, root)}


def test_the_reference_crop_is_the_one_of_torchvision(loader: Any) -> None:
    """Bit-equal: torchvision's resized_crop on a Pillow image is what open_clip's transform calls."""
    import numpy as np
    from PIL import Image
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.functional import resized_crop

    from tests.conftest import draw
    from train.data.augment.params import Window

    content, _, _ = draw(0, width=100, height=90)
    image = Image.open(io.BytesIO(content)).convert("RGB")
    for window in (Window(3, 5, 80, 70), Window(0, 0, 40, 88)):
        expected = resized_crop(image, *window, [48, 48], InterpolationMode.BICUBIC)
        assert np.array_equal(loader.by_pillow(content, window, 48), np.asarray(expected, np.int16))


def test_a_loader_is_timed_by_whole_turns_behind_the_warm_up(loader: Any) -> None:
    """A loader whose batches take 5 ms each, and its first ones 100 ms, makes 200 batches of 3 a second."""
    taken = []

    def slow() -> Any:
        for number in itertools.count():
            taken.append(number)
            time.sleep(0.1 if number < loader.WARM else 0.005)
            yield number

    wall, _ = loader.timed(slow, seconds=0.2, batch=3)
    counted = len(taken) - loader.WARM
    assert counted >= loader.AT_LEAST
    assert counted % loader.MULTIPLE == 0
    assert 3 / 0.1 * 2 < wall <= 3 / 0.005


def test_ratios_are_against_the_rival_of_the_same_workers(loader: Any) -> None:
    def rate(wall: float, cpu: float) -> dict[str, Any]:
        return {"median": wall, "per_cpu_s": {"median": cpu}}

    rates = {
        "open_clip, 1 workers": rate(100, 90),
        "uint8, 1 workers": rate(250, 270),
        "open_clip, 2 workers": rate(200, 100),
        "uint8, 2 workers": rate(800, 350),
        "SLIP views, 2 workers": rate(50, 25),
        "views uint8, 2 workers": rate(300, 100),
    }
    assert loader.ratios(rates) == {
        "uint8, 1 workers": {"wall": 2.5, "cpu": 3.0},
        "uint8, 2 workers": {"wall": 4.0, "cpu": 3.5},
        "views uint8, 2 workers": {"wall": 6.0, "cpu": 4.0},
    }


def test_stepped_times_the_steps_behind_the_warm_up(peer: Any) -> None:
    """The processor's clock is a counter that each step moves by 1: 4 of 7 steps are under it, the last one whole."""
    clock = 0
    stepped = peer.Stepped(itertools.count(), warm=3, steps=4, cpu=lambda: clock)
    seen = []
    for batch in stepped:
        seen.append(batch)
        clock += 1
    assert seen == list(range(7))
    assert stepped.cpu == 4
    assert 0 < stepped.wall < 1


def test_memory_of_this_process(resume_large: Any) -> None:
    """The peak is what getrusage states, in units of 1,024 bytes."""
    import mmap

    before = resume_large.memory(os.getpid())
    # Memory of its own: an allocator may hand out what it still holds.
    block = mmap.mmap(-1, 30_000_000, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for start in range(0, len(block), mmap.PAGESIZE):
        block[start] = 1
    after = resume_large.memory(os.getpid())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    assert after["VmHWM"] == pytest.approx(peak, rel=0.02)
    assert after["RssAnon"] - before["RssAnon"] == pytest.approx(len(block) / 1e6, abs=3)
    assert after["without_ring"] == pytest.approx(after["RssAnon"] + after["RssFile"], abs=0.2)


def test_the_linked_set_is_whole(resume_large: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """3 shards of 20 samples: one epoch delivers each of the 60 positions once, each uid three times."""
    from shards.manifest import read_manifest
    from train.data.batch import Needs
    from train.data.loader import Loader

    monkeypatch.setattr(module_of("_photos"), "REAL", tmp_path / "none")  # drawn pictures: no real photos to read first
    resume_large.write_set(str(tmp_path / "set"), 3, 20)
    manifest = read_manifest(str(tmp_path / "set"))
    assert (manifest.samples, len(manifest.shards)) == (60, 3)
    loader = Loader([(manifest, None)], batch_size=20, image_size=16, seed=0, needs=Needs(captions=True))
    batches = loader.batches()
    delivered = [next(batches) for _ in range(3)]
    batches.close()  # type: ignore[attr-defined]
    assert sorted(position for batch in delivered for position in batch.positions.tolist()) == list(range(60))
    uids = [uid for batch in delivered for uid in batch.uids]
    assert {uids.count(uid) for uid in uids} == {3}


def test_lines_of_open_clips_log_are_read() -> None:
    """A line as open_clip 3.3 formats it; the run of all of it is below."""
    gpu, training = module_of("gpu"), module_of("training")
    line = (
        "2026-11-29,12:00:00 | INFO | Train Epoch: 0 [ 64/128 (50%)] Data (t): 0.250 Batch (t): 0.500, 32.0/s, 32.0/s/gpu "
        "LR: 0.000500 Logit Scale: 14.286 Contrastive_loss: 2.7726 (2.7726) Loss: 2.8000 (2.7726)\n"
    )
    assert gpu.steps_of(line * 2) == [{"waited": 0.25, "seconds": 0.5, "loss": 2.8}] * 2
    path = Path(os.devnull)
    assert training.logged_losses(path) == []


# The whole of each, at tiny size


@pytest.mark.slow
def test_loader_at_tiny_size(tmp_path: Path) -> None:
    words = "--samples 64 --batch 8 --side 64 --rounds 1 --seconds 0.1 --workers 1 --sets d256".split()  # noqa: SIM905
    values = figures_of("loader", tmp_path / "figures.json", *words)
    figures = values["d256"]
    assert figures["levels"]["uint8"]["mean"] <= 1  # decoded at half scale for crops of 64 pixels; at 224 it is 0.2
    assert figures["levels"]["dali cubic"]["mean"] <= 0.5
    assert 0.5 < figures["levels"]["fast"]["mean"] < 5
    rates = figures["rates"]
    expected = rates["uint8, 2 workers"]["median"] / rates["open_clip, 2 workers"]["median"]
    assert figures["ratios"]["uint8, 2 workers"]["wall"] == pytest.approx(expected, abs=0.006)
    assert all(rate["least"] > 0 for rate in rates.values())


@pytest.mark.slow
def test_training_at_tiny_size(tmp_path: Path) -> None:
    """With the same first weights and batches, the losses are those of open_clip's own loop."""
    shape = "--samples 128 --batch 16 --steps 8 --warm 1 --rounds 1 --epochs 1 --turns 1".split()  # noqa: SIM905
    words = [*shape, "--models", "tiny-rn-64", "--precisions", "fp32"]
    run = figures_of("training", tmp_path / "figures.json", *words)["runs"]["tiny-rn-64, fp32"]
    assert len(run["curve"]["ours"]) == len(run["curve"]["open_clip"]) == 8
    assert run["curve"]["first_difference"] < 1e-5
    # Rounding grows from step to step: 1.2e-6 on one processor, 1.8e-4 on another; another order of batches makes it 1e-1.
    assert run["curve"]["largest_difference"] < 2e-3
    assert run["whole"]["ours"]["last_loss"] == pytest.approx(run["whole"]["open_clip"]["last_loss"], abs=0.5)
    steps = run["steps"]
    assert run["ratio"] == pytest.approx(steps["ours"]["median"] / steps["open_clip"]["median"], abs=0.006)


@pytest.mark.slow
def test_resume_large_at_tiny_size(tmp_path: Path) -> None:
    """6 shards of 200: step 26 of batches of 64 lies in the second epoch, and the command goes on with it."""
    words = "--shards 6 --per-shard 200 --batch 64 --side 32 --worlds 1 2".split()  # noqa: SIM905
    values = figures_of("resume_large", tmp_path / "figures.json", *words)
    step = int(1.43 * 1200 / 64)
    for world, rank_batch in ((1, 64), (2, 32)):
        alone = values[f"loader, 1 of {world}"]
        assert (alone["step"], alone["epochs"], alone["rank_batch"]) == (step, [1], rank_batch)
        assert 0 < alone["manifest_s"] < alone["first_batch_s"]
        assert 20 < alone["at_first_mb"]["without_ring"] < 1000
    assert values["command"]["steps"] == [step + 1, step + 2]
    assert 0 < values["command"]["first_step_s"] <= values["command"]["whole_s"]


@pytest.mark.slow
def test_gpu_on_the_cpu(tmp_path: Path) -> None:
    values = figures_of("gpu", tmp_path / "figures.json", "--size", "small", "--seconds", "900")
    assert set(values["runs"]) == {"clip tiny-rn-32", "clip tiny-vit-32", "simclr tiny-rn-32"}
    for pair in values["runs"].values():
        assert pair["ratio"] == pytest.approx(pair["ours"]["samples_per_s"] / pair["peer"]["samples_per_s"])
        assert pair["peer"]["mfu"] == pytest.approx(pair["ours"]["mfu"] / pair["ratio"])
        assert 0 < pair["ours"]["mfu"] < 1
        assert 0 <= pair["ours"]["waiting"] < 1
        assert 0 <= pair["peer"]["waiting"] < 1
