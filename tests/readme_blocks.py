"""The README's blocks as steps to run, and how what they print differs from what it shows."""

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


def scripts() -> list[str]:
    """Return the `sh` blocks: the quick start, and the commands for real collections."""
    return re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def steps() -> list[Step]:
    """Return the commands of all blocks, in order; `\\` at a line's end goes on in the next."""
    found = []
    for block in re.findall(r"^```console\n(.*?)^```", README, re.MULTILINE | re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, shown = part.replace("\\\n", " ").partition("\n")
            found.append(Step(" ".join(command.split()), shown))
    return found


TOLERANCE = 6.0  # points: accuracies depend on how a processor rounds; two machines differed by 2.4 at most
_FIGURE = re.compile(r"[+-]?\d[\d,]*(?:\.\d+)?")


def differences(shown: str, printed: str) -> list[str]:
    """Return in words what a command prints otherwise than the README shows: texts, counts and digests exactly, decimals within TOLERANCE.

    Widths of columns and bars are not compared. Of a checkpoint nothing is: its bytes depend on the processor.
    """
    ours, theirs = _figures(shown), _figures(printed)
    if len(ours) != len(theirs):
        return [f"{len(theirs)} lines, the README has {len(ours)}"]
    found = []
    for (text, figures), (other_text, other_figures) in zip(ours, theirs, strict=True):
        if text != other_text or len(figures) != len(other_figures):
            found.append(f"{other_text!r}, the README has {text!r}")
            continue
        unlike = [(a, b) for a, b in zip(figures, other_figures, strict=True) if not _alike(a, b)]
        found += [f"{b} in {text!r}, the README has {a}" for a, b in unlike]
    return found


def _figures(text: str) -> list[tuple[str, list[str]]]:
    """Return each line's text with N for its figures, and the figures; digests stay text."""
    lines = []
    for line in text.splitlines():
        plain = re.sub(r"[#-]{2,}|(?<= )#(?= |$)", "", line)
        words = [word for word in plain.split() if word]
        figures = [figure for word in words if not _is_digest(word) for figure in _FIGURE.findall(word)]
        shape = " ".join(word if _is_digest(word) else _FIGURE.sub("N", word) for word in words)
        if shape:
            lines.append((shape, figures))
    return lines


def _is_digest(word: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{12,64}", word.strip(".,:;()")) is not None


def _alike(shown: str, printed: str) -> bool:
    if "." in shown or "." in printed:
        return abs(float(shown.replace(",", "")) - float(printed.replace(",", ""))) <= TOLERANCE
    return shown == printed


def run(command: str, folder: Path = ROOT) -> str:
    """Run one command of the README in the checkout, or in a folder; its stdout is what the README shows."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    # A make that started the tests must not hand its own flags and variables to the README's.
    own = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "ARGS")}
    env = {**own, "PATH": path, "VENV": str(Path(sys.executable).parents[1])}
    done = subprocess.run(["bash", "-c", command], cwd=folder, check=False, capture_output=True, text=True, env=env)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done.stdout
