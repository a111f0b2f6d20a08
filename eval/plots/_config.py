"""The flags of `evaluate plot`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from eval.config import RESULTS
from shards.core.config import option

PAGE = "plots.html"


@dataclass(frozen=True)
class PlotConfig:
    """What is plotted, and where the page goes."""

    results: str = option(RESULTS, "table of results", positional=True, metavar="RESULTS")
    output: str = option(PAGE, "page.html, or a folder, which gets plots.html; the JSON with all numbers stands beside it", metavar="PATH")
    pdf: str = option("", "folder for each plot as PDF, too", metavar="DIR")
    only: tuple[str, ...] = option((), "these plots alone (`evaluate list`)", metavar="NAME")
    where: dict[str, Any] = option({}, "only rows with this value, or one of several separated by commas, such as objective=clip")
    protocol: str = option("", "only this protocol")
    metric: str = option("main", "`main`, each data set's own, or one metric, such as acc1")
    best: str = option("lr", "take the best of rows that differ in these settings alone: by validation score, else on test, marked")
    over: str = option("draw,train_seed,shots", "means and intervals over rows that differ in these alone, topmost first", metavar="FIELDS")
    upstream: str = option("", "upstream: the data set, or DATA:PROTOCOL, whose accuracy is the upstream one", metavar="DATA")
    baseline: dict[str, Any] = option({}, "robustness: the models of the baseline line, such as objective=supervised")
    shift: dict[str, Any] = option({}, "robustness: shifted sets that are not called NAME/SHIFT, such as imagenet-v2=imagenet")
    concepts: tuple[str, ...] = option(
        (), "frequency: a build with its report, or a CSV (class,count); SOURCE=PATH for the models of one source", metavar="PATH"
    )
    classnames: tuple[str, ...] = option(
        (), "frequency: files of class names in label order, of sets that are not built in", metavar="FILE"
    )
    data_root: str = option("", "frequency: folder of packed sets, whose class names are known (default: PROVENDER_DATA)", metavar="DIR")
    strict: bool = option(False, "exit 1 where anything was passed over")
    json: bool = option(False, "print all numbers as JSON")
