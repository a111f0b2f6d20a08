"""The command `shards`: look at, prove, cut, merge and index shard sets."""

from __future__ import annotations

from collections.abc import Sequence

from shards.core import cli
from shards.core.cli import Command

ABOUT = "Look at, prove, cut, merge and index shard sets."
COMMANDS = {
    "inspect": Command("shards.inspect:InspectConfig", "shards.inspect:run", "what is in a set, and how open_clip trains on it"),
    "verify": Command(
        "shards.verify:VerifyConfig", "shards.verify:run", "checksums, index, members, keys, sidecars, and every image decoded"
    ),
    "subset": Command("shards.subset:SubsetConfig", "shards.subset:run", "a prefix, a window, a condition or a list, over the same tars"),
    "uids": Command("shards.uids:UidsConfig", "shards.uids:run", "the uids of a set, as DataComp's .npy or as lines"),
    "merge": Command("shards.merge:MergeConfig", "shards.merge:run", "several sets as one, over the tars of all"),
    "remove": Command("shards.remove:RemoveConfig", "shards.remove:run", "take samples down: at once, for this build and its subsets"),
    "compact": Command("shards.compact:CompactConfig", "shards.compact:run", "rewrite the tars that hold samples taken down"),
    "index": Command("shards.index:IndexConfig", "shards.index:run", "give a foreign WebDataset folder a manifest and .idx"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `shards` and return its exit code."""
    return cli.main("shards", ABOUT, COMMANDS, argv)
