"""A synthetic measured table with the real schema: what benchmarks of deciding and planning read.

Two sources, captions of 3 to 30 words with one longer raw form each, and the mishaps of a crawl: 2% images missing, 1%
empty captions, 0.2% profane, 0.1% ids given twice, 3% copies of an image among the last 1,000, half of them
re-encoded, and a placeholder that 0.1% of the URLs serve. Parts are as small as the measure pass makes them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

CHUNK = 512 * 1024

_SQL = """
WITH i AS (SELECT i, hash(i) AS h, hash(i + 1000000007) AS g FROM range({start}, {stop}) t(i)),
r AS (
    SELECT *, CASE WHEN h % 1000 = 0 THEN i - 1 ELSE i END AS id,                       -- ids given twice
           CASE WHEN h % 1000 = 1 THEN -1 WHEN h % 100 IN (2, 3, 4) THEN i - 1 - g % 1000 ELSE i END AS image,
           h % 50 = 7 AS missing, h % 100 = 9 AS empty,
           CASE WHEN i < {total} * 0.7 THEN 'web' ELSE 'photos' END AS source,
           list_transform(range(3 + (g % 28)::BIGINT), lambda k: words[1 + (hash(i * 64 + k) % 1024)::BIGINT]) AS said
    FROM i, vocabulary),
t AS (
    SELECT *, md5('u' || id) AS uid, CASE WHEN missing THEN '' ELSE sha256('b' || image || if(h % 2 = 0, '', ':' || i)) END AS digest,
           CASE WHEN empty THEN '' WHEN g % 500 = 3 THEN 'what a bitch ' || array_to_string(said, ' ')
                ELSE array_to_string(said, ' ') END AS text
    FROM r)
SELECT uid, uid AS image_id, source, 'https://img.' || (g % 20000) || '.example/p/' || i || '.jpg' || chr(10) || text AS source_id,
    source || '/' || lpad((i // 1000000)::VARCHAR, 5, '0') || '.tsv' AS input, i % 1000000 AS row,
    CASE WHEN missing THEN 'failed_to_download' ELSE '' END AS status, CASE WHEN missing THEN 'HTTP 404' ELSE '' END AS detail,
    'https://img.' || (g % 20000) || '.example/p/' || i || '.jpg' AS url, text AS caption, '  ' || text || ' ' AS caption_raw,
    CASE WHEN empty THEN []::VARCHAR[] ELSE [text] END AS captions,
    CASE WHEN missing THEN 0 ELSE 200 + (g % 900)::INT END AS width, CASE WHEN missing THEN 0 ELSE 200 + (h % 600)::INT END AS height,
    width AS original_width, height AS original_height, CASE WHEN missing THEN '' ELSE 'JPEG' END AS original_format,
    20000 + (g % 90000)::BIGINT AS bytes, digest AS sha256, digest AS original_sha256,
    CASE WHEN missing THEN 0::UBIGINT
         ELSE xor(hash(image + 77), if(h % 2 = 0 OR image = -1, 0, (1::UBIGINT << (g % 64)::INT))) END AS phash,
    CASE WHEN missing THEN 0.0 WHEN image = -1 OR g % 300 = 1 THEN 0.5 ELSE 13.0 + (g % 100) END AS information,
    CASE WHEN missing THEN 0 ELSE 1 END AS frames, CASE WHEN source = 'photos' THEN (g % 1000)::INT ELSE -1 END AS class_index,
    CASE WHEN source = 'photos' THEN 'class ' || (g % 1000) ELSE '' END AS class_name,
    CASE WHEN g % 3 = 0 THEN 'CC BY 2.0' ELSE '' END AS licence,
    '' AS meta, {filters},
    '/pool/' || lpad((i // 10000)::VARCHAR, 5, '0') || '.tar' AS path, (g % 900000000)::BIGINT AS "offset",
    bytes AS size, 0::UBIGINT AS xxh3
FROM t ORDER BY i
"""

_WORDS = """
CREATE TABLE vocabulary AS
SELECT list(left(md5(i::VARCHAR), 2 + (hash(i) % 8)::INT) ORDER BY i) AS words FROM range(1024) t(i)
"""

# What the filters of the recipe would have measured, in SQL.
_FILTERS = {
    "caption_length.words": "len(said)",
    "caption_length.chars": "length(text)",
    "image_size.bytes": "bytes",
    "profanity.hits": "CASE WHEN g % 500 = 3 AND NOT empty THEN 1 ELSE 0 END",
    "profanity.words": "CASE WHEN g % 500 = 3 AND NOT empty THEN 'bitch' ELSE '' END",
}


def recipe(**changes: Any) -> Any:
    """Return the recipe that the table is measured for."""
    from curate.recipe import Recipe, SourceSpec

    sources = (SourceSpec("folder", "web", "web"), SourceSpec("folder", "photos", "photos"))
    filters = (
        {"name": "caption_length"},
        {"name": "image_size", "min_side": 201},
        {"name": "aspect_ratio", "max": 5.0},
        {"name": "profanity"},
    )
    return Recipe(sources=sources, **{"samples": "all", "filters": filters, **changes})


def make_parts(folder: Path, rows: int, per_part: int = 512) -> list[Any]:
    """Write the measured table in parts, on all cores, and return them in order."""
    from concurrent.futures import ProcessPoolExecutor
    from functools import partial
    from multiprocessing import get_context

    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        made = pool.map(partial(_write_chunk, folder, rows, per_part), range(0, rows, CHUNK))
        return [part for parts in made for part in parts]


def _write_chunk(folder: Path, rows: int, per_part: int, start: int) -> list[Any]:
    import duckdb
    import pyarrow as pa
    import pyarrow.parquet as pq

    from curate.measure import Part, columns_of
    from curate.table import measured_schema

    schema = measured_schema(columns_of(recipe()))
    filters = ", ".join(f'{_FILTERS[name]} AS "{name}"' for name, _ in columns_of(recipe()))
    con = duckdb.connect(config={"threads": 1})
    con.execute(_WORDS)
    sql = _SQL.format(start=start, stop=min(rows, start + CHUNK), total=rows, filters=filters)
    chunk: pa.Table = con.sql(sql).to_arrow_table().select(schema.names).cast(schema).combine_chunks()
    parts = []
    for at in range(0, chunk.num_rows, per_part):
        piece = chunk.slice(at, per_part)
        path = folder / f"{start + at:012d}.parquet"
        pq.write_table(piece, path, compression="zstd")
        parts.append(Part((start + at, 0), str(path), path.stem, piece.num_rows))
    return parts


def multiply(folder: Path, parts: list[Any], times: int) -> list[Any]:
    """Return a table `times` as long, in parts of 131,072 rows: the same rows again with other ids, bytes and hashes."""
    import duckdb

    from curate.measure import Part

    folder.mkdir(parents=True, exist_ok=True)
    con = duckdb.connect(config={"preserve_insertion_order": False, "memory_limit": "2GB"})
    files = max(1, 131_072 // parts[0].rows)
    made = []
    for copy in range(times):
        for at in range(0, len(parts), files):
            group = parts[at : at + files]
            path = folder / f"{copy:03d}-{at:09d}.parquet"
            other = f"""md5(uid || {copy}) AS uid, md5(uid || {copy}) AS image_id, xor(phash, hash({copy})) AS phash,
                if(original_sha256 = '', '', sha256(original_sha256 || {copy})) AS original_sha256"""
            con.execute(f"""COPY (SELECT * REPLACE ({other}) FROM read_parquet({[part.path for part in group]}))
                TO '{path}' (FORMAT parquet, COMPRESSION zstd)""")
            made.append(Part((len(made), 0), str(path), path.stem, sum(part.rows for part in group)))
    return made
