"""Headerless TSV without quoting, as Conceptual Captions publishes it: one record per line, read as it stands.

A quote mark is a character, `NA` is a word, a caption that only says `null` or `nan` is none. Encodings, line ends and packing
are those of `shards.tables.text`.
"""

from __future__ import annotations

from collections.abc import Iterator

from curate.sources import _guess
from curate.sources.base import URL, Input, Record, list_inputs, meta_json
from shards.core.errors import TornFileError, UsageError
from shards.tables.text import first_lines, lines, refuse_foreign
from shards.tables.values import published, storable

SNIFFED_LINES = 200
SUFFIXES = tuple(plain + packed for plain in (".tsv", ".txt") for packed in ("", ".gz", ".bz2"))
# A source's name, and the columns of its lines; those beyond the first two are only in its labelled subset.
LAYOUTS = {
    "cc3m": ("caption", "url", "labels", "mids", "confidences"),
    "cc12m": ("url", "caption"),
    "shutterstock": ("url", "caption"),
}


def inputs(pattern: str, source: str) -> list[Input]:
    """Return the TSV files a pattern names, after a look at each one's first lines."""
    files = list_inputs(pattern, SUFFIXES)
    for file in files:
        layout(file.path, source)
    return files


def layout(path: str, source: str) -> tuple[str, ...]:
    """Return the columns that a file's first lines show for `source`.

    Raises:
        UsageError: the file is of another kind, or its columns are those of another source.
    """
    refuse_foreign(path, f"a TSV of {describe(source)}")
    head = first_lines(path, SNIFFED_LINES)
    shapes = [shape(line) for line in head]
    fitting = {
        name: sum(width in (2, len(columns)) and url == columns.index("url") for width, url in shapes) for name, columns in LAYOUTS.items()
    }
    best = max(fitting, key=lambda name: (fitting[name], name == source))
    if shapes and fitting[best] == 0:
        advice = _guess.advice(_guess.by_line(head[0]))
        raise UsageError(f"{path}: no line of the first {len(shapes)} is {describe(source)}", describe(source), advice)
    if best != source:
        raise UsageError(f"{path}: this looks like {best}: {describe(best)}", describe(source), f"use --source {best}")
    widths = [fields for fields, url in shapes if url == LAYOUTS[source].index("url")]
    full = len(LAYOUTS[source])
    return LAYOUTS[source] if widths.count(full) >= len(widths) / 2 else LAYOUTS[source][:2]


def shape(line: str) -> tuple[int, int]:
    """Return a line's number of fields, and which of the first two is the only URL (-1: neither or both)."""
    fields = line.split("\t")
    urls = [i for i, field in enumerate(fields[:2]) if URL.match(field)]
    return len(fields), urls[0] if len(urls) == 1 else -1


def describe(source: str) -> str:
    """Return a source's line in words, such as `url⇥caption`."""
    return "⇥".join(LAYOUTS[source][:2])


def read(path: str, name: str, source: str) -> Iterator[Record]:
    """Yield a record per line; one that is not of the layout has the status bad_record.

    Raises:
        UsageError: see `layout`.
        TornFileError: the last line has no end and too few fields.
    """
    columns = layout(path, source)
    for row, (line, ended) in enumerate(lines(path)):
        fields = line.split("\t")
        if not ended and len(fields) < len(columns):
            raise TornFileError(f"{path}: line {row + 1} is cut off", f"{len(columns)} columns")
        values = dict(zip(columns, fields, strict=False))
        if len(fields) != len(columns):
            yield _bad(name, row, line, f"{len(fields)} fields, not {len(columns)}")
        elif not URL.match(values["url"]):
            yield _bad(name, row, line, f"no URL in field {columns.index('url') + 1}")
        else:
            url, caption = values.pop("url").strip(), values.pop("caption")
            captions = published(caption)
            yield Record(f"{url}\n{caption}", captions, row, (url,), meta=meta_json(values))


def _bad(name: str, row: int, line: str, why: str) -> Record:
    return Record(f"{name}:{row}", (storable(line),), row, status="bad_record", detail=f"line {row + 1}: {why}")
