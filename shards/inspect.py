"""`shards inspect`: what is in a set, and the command line with which open_clip trains on it."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from dataclasses import dataclass
from typing import Any

from shards import layers, tombstones
from shards.core.config import option
from shards.core.console import emit, table
from shards.manifest import Manifest, read_manifest
from shards.reader import Shard

SIDE_STEPS = (64, 128, 224, 256, 384, 512, 768, 1024)
WORD_STEPS = (1, 3, 5, 10, 20, 40, 77)


@dataclass(frozen=True)
class InspectConfig:
    """Flags of `shards inspect`."""

    folder: str = option(help="a build's folder, or a manifest.json", positional=True)
    examples: int = option(3, "sample rows to show")
    limit: int | None = option(None, "look at the first N shards only for the histograms")
    json: bool = option(False, "print JSON")


def run(config: InspectConfig) -> None:
    """Print what a set holds."""
    manifest = read_manifest(config.folder)
    facts = inspect(manifest, config.examples, config.limit)
    emit(facts if config.json else _text(facts))


def inspect(manifest: Manifest, examples: int = 3, limit: int | None = None) -> dict[str, Any]:
    """Return a set's counts, histograms, first rows and open_clip's command line.

    Histograms count samples by the shorter side in pixels and by words per caption; they need sidecars.
    """
    sides, words, rows = Counter[str](), Counter[str](), list[dict[str, Any]]()
    for entry in manifest.shards[:limit]:
        with Shard(manifest, entry) as shard:
            sidecar = shard.sidecar()
        if sidecar.num_columns:
            shorter = [min(w, h) for w, h in zip(sidecar["width"].to_pylist(), sidecar["height"].to_pylist(), strict=True)]
            sides += Counter(_bucket(s, SIDE_STEPS) for s in shorter)
            words += Counter(_bucket(len(c.split()), WORD_STEPS) for c in sidecar["caption"].to_pylist())
            rows += sidecar.slice(0, max(0, examples - len(rows))).to_pylist()
    folders = dict.fromkeys(map(manifest.folder_of, manifest.shards))
    return {
        "folder": manifest.folder,
        "manifest": manifest.digest,
        "builder": manifest.builder,
        "seed": manifest.seed,
        "samples": manifest.samples,
        "shards": len(manifest.shards),
        "bytes": manifest.bytes,
        "members": list(manifest.members),
        "classes": len(manifest.classes),
        "layers": {name: about["columns"] for folder in folders for name, about in layers.read_layers(folder).items()},
        "removed": sum(len(rows) for folder in folders for rows in tombstones.read(folder).values()),
        "cut_shards": sum(1 for e in manifest.shards if e.use is not None),
        "sources": manifest.sources,
        "licences": manifest.licences,
        "shorter_side": _ordered(sides, SIDE_STEPS),
        "caption_words": _ordered(words, WORD_STEPS),
        "examples": rows,
        "open_clip": open_clip_command(manifest),
    }


def open_clip_command(manifest: Manifest) -> str:
    """Return the command line that trains open_clip's own trainer on this set; empty where a cut shard forbids it."""
    if any(e.use is not None for e in manifest.shards):
        return ""
    paths = [os.path.normpath(manifest.path_of(e)) for e in manifest.shards]
    workers = min(4, len(paths))  # it refuses more workers than shards
    data, batch = shlex.quote(brace(paths)), max(1, min(256, manifest.samples))
    return (
        f"python -m open_clip_train.main --dataset-type webdataset --train-data {data} "
        f"--train-num-samples {manifest.samples} --model ViT-B-32 --batch-size {batch} --workers {workers}"
    )


def brace(paths: list[str]) -> str:
    """Return paths as one brace pattern, numbered runs shortened: `d/{00000..00009}.tar`."""
    runs: list[list[str]] = []
    for path in paths:
        if runs and _follows(runs[-1][-1], path):
            runs[-1].append(path)
        else:
            runs.append([path])
    parts = [_run(run) for run in runs]
    return parts[0] if len(parts) == 1 else "{" + ",".join(parts) + "}"


def _split(path: str) -> tuple[str, str]:
    stem = path.removesuffix(".tar")
    digits = len(stem) - len(stem.rstrip("0123456789"))
    return stem[: len(stem) - digits], stem[len(stem) - digits :]


def _follows(before: str, path: str) -> bool:
    (head, number), (other, following) = _split(before), _split(path)
    return head == other and len(number) == len(following) > 0 and int(following) == int(number) + 1


def _run(run: list[str]) -> str:
    if len(run) == 1:
        return run[0]
    head, first = _split(run[0])
    return f"{head}{{{first}..{_split(run[-1])[1]}}}.tar"


def _bucket(value: int, steps: tuple[int, ...]) -> str:
    return next((f"< {s}" for s in steps if value < s), f">= {steps[-1]}")


def _ordered(counts: Counter[str], steps: tuple[int, ...]) -> dict[str, int]:
    return {k: counts[k] for k in [*(f"< {s}" for s in steps), f">= {steps[-1]}"] if counts[k]}


def _text(facts: dict[str, Any]) -> str:
    members = " ".join(f".{m}" for m in facts["members"])
    made = f"{facts['builder'] or 'unknown builder'}, seed {facts['seed']}"
    lines = [
        f"{facts['folder']}: {facts['samples']:,} samples in {facts['shards']:,} shards, {facts['bytes']:,} bytes; members {members}",
        f"manifest {facts['manifest'][:16]}; {made}",
    ]
    if facts["sources"]:
        header = ("source", "inputs", "kept", "held out", "spare", "dropped")
        lines += ["", table(header, [_source_row(name, s) for name, s in facts["sources"].items()])]
    for title, key in (("shorter side, pixels", "shorter_side"), ("words per caption", "caption_words")):
        if facts[key]:
            most = max(facts[key].values())
            lines += ["", table((title, "samples", ""), [(k, n, "#" * round(30 * n / most)) for k, n in facts[key].items()])]
    if facts["examples"]:
        rows = [(r["key"], f"{r['width']}x{r['height']}", r["caption"][:70]) for r in facts["examples"]]
        lines += ["", table(("key", "pixels", "caption"), rows)]
    if facts["layers"]:
        lines += ["", *(f"layer {name}: {', '.join(columns)}" for name, columns in facts["layers"].items())]
    if facts["removed"]:
        lines += ["", f"{facts['removed']:,} samples of these tars were taken down; `shards compact` ends them"]
    if facts["cut_shards"]:
        way = "`shards compact`, or `shards subset --materialize`" if facts["removed"] else "`shards subset --materialize`"
        lines += ["", f"{facts['cut_shards']} shards are used in part: open_clip needs {way}"]
    else:
        lines += ["", "open_clip trains on it with:", f"  {facts['open_clip']}"]
    return "\n".join(lines)


def _source_row(name: str, source: dict[str, Any]) -> tuple[Any, ...]:
    dropped = sum(source["dropped"].values()) if "dropped" in source else ""
    return (name, *(source.get(k, "") for k in ("inputs", "kept", "holdout", "spare")), dropped)
