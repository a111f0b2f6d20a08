"""`make demo`: from a toy web to a transfer number, with and without curation, by the commands a user would type.

Everything lies in the output folder: `web/` as drawn, `pool/` as fetched, `shards/`, `runs/`, `results.jsonl` and
`summary.json`. Commands run in that folder and are shown before they run.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
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
SHOTS = 5


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
    emit(f"took {duration(time.monotonic() - started)}")


def run(out: Path, port: int, seed: int, *, report: bool = False) -> dict[str, Any]:
    """Draw, fetch, build twice, train twice, evaluate twice; return counts and accuracies."""
    server.check_free(port)
    _clear(out)
    say(f"drawing a toy web (seed {seed}) into {out}/web")
    plan = toyweb.draw(out / "web", seed=seed, port=port)
    with server.serving(out / "web", port) as address:
        say(f"serving it on {address}")
        fetches = [
            ["curate", "fetch", "--source", s, "--input", i, "--output", f"pool/{s}", "--seed", str(seed)] for s, i in SOURCES.items()
        ]
        _together(out, [[*f, "--allow-private-hosts", "--workers", "1"] for f in fetches])
    ours = {name: os.path.relpath(HERE / name, out) for name in (*BUILDS.values(), "train.yaml")}
    for name, recipe in BUILDS.items():
        _call(
            out, ["curate", "build-shards", "--config", ours[recipe], "--seed", str(seed), "--work", "work", "--output", f"shards/{name}"]
        )
    if report:
        _call(out, ["curate", "report", "shards/curated"])
    for name in BUILDS:
        _call(
            out,
            [
                "train",
                "clip",
                "--config",
                ours["train.yaml"],
                "--manifest",
                f"shards/{name}",
                "--output",
                f"runs/{name}",
                "--seed",
                str(seed),
            ],
        )
    for name in BUILDS:
        common = ["--checkpoint", f"runs/{name}", "--data", "web/heldout/test", "--name", name, "--cache", "features"]
        _call(out, ["evaluate", "zeroshot", *common])
        _call(out, ["evaluate", "probe", *common, "--train", "web/heldout/train", "--k", str(SHOTS)])
    return {"seed": seed, "classes": len(plan["classes"]), "defects": audit.audit(out, plan), "results": _results(out)}


def _clear(out: Path) -> None:
    """Empty the output folder, if the demo made it."""
    if out.exists() and any(out.iterdir()) and not (out / "web").is_dir():
        raise UsageError(f"{out} holds something that the demo did not make", "an empty or new folder", "--output DIR")
    if out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True)


def _start(out: Path, command: Sequence[str], **streams: Any) -> subprocess.Popen[str]:
    say(f"\n$ {' '.join(_quoted(word) for word in command)}")
    program = Path(sys.executable).parent / command[0]
    return subprocess.Popen([str(program), *command[1:]], cwd=out, text=True, **streams)


def _quoted(word: str) -> str:
    return f"'{word}'" if "*" in word else word


def _call(out: Path, command: Sequence[str]) -> None:
    """Run one command in the output folder, its words going where ours go."""
    with _start(out, command, stdout=sys.stderr.fileno()) as process:
        _check(command, process.wait())


def _together(out: Path, commands: Sequence[Sequence[str]]) -> None:
    """Run commands at the same time, and show what each said when it is done."""
    running = [_start(out, c, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for c in commands]
    said = [process.communicate()[0] for process in running]
    for command, process, text in zip(commands, running, said, strict=True):
        say(f"\n{command[1]} {command[3]}:\n{text.rstrip()}")
        _check(command, process.returncode)


def _check(command: Sequence[str], status: int) -> None:
    if status:
        raise RunError(f"`{' '.join(command[:2])}` failed with exit code {status}", advice="its own message stands above")


def _results(out: Path) -> dict[str, dict[str, Any]]:
    """Return each model's main numbers from the table of results: value, low and high."""
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    found: dict[str, dict[str, Any]] = {name: {} for name in BUILDS}
    for row in rows:
        if row["main"]:
            found[row["name"]][row["protocol"]] = {key: row[key] for key in ("value", "low", "high", "n", "samples_seen")}
    return found


def _outcome(summary: dict[str, Any]) -> str:
    chance = 100 / summary["classes"]
    header = ("trained on", "samples seen", "zero-shot %", "95% interval", "chance %", f"{SHOTS}-shot probe %", "95% interval")
    rows = []
    for name, result in summary["results"].items():
        zero, probe = result["zeroshot"], result["probe"]
        cells = [f"{zero['value'] * 100:.1f}", _interval(zero), f"{chance:.1f}", f"{probe['value'] * 100:.1f}", _interval(probe)]
        rows.append((name, zero["samples_seen"], *cells))
    return table(header, rows)


def _interval(result: dict[str, Any]) -> str:
    return f"{result['low'] * 100:.1f} – {result['high'] * 100:.1f}"


if __name__ == "__main__":
    command = Command(DemoConfig, "demo.run:demo", "run the whole demo")
    raise SystemExit(main("demo.run", "The demo of `make demo`.", {"demo": command}, ["demo", *sys.argv[1:]]))
