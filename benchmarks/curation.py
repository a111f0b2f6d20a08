"""What curation does to transfer on the toy web: five paired seeds of the demo, curated against uncurated.

A seed draws its own web, builds, first weights and order; within a seed both trainings share everything but the
recipe. What comes out is recorded, whatever its sign. The demo's own seed, at
which its sizes were chosen, is not among the five. Takes about fifteen minutes on two cores.

    python benchmarks/curation.py [--seeds 5] [--output build/curation]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _record import record

from demo import run, server

METRICS = {"zeroshot": "zero-shot", "probe": f"{run.SHOTS}-shot probe"}


def main() -> None:
    """Run the seeds, one after the other, and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--port", type=int, default=server.PORT)
    parser.add_argument("--output", help="keep the seeds' folders here (default: a temporary folder)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(arguments.output or scratch)
        outcomes = [run.run(out / f"seed-{seed}", arguments.port, seed) for seed in range(1, arguments.seeds + 1)]
    runs = [{"seed": outcome["seed"], **{build: numbers(outcome, build) for build in run.BUILDS}} for outcome in outcomes]
    value = {"chance": 1 / outcomes[0]["classes"], "runs": runs, "difference": {m: difference(runs, m) for m in METRICS}}
    record("curation", value, in_words(value))


def numbers(outcome: dict[str, Any], build: str) -> dict[str, float]:
    """Return the main numbers of the CLIP that was trained on a build."""
    return {metric: outcome["results"][build][metric]["value"] for metric in METRICS}


def difference(runs: list[dict[str, Any]], metric: str) -> dict[str, float]:
    """Return the mean of the paired differences, curated − uncurated, with its 95% t-interval over seeds."""
    from scipy.stats import t

    pairs = [r["curated"][metric] - r["uncurated"][metric] for r in runs]
    mean = statistics.fmean(pairs)
    half = float(t.ppf(0.975, len(pairs) - 1)) * statistics.stdev(pairs) / len(pairs) ** 0.5
    return {"mean": mean, "low": mean - half, "high": mean + half, "seeds": len(pairs)}


def in_words(value: dict[str, Any]) -> str:
    """Return the line for RESULTS.md."""
    parts = []
    for metric, name in METRICS.items():
        d = value["difference"][metric]
        means = {n: statistics.fmean(r[n][metric] for r in value["runs"]) * 100 for n in run.BUILDS}
        parts.append(
            f"{name} {means['curated']:.1f}% curated, {means['uncurated']:.1f}% uncurated, "
            f"difference {d['mean'] * 100:+.1f} points (95% t-interval {d['low'] * 100:+.1f} to {d['high'] * 100:+.1f})"
        )
    n = value["difference"]["zeroshot"]["seeds"]
    return f"toy web, {n} paired seeds, same pool, samples and samples seen, chance {value['chance'] * 100:.2g}%: {'; '.join(parts)}."


if __name__ == "__main__":
    main()
