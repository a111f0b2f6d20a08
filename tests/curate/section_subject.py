"""A report's subject made of rows: statistics counted by the real code, a sample of all rows; and a section's page taken apart."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa

from curate.report.page import template_environment
from curate.report.stats import add_up, count_rows, write_statistics
from curate.report.subject import Subject

COLUMNS = {
    "source": pa.string(), "uid": pa.string(), "caption": pa.string(), "width": pa.int32(), "height": pa.int32(), "bytes": pa.int64(),
    "original_format": pa.string(), "information": pa.float64(),
}  # fmt: skip


@contextlib.contextmanager
def subject_of(rows: Sequence[dict[str, Any]], folder: Path, sources: Sequence[str] = ()) -> Iterator[Subject]:
    """Open a subject of these samples, given in rank order; columns that no row names are missing, as in foreign shards."""
    given = [name for name in COLUMNS if any(name in row for row in rows)]
    table = pa.Table.from_pylist(list(rows), schema=pa.schema([(name, COLUMNS[name]) for name in given]))
    half = len(rows) // 2
    paths = [str(folder / "0.parquet"), str(folder / "1.parquet")]
    for path, part in zip(paths, (table.slice(0, half), table.slice(half)), strict=True):
        write_statistics(path, count_rows(part))
    at = [f"0/0/{i}" for i in range(len(rows))]
    every = {name: table[name] if name in given else pa.nulls(len(rows), kind) for name, kind in COLUMNS.items()}
    names = tuple(sources) or tuple(dict.fromkeys(row["source"] for row in rows))
    with add_up(paths) as con:
        yield Subject(con, names, pa.table({**every, "at": at}), {"most": 5000, "order": "rank: as given"}, (), ())


class Page(HTMLParser):
    """What a section shows: tags, the numbers of <data>, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.numbers: list[str] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Count a tag, and keep the number of <data>; nothing may carry style or script."""
        self.tags[tag] += 1
        given = dict(attrs)
        assert not [name for name in given if name.startswith("on") or name in ("style", "srcdoc")]
        if tag == "data":
            self.numbers.append(str(given["value"]))

    def handle_data(self, data: str) -> None:
        """Keep text."""
        self.texts.append(data)

    @property
    def text(self) -> str:
        """All text, white space made one."""
        return " ".join(" ".join(self.texts).split())


def page_of(name: str, values: dict[str, Any], pictures: dict[str, str] | None = None) -> Page:
    """Render a section alone, without its charts."""
    template = template_environment().get_template(f"{name}.html")
    sources = list(values["sources"])
    classes = {source: f"c{i}" for i, source in enumerate(sources)}
    given = {"values": values, "figures": {}, "classes": classes, "pictures": pictures or {}, "sources": sources, "report": {name: values}}
    return Page(template.render(**given))


def numbers_in(values: Any) -> set[str]:
    """Return every number in JSON values, as text."""
    if isinstance(values, dict):
        return set().union(*map(numbers_in, values.values()))
    if isinstance(values, list):
        return set().union(*map(numbers_in, values))
    return {str(values)} if isinstance(values, int | float) else set()
