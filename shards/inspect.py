"""`shards inspect`: what is in a set, and the command line with which open_clip trains on it."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shards import layers, tombstones
from shards.core.config import option
from shards.core.console import Progress, counted, emit, inflected, sparkline, table, terminal_width, visible
from shards.manifest import Manifest, read_manifest
from shards.reader import Shard
from shards.tables.values import caption_in

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

SIDE_STEPS = (64, 128, 224, 256, 384, 512, 768, 1024)
WORD_STEPS = (1, 3, 5, 10, 20, 40, 77)
MEASURES = {"words": "words per caption", "shorter_side": "shorter side, px", "aspect": "width / height", "bytes": "bytes"}
COLUMNS = ("source", "caption", "width", "height", "bytes")
BINS = 20
MANY = 100  # shards, from which on the reading takes seconds and is worth a line of progress
MOST_LICENCES = 12


@dataclass(frozen=True)
class InspectConfig:
    """Flags of `shards inspect`."""

    folder: str = option(help="a build's folder, or a manifest.json", positional=True)
    examples: int = option(3, "sample rows to show")
    limit: int | None = option(None, "count the first N shards only; of a build of ours, whose order is random, they are a random sample")
    json: bool = option(False, "print JSON")


def run(config: InspectConfig) -> None:
    """Print what a set holds."""
    manifest = read_manifest(config.folder)
    facts = inspect(manifest, config.examples, config.limit)
    emit(facts if config.json else _text(facts, terminal_width()))


def inspect(manifest: Manifest, examples: int = 3, limit: int | None = None) -> dict[str, Any]:
    """Return a set's counts, histograms, first rows and open_clip's command line.

    Histograms count samples by words per caption, the shorter side in pixels, aspect and bytes; they need sidecars, of
    which they read five columns: a second or two for a million samples.
    """
    counts: dict[str, dict[str, Counter[float]]] = {name: defaultdict(Counter) for name in MEASURES}
    rows, shown = list[dict[str, Any]](), manifest.shards[:limit]
    with Progress("inspect", len(shown), "shards") if len(shown) >= MANY else contextlib.nullcontext() as progress:
        for entry in shown:
            with Shard(manifest, entry) as shard:
                if len(rows) < examples:
                    rows += _first(shard, examples - len(rows))
                _count(shard.sidecar(COLUMNS), counts)
            if progress:
                progress.add()
    pooled = {name: sum(sources.values(), Counter[float]()) for name, sources in counts.items()}
    order = [*manifest.sources, *sorted({s for sources in counts.values() for s in sources} - set(manifest.sources))]
    distributions = {name: _distributions({s: counts[name][s] for s in order}, found) for name, found in pooled.items() if found}
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
        "removed": tombstones.count(folders),
        "cut_shards": sum(1 for e in manifest.shards if e.use is not None),
        "sources": manifest.sources,
        "licences": manifest.licences,
        "shorter_side": _stepped(pooled["shorter_side"], SIDE_STEPS),
        "caption_words": _stepped(pooled["words"], WORD_STEPS),
        "counted": {"shards": len(shown), "samples": pooled["words"].total()},
        "distributions": distributions,
        "examples": rows,
        "open_clip": open_clip_command(manifest),
    }


def _first(shard: Shard, most: int) -> list[dict[str, Any]]:
    """Return a shard's first rows; of a foreign one, its first keys and captions."""
    sidecar = shard.sidecar()
    if sidecar.num_columns:
        return sidecar.slice(0, most).to_pylist()  # type: ignore[no-any-return]
    texts = [next((shard.read(i, "txt") for m in group if m.ext == "txt"), b"") for i, group in enumerate(shard.groups[:most])]
    return [{"key": shard.key(i), "caption": caption_in(text)} for i, text in enumerate(texts)]


def _count(rows: pa.Table, counts: dict[str, dict[str, Counter[float]]]) -> None:
    """Count the samples of a sidecar per measure and source, by value; what is unknown (null, or 0 pixels) is counted nowhere."""
    import numpy as np
    import pyarrow.compute as pc

    if rows.column_names != list(COLUMNS):
        return
    words = np.fromiter((len((c or "").split()) for c in rows["caption"].to_pylist()), np.float64, rows.num_rows)
    width, height, size = (np.asarray(pc.fill_null(rows[name], 0), np.float64) for name in COLUMNS[2:])
    known = (width > 0) & (height > 0)
    aspect = np.round(width / np.where(known, height, 1), 2)
    digits = 10 ** np.maximum(np.floor(np.log10(np.maximum(size, 1))) - 2, 0)
    measured = {"words": words, "shorter_side": np.minimum(width, height), "aspect": aspect, "bytes": np.round(size / digits) * digits}
    sources = pc.fill_null(rows["source"], "").combine_chunks().dictionary_encode()
    for number, source in enumerate(sources.dictionary.to_pylist()):
        own = np.asarray(sources.indices) == number
        for name, values in measured.items():
            of = own if name == "words" else own & (known if name != "bytes" else size > 0)
            counts[name][source] += Counter(dict(zip(*(a.tolist() for a in np.unique(values[of], return_counts=True)), strict=True)))


def _distributions(sources: dict[str, Counter[float]], pooled: Counter[float]) -> dict[str, Any]:
    """Return how one measure is spread in each source, and in all: quantiles by nearest rank, and counts between common edges.

    The edges run from the 1% to the 99% quantile of all; the first and the last count hold what lies beyond, too.
    Aspect is counted to two decimals, bytes to three digits.
    """
    import numpy as np

    everything = _spread(pooled)
    low, high = everything["p1"], everything["p99"]
    # Bins of equally many whole numbers: none is empty by rounding.
    if all(v == int(v) for v in pooled) and high - low < 10 * BINS:
        step = -(-(int(high - low) + 1) // BINS)
        edges = np.arange(low, high + step + 1, step, dtype=np.float64)
    else:
        edges = np.geomspace(max(low, 1e-9), max(high, 1e-9), BINS + 1) if high > low else np.array([low, low])
    return {
        "edges": [round(e, 4) for e in edges.tolist()],
        "all": everything | {"counts": _between(pooled, edges)},
        "sources": {name: _spread(found) | {"counts": _between(found, edges)} for name, found in sources.items() if found},
    }


def _spread(found: Counter[float]) -> dict[str, float]:
    values, n = sorted(found), found.total()
    reached = {"min": 1, "p1": -(-n // 100), "median": -(-n // 2), "p99": -(-99 * n // 100), "max": n}
    result, seen, names = dict[str, float](), 0, list(reached)
    for value in values:
        seen += found[value]
        while names and seen >= reached[names[0]]:
            result[names.pop(0)] = int(value) if value == int(value) else value
    return {"samples": n} | result


def _between(found: Counter[float], edges: NDArray[np.float64]) -> list[int]:
    import numpy as np

    places = np.searchsorted(edges[1:-1], list(found), side="right")
    return np.bincount(places, list(found.values()), len(edges) - 1).astype(int).tolist()  # type: ignore[no-any-return]


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


def _stepped(found: Counter[float], steps: tuple[int, ...]) -> dict[str, int]:
    counts = Counter[str]()
    for value, n in found.items():
        counts[next((f"< {s}" for s in steps if value < s), f">= {steps[-1]}")] += n
    return {k: counts[k] for k in [*(f"< {s}" for s in steps), f">= {steps[-1]}"] if counts[k]}


def _text(facts: dict[str, Any], width: int) -> str:
    members = " ".join(f".{m}" for m in facts["members"])
    made = f"{facts['builder'] or 'unknown builder'}, seed {facts['seed']}"
    size = f"{counted(facts['samples'], 'sample')} in {counted(facts['shards'], 'shard')}, {facts['bytes']:,} bytes"
    lines = [
        f"{facts['folder']}: {size}; members {members}",
        f"manifest {facts['manifest'][:16]}; {made}",
    ]
    if facts["sources"]:
        header = ("source", "inputs", "kept", "held out", "spare", "dropped")
        lines += ["", table(header, [_source_row(name, s) for name, s in facts["sources"].items()], width)]
    if facts["licences"]:
        lines += ["", *_licences(facts["licences"], width)]
    if facts["distributions"]:
        lines += ["", *_distribution_lines(facts, width)]
    if facts["examples"]:
        rows = [(r["key"], f"{r['width']}x{r['height']}" if "width" in r else "", r["caption"] or "") for r in facts["examples"]]
        lines += ["", table(("key", "pixels", "caption"), rows, width)]
    if facts["layers"]:
        lines += ["", *(f"layer {name}: {', '.join(columns)}" for name, columns in facts["layers"].items())]
    if facts["removed"]:
        removed = f"{facts['removed']:,} [sample|samples] of these tars [was|were] taken down; `shards compact` ends [it|them]"
        lines += ["", inflected(facts["removed"], removed)]
    if facts["cut_shards"]:
        way = "`shards compact`, or `shards subset --materialize`" if facts["removed"] else "`shards subset --materialize`"
        lines += ["", inflected(facts["cut_shards"], f"{facts['cut_shards']} [shard is|shards are] used in part: open_clip needs {way}")]
    else:
        lines += ["", "open_clip trains on it with:", f"  {facts['open_clip']}"]
    return "\n".join(map(visible, "\n".join(lines).split("\n")))


def _licences(licences: dict[str, dict[str, int]], width: int) -> list[str]:
    rows = sorted(((s, name, n) for s, found in licences.items() for name, n in found.items()), key=lambda row: -row[2])
    more = [f"and {len(rows) - MOST_LICENCES:,} licences more (--json)"] if len(rows) > MOST_LICENCES else []
    return [table(("source", "licence", "samples"), rows[:MOST_LICENCES], width), *more]


def _distribution_lines(facts: dict[str, Any], width: int) -> list[str]:
    rows = []
    for name, found in facts["distributions"].items():
        several = found["sources"] if len(found["sources"]) > 1 else {}
        for label, spread in {MEASURES[name]: found["all"], **{f"  {s}": spread for s, spread in several.items()}}.items():
            rows.append((label, *(spread[k] for k in ("min", "p1", "median", "p99", "max")), sparkline(spread["counts"])))
    lines = [table(("", "min", "1%", "median", "99%", "max", "1% to 99% of all"), rows, width)]
    looked_at = facts["counted"]
    if looked_at["shards"] < facts["shards"]:
        lines.append(f"counted in {counted(looked_at['samples'], 'sample')} of the first {counted(looked_at['shards'], 'shard')}")
    return lines


def _source_row(name: str, source: dict[str, Any]) -> tuple[Any, ...]:
    dropped = sum(source["dropped"].values()) if "dropped" in source else ""
    return (name, *(source.get(k, "") for k in ("inputs", "kept", "holdout", "spare")), dropped)
