"""The command `curate`."""

from __future__ import annotations

from collections.abc import Sequence

from shards.core import cli
from shards.core.cli import Command

ABOUT = "From native metadata and images to exact-size, deduplicated, reproducible shards, with a ledger of every sample."
_RECIPE = "curate.config:BuildConfig"
_FLAGS = "curate.config:plugin_flags"

COMMANDS = {
    "fetch": Command(
        "curate.fetch.config:FetchConfig",
        "curate.fetch.run:fetch",
        "Fetch a source's images into a pool, every URL accounted for.",
        "curate.config:fetch_flags",
    ),
    "build-shards": Command(
        _RECIPE, "curate.build:build_shards", "Measure, decide, write: from sources to shards, ledger and report.", _FLAGS
    ),
    "measure": Command(_RECIPE, "curate.build:measure_only", "Measure only: fill the work folder that builds share.", _FLAGS),
    "decide": Command(_RECIPE, "curate.build:decide_only", "Print what a build would keep and drop; write nothing.", _FLAGS),
    "why": Command("curate.why:WhyConfig", "curate.why:why", "Where did my sample go? By uid, source id or URL."),
    "report": Command(
        "curate.report.config:ReportConfig",
        "curate.report.build:report",
        "What is in these samples: a page, a terminal view, tables, or the captions that say a word.",
        "curate.config:report_flags",
    ),
    "compare": Command(
        "curate.compare:CompareConfig", "curate.compare:compare", "What sets or lists of ids share, what moved, and how they differ."
    ),
    "card": Command(
        "curate.card.config:CardConfig", "curate.card.write:card", "Write a dataset card and Croissant metadata, to publish a build with."
    ),
    "layer": Command(
        "curate.layer:LayerConfig", "curate.layer:layer", "Lay captions or scores beside a build's shards, by uid; list them."
    ),
    "forget": Command(
        "curate.forget:ForgetConfig", "curate.forget:forget", "Take samples out of ledger, report and work; `shards remove` starts it."
    ),
    "list": Command("curate.lists:ListConfig", "curate.lists:list_", "List sources, filters, and the reasons of the ledger."),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command `curate`; returns the exit code."""
    return cli.main("curate", ABOUT, COMMANDS, argv)
