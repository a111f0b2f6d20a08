"""The command `evaluate`: one verb per protocol file, and `table` and `list`."""

from __future__ import annotations

from collections.abc import Sequence

from eval.config import ListConfig, TableConfig
from shards.core import cli, registry
from shards.core.cli import Command
from shards.core.console import emit, table

ABOUT = "What a pre-trained model is worth on labelled data: zero-shot, few-shot probes, and a table of results."


EXAMPLES = {
    "zeroshot": (
        "evaluate zeroshot --checkpoint run --data tests/imagenet",
        "evaluate zeroshot --checkpoint weights.pt --model ViT-B-32 --data tests/cifar --classnames names.txt",
    ),
    "probe": (
        "evaluate probe --checkpoint run --data tests/imagenet",
        "evaluate probe --checkpoint run --data test --train train --k 1,all",
    ),
    "linear": (
        "evaluate linear --checkpoint run --data sets/pets --k 1,5,20,all",
        "evaluate linear --features pixels --data test --train train --k 5 --small-classes take-all",
    ),
    "knn": ("evaluate knn --checkpoint run --data sets/pets", "evaluate knn --checkpoint run --data test --train train --k 1,10,all"),
    "layers": ("evaluate layers --checkpoint run --data sets/pets --tokens 1 4",),
    "episodes": ("evaluate episodes --checkpoint run --data sets/pets --way 5 --k 1,5 --queries 15",),
    "sse": (
        "evaluate sse --checkpoint run --data sets/pets --epochs 25 --cycle-lr 1 --cycle-epochs 1",
        "evaluate sse --checkpoint run --data sets/pets --schedule sse --per epoch --optimizer sgd --lr 0.005 --epochs 25",
    ),
    "soups": (
        "evaluate soups --checkpoint run --data sets/pets --epochs 16 --runs 2",
        "evaluate soups --checkpoint run --data sets/pets --lr 1e-3 --runs 5 --alphas 9",
    ),
    "retrieval": ("evaluate retrieval --checkpoint run --data coco/captions_val2017.json --images coco/val2017",),
}


VERBS = {
    "table": Command(
        TableConfig,
        "eval.tables:show",
        "print the results, one line each or as a pivot",
        examples=(
            "evaluate table --metric main",
            "evaluate table results.jsonl --rows source,size --columns data,k --best lr --over draw,train_seed,shots",
            "evaluate table results.jsonl --where data=pets k=5 --against source=scratch --sort difference",
        ),
    ),
    "ensemble": Command(
        "eval.ensembles.command:EnsembleConfig",
        "eval.ensembles.command:show",
        "what several models are worth together, by number of members, and how unlike they are; from kept answers",
        examples=(
            "evaluate ensemble results.jsonl --protocol member --where data=pets k=all",
            "evaluate ensemble results.jsonl --kind global --protocol member --where source=redcaps,laion data=pets",
        ),
    ),
    "study": Command(
        "eval.study.command:StudyConfig",
        "eval.study.command:study",
        "pre-train, transfer, tabulate and plot: a whole study in one file, of which a rerun does only what is missing",
        examples=("evaluate study examples/mini-paper.yaml --dry-run", "evaluate study study.yaml --workers 2 --output runs/study"),
    ),
    "noise": Command(
        "eval.noise:NoiseConfig",
        "eval.noise:show",
        "how large a difference a planned study could see",
        examples=(
            "evaluate noise --images 3669 --classes 37 --accuracy 0.7 --draws 3 --train-seeds 2 --shots 5 --sd-draw 0.01 --sd-seed 0.005",
            "evaluate noise results.jsonl --where data=pets k=5 --draws 3",
        ),
    ),
    "import": Command(
        "eval.published:ImportConfig",
        "eval.published:import_table",
        "append the published results of arXiv 2302.13602 to a table, with signs of what is wrong with some",
        examples=("evaluate import Hyperparameters_results.csv --output published.jsonl",),
    ),
    "export": Command(
        "eval.export:ExportConfig",
        "eval.export:export",
        "write results as DataComp's eval_results.jsonl, CSV, a LaTeX table or Parquet",
        examples=(
            "evaluate export results.jsonl --format latex --rows source --columns data,k --output table.tex",
            "evaluate export results.jsonl --format datacomp --where name=curated --protocol zeroshot --output eval_results.jsonl",
        ),
    ),
    "plot": Command(
        "eval.plots._config:PlotConfig",
        "eval.plots._command:plot",
        "draw the results as one page of charts with intervals, and as PDF",
        examples=(
            "evaluate plot results.jsonl --output page.html --pdf figures",
            "evaluate plot results.jsonl --only matrix shots size --where objective=clip",
            "evaluate plot results.jsonl --only frequency --concepts redcaps=builds/redcaps laion=builds/laion --data-root sets",
        ),
    ),
    "pack": Command(
        "eval.pack:PackConfig",
        "eval.pack:pack",
        "write a downstream set once as shards, with its splits, class names and templates",
        writes="output",
        examples=(
            "evaluate pack cifar100 --input downloads/cifar-100-python --output sets/cifar100",
            "evaluate pack mine --kind table --input labels.csv --output sets/mine",
        ),
    ),
    "list": Command(ListConfig, "eval.cli:show_plugins", "list the protocols, the kinds of data sets, the downstream sets and the plots"),
}


def commands() -> dict[str, Command]:
    """Return the verbs; every file in eval/protocols is one."""
    verbs = {
        name: Command(
            registry.get("eval.protocols", name).Config,
            "eval.run:evaluate",
            registry.summary("eval.protocols", name),
            examples=EXAMPLES.get(name, ()),
        )
        for name in registry.names("eval.protocols")
    }
    return {**verbs, **VERBS}


def show_plugins(config: ListConfig) -> None:
    """Print every protocol, kind of data set, downstream set and plot with its one line of documentation."""
    kinds = {"eval.protocols": "protocol", "eval.datasets": "dataset", "eval.downstream": "set", "eval.plots": "plot"}
    rows = [
        {"kind": kind, "name": name, "summary": registry.summary(package, name)}
        for package, kind in kinds.items()
        for name in registry.names(package)
    ]
    emit(rows if config.json else table(["kind", "name", "summary"], [list(row.values()) for row in rows]))


def main(argv: Sequence[str] | None = None) -> int:
    """Run `evaluate` and return its exit code."""
    return cli.main("evaluate", ABOUT, commands(), argv)
