"""Read the records of a large JSON file one by one: a list, an object that holds the list under a key, or JSON Lines.

Several such documents one after the other are read all. A line of JSON Lines that is no JSON is a `Bad` record; in the other
layouts nothing can be read behind the first fault. An integer too long for Python (4,300 digits) stays text.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from shards.core.errors import TornFileError, UsageError
from shards.tables.notes import note
from shards.tables.text import encoding_of, first_lines, head_of, lines, opened

CHUNK = 1 << 20
MAX_RECORD = 16 << 20
_SPACE = " \t\r\n"


@dataclass(frozen=True)
class Bad:
    """A record that cannot be read: what stands there, and why."""

    text: str
    why: str


def _no_constant(_: str) -> None:
    """NaN and infinities are no JSON: they are read as null."""


def _any_integer(digits: str) -> int | str:
    """Return an integer, or its digits where Python refuses so many."""
    try:
        return int(digits)
    except ValueError:
        return digits


# The second decoder is slower, and is used only where the first one met an integer that Python refuses.
_QUICK = json.JSONDecoder(parse_constant=_no_constant)
_PATIENT = json.JSONDecoder(parse_constant=_no_constant, parse_int=_any_integer)


def parse(text: str) -> Any:
    """Return what a JSON text says; NaN is null, an integer too long for Python is text.

    Raises:
        ValueError, RecursionError: it is no JSON, or nested too deeply.
    """
    value, end = _raw(text, len(text) - len(text.lstrip(_SPACE)))
    if text[end:].strip(_SPACE):
        raise json.JSONDecodeError("Extra data", text, end)
    return value


def _raw(text: str, at: int) -> tuple[Any, int]:
    try:
        return _QUICK.raw_decode(text, at)
    except json.JSONDecodeError:
        raise
    except ValueError:
        return _PATIENT.raw_decode(text, at)


class _Text:
    """A JSON file as a window of text that moves forward."""

    def __init__(self, file: IO[bytes], path: str, encoding: str, mark: int) -> None:
        self.path, self._file = path, file
        file.read(mark)
        self._text = codecs.getincrementaldecoder(encoding)("western" if encoding == "utf-8" else "replace")
        self._window, self._at, self._ended = "", 0, False

    def peek(self) -> str:
        """Return the next character that is no space; an empty string at the end of the file."""
        while True:
            while self._at < len(self._window):
                if self._window[self._at] not in _SPACE:
                    return self._window[self._at]
                self._at += 1
            if not self._more():
                return ""

    def skip(self, character: str) -> bool:
        """Step over `character` if it comes next."""
        if self.peek() != character:
            return False
        self._at += 1
        return True

    def expect(self, character: str) -> None:
        """Step over `character`, which must come next."""
        if not self.skip(character):
            raise self.torn(f"found {self.peek() or 'the end of the file'!r} where {character!r} is due")

    def value(self) -> Any:
        """Return the next JSON value."""
        self.peek()
        while True:
            try:
                value, end = _raw(self._window, self._at)
            except (json.JSONDecodeError, RecursionError) as error:
                if len(self._window) - self._at > MAX_RECORD:
                    raise UsageError(f"{self.path}: one value takes more than {MAX_RECORD >> 20} MiB", "records of a sane size") from error
                if not self._more():
                    raise self.torn(str(error)) from error
                continue
            # A number at the window's end may go on behind it.
            if end < len(self._window) or not self._more():
                self._at = end
                return value

    def torn(self, why: str) -> TornFileError:
        """Return the error for a file that ends or breaks here."""
        return TornFileError(f"{self.path}: cut off or no JSON: {why}")

    def _more(self) -> bool:
        if self._ended:
            return False
        raw = self._file.read(CHUNK)
        self._ended = not raw
        self._window = self._window[self._at :] + self._text.decode(raw, final=self._ended)
        self._at = 0
        return True


def records(path: str, key: str) -> Iterator[Any]:
    """Yield the items of the top-level list, of the list under `key` of the top-level object, or of the lines.

    Raises:
        UsageError: the file holds none of these.
        TornFileError: the file is cut off, or no JSON from some byte on; items before it were yielded.
    """
    if is_lines(path, key):
        yield from _lines(path)
        return
    encoding, mark = encoding_of(head_of(path))
    with opened(path) as file:
        text = _Text(file, path, encoding, mark)
        if not text.peek():
            raise text.torn("the file is empty")
        if text.peek() not in "[{":
            raise UsageError(f"{path}: no JSON list or object", _allowed(key))
        while text.peek():
            if text.skip("["):
                yield from _items(text)
            elif text.skip("{"):
                yield from _under(text, key)
            else:
                raise text.torn(f"found {text.peek()!r} behind the end of the document")
            text.skip(",")


def _allowed(key: str) -> str:
    return f"a JSON object with a list {key!r}, or a list of records" if key else "a list of records, or one record per line"


def is_lines(path: str, key: str) -> bool:
    """Return whether a file is JSON Lines: an object per line, none of which is the document that holds `key`."""
    head = [line for line in first_lines(path, 20) if line.strip() and not line.startswith("#")]
    named = ".jsonl" in path.lower() or ".ndjson" in path.lower()
    if not head or not head[0].lstrip().startswith("{") or not (named or (len(head) > 1 and head[1].lstrip().startswith("{"))):
        return False
    try:
        first = parse(head[0])
    except (ValueError, RecursionError):
        return named or head[0].rstrip().endswith("}")
    return not isinstance(first.get(key), list)


def _lines(path: str) -> Iterator[Any]:
    for number, (line, ended) in enumerate(lines(path), 1):
        if not line.strip():
            continue
        if line.startswith("#"):
            note("comment [line|lines] passed over", line)
            continue
        try:
            yield parse(line)
        except (ValueError, RecursionError) as error:
            if not ended:
                raise TornFileError(f"{path}: line {number} is cut off", "a whole JSON object per line") from error
            yield Bad(line, f"line {number} is no JSON: {error}")


def _under(text: _Text, key: str) -> Iterator[Any]:
    seen = []
    while not text.skip("}"):
        name = text.value()
        text.expect(":")
        seen.append(str(name))
        if name == key and text.skip("["):
            yield from _items(text)
        else:
            text.value()
        text.skip(",")
    if key not in seen:
        raise UsageError(f"{text.path}: an object of {', '.join(seen) or 'nothing'}", _allowed(key))


def _items(text: _Text) -> Iterator[Any]:
    while not text.skip("]"):
        yield text.value()
        if not text.skip(","):
            text.expect("]")
            return
