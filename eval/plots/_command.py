"""`evaluate plot`: a page of plots from a table of results, with its numbers as JSON, and each plot as PDF."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from eval.config import SelectConfig
from eval.fields import LOWER_IS_BETTER, text, where
from eval.gather import Entry
from eval.plots import _draw
from eval.plots._config import PAGE, PlotConfig
from eval.plots._counts import read_counts
from eval.plots._page import render
from eval.plots._view import View, view_of
from eval.plots.base import Drawn, LeftOut, MissingError, Page
from eval.tables import selected
from shards.core import fs, registry
from shards.core.console import emit, say
from shards.core.errors import UsageError

PACKAGE = "eval.plots"
FORMAT, FORMAT_VERSION = "provender-plots", 1
# In the order of the page; plots of other packages follow.
ORDER = ("matrix", "shots", "size", "exchange", "objectives", "upstream", "frequency", "robustness", "wise", "layers", "ensemble")


def plot(config: PlotConfig) -> None:
    """Write the page, the JSON beside it and the PDFs, and say in a line what was left out.

    Raises:
        UsageError: no results, no such plot or field, a place that cannot be written to, or no plot that the results fill.
    """
    path = _page_path(config.output)
    names = _names(config.only)
    if config.pdf and fs.exists(config.pdf) and not fs.is_dir(config.pdf):
        raise UsageError(f"--pdf {config.pdf}: a file", "a folder, made where it is not there")
    if config.metric in LOWER_IS_BETTER:
        raise UsageError(f"--metric {config.metric}", "an accuracy, or main: ensembles are drawn with NLL and calibration error, too")
    if "frequency" in names:
        for stated in config.concepts:  # refused before anything is computed
            read_counts(stated)
    page = page_of(config, names)
    if not page.drawn:
        lines = [f"{entry.name}: {entry.why}" for entry in page.left_out]
        raise UsageError(f"{config.results}: no plot that these results fill: {'; '.join(lines)}", advice="evaluate list")
    values = page.values()
    write(path, page, values)
    if config.pdf:
        fs.make_dirs(config.pdf)
        for drawn in page.drawn:
            fs.write_bytes(fs.join(config.pdf, f"{drawn.name}.pdf"), _draw.pdf(drawn.section, drawn.title))
    for entry in page.left_out:
        say(f"{entry.name}: left out: {entry.why}; needs {entry.needs}")
    pdfs = f", and as PDF in {config.pdf}" if config.pdf else ""
    say(f"{path}: {len(page.drawn)} plots, {sum(len(drawn.section.figures) for drawn in page.drawn)} charts{pdfs}")
    if config.json:
        emit(values)


def write(path: str, page: Page, values: dict[str, Any]) -> None:
    """Write a page, and its numbers as JSON beside it."""
    folder = path.rpartition("/")[0]
    if folder:
        fs.make_dirs(folder)
    fs.write_text(path.removesuffix(".html") + ".json", json.dumps(values, ensure_ascii=False, indent=1) + "\n")
    fs.write_text(path, render(page))


def _page_path(output: str) -> str:
    """Return where the page goes.

    Raises:
        UsageError: a folder that is called as a page is.
    """
    if not output.endswith(".html"):
        if fs.exists(output) and not fs.is_dir(output):
            raise UsageError(f"--output {output}: a file", "a name ending in .html, or a folder")
        return fs.join(output.rstrip("/"), PAGE)
    if fs.exists(output) and fs.is_dir(output):
        raise UsageError(f"--output {output}: a folder", "a file's name, or a folder that does not end in .html")
    return output


def _names(only: Sequence[str]) -> list[str]:
    """Return the plots that are wanted, in the page's order.

    Raises:
        UsageError: no such plot.
    """
    for name in only:
        registry.get(PACKAGE, name)
    wanted = only or registry.names(PACKAGE)
    return sorted(wanted, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))


def page_of(config: PlotConfig, names: Sequence[str]) -> Page:
    """Return the page of a table of results.

    Raises:
        UsageError: no results, or no row has a field of --where, --best, --over or --baseline.
    """
    rows = selected(SelectConfig(results=config.results, where=config.where, protocol=config.protocol))
    view = view_of(config, rows)
    if config.baseline:
        where(list(view.rows), config.baseline)  # refuses a field that no row has
    drawn, left_out = [], []
    for name in names:
        module: Any = registry.get(PACKAGE, name)
        try:
            drawn.append(Drawn(name, module.TITLE, module.build(view)))
        except MissingError as error:
            left_out.append(LeftOut(name, module.TITLE, str(error), module.NEEDS))
    return Page(_facts(config, rows, view), tuple(drawn), tuple(left_out), _notes(config))


def _facts(config: PlotConfig, rows: Sequence[Entry], view: View) -> dict[str, Any]:
    grids = {name for row in view.every for name in (row.get("chosen") or {}).get("values", {})}
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "rows": len(rows),
        "gathered": len(view.rows),
        "models": len({(text(row.get("name")), text(row.get("checkpoint"))) for row in rows}),
        "data": sorted({text(row["data"]) for row in rows}),
        "best": ", ".join(sorted(grids)),
        "over": [level for level in view.levels if any(level in (row.get("over") or {}) for row in view.rows)],
    }


def _notes(config: PlotConfig) -> tuple[str, ...]:
    chosen = [f"{name}={value}" for name, value in config.where.items()] + ([f"protocol {config.protocol}"] if config.protocol else [])
    return (f"Only results with {', '.join(chosen)}.",) if chosen else ()
