"""A finished build made by hand, without the builder: what the report's tests count."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
from PIL import Image

from curate.report.examples import choose_examples, write_examples
from shards.manifest import Manifest
from shards.sample import rank_key, uid_of
from shards.schema import LEDGER, SIDECAR, arrow_schema
from shards.writer import write_shard, write_sidecar

SEED = 7


@dataclass(frozen=True)
class Row:
    """One input and what was decided about it; `image` is the path of its picture, "" if there is none."""

    source: str
    source_id: str
    caption: str
    decision: str = "kept"
    reason: str = ""
    detail: str = ""
    duplicate_of: str = ""
    caption_raw: str = ""
    image: str = ""

    @property
    def uid(self) -> str:
        return uid_of(self.source, self.source_id)

    @property
    def raw(self) -> str:
        return self.caption_raw or self.caption


def write_build(out: Path, rows: list[Row], recipe: str = "", *, examples: bool = True, per_shard: int = 100) -> Manifest:
    """Write tars, sidecars, ledger, recipe, examples and manifest of a build with these inputs."""
    (out / "ledger").mkdir(parents=True)
    if recipe:
        (out / "recipe.yaml").write_text(recipe)
    kept = sorted((r for r in rows if r.decision == "kept"), key=lambda r: rank_key(SEED, r.uid))
    entries = []
    for start in range(0, len(kept), per_shard):
        part = kept[start : start + per_shard]
        samples = [(r.uid, {"jpg": Path(r.image).read_bytes() if r.image else picture(8, 8), "txt": r.caption.encode()}) for r in part]
        entries.append(write_shard(str(out), f"{start // per_shard:05d}", samples, _sidecar(part, start)))
    ledger = sorted(rows, key=lambda r: r.uid)
    for number, half in enumerate((ledger[: len(rows) // 2], ledger[len(rows) // 2 :])):
        write_sidecar(str(out / "ledger" / f"{number:05d}.parquet"), _ledger(half))
    if examples:
        with duckdb.connect() as con:
            con.register("decided", decided(rows))
            write_examples(str(out), choose_examples(con, "decided", "decided"))
    manifest = Manifest(
        samples=len(kept), bytes=sum(e.bytes for e in entries), shards=tuple(entries), seed=SEED, recipe="ab" * 32, table="cd" * 32,
        builder="provender 0.1.0", members=("jpg", "txt"), sources=_sources(rows),
    )  # fmt: skip
    manifest.save(str(out))
    return manifest


def decided(rows: list[Row]) -> pa.Table:
    """Return what the builder hands to `choose_examples`."""
    return pa.Table.from_pylist(
        [
            {
                "place": place,
                "uid": r.uid,
                "source": r.source,
                "reason": r.reason,
                "detail": r.detail,
                "decision": r.decision,
                "duplicate_of": r.duplicate_of,
                "rank": rank_key(SEED, r.uid) >> 1,
                "caption": r.caption,
                "caption_raw": r.raw,
                "path": r.image,
                "offset": 0,
                "size": -1,
            }
            for place, r in enumerate(rows)
        ]
    )  # fmt: skip


def picture(width: int, height: int, colour: str = "teal", format: str = "JPEG") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(out, format)
    return out.getvalue()


def _sidecar(rows: list[Row], start: int) -> pa.Table:
    blank: dict[str, object] = {"string": "", "int32": 0, "int64": 0, "double": 0.0, "list<string>": []}
    values = [
        {**{name: blank[kind] for name, kind in SIDECAR}, "key": r.uid, "uid": r.uid, "source": r.source, "source_id": r.source_id,
         "caption": r.caption, "caption_raw": r.raw, "captions": [r.caption], "rank": start + i}
        for i, r in enumerate(rows)
    ]  # fmt: skip
    return pa.Table.from_pylist(values, schema=arrow_schema(SIDECAR))


def _ledger(rows: list[Row]) -> pa.Table:
    values = [
        {"uid": r.uid, "source": r.source, "source_id": r.source_id, "input": "part", "row": i, "decision": r.decision, "reason": r.reason,
         "detail": r.detail, "duplicate_of": r.duplicate_of, "rank": i, "shard": "", "caption_raw": r.raw}
        for i, r in enumerate(rows)
    ]  # fmt: skip
    return pa.Table.from_pylist(values, schema=arrow_schema(LEDGER))


def _sources(rows: list[Row]) -> dict[str, dict[str, object]]:
    sources: dict[str, dict[str, object]] = {}
    for name in dict.fromkeys(r.source for r in rows):
        of = [r for r in rows if r.source == name]
        entry: dict[str, object] = {d: sum(r.decision == d for r in of) for d in ("kept", "holdout", "spare")}
        reasons = sorted({r.reason for r in of if r.decision == "dropped"})
        sources[name] = {"inputs": len(of), **entry, "dropped": {x: sum(r.reason == x for r in of) for x in reasons}}
    return sources
