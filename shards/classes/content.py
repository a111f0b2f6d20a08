"""What stands in a file of class names or templates: lines, or the lists and mappings of JSON, YAML, CSV or Python.

Python is parsed, never run: lists, mappings and texts are taken as they are, and `lambda c: f"a photo of a {c}."` becomes
the template `a photo of a {c}.`. Code that does more than to set a name into a text is refused.
"""

from __future__ import annotations

import ast
import csv
import io
import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from shards.core import fs, recipes
from shards.core.errors import UsageError

PLACE = "{c}"
LARGEST = 64 << 20  # bytes; the largest list known to us, that of ImageNet-21k's synonyms, has 1 MiB
_CODE_LINE = re.compile(r"""(lambda\b|[rbuf]{1,2}["'])""", re.IGNORECASE)
_ASSIGNMENT = re.compile(r"^[A-Za-z_]\w*\s*(:[^=]*)?=\s*[\[({]", re.MULTILINE)
_DASH = re.compile(r"-\s+")
_DELIMITERS = ",;\t|"


class Template(str):
    """A text that was a function of the class name."""


@dataclass(frozen=True)
class Table:
    """Rows of equal length, with the names of their columns where a mapping gave them."""

    rows: tuple[tuple[Any, ...], ...]
    header: tuple[str, ...] = ()


class _OddError(Exception):
    """Python that is no list, mapping, text or function of one name."""

    def __init__(self, node: ast.AST, problem: str) -> None:
        super().__init__(problem)
        self.line = getattr(node, "lineno", 0)


def read(path: str) -> Any:
    """Return what a file holds: a list of lines, a list or mapping of values, or a `Table`.

    Values are texts, numbers, or what else the file's format has; no kind is ruled out here. Blank lines and lines that begin
    with `#` are no content.

    Raises:
        UsageError: no such file, one that is empty, too large or no UTF-8 or UTF-16, or not of the format of its suffix.
    """
    text = _text(path)
    suffix = path.lower().rpartition(".")[2]
    if suffix in ("csv", "tsv"):
        value: Any = table(text)
    elif suffix in ("yaml", "yml"):
        value = _yaml(text, path)
    else:
        value = _structured(text, path, suffix)
        if value is None:
            value = _lines(text, path)
    if isinstance(value, str | int | float | bool) or value is None:
        raise UsageError(f"{path}: holds {type(value).__name__}", "a list, a mapping, or a line for each entry")
    if not value or (isinstance(value, Table) and not value.rows):
        raise UsageError(f"{path}: is empty", "at least one line")
    return value


def _text(path: str) -> str:
    if not fs.exists(path):
        raise UsageError(f"no file at {path!r}")
    if fs.is_dir(path):
        raise UsageError(f"{path}: is a folder", "a file")
    if fs.size(path) > LARGEST:
        raise UsageError(f"{path}: has {fs.size(path):,} bytes", f"a list of at most {LARGEST:,}")
    content = fs.read_bytes(path)
    encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        line = content.split(b"\n")[number - 1].strip()
        raise UsageError(
            f"{path}: line {number} is no UTF-8: {str(line[:60])[1:]}", "UTF-8", f"iconv -f latin1 -t utf-8 {path} > NEW"
        ) from error
    if "\0" in text:
        raise UsageError(f"{path}: is no text", "lines, JSON, CSV, YAML or a Python list")
    return text


def _structured(text: str, path: str, suffix: str) -> Any:
    """Return what a text says as JSON or Python; None where it is lines."""
    start = text.lstrip()[:1]
    if text.strip() == "{}" and suffix != "json":
        return None  # the template that is the name alone
    if suffix == "json" or start in ("[", "{"):
        try:
            return json.loads(text, object_pairs_hook=lambda pairs: _with_each_key_once(pairs, path))
        except (ValueError, RecursionError) as error:
            if suffix == "json":
                raise UsageError(f"{path}: not JSON: {error}", "a JSON list or object") from error
    if suffix == "py" or start in ("[", "{", "(") or _ASSIGNMENT.search(text):
        return _python(text, path, suffix == "py" or bool(_ASSIGNMENT.search(text)))
    return None


def _with_each_key_once(pairs: list[tuple[str, Any]], path: str) -> dict[str, Any]:
    """Return a JSON object; Python's reader would keep the last of two equal keys without a word.

    Raises:
        UsageError: naming the key.
    """
    values = dict(pairs)
    if len(values) < len(pairs):
        key, count = Counter(key for key, _ in pairs).most_common(1)[0]
        raise UsageError(f"{path}: the key {key!r} stands {count} times in one object", "each key once")
    return values


def _python(text: str, path: str, certain: bool) -> Any:
    """Return the one list or mapping of a Python text, or several by name; None where it is no Python and need not be."""
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        if certain:
            raise UsageError(f"{path}: not Python: {error}", "lists of texts, NAME = [...]") from error
        return None
    lists: dict[str, Any] = {}
    try:
        for statement in body:
            value = getattr(statement, "value", None)
            if isinstance(value, ast.List | ast.Tuple | ast.Dict):
                lists[_assigned(statement)] = _value(value)
            elif not isinstance(statement, ast.Import | ast.ImportFrom | ast.Expr) and certain:
                raise _OddError(statement, "neither a list nor a mapping")
    except _OddError as error:
        if not certain and len(body) != 1:
            return None
        where = f"line {error.line}: {text.splitlines()[error.line - 1].strip()[:100]!r}" if error.line else "an entry"
        raise UsageError(f"{path}: {where}: {error}", "texts, or lambda c: f'a photo of a {c}.'") from error
    if not lists:
        return [] if certain else None
    return next(iter(lists.values())) if len(lists) == 1 else lists


def _assigned(statement: ast.stmt) -> str:
    targets = getattr(statement, "targets", None) or [getattr(statement, "target", None)]
    return str(getattr(targets[0], "id", "")) or f"line {statement.lineno}"


def _value(node: ast.AST | None) -> Any:
    """Return the value of a literal; a function of one name becomes a `Template`.

    Raises:
        _OddError: it is something else.
    """
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        return [_value(element) for element in node.elts]
    if isinstance(node, ast.Dict):
        values = {_value(key): _value(value) for key, value in zip(node.keys, node.values, strict=True)}
        if len(values) < len(node.keys):
            raise _OddError(node, "a mapping with a key twice")
        return values
    if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float | None):
        return node.value
    if isinstance(node, ast.Lambda):
        if len(node.args.args) != 1:
            raise _OddError(node, "a function of more or less than one name")
        return Template(_filled(node.body, node.args.args[0].arg))
    raise _OddError(node or ast.Pass(), "code that is no text")


def _filled(node: ast.AST, name: str) -> str:
    """Return the text that an expression makes of a variable, with `{c}` in the variable's place."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.Name) and node.id == name:
        return PLACE
    if isinstance(node, ast.JoinedStr):
        return "".join(_filled(part, name) for part in node.values)
    if isinstance(node, ast.FormattedValue) and node.conversion == -1 and node.format_spec is None:
        return _filled(node.value, name)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _filled(node.left, name) + _filled(node.right, name)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod):
        right = node.right.elts[0] if isinstance(node.right, ast.Tuple) and len(node.right.elts) == 1 else node.right
        return _filled(node.left, name).replace("%s", _filled(right, name))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format":
        return _formatted(node, node.func.value, name)
    raise _OddError(node, "code that does more than to set a name into a text")


def _formatted(call: ast.Call, text: ast.AST, name: str) -> str:
    """Return what `text.format(name)` makes of a variable."""
    filled = _filled(text, name)
    fields = {keyword.arg or "": keyword.value for keyword in call.keywords}
    fields |= {str(i): value for i, value in enumerate(call.args)}
    if len(fields) != 1:
        raise _OddError(call, "a text with more or less than one name set into it")
    key, value = next(iter(fields.items()))
    places = (f"{{{key}}}", "{}") if key.isdigit() else (f"{{{key}}}",)
    for place in places:
        filled = filled.replace(place, _filled(value, name))
    return filled


def _lines(text: str, path: str) -> list[str]:
    """Return the lines of a text, without the quotes, commas, dashes or functions that stand around what is meant."""
    numbered = [(i, line.strip()) for i, line in enumerate(text.splitlines(), 1)]
    kept = [(i, line) for i, line in numbered if line and not line.startswith("#")]
    if len(kept) > 1 and all(line.endswith(",") for _, line in kept[:-1]):
        kept = [(i, line.rstrip(",").rstrip()) for i, line in kept]
    if len(kept) > 1 and all(_DASH.match(line) for _, line in kept):
        kept = [(i, _DASH.sub("", line, count=1)) for i, line in kept]
    return [_bare(line, path, i) for i, line in kept]


def _bare(line: str, path: str, number: int) -> str:
    """Return what a line means: a text in quotes without them, a function as its template, anything else as it is."""
    inner = line.rstrip(",").rstrip()
    quoted = len(inner) > 1 and inner[0] in "\"'" and inner[-1] == inner[0]
    if not quoted and not _CODE_LINE.match(inner):
        return line
    try:
        value = _value(ast.parse(inner, mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError, _OddError) as error:
        why = str(error).partition(" (")[0]
        raise UsageError(f"{path}: line {number} is code: {line[:100]!r}: {why}", "plain text, such as: a photo of a {c}.") from error
    if not isinstance(value, str):
        raise UsageError(f"{path}: line {number} is code: {line[:100]!r}", "plain text, such as: a photo of a {c}.")
    return value


def _yaml(text: str, path: str) -> Any:
    try:
        return recipes.parse(text, path)
    except RecursionError as error:
        raise UsageError(f"{path}: not YAML: nested too deep", "a list, or a mapping of numbers to names") from error


def table(text: str) -> Table:
    """Return the rows of a text with delimiters: the one that parts all lines alike, and most often."""
    best: list[list[str]] = []
    for delimiter in _DELIMITERS:
        parted = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True))
        rows = [[cell.strip() for cell in row] for row in parted if any(cell.strip() for cell in row)]
        even = len({len(row) for row in rows}) == 1
        if even and (not best or len(rows[0]) > len(best[0])):
            best = rows
    if not best:
        best = [[line.strip()] for line in text.splitlines() if line.strip()]
    return Table(tuple(map(tuple, best)))
