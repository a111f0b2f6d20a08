"""Native files for the tests of sources: records read, pools filled, ledgers balanced, tars made."""

from __future__ import annotations

import io
import tarfile
import tracemalloc
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from drawing import encoded, picture

from curate.sources.base import Record
from shards.manifest import read_manifest


def records(module: ModuleType, path: Path | str, **options: Any) -> list[Record]:
    """Return all records of all inputs; each input states its layout."""
    chosen = module.Options(**options)
    found = []
    for one in module.inputs(str(path), chosen):
        assert module.layout(one, chosen)
        found += module.read(one, chosen)
    return found


def peak_memory(module: ModuleType, path: Path | str, count: int, **given: Any) -> int:
    """Return the most bytes that Python holds while `count` records of one input are read."""
    options = module.Options(**given)
    (one,) = module.inputs(str(path), options)
    tracemalloc.start()
    assert sum(1 for _ in module.read(one, options)) == count
    result = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return result


def pointed(record: Record) -> bytes:
    """Return the image of a record: the bytes it points at, or brings."""
    if record.content:
        return record.content
    assert record.image is not None
    content = Path(record.image.path).read_bytes()[record.image.offset :]
    return content if record.image.size < 0 else content[: record.image.size]


def jpeg(i: int) -> bytes:
    """Return photo i as a file."""
    return encoded(picture(i))


def make_tar(path: Path, members: Iterable[tuple[str, bytes]], mode: str = "w", format: int = tarfile.GNU_FORMAT) -> Path:
    """Write a tar with the standard library's writer; names go in as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode, format=format) as out:  # type: ignore[call-overload]
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))
    return path


def make_pool(folder: Path, images: Mapping[str, bytes | None]) -> Path:
    """Write a pool as img2dataset does: one tar and its table; None is a URL that gave nothing."""
    keys = [f"{i:09d}" for i in range(len(images))]
    got = [(k, content) for k, content in zip(keys, images.values(), strict=True) if content is not None]
    make_tar(folder / "00000.tar", [(f"{k}.jpg", content) for k, content in got])
    status = ["failed_to_download" if content is None else "success" for content in images.values()]
    rows = {"key": keys, "url": list(images), "caption": [""] * len(keys), "status": status, "error_message": [None] * len(keys)}
    pq.write_table(pa.table(rows, schema=pa.schema([(name, pa.string()) for name in rows])), folder / "00000.parquet")
    return folder


def ledger(out: Path) -> list[dict[str, Any]]:
    """Return a build's ledger, after a look at its balance: inputs are the sum of what became of them, as the manifest says."""
    rows = [row for part in sorted((out / "ledger").glob("*.parquet")) for row in pq.read_table(part).to_pylist()]
    manifest = read_manifest(str(out))
    for name, counts in manifest.sources.items():
        own = [r for r in rows if r["source"] == name]
        decided = Counter(r["decision"] for r in own)
        reasons = Counter(r["reason"] for r in own if r["decision"] == "dropped")
        assert counts["inputs"] == len(own) == sum(decided.values())
        assert {k: counts[k] for k in ("kept", "holdout", "spare")} == {k: decided[k] for k in ("kept", "holdout", "spare")}
        assert {k: v for k, v in counts["dropped"].items() if v} == dict(reasons)
    assert manifest.samples == sum(1 for r in rows if r["decision"] == "kept")
    return rows


def sidecar(out: Path) -> list[dict[str, Any]]:
    """Return the sidecar rows of all shards of a build."""
    return [row for part in sorted(out.glob("*.parquet")) for row in pq.read_table(part).to_pylist()]
