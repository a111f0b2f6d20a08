"""WIT's files as records: fields by column name, whatever line feeds and quote marks the fields hold.

Fields hold line feeds, and quote marks that are closed or not: neither a line nor a quote says where a record ends. It
ends where the next one begins, and a line begins a record where the language and the URLs stand in their columns, or
where the columns before it are full. So a damaged record costs itself alone.
"""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Iterator

from curate.sources import _guess
from shards.core.errors import TornFileError, UsageError, closest
from shards.tables.text import from_utf8, opened, refuse_foreign

COLUMNS = (
    "language", "page_url", "image_url", "page_title", "section_title", "hierarchical_section_title", "caption_reference_description",
    "caption_attribution_description", "caption_alt_text_description", "mime_type", "original_height", "original_width",
    "is_main_image", "attribution_passes_lang_id", "page_changed_recently", "context_page_description", "context_section_description",
)  # fmt: skip
MOST = 16 << 20  # characters of a record; what is longer is none
_BOOL, _NUMBER = r"(?i:true|false)?", r"(\d+(\.0+)?)?"
SHAPES = {
    name: re.compile(shape)
    for name, shape in {
        "language": r"[A-Za-z]{2,12}([-_][A-Za-z0-9]{1,12})*",
        "page_url": r"https?://(?!upload\.)\S.*",
        "image_url": r"https?://\S.*",
        "mime_type": r"([a-z]+/[\w.+-]+)?",
        "original_height": _NUMBER,
        "original_width": _NUMBER,
        "is_main_image": _BOOL,
        "attribution_passes_lang_id": _BOOL,
        "page_changed_recently": _BOOL,
    }.items()
}
_ANCHORS = ("language", "page_url", "image_url")


def header(path: str) -> tuple[str, ...]:
    """Return the column names that a file begins with.

    Raises:
        UsageError: there is no header line, or it lacks a column that WIT has.
    """
    refuse_foreign(path, "WIT's TSV, plain or gzipped")
    line = next(_lines(path), ("", True))[0].rstrip("\r")
    names = tuple(_unquoted(name).strip() for name in line.split("\t"))
    if not set(names) & set(COLUMNS):
        begins = f"{path}: no header line of WIT's: it begins with {line[:60]!r}" if line else f"{path}: an empty file"
        raise UsageError(begins, " ".join(COLUMNS), _guess.advice(_guess.by_line(line)))
    needed = (*_ANCHORS, *(name for name in COLUMNS if name.startswith("caption_")), "attribution_passes_lang_id")
    for name in needed:
        if names.count(name) != 1:
            how = f"{names.count(name)} columns named" if name in names else "no column"
            raise UsageError(f"{path}: {how} {name!r} among {', '.join(names)}", " ".join(COLUMNS), closest(name, names))
    return names


def rows(path: str) -> Iterator[tuple[dict[str, str], str]]:
    """Yield each record's fields by column and an empty text; of a damaged one, its text under `""` and what is wrong.

    Raises:
        UsageError: see `header`.
        TornFileError: the file is cut off; whole records before were yielded.
    """
    names = header(path)
    for number, (text, ended) in enumerate(_records(path, names)):
        fields = _fields(text, names)
        values = dict(zip(names, fields, strict=False))
        problem = f"{len(fields)} fields, not {len(names)}" if len(fields) != len(names) else _misfit(values)
        if not ended and len(fields) < len(names):
            raise TornFileError(f"{path}: record {number + 1} is cut off", f"{len(names)} columns")
        yield ({"": text}, problem) if problem else (values, "")


def _misfit(values: dict[str, str]) -> str:
    """Say which field cannot be what its column's name says; empty if all can."""
    for name, shape in SHAPES.items():
        if name in values and not shape.fullmatch(values[name]):
            return f"{name} is {values[name][:60]!r}"
    return ""


def _records(path: str, names: tuple[str, ...]) -> Iterator[tuple[str, bool]]:
    """Yield one record's text after the other, and whether its last line had an end."""
    anchors = [(names.index(name), SHAPES[name]) for name in _ANCHORS]
    url = min(place for place, shape in anchors[1:])
    full, ends_line = len(names) - 1, names[-1] in SHAPES
    held, tabs, size, closed = "", 0, 0, True
    lines = _lines(path)
    next(lines)
    for line, ended in lines:
        fields = line.split("\t")
        begins = len(fields) > url and all(shape.fullmatch(_unquoted(fields[i])) for i, shape in anchors if i < len(fields))
        more = len(fields) - 1
        if size and (begins or (more and tabs + more > full) or (tabs >= full and ends_line) or size > MOST):
            if held.strip():
                yield held.rstrip("\r\n"), True
            held, tabs, size = "", 0, 0
        held, tabs, closed = held + line + "\n", tabs + more, ended
        size = len(held)
    if held.strip():
        yield held.rstrip("\r\n"), closed


def _fields(text: str, names: tuple[str, ...]) -> list[str]:
    """Split a record at its tabs; one with too many by the rules of quoting, if that makes it fit."""
    fields = [_unquoted(field) for field in text.split("\t")]
    if len(fields) > len(names) and '"' in text:
        csv.field_size_limit(2**31 - 1)
        try:
            quoted = next(csv.reader([text], delimiter="\t"))
        except csv.Error:
            return fields
        if len(quoted) == len(names) and not _misfit(dict(zip(names, quoted, strict=True))):
            return quoted
    return fields


def _unquoted(field: str) -> str:
    whole = len(field) > 1 and field[0] == field[-1] == '"' and '"' not in field[1:-1].replace('""', "")
    return field[1:-1].replace('""', '"') if whole else field


def _lines(path: str) -> Iterator[tuple[str, bool]]:
    """Yield each line without its line feed, and whether it had one; a carriage return before it stands, fields may hold it."""
    with opened(path) as file:
        first = True
        while line := file.readline(MOST):
            line = line.removeprefix(codecs.BOM_UTF8) if first else line
            first = False
            yield from_utf8(line.removesuffix(b"\n")), line.endswith(b"\n")
