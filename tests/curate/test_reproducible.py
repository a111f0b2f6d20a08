"""Same inputs, same recipe, same bytes: whatever the workers, and however often the build is killed."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from drawing import encoded, picture
from PIL import Image

Build = Callable[..., tuple[int, Path, str]]
FLAGS = ("--samples", "all", "--samples-per-shard", "16")


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 1,300 pairs (three parts of the measure pass), some broken, some copies, some to be re-encoded."""
    folder = tmp_path_factory.mktemp("pool")
    lines = ["image,caption"]
    for i in range(1300):
        name = f"{i:05d}.{'png' if i % 9 == 0 else 'jpg'}"
        image = picture(i if i % 11 else 7, 48, 40)
        content = encoded(image, "PNG") if i % 9 == 0 else encoded(image)
        (folder / name).write_bytes(content[: len(content) // 2] if i % 13 == 0 else content)
        lines.append(f"{name},picture {i}")
    (folder / "captions.csv").write_text("\n".join(lines) + "\n")
    return folder


def command(pool: Path, out: Path, workers: int = 1) -> list[str]:
    flags = ["--source", "folder", "--input", str(pool), "--output", str(out), "--workers", str(workers), *FLAGS]
    return [sys.executable, "-c", "import sys; from curate.cli import main; sys.exit(main())", "build-shards", *flags]


def digests(out: Path) -> dict[str, str]:
    files = sorted(p for p in out.rglob("*") if p.is_file())
    return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def reference(pool: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("reference") / "out"
    subprocess.run(command(pool, out), check=True, capture_output=True)
    found = digests(out)
    assert sum(name.endswith(".tar") for name in found) > 40
    assert {"manifest.json", "sizes.json", "recipe.yaml", "report.html", "report.json", "ledger/00000.parquet"} <= set(found)
    return found


@pytest.mark.slow
def test_two_workers_write_what_one_writes(pool: Path, reference: dict[str, str], tmp_path: Path) -> None:
    subprocess.run(command(pool, tmp_path / "out", workers=2), check=True, capture_output=True)
    assert digests(tmp_path / "out") == reference


def files(folder: Path) -> int:
    """Count files in a tree that changes meanwhile."""
    return sum(len(names) for *_, names in os.walk(folder))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_ended_at_random_moments_and_resumed(pool: Path, reference: dict[str, str], tmp_path: Path, number: int) -> None:
    """Each try is ended, the whole tree of it, once it has brought a random number of files into work folder and build."""
    rng, out, kills = random.Random(os.environ.get("PROVENDER_KILL_SEED", "0")), tmp_path / "out", 0
    while True:
        enough = files(tmp_path) + rng.randint(1, 40) if kills < 12 else sys.maxsize
        process = subprocess.Popen(
            command(pool, out, workers=2), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
        )
        while process.poll() is None and files(tmp_path) < enough:
            time.sleep(0.002)
        if process.poll() is not None:
            break
        os.killpg(process.pid, number)
        # An end that comes with the last file, once all is done, is none.
        assert process.wait(timeout=10) in (-number, 128 + number, 0)
        kills += 1
    assert process.returncode == 0
    assert kills >= 3
    assert digests(out) == reference


def test_a_finished_build_is_left_alone_and_another_recipe_is_refused(pool: Path, build: Build, tmp_path: Path) -> None:
    few = ["--source", "folder", "--input", pool, *FLAGS, "--limit", "40"]
    code, out, _ = build(*few)
    assert code == 0
    before = digests(out)
    stamps = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    code, _, said = build(*few)
    assert code == 0
    assert "nothing to do" in said
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*")} == stamps
    code, _, said = build(*few, "--seed", "1")
    assert code == 2
    assert "another recipe" in said
    assert digests(out) == before
    code, _, _ = build(*few, "--seed", "1", "--overwrite")
    assert code == 0
    assert digests(out) != before


def test_a_new_threshold_opens_no_image_again(pool: Path, build: Build, tmp_path: Path) -> None:
    work = tmp_path / "work"
    flags = ["--source", "folder", "--input", pool, *FLAGS, "--work", work, "--limit", "40"]
    code, _, _ = build(*flags, output="a")
    assert code == 0
    parts = {p: p.stat().st_mtime_ns for p in (work / "measured").iterdir()}
    assert parts
    code, _, _ = build(*flags, "--seed", "9", "--caption-length-min-words", "2", output="b")
    assert code == 0
    assert {p: p.stat().st_mtime_ns for p in (work / "measured").iterdir()} == parts


def test_a_changed_photo_is_measured_again(build: Build, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.jpg").write_bytes(encoded(picture(i)))
        (folder / f"{i}.txt").write_text(f"picture {i}")
    flags = ["--source", "folder", "--input", folder, *FLAGS]
    code, _, _ = build(*flags)
    assert code == 0
    time.sleep(0.01)
    (folder / "1.jpg").write_bytes(encoded(Image.effect_noise((80, 64), 60).convert("RGB")))
    code, _, said = build(*flags)
    assert code == 2
    assert "over other inputs" in said
