"""Filters and sources from files: `--plugin FILE.py`, or `plugins: [FILE.py]` in a recipe. See docs/plugins.md.

The file's name is the plug-in's. What it lacks is said before any work; what its code raises names file, line and sample.
Its bytes are part of the recipe's digest and of its VERSION, so that a changed file measures anew.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import keyword
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from shards.core import registry
from shards.core.config import hints, is_allowed
from shards.core.errors import RunError, UsageError, closest, shortened
from shards.core.plugins import PluginError, blame, guard, loaded, name_of
from shards.schema import KINDS, REASONS

if TYPE_CHECKING:
    import duckdb

FILTERS, SOURCES = "curate.filters", "curate.sources"
_PARTS = {
    FILTERS: ("VERSION", "Options", "MEASURE", "COLUMNS", "measurer", "refuse", "detail"),
    SOURCES: ("VERSION", "Options", "IMAGES", "inputs", "read"),
}
OPTION_TYPES = "str, int, float, bool, Literal['a', 'b'], tuple[X, ...], list[X], dict[str, X], and any of them | None"
_LOADER = "curate.plugins:use"
_PREFIX = "provender_plugin_"


def named_in(arguments: Sequence[str]) -> list[str]:
    """Return the files behind `--plugin` among a command's arguments, before they are parsed: their own options are flags, too."""
    files: list[str] = []
    taking = False
    for word in arguments:
        if word.startswith("-"):
            taking = word == "--plugin"
            files += [word.partition("=")[2]] if word.startswith("--plugin=") else []
        elif taking:
            files.append(word)
    return files


def use_all(files: Iterable[str]) -> list[registry.Given]:
    """Load plug-ins from files, each once; see `use`."""
    return [use(file) for file in dict.fromkeys(files)]


def use(file: str, sha256: str = "") -> registry.Given:
    """Load a plug-in from a file and let it be found under the file's name.

    Args:
        sha256: in a worker, what its supervisor has loaded.

    Raises:
        UsageError: no such file, a name that is no word or is taken, or a part that is missing.
        PluginError: its code raises while it is loaded.
        RunError: in a worker, the file has changed meanwhile.
    """
    name = name_of(file)
    if not name.isidentifier() or keyword.iskeyword(name):
        raise UsageError(f"plug-in {file!r}: its name is no word", "letters, digits and _: my_filter.py")
    module, content_sha256 = loaded(file, f"{_PREFIX}{name}")
    if sha256 and content_sha256 != sha256:
        raise RunError(f"{file} has changed since this command began", "a plug-in that stays as it is", "the same command again")
    package = FILTERS if hasattr(module, "refuse") else SOURCES
    _check(module, package, file, name)
    guard(module, file)
    if package == FILTERS:
        module.measurer = _measurer(module, file)  # type: ignore[attr-defined]
    module.VERSION = f"{module.VERSION} {content_sha256}"  # type: ignore[attr-defined]
    plugin = registry.Given(package, name, file, content_sha256, _LOADER)
    registry.add(plugin, module)
    return plugin


def _check(module: ModuleType, package: str, file: str, name: str) -> None:
    """Refuse a plug-in that lacks a part, has a column of an unknown kind, or whose name is taken."""
    kind = "filter" if package == FILTERS else "source"
    if missing := [part for part in _PARTS[package] if not hasattr(module, part)]:
        allowed = f"a filter has {', '.join(_PARTS[FILTERS])}; a source {', '.join(_PARTS[SOURCES])}"
        raise UsageError(f"{file} lacks {', '.join(missing)}, to be a {kind}", allowed, "docs/plugins.md")
    if name in REASONS or any(name in registry.installed(where) for where in _PARTS):
        raise UsageError(f"{file}: the name {name!r} is taken", "a file name that is no filter's, source's or reason's", "another name")
    _check_options(module, file)
    for column in getattr(module, "COLUMNS", ()):
        if not isinstance(column, tuple) or len(column) != 2 or column[1] not in KINDS:
            hint = closest(str(column[-1]), KINDS) if isinstance(column, tuple) and column else ""
            raise UsageError(f"{file}: COLUMNS has {shortened(column)}", f"(name, kind), a kind being one of {', '.join(KINDS)}", hint)


def _check_options(module: ModuleType, file: str) -> None:
    """Refuse options whose types no flag and no recipe can say.

    Raises:
        UsageError: naming the option and the types that there are.
    """
    options = module.Options
    if not (isinstance(options, type) and dataclasses.is_dataclass(options)):
        raise UsageError(f"{file}: Options is no dataclass", "a frozen dataclass, which may be empty", "docs/plugins.md")
    with blame(file, "in its Options"):
        annotations = hints(options)
    for field in dataclasses.fields(options):
        if not is_allowed(annotations[field.name]):
            kind = shortened(annotations[field.name])
            raise UsageError(f"{file}: the option {field.name!r} has the type {kind}", OPTION_TYPES, "docs/plugins.md")


def _measurer(module: ModuleType, file: str) -> Callable[[Any], Callable[[Any], tuple[Any, ...]]]:
    """Return a filter's `measurer` whose measurements blame the file for errors, and for values that do not fit its columns."""
    make, columns = module.measurer, tuple(module.COLUMNS)

    @functools.wraps(make)
    def measurer(options: Any) -> Callable[[Any], tuple[Any, ...]]:
        measure = make(options)

        def checked(facts: Any) -> tuple[Any, ...]:
            with blame(file, "while it measured a sample"):
                values = measure(facts)
            return _fitting(values, columns, file)

        return checked

    return measurer


def _fitting(values: Any, columns: tuple[tuple[str, str], ...], file: str) -> tuple[Any, ...]:
    """Return measured values if there is one per column, of its kind or None."""
    if not isinstance(values, tuple | list) or len(values) != len(columns):
        raise PluginError(f"{file}: it measured {shortened(values)}", "", f"COLUMNS = {columns}")
    for value, (name, kind) in zip(values, columns, strict=True):
        if value is not None and not KINDS[kind](value):
            raise PluginError(f"{file}: it measured {shortened(value)}, which is no {kind}", "", f"column {name!r} of COLUMNS = {columns}")
    return tuple(values)


def blamed(module: ModuleType) -> contextlib.AbstractContextManager[None]:
    """Return what blames a plug-in's file for what its options raise; nothing for a module of ours."""
    is_given = module.__name__.startswith(_PREFIX)
    return blame(str(module.__file__), "in its Options") if is_given else contextlib.nullcontext()


def try_sql(con: duckdb.DuckDBPyConnection, name: str, refuse: str, detail: str) -> None:
    """Try the SQL of a filter from a file, on its own, so that an error in it names the file.

    Raises:
        PluginError: with what the database says of it.
    """
    import duckdb

    file = next((plugin.file for plugin in registry.given() if (plugin.package, plugin.name) == (FILTERS, name)), "")
    for function, sql in {"refuse": refuse, "detail": detail}.items() if file else ():
        kind = "BOOLEAN" if function == "refuse" else "VARCHAR"
        try:
            con.execute(f"SELECT ({sql})::{kind} FROM measured LIMIT 0")
        except duckdb.Error as error:
            raise PluginError(f"{file}: {str(error).partition(chr(10))[0]}", f"in the SQL of {function}()", sql) from error
