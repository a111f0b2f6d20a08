"""Memory stays flat: a build of 20,000 images peaks where one of 200 does, over the whole process tree."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from drawing import encoded, picture

LIMIT = 1.3


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


@pytest.mark.slow
def test_a_build_a_hundred_times_larger_peaks_no_higher(tmp_path: Path) -> None:
    peaks = {}
    for n in (200, 20_000):
        folder = corpus(tmp_path / str(n), n)
        flags = [
            "--source",
            "folder",
            "--input",
            str(folder),
            "--samples",
            "all",
            "--samples-per-shard",
            "100",
            "--workers",
            "2",
            "--output",
            str(tmp_path / f"out{n}"),
        ]
        peaks[n] = peak([sys.executable, "-c", "import sys; from curate.cli import main; sys.exit(main())", "build-shards", *flags])
    assert peaks[20_000] <= LIMIT * peaks[200], {n: f"{p / 2**20:.0f} MiB" for n, p in peaks.items()}
