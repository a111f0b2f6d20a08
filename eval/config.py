"""What every evaluation is told: the model, the data, where results go. A protocol's own options stand in its file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from shards.core.config import option

RESULTS = "results.jsonl"


@dataclass(frozen=True)
class EvalConfig:
    """The flags that all protocols share."""

    PROTOCOL: ClassVar[str] = ""

    checkpoint: str = option(help="checkpoint written by `train`; with --model, weights of another tool", metavar="PATH")
    data: str = option(
        help="labelled test set: class folders, WebDataset tars with .cls, or a Hugging Face dataset on disk", metavar="PATH"
    )
    model: str = option(
        "", "for weights of another tool: their architecture by open_clip's name, timm/NAME or torchvision/NAME", metavar="NAME"
    )
    mean: tuple[float, ...] = option((), "with --model: what images are normalised with, per channel (default: OpenAI's)")
    std: tuple[float, ...] = option((), "with --model: the same")
    image_size: int | None = option(None, "with --model: pixels to a side", above=0)
    ema: bool = option(False, "take the averaged weights that `train --ema` keeps")
    format: str = option("", "kind of data set (`evaluate list`); found from the path where not given", metavar="NAME")
    classnames: str = option("", "class names: one per line in label order, a JSON list, or a JSON object {class: name}", metavar="FILE")
    image_column: str = option("", "image column of a Hugging Face dataset; its only one where not given", metavar="NAME")
    label_column: str = option("", "label column of a Hugging Face dataset; its only ClassLabel where not given", metavar="NAME")
    limit: int = option(0, "try on N images only, drawn by hash so that classes mix; 0 takes all")
    results: str = option(RESULTS, "append-only table of results", metavar="FILE")
    name: str = option("", "what to call the model in tables; the end of the checkpoint's path where not given")
    data_name: str = option("", "what to call the data in tables; the end of its path where not given", metavar="NAME")
    cache: str = option("", "folder that keeps features by (checkpoint, data) digest", metavar="DIR")
    batch_size: int = option(64, "images per forward pass")
    workers: int = option(0, "decoding threads; 0 takes one per core")
    device: str = option("auto", "cpu, cuda, or auto", metavar="NAME")
    json: bool = option(False, "print JSON")


@dataclass(frozen=True)
class TableConfig:
    """Flags of `evaluate table`."""

    results: str = option(RESULTS, "table of results", positional=True, metavar="RESULTS")
    rows: str = option("", "pivot: fields that make a row, such as `name` or `name,data`; without, one line per result", metavar="FIELDS")
    metric: str = option("", "only this metric, such as acc1; `main` is each data set's main one")
    protocol: str = option("", "only this protocol")
    csv: bool = option(False, "print CSV, one line per result")
    json: bool = option(False, "print JSON, one object per result")


@dataclass(frozen=True)
class ListConfig:
    """Flags of `evaluate list`."""

    json: bool = option(False, "print JSON")
