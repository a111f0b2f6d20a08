"""One definition, three surfaces: a frozen dataclass is the YAML schema, the flags and the docs.

A field is declared with `option(default, help)`; its annotation is what YAML may hold. Allowed annotations:
str, int, float, bool, Literal[...], tuple[X, ...], list[X], dict, another dataclass, and any of them `| None`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from shards.core.errors import UsageError, closest, shortened

T = TypeVar("T")
INT64 = 2**63  # what tables and databases hold of whole numbers
MOST_WORKERS = 1024  # of one command: four times the cores of the largest machines sold


def option(
    default: Any = dataclasses.MISSING,
    help: str = "",
    *,
    positional: bool = False,
    metavar: str = "",
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> Any:
    """Declare a dataclass field with its help text; without a default the field is required.

    Args:
        positional: make the field an argument instead of a flag.
        least: the smallest number allowed; `above` is the same without that number itself.
        most: the largest number allowed; `below` is the same without that number itself. A number with any of these limits
            must also be finite.
    """
    limits = {"least": least, "above": above, "most": most, "below": below}
    metadata = {"help": help, "positional": positional, "metavar": metavar, "limits": limits}
    if isinstance(default, list | dict):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def hints(cls: type) -> dict[str, Any]:
    """Return the resolved annotations of a dataclass."""
    return typing.get_type_hints(cls)


def load(cls: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """Build a dataclass from a mapping, strictly.

    Raises:
        UsageError: an unknown key (with the closest known one), a missing key, or a value of the wrong type.
    """
    if not isinstance(values, Mapping):
        raise UsageError(f"{where or cls.__name__}: found {values!r}", "a mapping of keys to values")
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            raise UsageError(f"unknown key {_at(where, str(key))!r}", ", ".join(fields), closest(str(key), fields))
    required = [n for n, f in fields.items() if f.default is f.default_factory is dataclasses.MISSING]
    if missing := [n for n in required if n not in values]:
        raise UsageError(
            f"missing key {_at(where, missing[0])!r}", f"{_at(where, missing[0])}: {fields[missing[0]].metadata.get('help', '')}"
        )
    annotations = hints(cls)
    converted: dict[str, Any] = {}
    for key, value in values.items():
        limits, place = fields[key].metadata.get("limits", {}), _at(where, key)
        _check_limits(value, limits, place)  # before the type's own rule, since it says more of NaN
        converted[key] = _convert(annotations[key], value, place)
        if converted[key] is not value:
            _check_limits(converted[key], limits, place)
    return cls(**converted)


def _check_limits(value: Any, limits: Mapping[str, float | None], where: str) -> None:
    """Refuse a number outside the limits of its option.

    Raises:
        UsageError: naming the key, the number and the limits.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    stated = {name: limit for name, limit in limits.items() if limit is not None}
    if not stated:
        return
    inside = isinstance(value, int) or math.isfinite(value)
    inside &= "least" not in stated or value >= stated["least"]
    inside &= "above" not in stated or value > stated["above"]
    inside &= "most" not in stated or value <= stated["most"]
    inside &= "below" not in stated or value < stated["below"]
    if not inside:
        words = {"least": "at least", "above": "above", "most": "at most", "below": "below"}
        allowed = ", ".join(f"{words[name]} {limit:,}" for name, limit in stated.items())
        raise UsageError(f"{where}: found {value}", f"a finite number, {allowed}")


def dump(config: Any) -> Any:
    """Return a dataclass as plain dicts, lists and scalars, ready for YAML or JSON."""
    if dataclasses.is_dataclass(config):
        return {f.name: dump(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, Mapping):
        return {k: dump(v) for k, v in config.items()}
    if isinstance(config, list | tuple):
        return list(config) if set(map(type, config)) <= {int, str} else [dump(v) for v in config]
    return config


def digest(value: Any) -> str:
    """Return the sha256 (hex) of a value's canonical JSON. Equal configurations have equal digests."""
    text = json.dumps(dump(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _at(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def is_allowed(annotation: Any) -> bool:
    """Return whether a field may have this annotation: one that a YAML value, and a flag, can be converted to."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (types.UnionType, typing.Union):
        return all(a is type(None) or is_allowed(a) for a in args)
    if origin is tuple:
        return len(args) == 2 and args[1] is Ellipsis and is_allowed(args[0])
    if origin is list:
        return is_allowed(args[0])
    if origin is dict:
        return args[0] is str
    plain = annotation in (str, int, float, bool, dict)
    return plain or origin is Literal or dataclasses.is_dataclass(annotation)


def describe(annotation: Any) -> str:
    """Return an annotation in words, for help texts and errors."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return " | ".join(str(a) for a in args)
    if origin in (types.UnionType, typing.Union):
        return " | ".join("null" if a is type(None) else describe(a) for a in args)
    if origin in (tuple, list):
        return f"a list of {describe(args[0])}"
    plain = {str: "text", int: "a whole number", float: "a number", bool: "true | false", dict: "a mapping"}
    return plain.get(origin or annotation, getattr(annotation, "__name__", str(annotation)))


def _convert(annotation: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    wrong = UsageError(f"{where}: found {shortened(value)}", describe(annotation))
    if annotation is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        return _convert_union(args, value, where, wrong)
    if origin is Literal:
        if value not in args:
            raise UsageError(wrong.found, wrong.allowed, closest(str(value), [str(a) for a in args]))
        return value
    if dataclasses.is_dataclass(annotation):
        return value if isinstance(value, annotation) else load(annotation, value, where)  # type: ignore[arg-type]
    if origin in (tuple, list):
        if not isinstance(value, list | tuple):
            raise wrong
        if args[0] is int and set(map(type, value)) <= {int}:
            return origin(value)  # a subset's ranges may be millions of numbers
        return origin(_convert(args[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if annotation is float and isinstance(value, int) and not isinstance(value, bool):
        if abs(value) >= INT64:
            raise wrong
        return float(value)
    if annotation is float and isinstance(value, str):  # PyYAML takes 1e-3 for text: YAML 1.1 wants 1.0e-3
        try:
            value = float(value)
        except ValueError:
            raise wrong from None
    kind = origin or annotation
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise wrong
    if kind is int and not -INT64 <= value < INT64:
        raise UsageError(wrong.found, "a whole number of 64 bits")
    if kind is float and math.isnan(value):
        raise wrong
    return value


def _convert_union(args: tuple[Any, ...], value: Any, where: str, wrong: UsageError) -> Any:
    if value is None and type(None) in args:
        return None
    last: UsageError = wrong
    for candidate in args:
        if candidate is type(None):
            continue
        try:
            return _convert(candidate, value, where)
        except UsageError as error:
            # An unknown key inside a nested mapping says more than "wrong type" does.
            last = error if dataclasses.is_dataclass(candidate) and isinstance(value, Mapping) else last
    raise last
