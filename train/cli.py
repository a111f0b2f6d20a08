"""The command `train`: one verb per task file, and what serves them."""

from __future__ import annotations

from collections.abc import Sequence

from shards.core import cli, registry
from shards.core.cli import Command

ABOUT = "Train from shards: one loop, exact resume, and a checkpoint that knows its data."


# Of a task that is not named here, the first line of `_TASK` alone.
_TASK = "train {0} --manifest out --output run"
EXAMPLES = {
    "clip": (
        "train clip --manifest out --output run --model ViT-B-32 --epochs 10",
        "train clip --manifest a@0.7 b@0.3 --output run --dry-run",
    ),
    "simclr": ("train simclr --manifest out --output run --batch-size 256 --samples-seen 1000000",),
    "slip": ("train slip --manifest out --output run --captions sampled",),
    "byol": ("train byol --manifest out --output run --batch-size 256",),
    "supervised": ("train supervised --manifest out --output run --labels class",),
}
SERVING = {
    "check": Command(
        "train.commands.check:CheckConfig",
        "train.commands.check:check",
        "decode a whole build and list what fails",
        examples=("train check --manifest out", "train check --manifest out --limit 1000 --json"),
    ),
    "seen": Command(
        "train.commands.seen:SeenConfig",
        "train.commands.seen:show",
        "when a training saw a sample, from its order",
        examples=("train seen run --uid 3f2a91c05be24d7788aa0b1c2d3e4f50",),
    ),
    "list": Command("train.commands.listing:ListConfig", "train.commands.listing:show", "list the tasks and the recipes"),
    "export": Command(
        "train.commands.export:ExportConfig",
        "train.commands.export:run",
        "write a model as files for other tools",
        examples=("train export --checkpoint run --output model.pt", "train export --checkpoint run --output model --format hf"),
    ),
}


def commands() -> dict[str, Command]:
    """Return the verbs; every file in train/tasks is one."""
    package = "train.tasks"
    tasks = {}
    for name in registry.names(package):
        examples = (_TASK.format(name), *EXAMPLES.get(name, ()))
        tasks[name] = Command(registry.get(package, name).Config, "train.loop:train", registry.summary(package, name), examples=examples)
    return tasks | SERVING


def main(argv: Sequence[str] | None = None) -> int:
    """Run the `train` command line and return its exit code."""
    return cli.main("train", ABOUT, commands(), argv)
