"""The command `train`: one verb per task file, and what serves them."""

from __future__ import annotations

from collections.abc import Sequence

from shards.core import cli, registry
from shards.core.cli import Command

ABOUT = "Train from shards: one loop, exact resume, and a checkpoint that knows its data."


SERVING = {
    "check": Command("train.commands.check:CheckConfig", "train.commands.check:check", "decode a whole build and list what fails"),
    "seen": Command("train.commands.seen:SeenConfig", "train.commands.seen:show", "when a training saw a sample, from its order"),
    "list": Command("train.commands.listing:ListConfig", "train.commands.listing:show", "list the tasks and the recipes"),
    "export": Command("train.commands.export:ExportConfig", "train.commands.export:run", "write a model as files for other tools"),
}


def commands() -> dict[str, Command]:
    """Return the verbs; every file in train/tasks is one."""
    package = "train.tasks"
    tasks = {}
    for name in registry.names(package):
        tasks[name] = Command(registry.get(package, name).Config, "train.loop:train", registry.summary(package, name))
    return tasks | SERVING


def main(argv: Sequence[str] | None = None) -> int:
    """Run the `train` command line and return its exit code."""
    return cli.main("train", ABOUT, commands(), argv)
