"""What a cell means, whatever its column's type: a text, several captions, an id, a uid, or a value that JSON can hold.

Parquet has bytes, timestamps, decimals, lists, maps and structs where a caption or an id is due; JSON has NaN; writers of
data frames leave the words nan, None and null where there is nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from shards.sample import uid_in
from shards.tables.notes import note
from shards.tables.text import decoded, from_utf8

# What pandas, Python, SQL and Spark write for nothing. `NA` is a word: a country's and a newspaper's.
NULL_WORDS = frozenset(("nan", "none", "null", "<na>", "nat", "\\n"))
_LONGEST_NULL = 16  # characters, with blanks around the word
# Where a struct holds a text under one of these names, that is the caption; else all its texts are.
TEXT_KEYS = ("caption", "text", "raw", "value", "sentence", "description", "title", "en")
LABEL_KEYS = ("url", "name", "display_name", "title", "text", "id")
_EXACT = 2**53  # floats below it hold every integer


def is_null(value: Any) -> bool:
    """Return whether a cell holds nothing: None, or a number that is none."""
    return value is None or (isinstance(value, float) and math.isnan(value)) or (isinstance(value, Decimal) and value.is_nan())


def storable(value: Any) -> str:
    """Return a cell as text that UTF-8 can hold: nothing is empty, a lone surrogate becomes U+FFFD.

    Bytes are UTF-8 (else cp1252), times are in ISO format, lists and structs are JSON.
    """
    if isinstance(value, str):
        text = value
    elif is_null(value):
        text = ""
    elif isinstance(value, bytes | bytearray | memoryview):
        text = from_utf8(bytes(value))
    else:
        plain_value = plain(value)
        text = plain_value if isinstance(plain_value, str) else json.dumps(plain_value, ensure_ascii=False)
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def plain(value: Any) -> Any:
    """Return a value as JSON has it: NaN and infinities are None, bytes that are no readable text are hex, a map is an object."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes | bytearray | memoryview):
        return _of_bytes(bytes(value))
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal):
        return _of_decimal(value)
    if isinstance(value, dict):
        return {storable(key): plain(inner) for key, inner in value.items()}
    if is_map(value):
        return {storable(key): plain(inner) for key, inner in value}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return str(value)


def is_map(value: Any) -> bool:
    """Return whether a list is what pyarrow makes of a map: pairs as tuples, which no list of lists has."""
    return isinstance(value, list) and bool(value) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in value)


def _of_bytes(raw: bytes) -> str:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return raw.hex()
    readable = all(character.isprintable() or character.isspace() for character in text)
    return text if readable else raw.hex()


def _of_decimal(number: Decimal) -> int | float | str | None:
    if not number.is_finite():
        return None
    if number == number.to_integral_value():
        return int(number)
    return float(number) if Decimal(repr(float(number))) == number else str(number)


def digest_text(value: Any, size: int) -> str:
    """Return a hash as hex, whether its column holds that or `size` raw bytes."""
    return value.hex() if isinstance(value, bytes) and len(value) == size else storable(value)


def captions_of(value: Any) -> list[str]:
    """Return the captions in a cell: a text that is not blank, or the texts of a list, of a map, or of a struct, blank ones too.

    A caption that is only `nan`, `None`, `null` or the like is nothing, and noted.
    """
    several = isinstance(value, list | tuple | dict)
    texts = []
    for text in _texts(value):
        text = worded(text)
        if several or text.strip():
            texts.append(text)
    return texts


def caption_in(content: bytes) -> str:
    """Return the caption in a `.txt` member or file: all of it, in whatever encoding; empty where it is blank or says nothing (`worded`).

    This is the one reading of such members: a build from tars and a training on the same tars see the same captions.
    """
    return next(iter(captions_of(decoded(content))), "")


def worded(text: str) -> str:
    """Return a caption as it stands; one that is only a word which some tool writes for nothing is empty, and noted."""
    if len(text) <= _LONGEST_NULL and text.strip().lower() in NULL_WORDS:
        note("[caption that only says|captions that only say] nan, None or null: taken for none", text)
        return ""
    return text


def published(value: Any) -> tuple[str, ...]:
    """Return the captions in a cell as they stand, at least one: that of a cell with nothing in it is empty."""
    if captions := captions_of(value):
        return tuple(captions)
    return (value,) if isinstance(value, str) and not value.strip() else ("",)


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, dict):
        named = [value[key] for key in TEXT_KEYS if isinstance(value.get(key), str | bytes)]
        parts = named[:1] or list(value.values())
    elif is_map(value):
        parts = [inner for _, inner in value]
    elif isinstance(value, list | tuple):
        parts = list(value)
    else:
        return (storable(value),)
    return [text for part in parts if not is_null(part) for text in _texts(part)]


def label_of(value: Any) -> str:
    """Return the text of a licence, an author or a tag: of an object its URL, its name or its id."""
    if isinstance(value, dict):
        return next((storable(value[key]).strip() for key in LABEL_KEYS if not is_null(value.get(key)) and value[key] != ""), "")
    if isinstance(value, list | tuple) and not is_map(value):
        return ", ".join(filter(None, map(label_of, value)))
    return storable(value).strip()


def id_of(value: Any) -> str:
    """Return an id as text; an integer that a data frame has made a float because of a null is an integer again."""
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        return str(int(value))
    if isinstance(value, bytes):
        return _of_bytes(value)
    return storable(value).strip()


def uid_of_value(value: Any) -> str:
    """Return a uid as 32 lower-case hex digits where a cell holds one: as hex, as a UUID with dashes, or as 16 bytes; else nothing."""
    if isinstance(value, UUID):
        return value.hex
    if isinstance(value, bytes) and len(value) == 16:
        return value.hex()
    return uid_in(storable(value).strip().strip("'\""))


def value_of(row: dict[str, Any], name: str) -> Any:
    """Return a cell, or what a dotted name such as `assets.preview.url` reaches in nested JSON."""
    value = row.get(name)
    if value is None and "." in name:
        value = row
        for key in name.split("."):
            value = value.get(key) if isinstance(value, dict) else None
    return value
