"""The `train` command."""

from __future__ import annotations

from collections.abc import Sequence

from shards.core import cli
from shards.core.cli import Command
from train.config import TrainConfig

ABOUT = "Train from shards: one loop, exact resume, and a checkpoint that knows its data."

COMMANDS = {
    "clip": Command(TrainConfig, "train.loop:clip", "train CLIP on the images and captions of one or more builds"),
    "check": Command("train.check:CheckConfig", "train.check:check", "decode a whole build and list what fails"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the `train` command line and return its exit code."""
    return cli.main("train", ABOUT, COMMANDS, argv)
