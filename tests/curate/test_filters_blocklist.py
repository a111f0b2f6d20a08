"""blocklist: each list against Python's own hashlib, urllib and bit counting; hosts with what lies under them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from curate.filters import blocklist
from curate.filters.base import Facts
from curate.recipe import Recipe, SourceSpec
from shards.core.errors import UsageError

CONTENT = b"\xff\xd8 not opened here"
PHASH = 0x0123456789ABCDEF


def decide(tmp_path: Path, rows: list[dict[str, Any]], **lists: str) -> list[tuple[bool, str]]:
    """Return (refused, detail) per row under lists given as texts."""
    paths = {}
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
        paths[name] = str(tmp_path / name)
    options = blocklist.Options(**paths)
    measure = blocklist.measurer(options)
    table = []
    for i, row in enumerate(rows):
        url, content = row.get("url", ""), row.get("content", b"")
        host, md5 = measure(Facts("toy", "", (), "", 0, 0, 0, 0, "", 0, "", url, content))
        sha256 = hashlib.sha256(content).hexdigest() if content else ""
        shown = {"i": i, "url": url, "original_sha256": sha256, "phash": row.get("phash", 0)}
        table.append({**shown, "blocklist.host": host, "blocklist.md5": md5})
    con = duckdb.connect()
    con.register("given", pa.Table.from_pylist(table, schema=_schema()))
    con.execute("CREATE TABLE measured AS SELECT * FROM given")
    blocklist.prepare(options, con)
    return con.execute(f"SELECT {blocklist.refuse(options)}, {blocklist.detail(options)} FROM measured ORDER BY i").fetchall()


def _schema() -> pa.Schema:
    text = [(n, pa.string()) for n in ("url", "original_sha256")]
    return pa.schema([("i", pa.int64()), *text, ("phash", pa.uint64()), ("blocklist.host", pa.string()), ("blocklist.md5", pa.string())])


def test_urls_and_hosts(tmp_path: Path) -> None:
    urls = [
        "https://a.org/1.jpg",
        "http://img.bad.example:8080/x?y=1",
        "https://notbad.example/z",
        "//no scheme",
        "https://[bad/",
        "HTTPS://BAD.EXAMPLE/q",
    ]
    rows = [{"url": url} for url in urls]
    found = decide(tmp_path, rows, urls="https://a.org/1.jpg  withdrawn 2024\n# a comment\n", hosts="Bad.example.\n")
    assert [refused for refused, _ in found] == [True, True, False, False, False, True]
    assert [told for _, told in found] == ["urls: urls", "hosts: hosts", "", "", "", "hosts: hosts"]  # the lists' files, no address


def test_digests(tmp_path: Path) -> None:
    rows = [{"content": CONTENT}, {"content": b"other"}, {}]
    sha256, md5 = hashlib.sha256(CONTENT).hexdigest(), hashlib.md5(b"other").hexdigest()
    assert decide(tmp_path, rows, sha256=sha256.upper(), md5=md5) == [(True, "sha256: sha256"), (True, "md5: md5"), (False, "")]


def test_phash_within_the_radius(tmp_path: Path) -> None:
    rows = [{"content": CONTENT, "phash": PHASH ^ flips} for flips in (0, 0b1111, 0b11111)] + [{"phash": PHASH}]
    found = decide(tmp_path, rows, phash=f"{PHASH:016x}\n")
    assert [refused for refused, _ in found] == [True, True, False, False]  # the last has no image
    assert found[1][1] == "phash: phash"


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no list"):
        blocklist.prepare(blocklist.Options(), duckdb.connect())
    with pytest.raises(UsageError, match="is no md5"):
        decide(tmp_path, [], md5="abc\n")
    with pytest.raises(UsageError, match="no file at"):
        blocklist.prepare(blocklist.Options(urls=str(tmp_path / "none")), duckdb.connect())


def test_the_digest_of_a_recipe_follows_a_lists_content_not_its_path(tmp_path: Path) -> None:
    def digest(name: str, text: str) -> str:
        (tmp_path / name).write_text(text)
        filters = ({"name": "blocklist", "urls": str(tmp_path / name)},)
        return Recipe(sources=(SourceSpec("folder", "x"),), samples="all", filters=filters).digest

    assert digest("a", "1") == digest("b", "1") != digest("a", "2")
