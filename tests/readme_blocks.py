"""The README's blocks as steps to run, and its output with what differs from run to run masked."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


@dataclass(frozen=True)
class Step:
    """A command of a `console` block, and what the README says it prints."""

    command: str
    shown: str


def steps() -> list[Step]:
    """Return the commands of all blocks, in order; `\\` at a line's end goes on in the next."""
    found = []
    for block in re.findall(r"^```console\n(.*?)^```", README, re.MULTILINE | re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, shown = part.replace("\\\n", " ").partition("\n")
            found.append(Step(" ".join(command.split()), shown))
    return found


def masked(text: str) -> list[str]:
    """Return the lines of a text without what differs from run to run: hex digests, numbers, bars, widths."""
    lines = []
    for line in text.splitlines():
        plain = re.sub(r"\b[0-9a-f]{12,64}\b", "HEX", line)
        plain = re.sub(r"[+-]?\d[\d,.]*(e-?\d+)?", "N", plain)
        plain = re.sub(r"[#-]{2,}|(?<= )#(?= |$)", "", plain)
        lines.append(" ".join(plain.split()))
    return [line for line in lines if line]


def run(command: str) -> str:
    """Run one command of the README in the checkout; its stdout is what the README shows."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    # A make that started the tests must not hand its own flags and variables to the README's.
    own = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "ARGS")}
    env = {**own, "PATH": path, "VENV": str(Path(sys.executable).parents[1])}
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, check=False, capture_output=True, text=True, env=env)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done.stdout
