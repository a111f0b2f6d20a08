"""`make setup`'s progress: packages counted, errors in full, no success where pip had none."""

from __future__ import annotations

import subprocess
import sys

from readme_blocks import ROOT

TALK = """Obtaining file:///checkout
  Downloading torch-2.14.1-cp311-cp311-manylinux_2_28_x86_64.whl (2.1 GB)
Processing /some/where/numpy-2.3.1-cp311-cp311-linux_x86_64.whl (from provender==0.1.0)
  Using cached better-profanity-0.7.0.tar.gz (46 kB)
WARNING: Location is ignored
Installing collected packages: numpy, torch
"""


def setup(talk: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "demo/setup_progress.py"]
    return subprocess.run(command, cwd=ROOT, input=talk, capture_output=True, text=True, check=False, timeout=60)


def test_a_large_package_and_the_outcome_are_said() -> None:
    done = setup(TALK + "Successfully installed numpy-2.3.1 torch-2.14.1\n")
    assert done.returncode == 0
    first, unpacking, last = done.stderr.splitlines()
    assert first.startswith("setup: 1 packages, ")
    assert first.endswith(": torch (2.1 GB)")
    assert unpacking.startswith("setup: 3 packages are here after ")
    assert last.startswith("setup: done in ")
    assert " GB in " in last


def test_a_failure_is_no_success() -> None:
    done = setup(TALK + "ERROR: No matching distribution found for torch>=2.8\n")
    assert done.returncode == 1
    assert "ERROR: No matching distribution found for torch>=2.8" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("setup: pip has failed")
