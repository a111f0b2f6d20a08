"""What every evaluation is told: the model, the data, where results go. A protocol's own options stand in its file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from shards.core.config import MOST_WORKERS, option

RESULTS = "results.jsonl"


@dataclass(frozen=True)
class EvalConfig:
    """The flags that all protocols share."""

    PROTOCOL: ClassVar[str] = ""

    data: tuple[str, ...] = option(
        help="test set, one or several: class folders, WebDataset tars with .cls, a table, a packed set or its name, or a Hugging Face "
        "dataset on disk",
        metavar="PATH",
    )
    checkpoint: str = option(
        "",
        "checkpoint written by `train`; with --model, weights of another tool: a file, or open_clip's tag",
        metavar="PATH",
    )
    data_root: str = option(
        "", "folder of packed sets: `--data NAME` is looked for there where it is no path (default: PROVENDER_DATA)", metavar="DIR"
    )
    model: str = option(
        "", "for weights of another tool: their architecture by open_clip's name, timm/NAME or torchvision/NAME", metavar="NAME"
    )
    mean: tuple[float, ...] = option((), "with --model: what images are normalised with, per channel (default: OpenAI's)")
    std: tuple[float, ...] = option((), "with --model: the same")
    image_size: int | None = option(None, "with --model: pixels to a side", above=0)
    ema: bool = option(False, "take the averaged weights that `train --ema` keeps")
    format: str = option("", "kind of data set (`evaluate list`); found from the path where not given", metavar="NAME")
    classnames: str = option(
        "", "class names: lines, JSON, CSV, YAML or Python, as a list in label order, or by class, number or name", metavar="FILE"
    )
    image_column: str = option("", "image column of a Hugging Face dataset; its only one where not given", metavar="NAME")
    label_column: str = option(
        "", "label column of a Hugging Face dataset; its only ClassLabel, or `label`, where not given", metavar="NAME"
    )
    limit: int = option(0, "try on N images only, drawn by hash so that classes mix; 0 takes all")
    results: str = option(RESULTS, "append-only table of results", metavar="FILE")
    predictions: Literal["auto", "all", "none"] = option(
        "auto", "keep the answers by image beside the table: auto up to 268 MB of logits, all, or none"
    )
    label: dict[str, Any] = option({}, "say something of the model in its rows, such as source=redcaps; may be repeated")
    name: str = option("", "what to call the model in tables; the end of the checkpoint's path where not given")
    data_name: str = option("", "what to call the data in tables; the end of its path where not given", metavar="NAME")
    pretrain: tuple[str, ...] = option(
        (), "builds that the model was trained on: test images that are there, too, are counted, with a page of pictures", metavar="BUILD"
    )
    without_overlap: bool = option(
        False, "add rows without the test images that training data hold: by bytes, uid or nearly, in --pretrain and in the training set"
    )
    cache: str = option("", "folder that keeps features by (checkpoint, data) digest", metavar="DIR")
    batch_size: int = option(64, "images per forward pass")
    workers: int = option(0, "decoding threads, at most one per core; 0 takes one per core", least=0, most=MOST_WORKERS)
    device: str = option("auto", "cpu, cuda, or auto", metavar="NAME")
    strict: bool = option(False, "exit 1 where an image, a class or a name was dropped, not found or stands twice")
    json: bool = option(False, "print JSON")

    @property
    def path(self) -> str:
        """The first set of `--data`, or its only one; `evaluate` runs a protocol on one at a time."""
        return self.data if isinstance(self.data, str) else self.data[0]


@dataclass(frozen=True)
class SelectConfig:
    """What chooses, gathers and compares rows of results: flags of `evaluate table` and of `evaluate export`."""

    results: str = option(RESULTS, "table of results", positional=True, metavar="RESULTS")
    rows: str = option(
        "", "pivot: fields or labels that make a row, such as `name` or `source,size`; without, one line per result", metavar="FIELDS"
    )
    columns: str = option("", "pivot: fields or labels that make a column, such as `data,k`; without, what else differs", metavar="FIELDS")
    best: str = option(
        "", "the best of rows that differ in these settings alone, such as lr: by validation score, else on test, marked", metavar="FIELDS"
    )
    over: str = option(
        "", "mean and interval over rows that differ in these alone, topmost first, such as draw,train_seed,shots", metavar="FIELDS"
    )
    against: str = option(
        "", "difference to the row of this name, or to that with FIELD=VALUE; paired where answers are kept", metavar="NAME"
    )
    where: dict[str, Any] = option({}, "only rows with this value, or one of several separated by commas, such as source=redcaps")
    sort: str = option("", "order of lines: a field, a label, or value, chance, difference, p (numbers: largest first)", metavar="FIELDS")
    metric: str = option("", "only this metric, such as acc1; `main` is each data set's main one")
    protocol: str = option("", "only this protocol")


@dataclass(frozen=True)
class TableConfig(SelectConfig):
    """Flags of `evaluate table`."""

    csv: bool = option(False, "print CSV, one line per result")
    json: bool = option(False, "print JSON, one object per result")


@dataclass(frozen=True)
class ListConfig:
    """Flags of `evaluate list`."""

    json: bool = option(False, "print JSON")
