"""Flags from dataclasses: the only module that knows argparse.

A room's `cli.py` declares its commands and calls `main`. The function of a command is named by a string and
imported only when the command runs, so `--help` stays fast.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import errno
import importlib
import os
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NoReturn

from shards.core import fs, interrupt, notices
from shards.core.config import describe, hints, load
from shards.core.console import say, warn
from shards.core.errors import ProvenderError, UsageError, closest


@dataclasses.dataclass(frozen=True)
class Command:
    """One verb: its configuration class, `package.module:function` to run, and one line of help.

    The function takes the loaded configuration and returns None or an exit code. A configuration class that has a
    class method `from_flags` gets the flags that were given, and makes itself of them. `config` may also be a string
    `package.module:Class`, imported only when the verb is used. `extra_flags` names a function that adds flags
    known only at run time (plug-in options) as `{flag: (annotation, help)}`, given the command's arguments; they arrive in `extra`.
    `writes` names the attribute of the configuration that holds the folder the command writes: it is held for the command
    alone, unless it is empty or the configuration has `dry_run` set. `resumes` says that the same command goes on where an
    interrupt ended it. `examples` are whole command lines; they end `--help`. A configuration with a field `strict` makes any
    notice at the end (`shards.core.notices`) exit code 1.
    """

    config: type | str
    run: str
    help: str
    extra_flags: str = ""
    writes: str = ""
    resumes: bool = False
    examples: tuple[str, ...] = ()


# All other errors of the system are the world's, a disk's, a mount's or a permission's, and need no traceback. What is raised
# in the system's name without a number is ours, too.
_OURS = {None, errno.EBADF, errno.EFAULT, errno.EINVAL, errno.ECHILD}
_EXAMPLES = "examples:\n"
_WHOLE = "nothing half-written is left under its final name"
# Errors of libraries that read and write files behind our back, by module and name: importing them here would cost every `--help`.
_OF_FILES = {("_duckdb", "IOException"), ("_duckdb", "OutOfMemoryException")}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}", advice=f"{self.prog} --help")


class _Format(argparse.HelpFormatter):
    """Leaves the lines of examples as they are: a command line that is wrapped cannot be copied."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith(_EXAMPLES) else super()._fill_text(text, width, indent)


def _resolve(name: Any) -> Any:
    if not isinstance(name, str):
        return name
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def main(prog: str, about: str, commands: Mapping[str, Command], argv: Sequence[str] | None = None) -> int:
    """Run one room's command line and return its exit code: 0 fine, 1 problems, 2 cannot be done, 130 or 143 interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    notices.clear()
    with interrupt.handled() as asked:
        try:
            return _dispatch(prog, about, commands, arguments)
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  libraries turn an interrupt into errors of their own
            if asked.number:
                command = commands.get(arguments[0]) if arguments else None
                say("interrupted; the same command goes on" if command and command.resumes else "interrupted")
                return asked.exit_code
            return _failed(error)


def _failed(error: BaseException) -> int:
    """Say what went wrong, and return the exit code. What is a fault of ours is raised again, with its traceback."""
    if isinstance(error, ProvenderError):
        say(f"error: {error}")
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        say("interrupted")
        return 130
    if isinstance(error, BrokenPipeError):
        # The reader of our stdout has gone (`… | head`): nothing is wrong with us.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if isinstance(error, OSError) and error.errno not in _OURS:
        say(f"error: {error.strerror}: {error.filename or 'while reading or writing'}\n  {_WHOLE}")
        return 1
    if (type(error).__module__, type(error).__name__) in _OF_FILES:
        say(f"error: {error}\n  {_WHOLE}")
        return 1
    raise error


def _dispatch(prog: str, about: str, commands: Mapping[str, Command], arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        width = max(map(len, commands))
        lines = [f"usage: {prog} COMMAND …", "", about, "", "commands:"]
        lines += [f"  {name:<{width}}  {command.help}" for name, command in commands.items()]
        lines += ["", f"`{prog} COMMAND --help` shows the flags of one command."]
        print("\n".join(lines))
        return 0 if arguments else 2
    if arguments == ["--version"]:
        from importlib.metadata import version

        print(f"provender {version('provender')}")
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in commands:
        raise UsageError(f"{prog}: unknown command {name!r}", ", ".join(commands), closest(name, commands))
    command = commands[name]
    try:
        config = parse(f"{prog} {name}", command, rest)
    except SystemExit as stop:  # argparse leaves this way after --help
        return int(stop.code or 0)
    with _held(config, command):
        code = int(_resolve(command.run)(config) or 0)
    strict_code = notices.close(strict=getattr(config, "strict", False) is True)
    return code or strict_code


def _held(config: Any, command: Command) -> contextlib.AbstractContextManager[None]:
    """Hold the folder that a command writes, if it writes one, for this process alone."""
    folder = getattr(config, command.writes) if command.writes else ""
    if not folder or getattr(config, "dry_run", False):
        return contextlib.nullcontext()
    return fs.locked(folder)


def parse(prog: str, command: Command, arguments: Sequence[str]) -> Any:
    """Return the configuration that a command's arguments describe.

    Raises:
        UsageError: an unknown flag, or a value that is not allowed.
        SystemExit: after --help.
    """
    config_class = _resolve(command.config)
    extra = _resolve(command.extra_flags)(arguments) if command.extra_flags else {}
    parser = parser_for(config_class, prog, command.help, extra, command.examples)
    # Words may stand behind flags, too (`remove BUILD --dry-run SAMPLE`), which argparse takes in its other mode alone.
    optional_words = any(action.nargs == "*" for action in parser._get_positional_actions())
    read = parser.parse_known_intermixed_args if optional_words else parser.parse_known_args
    namespace, unknown = read(arguments)
    if unknown:
        _refuse_unknown(prog, parser, unknown[0])
    values_by_flag = vars(namespace)
    values = {k: v for k, v in values_by_flag.items() if k not in extra}
    if extra:
        values["extra"] = {k: v for k, v in values_by_flag.items() if k in extra}
    from_flags = getattr(config_class, "from_flags", None)
    return from_flags(values) if from_flags else load(config_class, values, "")


def _refuse_unknown(prog: str, parser: argparse.ArgumentParser, word: str) -> NoReturn:
    """Refuse a word that is neither a flag nor has a place.

    Raises:
        UsageError: naming it, and the flag that it looks like.
    """
    flag = word.partition("=")[0]
    if not flag.startswith("-"):
        raise UsageError(f"{prog}: unexpected argument {word!r}", advice=f"{prog} --help")
    known = [text for action in parser._actions for text in action.option_strings]
    raise UsageError(f"{prog}: unknown flag {flag}", f"the flags of {prog} --help", closest(flag, known))


def parser_for(
    config: type, prog: str, about: str, extra: Mapping[str, tuple[Any, str]] | None = None, examples: Sequence[str] = ()
) -> argparse.ArgumentParser:
    """Return the argument parser of a configuration class; only flags that were given end up in the namespace."""
    epilog = _EXAMPLES + "\n".join(f"  {line}".replace("%", "%%") for line in examples) if examples else None
    parser = _Parser(
        prog=prog, description=about, epilog=epilog, formatter_class=_Format, argument_default=argparse.SUPPRESS, allow_abbrev=False
    )
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
    if field.metadata["metavar"] and keywords.get("action") in (None, "extend"):
        keywords["metavar"] = field.metadata["metavar"]
    if field.metadata["positional"]:
        many = typing.get_origin(annotation) in (tuple, list)
        required = field.default is field.default_factory is dataclasses.MISSING
        keywords["nargs"] = ("+" if required else "*") if many else (None if required else "?")
        keywords.pop("action", None)
        keywords["metavar"] = field.metadata["metavar"] or name.upper()
        if not required and "choices" in keywords:
            keywords["default"] = default  # argparse holds an absent argument's default against the choices
        parser.add_argument(name, help=text, **{k: v for k, v in keywords.items() if v is not None})
    else:
        needed = field.default is field.default_factory is dataclasses.MISSING
        keywords.setdefault("action", _Once)
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
    if origin in (tuple, list):
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


class _Once(argparse.Action):
    """Takes one value; of several the last one counts, which argparse would not say."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None) -> None:
        if self.dest in namespace:
            warn(f"{option} is given twice: {values} counts, not {getattr(namespace, self.dest)}")
        setattr(namespace, self.dest, values)


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
