"""Deciding on a large measured table: rows a second and peak memory of decide, plan and ledger.

The table is synthetic (`_measured.py`), in parts of 512 rows as the measure pass leaves them. Merging them happens once
and has a figure of its own; decide's figure leaves out the near-duplicate join, which has its own benchmark. Processor
seconds stand beside the wall, since other work may share the cores.

    python benchmarks/decide.py [--rows 10000000] [--times 1] [--folder /tmp]

`--times 4` also decides on a table four times as long, for the growth of memory. It takes about 0.4 kB of disk a row, twice,
and as much again while it spills.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _measured import make_parts, multiply, recipe
from _record import record


class Stopwatch:
    """Adds up wall and processor seconds of what runs under a name, all threads of this process included."""

    def __init__(self) -> None:
        self.spent: dict[str, list[float]] = {}

    def run(self, name: str, work: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        result = work(*arguments, **more)
        total = self.spent.setdefault(name, [0.0, 0.0])
        total[0] += time.perf_counter() - wall
        total[1] += time.process_time() - cpu
        return result

    def timed(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments, **more: self.run(name, work, *arguments, **more)


def one(folder: Path, table: str, write: bool) -> dict[str, Any]:
    """Decide on one table, in this process alone, and with `write` plan its shards and write its ledger too."""
    from curate import dedup, plan
    from curate.decide import decide, near
    from curate.decide.parts import show_measured
    from curate.listing import connect
    from curate.measure import Part
    from curate.report.examples import choose_examples

    parts = [Part(tuple(order), path, digest, rows) for order, path, digest, rows in json.loads((folder / f"{table}.json").read_text())]
    work, out, watch = str(folder / "work"), str(folder / "out"), Stopwatch()
    os.makedirs(work, exist_ok=True)
    near.near_duplicates = watch.timed("join", near.near_duplicates)
    dedup.pairs_between = watch.timed("join", dedup.pairs_between)
    watch.run("merge", show_measured, connect(work), recipe(), parts, work)
    decided = watch.run("decide", decide, recipe(), parts, work)
    figures: dict[str, Any] = {"rows": sum(part.rows for part in parts), "sources": decided.sources, "decide_rss": _peak()}
    if write:
        members = plan.members_of(recipe(), decided)
        watch.run("plan", plan.plan, recipe(), decided, work, out, members)
        watch.run("ledger", plan.write_ledger, decided.con, out, work)
        decided.con.execute("CREATE VIEW ranked AS SELECT * REPLACE (if(rank < 0, rank_key, rank) AS rank) FROM decided")
        watch.run("examples", choose_examples, decided.con, "ranked")
        figures["write_rss"] = _peak()
    return figures | {"seconds": watch.spent}


def _peak() -> float:
    """Return this process's peak resident memory so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _say_parts(path: Path, parts: list[Any]) -> None:
    path.write_text(json.dumps([[part.order, part.path, part.digest, part.rows] for part in parts]))


def _child(folder: Path, table: str, *flags: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", table, "--folder", str(folder), *flags]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def rates(found: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return rows a second by the wall, and by processor time on two cores; decide's without the join."""
    spent = dict(found["seconds"])
    spent["decide"] = [d - j for d, j in zip(spent["decide"], spent["join"], strict=True)]
    return {name: {"wall": found["rows"] / wall, "two_cores": 2 * found["rows"] / cpu} for name, (wall, cpu) in spent.items()}


def main() -> None:
    """Make the tables, decide in processes of their own, and write down what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--times", type=int, default=1, help="decide also on a table this many times as long")
    parser.add_argument("--folder", help="where the tables lie for a while (default: the system's temporary folder)")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--write", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(one(Path(arguments.folder), arguments.one, arguments.write)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch:
        folder = Path(scratch)
        parts = make_parts(folder / "parts", arguments.rows)
        _say_parts(folder / "small.json", parts)
        small = _child(folder, "small", "--write")
        figures = {"small": small | {"rates": rates(small)}}
        shutil.rmtree(folder / "out", ignore_errors=True)
        if arguments.times > 1:
            _say_parts(folder / "large.json", multiply(folder / "large", parts, arguments.times))
            large = _child(folder, "large")
            figures["large"] = large | {"rates": rates(large)}
    record("decide", figures, in_words(figures))


def in_words(figures: dict[str, Any]) -> str:
    """Return the line for RESULTS.md."""
    small, rate = figures["small"], figures["small"]["rates"]
    said = [f"{small['rows'] / 1e6:.1f} M rows in parts of 512: decide apart from the join {_rate(rate['decide'])}"]
    said.append(f"its peak {small['decide_rss']:.1f} GiB")
    said += [f"{name} {_rate(rate[name])}" for name in ("merge", "plan", "ledger")]
    said.append(f"with plan and ledger peak {small['write_rss']:.1f} GiB")
    if large := figures.get("large"):
        said.append(f"{large['rows'] / 1e6:.1f} M rows: decide {_rate(large['rates']['decide'])}, peak {large['decide_rss']:.1f} GiB")
    return "; ".join(said)


def _rate(rate: dict[str, float]) -> str:
    return f"{rate['wall'] / 1e3:,.0f} k rows/s by the wall, {rate['two_cores'] / 1e3:,.0f} k by processor seconds on two cores"


if __name__ == "__main__":
    main()
