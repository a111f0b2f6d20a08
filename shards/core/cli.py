"""Flags from dataclasses: the only module that knows argparse.

A room's `cli.py` declares its commands and calls `main`. The function of a command is named by a string and
imported only when the command runs, so `--help` stays fast.
"""

from __future__ import annotations

import argparse
import dataclasses
import errno
import importlib
import os
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NoReturn

from shards.core.config import describe, hints, load
from shards.core.console import say
from shards.core.errors import ProvenderError, UsageError, closest


@dataclasses.dataclass(frozen=True)
class Command:
    """One verb: its configuration class, `package.module:function` to run, and one line of help.

    The function takes the loaded configuration and returns None or an exit code. A configuration class that has a
    class method `from_flags` gets the flags that were given, and makes itself of them. `config` may also be a string
    `package.module:Class`, imported only when the verb is used. `extra_flags` names a function that adds flags
    known only at run time (plug-in options) as `{flag: (annotation, help)}`; they arrive in the field `extra`.
    """

    config: type | str
    run: str
    help: str
    extra_flags: str = ""


# What a disk or a permission refuses is the world's fault and needs no traceback.
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}", advice=f"{self.prog} --help")


def _resolve(name: Any) -> Any:
    if not isinstance(name, str):
        return name
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def main(prog: str, about: str, commands: Mapping[str, Command], argv: Sequence[str] | None = None) -> int:
    """Run one room's command line and return its exit code: 0 fine, 1 problems, 2 cannot be done, 130 interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(prog, about, commands, arguments)
    except ProvenderError as error:
        say(f"error: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    except BrokenPipeError:
        # The reader of our stdout has gone (`… | head`): nothing is wrong with us.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in _DISK:
            raise
        say(f"error: {error.strerror}: {error.filename or 'while writing'}\n  nothing half-written is left under its final name")
        return 1


def _dispatch(prog: str, about: str, commands: Mapping[str, Command], arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        width = max(map(len, commands))
        lines = [f"usage: {prog} COMMAND …", "", about, "", "commands:"]
        lines += [f"  {name:<{width}}  {command.help}" for name, command in commands.items()]
        lines += ["", f"`{prog} COMMAND --help` shows the flags of one command."]
        print("\n".join(lines))
        return 0 if arguments else 2
    name, rest = arguments[0], arguments[1:]
    if name not in commands:
        raise UsageError(f"{prog}: unknown command {name!r}", ", ".join(commands), closest(name, commands))
    command = commands[name]
    try:
        config = parse(f"{prog} {name}", command, rest)
    except SystemExit as stop:  # argparse leaves this way after --help
        return int(stop.code or 0)
    return int(_resolve(command.run)(config) or 0)


def parse(prog: str, command: Command, arguments: Sequence[str]) -> Any:
    """Return the configuration that a command's arguments describe.

    Raises:
        UsageError: an unknown flag, or a value that is not allowed.
        SystemExit: after --help.
    """
    config_class = _resolve(command.config)
    extra = _resolve(command.extra_flags)() if command.extra_flags else {}
    given = vars(parser_for(config_class, prog, command.help, extra).parse_args(arguments))
    values = {k: v for k, v in given.items() if k not in extra}
    if extra:
        values["extra"] = {k: v for k, v in given.items() if k in extra}
    from_flags = getattr(config_class, "from_flags", None)
    return from_flags(values) if from_flags else load(config_class, values, "")


def parser_for(config: type, prog: str, about: str, extra: Mapping[str, tuple[Any, str]] | None = None) -> argparse.ArgumentParser:
    """Return the argument parser of a configuration class; only flags that were given end up in the namespace."""
    parser = _Parser(prog=prog, description=about, argument_default=argparse.SUPPRESS, allow_abbrev=False)
    annotations = hints(config)
    for field in dataclasses.fields(config):
        if field.metadata.get("help"):
            _add(parser, field.name, annotations[field.name], field)
    group = parser.add_argument_group("plug-in options") if extra else None
    for name, (annotation, text) in (extra or {}).items():
        assert group is not None
        # argparse reads `--no-…` as the negative of a switch; a plug-in's `no-…` is a switch of its own.
        keywords: dict[str, Any] = {"action": "store_true"} if name.startswith("no-") else _kind(annotation)
        group.add_argument(f"--{name}", dest=name, help=text.replace("%", "%%"), **keywords)
    return parser


def _add(parser: argparse.ArgumentParser, name: str, annotation: Any, field: dataclasses.Field[Any]) -> None:
    text = field.metadata["help"].replace("%", "%%")
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    if (
        default not in (dataclasses.MISSING, None, "", (), False, [])
        and not isinstance(default, dict)
        and not dataclasses.is_dataclass(default)
    ):
        text += f" (default: {default})"
    # A switch that is off unless given needs no negative.
    keywords: dict[str, Any] = {"action": "store_true"} if annotation is bool and default is False else _kind(annotation)
    if field.metadata["metavar"] and "action" not in keywords:
        keywords["metavar"] = field.metadata["metavar"]
    if field.metadata["positional"]:
        many = typing.get_origin(annotation) is tuple
        required = field.default is field.default_factory is dataclasses.MISSING
        keywords["nargs"] = ("+" if required else "*") if many else (None if required else "?")
        keywords.pop("action", None)
        keywords["metavar"] = field.metadata["metavar"] or name.upper()
        if not required and "choices" in keywords:
            keywords["default"] = default  # argparse holds an absent argument's default against the choices
        parser.add_argument(name, help=text, **{k: v for k, v in keywords.items() if v is not None})
    else:
        needed = field.default is field.default_factory is dataclasses.MISSING
        # A trailing underscore keeps a flag such as --from apart from Python's own words.
        parser.add_argument(f"--{name.rstrip('_').replace('_', '-')}", dest=name, help=text, required=needed, **keywords)


def _kind(annotation: Any) -> dict[str, Any]:
    """Return the argparse keywords of an annotation."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (types.UnionType, typing.Union):
        plain = [a for a in args if a is not type(None)]
        return _kind(plain[0]) if len(plain) == 1 else {"type": _scalar, "metavar": "VALUE"}
    if annotation is bool:
        return {"action": argparse.BooleanOptionalAction}
    if dataclasses.is_dataclass(annotation):
        return {"type": str, "metavar": "NAME"}  # the configuration class makes itself of a name
    if origin is tuple:
        # Both `--flag A B` and `--flag A --flag B`.
        return {**_kind(args[0]), "nargs": "+", "action": "extend"}
    if origin is dict:
        return {"type": _pair, "nargs": "+", "action": _Pairs, "metavar": "KEY=VALUE"}
    if origin is Literal:
        if all(isinstance(a, str) for a in args):
            return {"choices": list(args)}
        return {"type": _scalar, "metavar": describe(annotation).replace(" ", "")}
    return {"type": annotation, "metavar": {int: "N", float: "X"}.get(annotation, "TEXT")}


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"found {text!r}, not KEY=VALUE")
    return key, value


class _Pairs(argparse.Action):
    """Gathers `KEY=VALUE` words into a mapping."""

    def __call__(self, _: Any, namespace: argparse.Namespace, values: Any, __: Any = None) -> None:
        setattr(namespace, self.dest, {**getattr(namespace, self.dest, {}), **dict(values)})


def _scalar(text: str) -> Any:
    """Read a flag whose annotation is a union, such as `int | Literal["all"]`."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
