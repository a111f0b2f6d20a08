"""Which samples a person means: by uid, by its beginning, by source id, URL, path or file name.

Names are looked up in the sidecars of a set's shards and in the ledger of its build. What is meant must be clear: a
beginning, a path and a file name must fit one sample alone; a URL stands for all samples of the picture there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shards.core import fs, notices
from shards.core.console import counted, cut
from shards.core.errors import TornFileError, UsageError
from shards.listed import quoted_uid
from shards.manifest import Manifest
from shards.reader import Shard
from shards.sample import UID_RULE
from shards.uids import uids_in

if TYPE_CHECKING:
    import pyarrow as pa

EXACT = ("uid", "source id", "URL")  # ways in which a name may fit; each of these goes before the ways below
LOOSE = ("path", "file name", "beginning")
LEAST = 6  # hex digits of a beginning: among 15 million samples, 6 still leave one in sixteen alone, and 8 nearly all
SHOWN = 10
_PREFIX = re.compile(rf"[0-9a-f]{{{LEAST},32}}")
_COLUMNS = ("uid", "key", "source", "source_id", "url", "caption", "caption_raw", "decision")
ALLOWED = f"a uid (32 hex digits), {LEAST} or more of its first ones, a source id, a URL, a path or a file name"


@dataclass(frozen=True)
class Match:
    """A sample that a name fits. `way` is one of `EXACT` and `LOOSE`; `place` a shard, or the decision in the ledger."""

    uid: str
    way: str
    source: str = ""
    source_id: str = ""
    url: str = ""
    caption: str = ""
    place: str = ""

    def line(self, width: int = 60) -> str:
        """Return the sample in a line: uid, source, id and caption, the last two cut to `width` columns."""
        name = self.source_id.partition("\n")[0] or self.url
        return "  ".join(filter(None, [self.uid, self.source, cut(name, width), cut(self.caption.replace("\n", " "), width), self.place]))


def find(manifest: Manifest, names: Iterable[str], ways: Sequence[str] = (*EXACT, *LOOSE)) -> dict[str, list[Match]]:
    """Return for each name the samples that it fits, by uid; a name that fits nothing has none.

    Args:
        manifest: the set; with `read_manifest(…, removed=True)` samples that were taken down are found, too.
        names: what a person wrote.
        ways: in which ways a name may fit. Where one of `EXACT` does, the other ways are not looked at.
    """
    wanted = _Wanted(list(dict.fromkeys(names)), ways)
    matched: dict[str, dict[str, Match]] = {name: {} for name in wanted.names}
    for place, table in _tables(manifest):
        for row in wanted.candidates(table):
            for name, way in wanted.fits(row):
                caption = row["caption"] or row["caption_raw"]
                match = Match(row["uid"], way, row["source"], row["source_id"], row["url"], caption, row["decision"] or place)
                before = matched[name].get(match.uid)
                if before is None or (way in EXACT and before.way not in EXACT):
                    matched[name][match.uid] = match
    chosen = {}
    for name, matches in matched.items():
        exact = [match for match in matches.values() if match.way in EXACT]
        chosen[name] = exact or _closest(list(matches.values()))
    return chosen


def _closest(matches: list[Match]) -> list[Match]:
    """Return, of samples that a path fits, those with the most of it in their id; other samples as they are."""
    paths = [len(match.source_id) for match in matches if match.way == "path"]
    return [match for match in matches if len(match.source_id) == max(paths)] if paths else matches


def resolve(manifest: Manifest, names: Iterable[str]) -> list[str]:
    """Return the uids that names stand for, in their order.

    Raises:
        UsageError: a name fits no sample, or several; then they are listed.
    """
    matches_of = find(manifest, names)
    if unknown := [name for name, matches in matches_of.items() if not matches]:
        raise UsageError(f"{unknown[0][:200]!r} names no sample of {manifest.folder!r}", ALLOWED)
    return _uids_meant(matches_of)


def resolve_listed(manifest: Manifest, names: Iterable[str]) -> list[str]:
    """Return the uids that the names of a list stand for, in their order; how many fit no sample is told at the end.

    Raises:
        UsageError: a name fits several samples; then they are listed.
    """
    matches_of = find(manifest, names)
    note_unknown(manifest, matches_of, "name")
    return _uids_meant(matches_of)


def note_unknown(manifest: Manifest, matches_of: dict[str, list[Match]], kind: str) -> None:
    """Have it told how many names of a list fit no sample, and what the first ones may have meant.

    Args:
        kind: what the names are: name, URL, source id.
    """
    unknown = [name for name, matches in matches_of.items() if not matches]
    if not unknown:
        return
    meant = {name: matches for name, matches in find(manifest, unknown[:SHOWN], LOOSE).items() if matches}
    where = f"such as {unknown[0][:80]!r}"
    if meant:
        name, matches = next(iter(meant.items()))
        where = f"such as {name[:80]!r}, which is part of the id {matches[0].source_id[:80]!r}: --uids FILE takes paths and file names, too"
    notices.note(len(unknown), f"of the {counted(len(matches_of), kind)} [is|are] of no sample", where)


def _uids_meant(matches_of: dict[str, list[Match]]) -> list[str]:
    """Return the uids of the samples that names fit.

    Raises:
        UsageError: a name fits several; then they are listed.
    """
    uids: dict[str, None] = {}
    for name, matches in matches_of.items():
        if len(matches) > 1 and any(match.way != "URL" for match in matches):
            listed = [match.line() for match in matches[:SHOWN]]
            more = [f"… and {len(matches) - SHOWN:,} more"] if len(matches) > SHOWN else []
            lines = "\n    ".join(["", *listed, *more])
            raise UsageError(f"{name[:200]!r} fits {len(matches):,} samples:{lines}", "a name of one sample", "its uid, or more of it")
        uids |= dict.fromkeys(match.uid for match in matches)
    return list(uids)


class _Wanted:
    """Names, in the forms in which columns are searched for them."""

    def __init__(self, names: list[str], ways: Sequence[str]) -> None:
        self.names, self.ways = names, ways
        # What columns are searched for, and the names that it stands for: `AB…` and `ab…` are two names of one uid.
        self.texts: dict[str, list[str]] = {}
        self.uids: dict[str, list[str]] = {}
        self.beginnings: dict[str, list[str]] = {}
        self.paths: dict[str, list[str]] = {}
        self.ends: dict[str, list[str]] = {}  # an absolute path ends in the id that is relative to the source's folder
        for name in names:
            text = name.strip()
            if not text:
                continue
            self.texts.setdefault(text, []).append(name)
            uid = quoted_uid(text)
            if uid and "uid" in ways:
                self.uids.setdefault(uid, []).append(name)
            elif _PREFIX.fullmatch(text.lower()) and "beginning" in ways:
                self.beginnings.setdefault(text.lower(), []).append(name)
            path = text.replace("\\", "/")
            if "path" in ways and "/" in path and "://" not in path:
                self.paths.setdefault(path.lstrip("./"), []).append(name)
                parts = path.split("/")
                for first in range(1, len(parts)):
                    self.ends.setdefault("/".join(parts[first:]), []).append(name)

    def candidates(self, table: pa.Table) -> list[dict[str, Any]]:
        """Return the rows of a table that some name may fit; `fits` says which. Whole columns are searched at once."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        hits = np.zeros(table.num_rows, bool)

        def look(column: Any, values: Iterable[str]) -> None:
            listed = list(values)
            if listed:
                hits[:] |= np.asarray(pc.is_in(column, pa.array(listed, pa.string())))

        texts = list(self.texts)
        ids, urls, uids = table["source_id"], table["url"], table["uid"]
        look(uids, self.uids)
        if "source id" in self.ways or "URL" in self.ways:
            for column in (ids, urls, table["key"], _first_lines(ids)):
                look(column, texts)
        if "file name" in self.ways:
            look(_last_parts(_first_lines(ids)), texts)
            look(_last_parts(urls), texts)
        look(ids, self.ends)
        for beginning in self.beginnings:
            hits |= np.asarray(pc.starts_with(uids, beginning))
        for path in self.paths:
            hits |= np.asarray(pc.ends_with(ids, "/" + path))
        return table.take(np.flatnonzero(hits)).to_pylist() if hits.any() else []

    def fits(self, row: dict[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield the names that a row fits, each with the way."""
        id, url, uid = row["source_id"], row["url"], row["uid"]
        first = id.partition("\n")[0]
        exact = {id: "source id", row["key"]: "source id", first: "URL" if "://" in first else "source id", url: "URL"}
        loose = {_last_part(first): "file name", _last_part(url): "file name"}
        fitting = [(self.uids.get(uid, []), "uid")]
        fitting += [(self.texts.get(text, []), way) for text, way in (*loose.items(), *exact.items()) if text and way in self.ways]
        fitting.append((self.ends.get(id, []), "path"))
        fitting += [(names, "path") for path, names in self.paths.items() if id.endswith("/" + path)]
        fitting += [(names, "beginning") for beginning, names in self.beginnings.items() if uid.startswith(beginning)]
        for names, way in fitting:
            for name in names:
                yield name, way


def _first_lines(ids: Any) -> Any:
    """Return ids up to their first line feed: those of cc3m, cc12m and img2dataset are a URL, a line feed, and the caption."""
    import pyarrow.compute as pc

    return pc.replace_substring_regex(ids, r"(?s)\n.*", "")


def _last_parts(column: Any) -> Any:
    """Return the file names of paths and URLs."""
    import pyarrow.compute as pc

    return pc.replace_substring_regex(pc.replace_substring_regex(column, r"(?s)[?#].*", ""), r"(?s)^.*/", "")


def _last_part(text: str) -> str:
    return re.split(r"[?#]", text, maxsplit=1)[0].rpartition("/")[2]


def _tables(manifest: Manifest) -> Iterator[tuple[str, pa.Table]]:
    """Yield the samples of each shard in use, then the rows of the ledger, as tables of text without nulls."""
    for entry in manifest.shards:
        with Shard(manifest, entry) as shard:
            table = shard.sidecar(_COLUMNS)
            rows = _named(table, len(shard), {"uid": _uids(shard)} if "uid" not in table.column_names else {})
        yield entry.path, rows
    folder = fs.join(manifest.folder, "ledger")
    for name in fs.names(folder):
        if name.endswith(".parquet"):
            yield "ledger", _ledger(fs.join(folder, name))


def _uids(shard: Shard) -> list[str]:
    """Return the uids of a shard without a column of them: its keys, where they are some."""
    return [name if UID_RULE.fullmatch(name) else "" for name in uids_in(shard)]


def _ledger(path: str) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with fs.open_read(path) as file:
            parquet = pq.ParquetFile(file)
            table = parquet.read([name for name in _COLUMNS if name in parquet.schema_arrow.names])
    except pa.ArrowException as error:
        raise TornFileError(f"{path}: {error}", "a part of a ledger") from error
    return _named(table, table.num_rows, {})


def _named(table: pa.Table, rows: int, columns_given: dict[str, list[str]]) -> pa.Table:
    """Return a table's columns as text, those that are not there empty, without rows that have no uid."""
    import pyarrow as pa
    import pyarrow.compute as pc

    columns: dict[str, Any] = {}
    for name in _COLUMNS:
        if name in columns_given:
            columns[name] = pa.array(columns_given[name], pa.string())
        elif name in table.column_names:
            columns[name] = pc.fill_null(table[name].cast(pa.string()), "")
        else:
            columns[name] = pa.repeat(pa.scalar(""), rows)
    named = pa.table(columns)
    return named.filter(pc.not_equal(named["uid"], ""))
