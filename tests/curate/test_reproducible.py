"""Same inputs, same recipe, same bytes: whatever the workers, and however often the build is killed."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from drawing import encoded, picture
from PIL import Image

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


def test_two_workers_write_what_one_writes(pool: Path, reference: dict[str, str], tmp_path: Path) -> None:
    subprocess.run(command(pool, tmp_path / "out", workers=2), check=True, capture_output=True)
    assert digests(tmp_path / "out") == reference


def files(folder: Path) -> int:
    """Count files in a tree that changes meanwhile."""
    return sum(len(names) for *_, names in os.walk(folder))


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed(pool: Path, reference: dict[str, str], tmp_path: Path) -> None:
    """Each try is killed, the whole tree of it, once it has brought a random number of files into work folder and build."""
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
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
    assert process.returncode == 0
    assert kills >= 3
    assert digests(out) == reference


def test_a_finished_build_is_left_alone_and_another_recipe_is_refused(pool: Path, tmp_path: Path) -> None:
    few = [*command(pool, tmp_path / "out"), "--limit", "40"]
    subprocess.run(few, check=True, capture_output=True)
    before = digests(tmp_path / "out")
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")}
    again = subprocess.run(few, check=True, capture_output=True, text=True)
    assert "nothing to do" in again.stderr
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")} == stamps
    other = subprocess.run([*few, "--seed", "1"], check=False, capture_output=True, text=True)
    assert other.returncode == 2
    assert "another recipe" in other.stderr
    assert digests(tmp_path / "out") == before
    subprocess.run([*few, "--seed", "1", "--overwrite"], check=True, capture_output=True)
    assert digests(tmp_path / "out") != before


def test_a_new_threshold_opens_no_image_again(pool: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    flags = ["--work", str(work), "--limit", "40"]
    subprocess.run([*command(pool, tmp_path / "a"), *flags], check=True, capture_output=True)
    parts = {p: p.stat().st_mtime_ns for p in (work / "measured").iterdir()}
    subprocess.run(
        [*command(pool, tmp_path / "b"), *flags, "--seed", "9", "--caption-length-min-words", "2"], check=True, capture_output=True
    )
    assert {p: p.stat().st_mtime_ns for p in (work / "measured").iterdir()} == parts


def test_a_changed_photo_is_measured_again(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.jpg").write_bytes(encoded(picture(i)))
        (folder / f"{i}.txt").write_text(f"picture {i}")
    subprocess.run(command(folder, tmp_path / "out"), check=True, capture_output=True)
    time.sleep(0.01)
    (folder / "1.jpg").write_bytes(encoded(Image.effect_noise((80, 64), 60).convert("RGB")))
    other = subprocess.run(command(folder, tmp_path / "out"), check=False, capture_output=True, text=True)
    assert other.returncode == 2
    assert "over other inputs" in other.stderr
