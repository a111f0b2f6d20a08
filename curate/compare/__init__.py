"""`curate compare`: what two sets share, and how they differ.

Sets are builds, subsets, foreign WebDataset folders with a manifest, or lists of ids. Shared are ids, image bytes, and
pictures within a pHash radius; different are sources, sizes, caption lengths and words.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from curate.compare.facts import facts
from curate.compare.vocabulary import vocabulary
from curate.listing import connect, scalar
from curate.recipe import MAX_RADIUS
from shards.core import fs
from shards.core.config import option
from shards.core.console import Progress, emit, table
from shards.core.errors import UsageError
from shards.manifest import read_manifest
from shards.sample import UID_RULE

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

LISTS = (".npy", ".txt", ".ids")
QUANTILES = ("min", "p5", "median", "p95", "max")


@dataclasses.dataclass(frozen=True)
class CompareConfig:
    """Compare two sets."""

    a: str = option(help="a build, subset or indexed folder; or a list of ids (.txt, one on each line; DataComp's .npy)", positional=True)
    b: str = option(help="the other one", positional=True)
    radius: int = option(4, "bits of 64 in which the pHashes of near duplicates may differ")
    look: bool = option(True, "open the images of sets without sidecars, for bytes and near duplicates")
    json: bool = option(False, "print JSON")


def compare(config: CompareConfig) -> int:
    """Print what two sets share and how they differ."""
    if not 0 <= config.radius <= MAX_RADIUS:
        raise UsageError(f"--radius {config.radius}", f"0 to {MAX_RADIUS} bits")
    con = connect("")
    lists = [path.endswith(LISTS) for path in (config.a, config.b)]
    found: dict[str, Any] = {}
    for name, path, is_list in zip("ab", (config.a, config.b), lists, strict=True):
        found[name] = _load_list(con, name, path) if is_list else _load_set(con, name, path, config.look)
    by = _id_column(con, lists)
    found["ids"] = {"by": by, **_shared(con, by if not lists[0] else "uid", by if not lists[1] else "uid")}
    if not any(lists):
        found["bytes"] = _shared(con, "nullif(content, '')", "nullif(content, '')")
        found["near"] = _near(con, config.radius)
        found["sources"] = _sources(con)
        found["sizes"] = {name: _distribution(con, f"least(width, height) FROM {name} WHERE width > 0") for name in "ab"}
        found["caption_words"] = {
            name: _distribution(con, f"len(regexp_extract_all(caption, '[^\\s\\p{{Z}}]+')) FROM {name}") for name in "ab"
        }
        found["caption_characters"] = {name: _distribution(con, f"length(caption) FROM {name}") for name in "ab"}
        found["vocabulary"] = vocabulary(con)
    emit(found if config.json else _text(found))
    return 0


def _load_set(con: Any, name: str, path: str, look: bool) -> dict[str, Any]:
    """Make the table of a set's samples and return what its manifest says."""
    manifest = read_manifest(path)
    con.execute(
        f"CREATE TABLE {name} (uid VARCHAR, source VARCHAR, source_id VARCHAR, content VARCHAR, phash VARCHAR, width INTEGER,"
        " height INTEGER, caption VARCHAR, nth BIGINT)"
    )
    seen = 0
    with Progress(f"read {path}", manifest.samples) as progress:
        for rows in facts(manifest, look=look):
            _insert(con, name, rows, seen)
            seen += rows.num_rows
            progress.add(rows.num_rows)
    return {"path": path, "samples": seen, "shards": len(manifest.shards), "bytes": manifest.bytes, "manifest": manifest.digest}


def _load_list(con: Any, name: str, path: str) -> dict[str, Any]:
    """Make the table of a list's ids."""
    import pyarrow as pa

    if not fs.exists(path):
        raise UsageError(f"no file at {path!r}", "a list of ids, one on each line, or a .npy")
    ids = pa.array(_npy_ids(path) if path.endswith(".npy") else _text_ids(path), pa.string())
    con.execute(f"CREATE TABLE {name} (uid VARCHAR, nth BIGINT)")
    _insert(con, name, pa.table({"uid": ids}), 0)
    return {"path": path, "samples": len(ids)}


def _npy_ids(path: str) -> list[str]:
    """Return the ids of a .npy: DataComp's pairs of 64 bits as hex, whole numbers in decimals."""
    import io

    import numpy as np

    from shards.uids import read_uids, unpack

    content = fs.read_bytes(path)
    if content.startswith(b"\x93NUMPY"):
        try:
            plain = np.load(io.BytesIO(content), allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise UsageError(f"{path}: {error}", "a .npy of whole numbers, or of dtype u8,u8") from error
        if plain.ndim == 1 and np.issubdtype(plain.dtype, np.integer):
            return plain.astype(str).tolist()
    return list(unpack(read_uids(path)))


def _text_ids(path: str) -> list[str]:
    return [line for raw in fs.read_text(path).splitlines() if (line := raw.strip())]


def _insert(con: Any, name: str, rows: pa.Table, seen: int) -> None:
    con.register("rows", rows)
    con.execute(f"INSERT INTO {name} SELECT *, row_number() OVER () - 1 + {seen} FROM rows")
    con.unregister("rows")


def _id_column(con: Any, lists: list[bool]) -> str:
    """Return by which column sets are held against lists: uids, unless a list holds other ids, which are then native ones."""
    for name, is_list in zip("ab", lists, strict=True):
        if is_list and not all(lists) and scalar(con, f"SELECT bool_or(NOT regexp_full_match(uid, '{UID_RULE.pattern}')) FROM {name}"):
            return "source_id"
    return "uid"


def _shared(con: Any, a: str, b: str) -> dict[str, Any]:
    """Return how many samples of each set have, by one column, a partner in the other, and the Jaccard index of the distinct values."""
    row = con.execute(f"""
        WITH x AS (SELECT {a} AS id, count(*) AS n FROM a WHERE id IS NOT NULL GROUP BY 1),
             y AS (SELECT {b} AS id, count(*) AS n FROM b WHERE id IS NOT NULL GROUP BY 1)
        SELECT coalesce(sum(x.n), 0)::BIGINT, coalesce(sum(y.n), 0)::BIGINT, coalesce(sum(x.n) FILTER (y.n IS NOT NULL), 0)::BIGINT,
               coalesce(sum(y.n) FILTER (x.n IS NOT NULL), 0)::BIGINT, count(*) FILTER (x.n IS NOT NULL AND y.n IS NOT NULL), count(*)
        FROM x FULL JOIN y USING (id)
    """).fetchall()[0]
    known_a, known_b, a_in_b, b_in_a, both, either = row
    return {"known": [known_a, known_b], "a_in_b": a_in_b, "b_in_a": b_in_a, "shared": both, "jaccard": both / either if either else None}


def _near(con: Any, radius: int) -> dict[str, Any]:
    """Return how many samples of each set have a picture within the radius in the other; `beyond`: neither by id nor by bytes."""
    import numpy as np
    import pyarrow as pa

    from curate.dedup import pairs_between

    hashes = [_hashes(con, name) for name in "ab"]
    left, right = pairs_between(hashes[0], hashes[1], radius)
    found: dict[str, Any] = {"radius": radius, "known": [], "beyond": []}
    for name, other, mine, matched in (("a", "b", hashes[0], left), ("b", "a", hashes[1], right)):
        con.register("matched", pa.table({"hash": pa.array(mine[np.unique(matched)], pa.uint64())}))
        known, near, beyond = con.execute(f"""
            SELECT count(*), count(*) FILTER (matched), count(*) FILTER (matched AND NOT shared) FROM (
              SELECT ('0x' || phash)::UBIGINT IN (SELECT hash FROM matched) AS matched,
                     uid IN (SELECT uid FROM {other}) OR (content <> '' AND content IN (SELECT content FROM {other})) AS shared
              FROM {name} WHERE phash <> '')
        """).fetchall()[0]
        con.unregister("matched")
        found["known"].append(known)
        found["beyond"].append(beyond)
        found[f"{name}_in_{other}"] = near
    return found


def _hashes(con: Any, name: str) -> NDArray[np.uint64]:
    rows = con.sql(f"SELECT DISTINCT ('0x' || phash)::UBIGINT AS h FROM {name} WHERE phash <> '' ORDER BY h").to_arrow_table()
    return rows["h"].to_numpy()


def _sources(con: Any) -> list[dict[str, Any]]:
    """Return each source's samples in both sets, and how many of its ids both have."""
    rows = con.execute("""
        SELECT coalesce(x.source, y.source) AS name, coalesce(x.n, 0), coalesce(y.n, 0),
               (SELECT count(DISTINCT uid) FROM a SEMI JOIN b USING (source, uid) WHERE a.source = coalesce(x.source, y.source))
        FROM (SELECT source, count(*) AS n FROM a GROUP BY 1) x FULL JOIN (SELECT source, count(*) AS n FROM b GROUP BY 1) y USING (source)
        ORDER BY name
    """).fetchall()
    return [{"name": name, "a": a, "b": b, "both": both} for name, a, b, both in rows]


def _distribution(con: Any, values: str) -> dict[str, Any]:
    """Return the mean and nearest-rank quantiles of a column."""
    parts = ", ".join(f"quantile_disc(v, {share})" for share in (0, 0.05, 0.5, 0.95, 1))
    row = con.execute(f"SELECT count(*), avg(v), {parts} FROM (SELECT {values}) t(v)").fetchall()[0]
    mean = None if row[1] is None else round(row[1], 2)
    return {"n": row[0], "mean": mean, **dict(zip(QUANTILES, row[2:], strict=True))}


def _text(found: dict[str, Any]) -> str:
    a, b = found["a"], found["b"]
    lines = [f"A  {a['path']}: {a['samples']:,} samples", f"B  {b['path']}: {b['samples']:,} samples", ""]
    rows = [_overlap_row({"uid": "same uid", "source_id": "same native id"}[found["ids"]["by"]], found["ids"])]
    if "bytes" in found:
        near = found["near"]
        rows += [_overlap_row("same bytes", found["bytes"]), _overlap_row(f"within {near['radius']} bits of pHash", near)]
        beyond = {"known": near["known"], "a_in_b": near["beyond"][0], "b_in_a": near["beyond"][1]}
        rows.append(_overlap_row("… and neither uid nor bytes", beyond))
    lines.append(table(("shared", "of A in B", "%", "of B in A", "%", "Jaccard"), rows))
    if "bytes" not in found:
        return "\n".join(lines)
    lines += [
        "",
        table(("source", "in A", "in B", "same uid"), [(s["name"] or "(none)", s["a"], s["b"], s["both"]) for s in found["sources"]]),
    ]
    kinds = (("sizes", "shorter side, px"), ("caption_words", "words in a caption"), ("caption_characters", "characters"))
    spread = [(title if name == "a" else "", name.upper(), *_spread(found[key][name])) for key, title in kinds for name in "ab"]
    lines += ["", table(("", "", "mean", *QUANTILES), spread), "", _words_text(found["vocabulary"])]
    return "\n".join(lines)


def _overlap_row(title: str, found: dict[str, Any]) -> tuple[Any, ...]:
    shares = [
        f"{100 * n / known:.1f}" if known else "" for n, known in zip((found["a_in_b"], found["b_in_a"]), found["known"], strict=True)
    ]
    jaccard = found.get("jaccard")
    return (title, found["a_in_b"], shares[0], found["b_in_a"], shares[1], "" if jaccard is None else f"{jaccard:.3f}")


def _spread(found: dict[str, Any]) -> list[Any]:
    return ["" if found[name] is None else found[name] for name in ("mean", *QUANTILES)]


def _words_text(found: dict[str, Any]) -> str:
    if found["divergence"] is None:
        return "no words to compare"
    a, b = found["distinct"]
    head = (
        f"words of {found['captions']:,} captions each: {a:,} distinct in A, {b:,} in B, {found['shared']:,} in both\n"
        f"Jensen–Shannon divergence {found['divergence']:.4f} bits; two random halves of both together: {found['divergence_of_halves']:.4f}"
    )
    rows = []
    for i in range(max(len(found["more_in_a"]), len(found["more_in_b"]))):
        cells = [found[side][i] if i < len(found[side]) else None for side in ("more_in_a", "more_in_b")]
        rows.append(tuple(value for cell in cells for value in ((cell["word"], cell["a"], cell["b"]) if cell else ("", "", ""))))
    return f"{head}\n\n{table(('more in A', 'A', 'B', 'more in B', 'A', 'B'), rows)}" if rows else head
