"""Memory stays flat: a build of 20,000 images peaks where a small one does, over the whole process tree."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from drawing import encoded, picture

# A lean build starts at 150 MiB, and the batches in which rows flow (up to 65,536) are full only from there on.
LIMIT = 1.5


def peak(command: list[str]) -> int:
    """Run a command and return the largest sum of the memory of it and all its children, in bytes.

    Proportional set sizes: pages that processes share (a child between fork and exec shares all) count once.
    """
    highest = 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        root = psutil.Process(process.pid)
        while process.poll() is None:
            total = 0
            with contextlib.suppress(psutil.NoSuchProcess):
                for one in (root, *root.children(recursive=True)):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        total += one.memory_full_info().pss
            highest = max(highest, total)
            time.sleep(0.05)
        assert process.returncode == 0
    return highest


def corpus(folder: Path, n: int) -> Path:
    """Write n small photos, each unlike the others, with captions."""
    folder.mkdir()
    lines = ["image,caption"]
    for i in range(n):
        (folder / f"{i:06d}.jpg").write_bytes(encoded(picture(i, 64, 48)))
        lines.append(f"{i:06d}.jpg,picture number {i} of a set that is drawn for a test")
    (folder / "captions.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpus(tmp_path_factory.mktemp("many") / "photos", 20_000)


def peak_of_a_build(folder: Path, out: Path, *flags: str) -> int:
    """Return the peak of a build with two workers."""
    own = ["--source", "folder", "--input", str(folder), "--samples", "all", "--samples-per-shard", "100", "--workers", "2"]
    program = [sys.executable, "-c", "import sys; from curate.cli import main; sys.exit(main())", "build-shards"]
    return peak([*program, *own, *flags, "--output", str(out)])


@pytest.mark.slow
@pytest.mark.parametrize(("few", "near"), [(2_000, "--no-near"), (5_000, "--near")])
def test_a_build_of_20_000_peaks_no_higher(few: int, near: str, many: Path, tmp_path: Path) -> None:
    """The near join's compiled loops (80 MB) are loaded from some thousands of images on: a step, and no slope."""
    small = peak_of_a_build(corpus(tmp_path / "few", few), tmp_path / "small", near)
    large = peak_of_a_build(many, tmp_path / "large", near)
    assert large <= LIMIT * small, f"{small / 2**20:.0f} and {large / 2**20:.0f} MiB"
