"""Drop samples whose URL, host or image stands on a list: unsafe, withdrawn or placeholder content.

What it does: looks the URL, its host (with all hosts under it), and the original file's sha256, md5 and pHash up in your lists.
Why: take-downs, unsafe content and “image removed” pictures are known by address or by digest before anybody looks at them.
What it drops must not be seen: the ledger keeps the uid and the list's name, no caption, URL or picture; it goes before other filters.
Example: `filters: [{name: blocklist, hosts: blocked-hosts.txt, sha256: withdrawn.txt, phash: placeholders.txt}]`.
Options: urls, hosts, sha256, md5, phash, phash_radius.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from os.path import basename
from typing import Any
from urllib.parse import urlsplit

from curate.filters.base import Facts
from curate.recipe import MAX_RADIUS
from shards.core import fs
from shards.core.config import option
from shards.core.errors import UsageError

VERSION = 1
SENSITIVE = True
MEASURE: tuple[str, ...] = ()
COLUMNS = (("host", "string"), ("md5", "string"))
_DIGITS = {"sha256": 64, "md5": 32, "phash": 16}


@dataclass(frozen=True)
class Options:
    """Lists of one entry per line; what follows a white space on a line is a comment."""

    urls: str = option("", "a file of URLs")
    hosts: str = option("", "a file of host names; each stands for the hosts under it, too")
    sha256: str = option("", "a file of sha256 digests of original image files")
    md5: str = option("", "a file of md5 digests of original image files")
    phash: str = option("", "a file of 64-bit pHashes of images, in hex")
    phash_radius: int = option(4, "bits in which a listed pHash may differ", least=0, most=MAX_RADIUS)


def measurer(options: Options) -> Callable[[Facts], tuple[str, str]]:
    """Return the function that measures the URL's host and the original file's md5."""
    return lambda facts: (host_of(facts.url), hashlib.md5(facts.content, usedforsecurity=False).hexdigest() if facts.content else "")


def host_of(url: str) -> str:
    """Return the host of a URL in lower case, without its port; an empty string where there is none."""
    try:
        return (urlsplit(url.strip()).hostname or "").rstrip(".")
    except ValueError:
        return ""


def prepare(options: Options, con: Any) -> None:
    """Make one table per list; of the hosts, those of the measured table that stand on the list or under an entry."""
    import pyarrow as pa

    if not _given(options):
        raise UsageError("blocklist: no list", ", ".join(f"--blocklist-{f.name} FILE" for f in fields(Options) if f.type == "str"))
    lists = {name: set(_entries(name, path)) for name, path in _given(options).items()}
    if "hosts" in lists:
        listed = lists["hosts"]
        hosts = con.execute('SELECT DISTINCT "blocklist.host" FROM measured').fetchall()
        lists["hosts"] = {host for (host,) in hosts if host and not listed.isdisjoint(_above(host))}
    for name, values in lists.items():
        con.register("blocked", pa.table({"entry": pa.array(sorted(values), pa.string())}))
        entry = "('0x' || entry)::UBIGINT" if name == "phash" else "entry"
        con.execute(f"CREATE OR REPLACE TEMP TABLE blocklist_{name} AS SELECT {entry} AS entry FROM blocked")
        con.unregister("blocked")


def refuse(options: Options) -> str:
    """Return SQL that is true for a sample on one of the lists."""
    return " OR ".join(f"({_condition(name, options)})" for name in _given(options)) or "FALSE"


def detail(options: Options) -> str:
    """Return SQL that names the list, and nothing that stands on it."""
    lists = _given(options)
    whens = " ".join(f"WHEN {_condition(name, options)} THEN {_literal(f'{name}: {basename(lists[name])}')}" for name in lists)
    return f"CASE {whens} ELSE '' END" if whens else "''"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _condition(name: str, options: Options) -> str:
    if name == "phash":
        near = f"bit_count(xor(phash, entry)) <= {options.phash_radius}"
        return f"original_sha256 <> '' AND EXISTS (SELECT 1 FROM blocklist_phash WHERE {near})"
    column = {"urls": "url", "hosts": '"blocklist.host"', "sha256": "original_sha256", "md5": '"blocklist.md5"'}[name]
    return f"{column} IN (SELECT entry FROM blocklist_{name})"


def _given(options: Options) -> dict[str, str]:
    return {f.name: path for f in fields(options) if isinstance(path := getattr(options, f.name), str) and path}


def _entries(name: str, path: str) -> list[str]:
    if not fs.exists(path) or fs.is_dir(path):
        raise UsageError(f"blocklist: no file at {path!r}", f"a UTF-8 file of {name}, one per line")
    entries = [line.split()[0] for line in fs.read_text(path).splitlines() if line.strip() and not line.startswith("#")]
    if digits := _DIGITS.get(name):
        entries = [entry.lower() for entry in entries]
        if bad := next((e for e in entries if not re.fullmatch(f"[0-9a-f]{{{digits}}}", e)), None):
            raise UsageError(f"{path}: {bad!r} is no {name}", f"{digits} hex digits")
    return [entry.lower().strip(".") for entry in entries] if name == "hosts" else entries


def _above(host: str) -> list[str]:
    """Return a host and the domains it lies under: a.b.c, b.c, c."""
    parts = host.split(".")
    return [".".join(parts[i:]) for i in range(len(parts))]
