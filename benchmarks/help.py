"""How long `--help` takes, beside an empty Python: median of nine, the commands in turn."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

from _record import record

COMMANDS = ("curate", "shards", "train", "evaluate")
ROUNDS = 9


def seconds(command: list[str]) -> float:
    """Return the wall time of one run."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    """Measure and record."""
    programs = {name: [str(Path(sys.executable).parent / name), "--help"] for name in COMMANDS}
    programs["curate build-shards"] = [programs["curate"][0], "build-shards", "--help"]
    programs["python"] = [sys.executable, "-c", "pass"]
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(ROUNDS):
        for name, command in programs.items():
            times[name].append(seconds(command))
    medians = {name: round(statistics.median(found), 3) for name, found in times.items()}
    slowest = max(v for name, v in medians.items() if name != "python")
    line = ", ".join(f"`{name} --help` {medians[name]:.2f} s" for name in programs if name != "python")
    record(
        "help",
        {"seconds": medians, "rounds": ROUNDS},
        f"{line}; bare Python {medians['python']:.2f} s; slowest {slowest:.2f} s (limit 0.5 s)",
    )


if __name__ == "__main__":
    main()
