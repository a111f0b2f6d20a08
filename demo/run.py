"""`make demo`: from a toy web to a transfer number, with and without curation, by the commands a user would type.

Everything lies in the output folder: `web/` as drawn, `pool/` as fetched, `shards/`, `runs/`, `results.jsonl` and
`summary.json`. Commands run in that folder and are shown before they run.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo import audit, server, toyweb
from shards.core.cli import Command, main
from shards.core.config import option
from shards.core.console import duration, emit, say, table
from shards.core.errors import RunError, UsageError

HERE = Path(__file__).parent
SOURCES = {"redcaps": "web/redcaps/annotations/*.json", "cc3m": "web/cc3m/Train_GCC-training.tsv", "cc12m": "web/cc12m/cc12m.tsv"}
BUILDS = {"curated": "recipe.yaml", "uncurated": "uncurated.yaml"}
SIMCLR = "curated-simclr"  # trained on the curated build's pictures alone
# The same first weights with BatchNorm's statistics of 40 batches: what a probe finds without any learning.
UNTRAINED, STANDING = "untrained", "--lr 1e-12 --samples-seen 2560"
SHOTS = 5
MARK = ".made-by-the-demo"


@dataclass(frozen=True)
class DemoConfig:
    """The demo's few choices."""

    output: str = option("demo/out", "folder for everything the demo makes; emptied first", metavar="DIR")
    port: int = option(int(os.environ.get("DEMO_PORT", server.PORT)), "port of the toy web's server on 127.0.0.1 (or DEMO_PORT=N)")
    seed: int = option(0, "seed of the web, the builds and the training")


def demo(config: DemoConfig) -> None:
    """Run the whole demo and print what came of it.

    Raises:
        UsageError: the port is taken, or the output folder holds something else.
        RunError: a command failed.
    """
    started = time.monotonic()
    out = Path(config.output)
    summary = run(out, config.port, config.seed, report=True)
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    emit("\nPlanted in the toy web, and found by curation:\n")
    emit(audit.as_table(summary["defects"]))
    emit("\nWhat curation did (same pool, seed, samples and samples seen; one seed):\n")
    emit(_outcome(summary))
    emit(f"\nreport: {out}/shards/curated/report.html")
    say(f"took {duration(time.monotonic() - started)}")


def run(out: Path, port: int, seed: int, *, report: bool = False) -> dict[str, Any]:
    """Draw, fetch, build twice, train twice, evaluate twice; return counts and accuracies."""
    server.check_free(port)
    _clear(out)
    say(f"drawing a toy web (seed {seed}) into {out}/web")
    plan = toyweb.draw(out / "web", seed=seed, port=port)
    with server.serving(out / "web", port) as address:
        say(f"serving it on {address}; from here on all commands run in {out}")
        fetch = "curate fetch --source {} --input '{}' --output pool/{} --seed {} --allow-private-hosts --workers 1"
        _together(out, {source: fetch.format(source, files, source, seed) for source, files in SOURCES.items()})
    ours = {name: os.path.relpath(HERE / name, out) for name in (*BUILDS.values(), "train.yaml", "simclr.yaml")}
    for name, recipe in BUILDS.items():
        _together(out, {"": f"curate build-shards --config {ours[recipe]} --seed {seed} --work work --output shards/{name}"})
    if report:
        _together(out, {"": "curate report shards/curated"})
    simclr = f"train simclr --config {ours['simclr.yaml']} --manifest shards/curated --output runs/{{0}} --seed {seed}"
    train = f"train clip --config {ours['train.yaml']} --manifest shards/{{0}} --output runs/{{0}} --seed {seed}"
    zeroshot = "evaluate zeroshot --checkpoint runs/{0} --data web/heldout/test --cache features --name {0}"
    probe = f"{zeroshot.replace('zeroshot', 'probe')} --train web/heldout/train --k {SHOTS}"
    _together(out, {name: train.format(name) for name in BUILDS})
    _together(out, {SIMCLR: simclr.format(SIMCLR), UNTRAINED: f"{simclr.format(UNTRAINED)} {STANDING}"})
    _together(out, {name: zeroshot.format(name) for name in BUILDS})
    _together(out, {name: probe.format(name) for name in (*BUILDS, SIMCLR, UNTRAINED)})
    return {"seed": seed, "classes": len(plan["classes"]), "defects": audit.audit(out, plan), "results": _results(out)}


def _clear(out: Path) -> None:
    """Empty the output folder, if the demo made it."""
    if out.exists() and any(out.iterdir()) and not (out / MARK).exists():
        raise UsageError(f"{out} holds something that the demo did not make", "an empty or new folder", "--output DIR")
    if out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True)
    (out / MARK).touch()


def _together(out: Path, commands: dict[str, str]) -> None:
    """Run commands at the same time in the output folder, each with its share of the cores, its lines under its label.

    Raises:
        RunError: one of them failed; the others were let finish.
    """
    started = time.monotonic()
    threads = max(1, (os.cpu_count() or 1) // len(commands))
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    say("")
    with ThreadPoolExecutor(len(commands)) as pool:
        statuses = list(pool.map(lambda label: _call(out, label, commands[label], environment), commands))
    say(f"({duration(time.monotonic() - started)})")
    for command, status in zip(commands.values(), statuses, strict=True):
        if status:
            raise RunError(f"`{command}` failed with exit code {status}", advice="its own message stands above")


def _call(out: Path, label: str, command: str, environment: dict[str, str]) -> int:
    """Run one command, pass on what it says, and return its exit code."""
    say(f"$ {command}")
    program, *words = shlex.split(command)
    arguments = [str(Path(sys.executable).parent / program), *words]
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(arguments, cwd=out, env=environment, **streams) as process:
        assert process.stdout is not None
        for line in process.stdout:
            say(f"{label}: {line.rstrip()}" if label else line.rstrip())
    return process.returncode


def _results(out: Path) -> dict[str, dict[str, Any]]:
    """Return each model's main numbers from the table of results: value, low and high."""
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    found: dict[str, dict[str, Any]] = {name: {} for name in (*BUILDS, SIMCLR, UNTRAINED)}
    for row in rows:
        if row["main"]:
            found[row["name"]][row["protocol"]] = {key: row[key] for key in ("value", "low", "high", "n", "samples_seen")}
    return found


def _outcome(summary: dict[str, Any]) -> str:
    chance = 100 / summary["classes"]
    header = ("trained on", "samples seen", "zero-shot %", "95% interval", "chance %", f"{SHOTS}-shot probe %", "95% interval")
    rows = []
    for name, result in summary["results"].items():
        probe = result["probe"]
        zero = [_percent(result["zeroshot"]), _interval(result["zeroshot"])] if "zeroshot" in result else ["", ""]  # SimCLR reads no text
        rows.append((name, probe["samples_seen"], *zero, f"{chance:.1f}", _percent(probe), _interval(probe)))
    return table(header, rows)


def _percent(result: dict[str, Any]) -> str:
    return f"{result['value'] * 100:.1f}"


def _interval(result: dict[str, Any]) -> str:
    return f"{result['low'] * 100:.1f} – {result['high'] * 100:.1f}"


if __name__ == "__main__":
    command = Command(DemoConfig, "demo.run:demo", "run the whole demo")
    raise SystemExit(main("demo.run", "The demo of `make demo`.", {"demo": command}, ["demo", *sys.argv[1:]]))
