"""Plug-ins from a file of Python: loaded under a name, and blamed by file and line for what they raise.

A room says what a plug-in of its own must have (`curate/plugins.py`); here is what holds for any of them. A file that was
loaded is known to `shards.core.registry`, and `shards.core.engine` has workers load the same bytes.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from types import FunctionType, ModuleType
from typing import Any

from shards.core import fs
from shards.core.errors import ProvenderError, RunError, UsageError


def name_of(file: str) -> str:
    """Return the name of a plug-in from its file's: `lists/my-filter.py` is `my_filter`."""
    return os.path.basename(file).removesuffix(".py").replace("-", "_")


class PluginError(RunError):
    """An error of a plug-in's own code, in three lines: file, line and error; for which sample or use; how the line reads."""

    def __str__(self) -> str:
        return f"{self.found}\n  {self.allowed}\n  the line reads: {self.advice}"

    def at(self, place: str) -> PluginError:
        """Return the error with another place: a sample, which only the caller can name."""
        return PluginError(self.found, place, self.advice)


def blamed(error: BaseException, file: str, place: str) -> PluginError:
    """Return an error of a plug-in's code, with the last of its lines that the traceback names."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    number, text = (frames[-1].lineno, frames[-1].line) if frames else (getattr(error, "lineno", None), getattr(error, "text", None))
    message = " ".join(str(error).split())[:300]
    line = f", line {number}" if number else ""
    return PluginError(f"{file}{line}: {type(error).__name__}: {message}", place, (text or "").strip() or "?")


@contextlib.contextmanager
def blame(file: str, place: str) -> Iterator[None]:
    """Raise what a plug-in's code raises in this block as a `PluginError`; errors on purpose pass, and so does a lack of memory."""
    try:
        yield
    except (ProvenderError, MemoryError):
        raise
    except Exception as error:
        raise blamed(error, file, place) from error


def loaded(file: str, name: str) -> tuple[ModuleType, str]:
    """Return the module that a file makes, under a name of its own, and the sha256 of its bytes.

    Raises:
        UsageError: there is no such file.
        PluginError: the file is no Python, or raises while it is loaded.
    """
    if not fs.exists(file) or fs.is_dir(file):
        raise UsageError(f"no plug-in at {file!r}", "a file of Python: my_filter.py")
    with fs.open_read(file) as opened:
        content = opened.read()
    module = ModuleType(name)
    module.__file__ = file
    sys.modules[name] = module  # dataclasses look their annotations up there
    with blame(file, "while it was loaded"):
        exec(compile(content, file, "exec"), module.__dict__)  # noqa: S102  the user's own file, named by the user
    return module, hashlib.sha256(content).hexdigest()


def guard(module: ModuleType, file: str) -> None:
    """Let every function of a plug-in blame its file for what it raises; `read` also says after how many records."""
    for name, value in list(vars(module).items()):
        if isinstance(value, FunctionType) and value.__module__ == module.__name__:
            setattr(module, name, _guarded_read(value, file) if name == "read" else _guarded(value, file))


def _guarded(function: Callable[..., Any], file: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*arguments: Any, **keywords: Any) -> Any:
        with blame(file, f"in {function.__name__}()"):
            return function(*arguments, **keywords)

    return call


def _guarded_read(function: Callable[..., Any], file: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(source: Any, *arguments: Any) -> Iterator[Any]:
        count, name = 0, getattr(source, "name", source)
        try:
            for record in function(source, *arguments):
                yield record
                count += 1
        except (ProvenderError, MemoryError):
            raise
        except Exception as error:
            raise blamed(error, file, f"in read(), at record {count} of {name}") from error

    return call
