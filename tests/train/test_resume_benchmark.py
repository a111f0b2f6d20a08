"""The resume benchmark: its counts against plain loops and closed forms, and its runs at tiny size with real kills."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import random
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
PEERS = Path(os.environ["PROVENDER_PEERS"]).resolve() if os.environ.get("PROVENDER_PEERS") else None
BATCH = 8


@pytest.fixture(scope="module")
def resume() -> Any:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec = importlib.util.spec_from_file_location("resume_benchmark", BENCHMARKS / "resume.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["resume_benchmark"] = module
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def small_set(resume: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("set")
    return folder, resume.write_set(folder, 64, seed=0)


def job_of(resume: Any, data: Path, folder: Path) -> Any:
    return resume.Job(str(data), str(folder / "converted"), 64, 2, BATCH, workers=2, seed=7, buffer=8)


def test_tally_of_known_runs(resume: Any) -> None:
    keys = ["a", "b", "c"]
    whole = [(epoch, key) for epoch in (0, 1) for key in keys]
    assert resume.tally(whole, keys, 2) == (0, 0, 0)
    assert resume.tally(whole[::-1], keys, 2) == (0, 0, 0)
    assert resume.tally([*whole, (0, "a"), (0, "a"), (1, "b")], keys, 2) == (3, 0, 0)
    assert resume.tally(whole[1:-1], keys, 2) == (0, 2, 0)
    # A sample of the wrong epoch is no substitute for one of the right epoch.
    assert resume.tally([(0, "a"), (0, "b"), (0, "c"), (0, "c")], keys, 2) == (1, 3, 0)
    assert resume.tally([*whole, (0, "x"), (2, "a")], keys, 2) == (0, 0, 2)


def test_tally_equals_plain_loops(resume: Any) -> None:
    rng = random.Random(3)
    keys = [f"k{i}" for i in range(20)]
    for _ in range(50):
        run = [(rng.randrange(2), rng.choice([*keys, "foreign"])) for _ in range(60)]
        repeated = lost = 0
        for epoch in range(2):
            for key in [*keys, "foreign"]:
                times = run.count((epoch, key))
                repeated += max(0, times - 1)
                lost += key in keys and times == 0
        foreign = sum(key == "foreign" for _, key in run)
        assert resume.tally(run, keys, 2) == (repeated, lost, foreign)


def test_common_start(resume: Any) -> None:
    run = [(0, "a"), (0, "b"), (0, "c")]
    assert resume.common_start(run, run) == 3
    assert resume.common_start(run, [(0, "a"), (0, "c"), (0, "b")]) == 1
    assert resume.common_start(run, run[:2]) == 2
    assert resume.common_start(run, []) == 0


def test_kills_are_in_the_middle_of_each_epoch(resume: Any, tmp_path: Path) -> None:
    job = resume.Job("", "", 2000, 2, 32, workers=2, seed=7, buffer=1)  # 63 steps an epoch, 3 of them spared at each end
    kills = resume.kill_steps(job, 5)
    assert len(set(kills)) == 10
    assert kills == sorted(kills)
    assert all(3 <= kill < 60 for kill in kills[:5])
    assert all(66 <= kill < 123 for kill in kills[5:])
    assert kills == resume.kill_steps(job, 5)


def test_the_set_is_whole_and_uneven(resume: Any, small_set: tuple[Path, list[str]]) -> None:
    from shards.manifest import read_manifest
    from shards.reader import read_samples

    folder, keys = small_set
    manifest = read_manifest(str(folder))
    assert [sample.key for sample in read_samples(manifest, [])] == keys
    assert len({shard.samples for shard in manifest.shards}) > 3


def test_ours_ends_with_the_epoch(resume: Any, small_set: tuple[Path, list[str]], tmp_path: Path) -> None:
    """64 samples in batches of 24: the third one holds 16 of the epoch, and 8 of the next that do not count."""
    data, keys = small_set
    job = dataclasses.replace(job_of(resume, data, tmp_path), epochs=1, batch_size=24)
    batches = [batch for _, batch in resume.PEERS["ours"](job).run(0, 0)]
    assert [len(batch) for batch in batches] == [24, 24, 16]
    assert resume.tally([delivery for batch in batches for delivery in batch], keys, 1) == (0, 0, 0)


@pytest.mark.slow
def test_ours_goes_on_exactly(resume: Any, small_set: tuple[Path, list[str]], tmp_path: Path) -> None:
    """Killed behind batches 3 and 11 of 16, the run is the undisturbed one, delivery by delivery."""
    data, keys = small_set
    job = job_of(resume, data, tmp_path)
    runner = resume.Runner("ours", tmp_path / "ours", PEERS)
    plain, _ = runner.consume("plain", job, [])
    killed, waits = runner.consume("killed", job, [3, 11])
    assert len(waits) == 3  # a process for each kill, and the last one
    assert killed == plain
    assert resume.tally(plain, keys, 2) == (0, 0, 0)


@pytest.mark.slow
def test_open_clip_begins_the_epoch_again(resume: Any, small_set: tuple[Path, list[str]], tmp_path: Path) -> None:
    """Closed form: killed behind batch 3 of 8, it delivers these 3 batches and then both whole epochs."""
    data, keys = small_set
    job = job_of(resume, data, tmp_path)
    runner = resume.Runner("open_clip", tmp_path / "open_clip", PEERS)
    assert runner.prepare(job) is not None
    killed, waits = runner.consume("killed", job, [3])
    assert len(waits) == 2
    assert len(killed) == (3 + 8 + 8) * BATCH
    assert resume.tally(killed, keys, 2).repeated >= 3 * BATCH


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torchdata-map", "litdata", "mosaic"])
def test_a_peer_that_is_there(resume: Any, name: str, small_set: tuple[Path, list[str]], tmp_path: Path) -> None:
    """Undisturbed, each of them delivers each sample once an epoch: the benchmark uses it as it is meant."""
    data, keys = small_set
    job = job_of(resume, data, tmp_path)
    runner = resume.Runner(name, tmp_path / name, PEERS)
    if runner.prepare(job) is None:
        pytest.skip(f"{', '.join(resume.PEERS[name].packages)} is not installed, nor in a folder of $PROVENDER_PEERS")
    plain, _ = runner.consume("plain", job, [])
    assert resume.tally(plain, keys, 2) == (0, 0, 0)
