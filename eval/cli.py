"""The command `evaluate`: one verb per protocol file, and `table` and `list`."""

from __future__ import annotations

from collections.abc import Sequence

from eval.config import ListConfig, TableConfig
from shards.core import cli, registry
from shards.core.cli import Command
from shards.core.console import emit, table

ABOUT = "What a pre-trained model is worth on labelled data: zero-shot, few-shot probes, and a table of results."


def commands() -> dict[str, Command]:
    """Return the verbs; every file in eval/protocols is one."""
    verbs = {
        name: Command(registry.get("eval.protocols", name).Config, "eval.run:evaluate", registry.summary("eval.protocols", name))
        for name in registry.names("eval.protocols")
    }
    verbs["table"] = Command(TableConfig, "eval.tables:show", "print the results, one line each or as a pivot")
    verbs["list"] = Command(ListConfig, "eval.cli:show_plugins", "list the protocols and the kinds of data sets")
    return verbs


def show_plugins(config: ListConfig) -> None:
    """Print every protocol and kind of data set with its one line of documentation."""
    rows = [
        {"kind": package.rpartition(".")[2].removesuffix("s"), "name": name, "summary": registry.summary(package, name)}
        for package in ("eval.protocols", "eval.datasets")
        for name in registry.names(package)
    ]
    emit(rows if config.json else table(["kind", "name", "summary"], [list(row.values()) for row in rows]))


def main(argv: Sequence[str] | None = None) -> int:
    """Run `evaluate` and return its exit code."""
    return cli.main("evaluate", ABOUT, commands(), argv)
