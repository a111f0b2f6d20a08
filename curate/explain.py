"""`--dry-run`: what a recipe would do, without opening an image.

It resolves the recipe, looks for its inputs (what is missing is listed, not an error), and reads captions where they
are there: what the caption filters would remove, per source and per class, before anything is removed.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from curate.config import SOURCES, source_options
from curate.decide.drop import captions
from curate.decide.load import load_samples
from curate.listing import check_kept, connect, record_row
from curate.measure import MeasureTask, Part, describe, filter_columns, native_columns
from curate.plan import shard_size
from curate.preview import SHOWN, line, page, unknown
from curate.recipe import Recipe, SourceSpec
from curate.sources.base import Input, expand
from curate.table import measured_schema
from shards.core import fs, registry
from shards.core.config import dump
from shards.core.console import counted, table
from shards.core.errors import TornFileError, UsageError

RECORDS = 100_000  # read per source, unless --limit says otherwise
_SHOWN = 12
_SNIFFED = 100
_BATCH = 4096
# Unknown before images are opened: a filter that asks for them refuses nothing here.
_OF_IMAGES = (
    "width", "height", "original_width", "original_height", "original_format", "bytes", "sha256", "original_sha256", "phash", "information",
    "colours", "colour", "frames",
)  # fmt: skip


@dataclasses.dataclass
class Explained:
    """One source: its inputs, the records that were read for their captions, and what is not there."""

    spec: SourceSpec
    inputs: list[Input]
    missing: list[str]
    layout: str = ""
    records: int = 0
    whole: bool = True


def explain(recipe: Recipe, limit: int = RECORDS) -> dict[str, Any]:
    """Return what a recipe would do, as plain values; at most `limit` records are read per source."""
    sources: list[Explained] = []
    with tempfile.TemporaryDirectory() as folder:
        parts = []
        for spec in recipe.sources:
            sources.append(_look(spec))
            parts.append(_described(recipe, sources[-1], min(limit, recipe.limit or limit), folder))
        removed = _removed(recipe, parts)
    kept = recipe.samples if isinstance(recipe.samples, int) else None
    most = {s.spec.name: _most_left(s, removed) for s in sources}
    return {
        "digest": recipe.digest,
        "recipe": dump(recipe),
        "samples_per_shard": shard_size(recipe, kept or 0) if kept or recipe.shards.samples else None,
        "sources": [
            {
                "name": s.spec.name, "reader": s.spec.reader, "quota": s.spec.samples, "inputs": [i.name for i in s.inputs],
                "layout": s.layout, "missing": s.missing, "records_read": s.records, "all_read": s.whole, "most": most[s.spec.name],
            }
            for s in sources
        ],
        "excluded": [{"path": path, "missing": not _there(path)} for path in recipe.exclude.sets],
        "removed": removed,
        "short": _short(recipe, most),
        "unknown": unknown(recipe, all(s.whole for s in sources), any(r["reason"] == "image_missing" for r in removed)),
    }  # fmt: skip


def _most_left(source: Explained, removed: list[dict[str, Any]]) -> int | None:
    """Return how many samples of a source can survive at most; None where not all of it was read."""
    if source.missing or not source.whole:
        return None
    return source.records - sum(reason["source"].get(source.spec.name, 0) for reason in removed)


def _short(recipe: Recipe, most: dict[str, int | None]) -> list[str]:
    """Return, a line for each, the sizes that cannot be reached, whatever the pictures are."""
    lines = []
    for spec in recipe.sources:
        left = most[spec.name]
        if spec.samples is not None and left is not None and left < spec.samples:
            lines.append(f"{counted(spec.samples, 'sample')} of {spec.name} cannot be reached: at most {left:,} are left")
    known = [left for left in most.values() if left is not None]
    if not lines and isinstance(recipe.samples, int) and len(known) == len(most) and sum(known) < recipe.samples:
        lines.append(f"{counted(recipe.samples, 'sample')} cannot be reached: at most {sum(known):,} are left")
    return lines


def _there(path: str) -> bool:
    try:
        return bool(expand(path))
    except UsageError:
        return False


def _look(spec: SourceSpec) -> Explained:
    """Find a source's inputs and sniff their layout."""
    explained = Explained(spec, [], [])
    if spec.images and not fs.exists(spec.images):
        explained.missing.append(f"images {spec.images}")
    if not _there(spec.input):
        explained.missing.append(f"input {spec.input}")
        return explained
    module, options = registry.get(SOURCES, spec.reader), source_options(spec)
    try:
        explained.inputs = module.inputs(spec.input, options)
    except UsageError:
        # A path among the options (an ImageNet tree, an id list) that is not there yet is missing, too.
        absent = [v for v in spec.options.values() if isinstance(v, str) and "/" in v and not fs.exists(v)]
        if not absent:
            raise
        explained.missing += absent
        return explained
    check_kept(spec, explained.inputs)
    if hasattr(module, "layout"):
        explained.layout = "; ".join(dict.fromkeys(module.layout(input, options) for input in explained.inputs[:_SNIFFED]))
    return explained


def _described(recipe: Recipe, source: Explained, limit: int, folder: str) -> Part:
    """Write the measured rows of a source, but for their images, as one part."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    task = MeasureTask("", 0, 0, 0, source.spec, recipe.clean, recipe.image_policy, "reference", recipe.filters, "", 0)
    schema = measured_schema((*native_columns(source.spec), *filter_columns(recipe.filters)))
    records = _records(source)
    rows = describe(task, _counted(source, islice(records, limit)))
    path, written = fs.join(folder, f"{source.spec.name}.parquet"), 0
    with pq.ParquetWriter(path, schema) as writer:
        while batch := [row | dict.fromkeys(_OF_IMAGES) for row in islice(rows, _BATCH)]:
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))
            written += len(batch)
    source.whole = next(records, None) is None
    return Part((0, 0), path, "", written)


def _counted(source: Explained, records: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for record in records:
        source.records += 1
        yield record


def _records(source: Explained) -> Iterator[dict[str, Any]]:
    module, options = registry.get(SOURCES, source.spec.reader), source_options(source.spec)
    stamps: dict[str, str] = {}
    for input in source.inputs:
        try:
            for record in module.read(input, options):
                yield record_row(dataclasses.replace(record, image=None), input.name, stamps)
        except TornFileError as error:
            source.missing.append(f"the rest of {input.name}: {error.found}")


def _removed(recipe: Recipe, parts: list[Part]) -> list[dict[str, Any]]:
    """Return what words alone would remove, the first refusal owning a sample: by source, by class and by detail."""
    con = connect("")
    load_samples(con, recipe, parts)
    if recipe.dedup.captions:
        captions(con)
    con.execute("""
        CREATE TABLE refused AS
        SELECT place, rank_key, source, class_name, coalesce(d.reason, refusal) AS reason, coalesce(d.detail, s.detail) AS detail
        FROM samples s LEFT JOIN drops d USING (place) JOIN (SELECT place, class_name FROM measured) USING (place)
        WHERE refusal <> '' OR d.reason IS NOT NULL
    """)
    total = sum(part.rows for part in parts)
    query = "SELECT reason, count(*) AS n FROM refused GROUP BY 1 ORDER BY n DESC, 1"
    lists = [
        {"reason": name, "count": count, "of": total, **{by: _counts(con, by, name) for by in ("source", "class_name", "detail")}}
        | {"samples": _samples(con, name)}
        for name, count in con.execute(query).fetchall()
    ]
    con.close()
    return lists


def _samples(con: Any, reason: str) -> list[dict[str, str]]:
    """Return samples that words alone would remove for a reason, lowest rank keys first; none that must not be seen."""
    rows = con.execute(
        """
        SELECT r.source::VARCHAR, m.uid, m.caption_raw, r.detail, r.reason::VARCHAR
        FROM (FROM refused ANTI JOIN hidden USING (place) WHERE reason = ?) r JOIN measured m USING (place) ORDER BY rank_key, m.uid LIMIT ?
        """,
        [reason, _SHOWN],
    ).fetchall()
    return [dict(zip(("source", "uid", "caption_raw", "detail", "reason"), row, strict=True)) for row in rows]


def write_page(path: str, plan: dict[str, Any]) -> None:
    """Write an explanation as a page: counts by reason and source, captions, and what cannot be known yet."""
    counts = {"records read": {s["name"]: s["records_read"] for s in plan["sources"]}}
    counts |= {f"- {removed['reason']}": removed["source"] for removed in plan["removed"]}
    samples = [row for removed in plan["removed"] for row in removed["samples"]]
    fs.write_text(path, page(_size(plan), counts, samples, plan["unknown"]))


def _counts(con: Any, column: str, reason: str) -> dict[str, int]:
    query = f"SELECT {column}, count(*) AS n FROM refused WHERE reason = ? AND {column}::VARCHAR <> '' GROUP BY 1 ORDER BY n DESC, 1"
    return dict(con.execute(query, [reason]).fetchall())


def as_text(plan: dict[str, Any]) -> str:
    """Return an explanation for reading: sources, sizes, what is missing, what captions alone would cost."""
    recipe = plan["recipe"]
    lines = [_size(plan), ""]
    rows = [
        [
            s["name"],
            s["reader"],
            _quota(s),
            f"{len(s['inputs']):,}",
            s["layout"],
            f"{s['records_read']:,}{'' if s['all_read'] else ' (the first)'}",
        ]
        for s in plan["sources"]
    ]
    lines.append(table(["source", "reader", "quota", "inputs", "layout", "records read"], rows))
    lines += ["", *(f"too few: {text}" for text in plan["short"])] if plan["short"] else []
    missing = [f"  {s['name']}: {what}" for s in plan["sources"] for what in s["missing"]]
    missing += [f"  test set {s['path']}" for s in plan["excluded"] if s["missing"]]
    lines += ["", "missing:", *missing] if missing else []
    lines += ["", "filters, in this order: " + ", ".join(_options(f) for f in recipe["filters"])]
    lines += ["duplicates: " + _duplicates(recipe["dedup"])]
    lines += ["test sets kept out: " + ", ".join(s["path"] for s in plan["excluded"])]
    for removed in plan["removed"]:
        lines += [
            "",
            f"{removed['reason']} would remove {removed['count']:,} of {removed['of']:,} ({removed['count'] / removed['of']:.1%})",
        ]
        lines += [
            f"  {by}: {_most(removed[key])}" for by, key in (("by source", "source"), ("by class", "class_name"), ("most often", "detail"))
        ]
        lines += ["  such as:", *(f"  {line(row)}" for row in removed["samples"][:SHOWN])] if removed["samples"] else []
    lines += ["", "not known before pictures are opened (`curate decide` does it):", *(f"  {text}" for text in plan["unknown"])]
    return "\n".join(line for line in lines if not line.endswith(": "))


def _quota(source: dict[str, Any]) -> str:
    """Return a source's quota, and where it cannot be reached, what is left at most."""
    quota, most = source["quota"], source["most"]
    if quota is None:
        return ""
    return f"{quota:,} (at most {most:,})" if most is not None and most < quota else f"{quota:,}"


def _size(plan: dict[str, Any]) -> str:
    samples, per = plan["recipe"]["samples"], plan["samples_per_shard"]
    size = counted(samples, "sample") if isinstance(samples, int) else "all samples that survive"
    shards = f" in {counted(-(-samples // per), 'shard')} of {per:,}" if isinstance(samples, int) and per else ""
    return f"recipe {plan['digest'][:16]}: {size}{shards}, seed {plan['recipe']['seed']}"


def _duplicates(dedup: dict[str, Any]) -> str:
    kinds = ["equal bytes"] if dedup["exact"] else []
    if near := dedup["near"]:
        second = " and like colours" if near["colour"] else ""
        kinds.append(f"pHashes within {near['radius']} of 64 bits ({near['hash']}){second}")
    kinds += ["equal captions"] if dedup["captions"] else []
    if semantic := dedup["semantic"]:
        kinds.append(f"embeddings within {semantic['epsilon']} cosine distance")
    where = "across all sources" if dedup["scope"] == "all" else "within a source"
    return f"{', '.join(kinds)}; {where}, by {dedup['prefer']}" if kinds else "none are looked for"


def _options(entry: dict[str, Any]) -> str:
    options = ", ".join(f"{k} {v}" for k, v in entry.items() if k != "name" and v not in (None, "", [], False))
    return f"{entry['name']} ({options})" if options else str(entry["name"])


def _most(counts: dict[str, int]) -> str:
    listed = ", ".join(f"{name} {n:,}" for name, n in islice(counts.items(), _SHOWN))
    return f"{listed}, and {len(counts) - _SHOWN:,} more" if len(counts) > _SHOWN else listed
