"""The command `shards`: look at, prove, cut, merge and index shard sets."""

from __future__ import annotations

from collections.abc import Sequence

from shards.core import cli
from shards.core.cli import Command

ABOUT = "Look at, prove, cut, merge and index shard sets."
COMMANDS = {
    "inspect": Command(
        "shards.inspect:InspectConfig",
        "shards.inspect:run",
        "what is in a set, and how open_clip trains on it",
        examples=(
            "shards inspect out",
            "shards inspect out --json",
        ),
    ),
    "verify": Command(
        "shards.verify:VerifyConfig",
        "shards.verify:run",
        "checksums, index, members, keys, sidecars, and every image decoded",
        examples=(
            "shards verify out",
            "shards verify out --strict --json",
        ),
    ),
    "subset": Command(
        "shards.subset:SubsetConfig",
        "shards.subset:run",
        "a prefix, a window, a condition or a list, over the same tars",
        writes="output",
        examples=(
            "shards subset out --samples 100000 --output first",
            "shards subset out --where 'width >= 512' --output large",
            "shards subset out --uids uids.npy --materialize --output copy",
        ),
    ),
    "uids": Command(
        "shards.uids:UidsConfig",
        "shards.uids:run",
        "the uids of a set, as DataComp's .npy or as lines",
        examples=(
            "shards uids out --output uids.npy",
            "shards uids out --where 'width >= 512' --output uids.txt",
        ),
    ),
    "merge": Command(
        "shards.merge:MergeConfig",
        "shards.merge:run",
        "several sets as one, over the tars of all",
        writes="output",
        examples=("shards merge a b --output both",),
    ),
    "remove": Command(
        "shards.remove:RemoveConfig",
        "shards.remove:run",
        "take samples down: at once, for this build and its subsets",
        resumes=True,
        examples=(
            "shards remove out 3f2a91c05be24d7788aa0b1c2d3e4f50 --dry-run",
            "shards remove out --urls urls.txt",
            "shards remove out --uids uids.npy",
        ),
    ),
    "compact": Command(
        "shards.compact:CompactConfig",
        "shards.compact:run",
        "rewrite the tars that hold samples taken down",
        resumes=True,
        examples=("shards compact out",),
    ),
    "index": Command(
        "shards.index:IndexConfig",
        "shards.index:run",
        "give a foreign WebDataset folder a manifest and .idx",
        writes="folder",
        examples=(
            "shards index tars",
            "shards index tars --bad-files skip",
        ),
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `shards` and return its exit code."""
    return cli.main("shards", ABOUT, COMMANDS, argv)
