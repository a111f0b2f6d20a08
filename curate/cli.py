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
        resumes=True,
        examples=(
            "curate fetch --source cc3m --input Train_GCC-training.tsv --output pools/cc3m --contact you@example.org",
            "curate fetch --source redcaps --input 'annotations/*.json' more.json --output pools/redcaps --enough 100000",
            "curate fetch --source cc3m --input Train_GCC-training.tsv --output pools/cc3m --retry-failed",
        ),
    ),
    "build-shards": Command(
        _RECIPE,
        "curate.build:build_shards",
        "Measure, decide, write: from sources to shards, ledger and report.",
        _FLAGS,
        writes="output",
        resumes=True,
        examples=(
            "curate build-shards --source folder --input photos --samples all --output out",
            "curate build-shards --source cc3m --input Train_GCC-training.tsv --images pools/cc3m --samples 1000000 --output out",
            "curate build-shards --config recipe.yaml --seed 1 --output out --dry-run",
        ),
    ),
    "measure": Command(
        _RECIPE,
        "curate.build:measure_only",
        "Measure only: fill the work folder that builds share.",
        _FLAGS,
        resumes=True,
        examples=("curate measure --config recipe.yaml --work work",),
    ),
    "decide": Command(
        _RECIPE,
        "curate.build:decide_only",
        "Print what a build would keep and drop; write nothing.",
        _FLAGS,
        resumes=True,
        examples=(
            "curate decide --config recipe.yaml --work work --near-radius 6",
            "curate decide --config recipe.yaml --work work --report preview.html",
        ),
    ),
    "why": Command(
        "curate.why:WhyConfig",
        "curate.why:why",
        "Where did my sample go, and its copies? By uid, id, URL, path or file name.",
        examples=(
            "curate why out 3f2a91 https://example.org/photo.jpg",
            "curate why out photo-17.jpg --pictures page.html",
        ),
    ),
    "report": Command(
        "curate.report.config:ReportConfig",
        "curate.report.build:report",
        "What is in these samples: a page, a terminal view, tables, or the captions that say a word.",
        "curate.config:report_flags",
        writes="folder",
        resumes=True,
        examples=(
            "curate report out",
            "curate report --source cc3m --input Train_GCC-training.tsv --work counts --output cc3m.html",
            "curate report out --word 'golden retriever' --most 5",
        ),
    ),
    "compare": Command(
        "curate.compare:CompareConfig",
        "curate.compare:compare",
        "What sets or lists of ids share, what moved, and how they differ.",
        examples=(
            "curate compare out other",
            "curate compare out other ids.txt --output compare.html",
        ),
    ),
    "card": Command(
        "curate.card.config:CardConfig",
        "curate.card.write:card",
        "Write a dataset card and Croissant metadata, to publish a build with.",
        writes="folder",
        examples=(
            "curate card out --license cc-by-4.0 --contact you@example.org",
            "curate card out --description 'Photos of birds' --date 2026-01-31 --overwrite",
        ),
    ),
    "layer": Command(
        "curate.layer:LayerConfig",
        "curate.layer:layer",
        "Lay captions or scores beside a build's shards, by uid; list them.",
        writes="folder",
        examples=(
            "curate layer add out recaptions captions.csv",
            "curate layer tokens out clip",
            "curate layer list out",
        ),
    ),
    "forget": Command(
        "curate.forget:ForgetConfig",
        "curate.forget:forget",
        "Take samples out of ledger, report and work; `shards remove` starts it.",
        writes="build",
        resumes=True,
        examples=("curate forget out --uids uids.txt",),
    ),
    "list": Command(
        "curate.lists:ListConfig",
        "curate.lists:list_",
        "List sources, filters, and the reasons of the ledger.",
        examples=(
            "curate list filters",
            "curate list sources --plugin my_source.py",
        ),
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command `curate`; returns the exit code."""
    return cli.main("curate", ABOUT, COMMANDS, argv)
