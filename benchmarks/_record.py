"""Keep a benchmark's figures: a JSON file of its own, and its line in RESULTS.md, replaced when it is run again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "RESULTS.md"
HEAD = """# Results

One line for each benchmark; `make bench` runs them all again. Ratios come from one run on one machine; absolute times are only indicative.

| benchmark | figures | machine |
|---|---|---|
"""


def record(name: str, figures: dict[str, Any], line: str) -> None:
    """Write NAME.json and put the line into RESULTS.md."""
    (HERE / f"{name}.json").write_text(json.dumps(figures, indent=1) + "\n")
    text = RESULTS.read_text() if RESULTS.exists() else HEAD
    kept = [row for row in text.splitlines() if not row.startswith(f"| {name} |")]
    RESULTS.write_text("\n".join([*kept, f"| {name} | {line} | {machine()} |"]) + "\n")
    print(f"{name}: {line}")


def machine() -> str:
    """Return the processor and how many cores this process may use."""
    import os

    model = next((r.partition(":")[2].strip() for r in Path("/proc/cpuinfo").read_text().splitlines() if r.startswith("model name")), "?")
    return f"{model}, {len(os.sched_getaffinity(0))} cores"
