"""Exact histograms from the statistics: their quantiles, bins and charts."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    from numpy.typing import NDArray

BINS = 64
_TINY = 1e-9  # what 0.57 / 0.01 lacks to be 57, and more
QUANTILES = {"p5": 5, "p25": 25, "median": 50, "p75": 75, "p95": 95}


@dataclass(frozen=True)
class Histogram:
    """How often each value occurs: `values` ascending, `counts` above 0, equally long, at least one."""

    values: NDArray[np.float64]
    counts: NDArray[np.int64]

    @property
    def n(self) -> int:
        """How many there are."""
        return int(self.counts.sum())

    def quantile(self, percent: int) -> float:
        """Return the nearest-rank quantile: the smallest value that at least `percent` (1 to 100) of all do not exceed."""
        rank = -(-percent * self.n // 100)
        return float(self.values[self.counts.cumsum().searchsorted(rank)])

    def above(self, limit: float) -> int:
        """Return how many values are larger than a limit."""
        return int(self.counts[self.values > limit].sum())

    def below(self, limit: float) -> int:
        """Return how many values are smaller than a limit."""
        return int(self.counts[self.values < limit].sum())


def read(con: duckdb.DuckDBPyConnection, kind: str) -> dict[str, Histogram]:
    """Return the histogram of a kind of `others` for every source that has one; see `stats` for the kinds."""
    import numpy as np

    rows: dict[str, tuple[list[float], list[int]]] = {}
    for source, value, count in _added_up(con, kind, "value", "source, value"):
        values, counts = rows.setdefault(source, ([], []))
        values.append(value)
        counts.append(count)
    return {source: Histogram(np.array(values, np.float64), np.array(counts, np.int64)) for source, (values, counts) in rows.items()}


def texts(con: duckdb.DuckDBPyConnection, kind: str) -> dict[str, dict[str, int]]:
    """Return {text: count} of a kind of `others` for every source that has it, most frequent first."""
    found: dict[str, dict[str, int]] = {}
    for source, text, count in _added_up(con, kind, "text", "source, n DESC, text"):
        found.setdefault(source, {})[text] = count
    return found


def _added_up(con: duckdb.DuckDBPyConnection, kind: str, column: str, order: str) -> list[tuple[str, Any, int]]:
    where = f"kind = $kind AND {column} IS NOT NULL"
    query = f"SELECT source, {column}, sum(count)::BIGINT AS n FROM others WHERE {where} GROUP BY source, {column} ORDER BY {order}"
    return con.execute(query, {"kind": kind}).fetchall()


def summary(histogram: Histogram, digits: int = 0) -> dict[str, Any]:
    """Return n, mean, min, max and QUANTILES of a histogram, rounded to `digits` decimals (0: whole numbers), the mean to two more."""
    values, n = histogram.values, histogram.n
    mean = float((values * histogram.counts).sum()) / n
    picked = {name: histogram.quantile(percent) for name, percent in QUANTILES.items()}
    picked = {"min": float(values[0]), **picked, "max": float(values[-1])}
    return {"n": n, "mean": round(mean, digits + 2), **{name: _rounded(value, digits) for name, value in picked.items()}}


def described(
    histograms: dict[str, Histogram], sources: Sequence[str], digits: int = 0, *, log: bool = False, reach: float = 0
) -> dict[str, Any]:
    """Return {source: `summary` with its "histogram" {"edges", "counts"}}, None for a source without one.

    The edges are the same for all sources. Bin i holds edges[i] <= value < edges[i + 1]; the first and the last bin hold
    what lies beyond them, too.
    """
    edges = bin_edges(pooled(list(histograms.values())), log=log, reach=reach, smallest=10.0**-digits) if histograms else []
    found: dict[str, Any] = dict.fromkeys(sources)
    for source in sources:
        if source in histograms:
            one = histograms[source]
            found[source] = {**summary(one, digits), "histogram": {"edges": edges, "counts": binned(one, edges)}}
    return found


def pooled(histograms: Sequence[Histogram]) -> Histogram:
    """Return several histograms as one."""
    import numpy as np

    values, place = np.unique(np.concatenate([one.values for one in histograms]), return_inverse=True)
    counts = np.zeros(len(values), np.int64)
    np.add.at(counts, place, np.concatenate([one.counts for one in histograms]))
    return Histogram(values, counts)


def bin_edges(histogram: Histogram, *, log: bool = False, reach: float = 0, smallest: float = 1.0) -> list[float]:
    """Return the edges of at most BINS bins, of round width, so fine as 99% of the values (log: 98%) lie within them.

    Args:
        log: equally many bins per power of ten, for values above 0; else bins of one width, from 0.
        reach: up to where bins of one width go at least.
        smallest: the least width, the step of the values.
    """
    import math

    if not log:
        far = max(min(histogram.quantile(99) * 1.1, float(histogram.values[-1])), reach)
        steps = (factor * 10.0**k for k in range(round(math.log10(smallest)), 18) for factor in (1, 2, 5))
        width = next(step for step in steps if far / step + _TINY < BINS)
        return [_edge(i * width) for i in range(math.floor(far / width + _TINY) + 2)]
    positive = histogram.values > 0
    if not positive.any():
        return [1, 10]
    known = Histogram(histogram.values[positive], histogram.counts[positive])
    low, high = known.quantile(1), known.quantile(99)
    per = next((per for per in (40, 20, 10, 5, 2) if math.log10(high / low) * per < BINS - 2), 1)
    first, last = math.floor(math.log10(low) * per) - 1, math.ceil(math.log10(high) * per) + 1
    edges = [_edge(float(f"{10 ** (i / per):.3g}")) for i in range(first, last + 1)]
    return edges[bisect_right(edges, low) - 1 : bisect_right(edges, high) + 1]


def binned(histogram: Histogram, edges: Sequence[float]) -> list[int]:
    """Return how many values lie in each bin; the first and the last are open."""
    import numpy as np

    place = np.clip(np.searchsorted(edges, histogram.values, side="right") - 1, 0, len(edges) - 2)
    counts = np.zeros(len(edges) - 1, np.int64)
    np.add.at(counts, place, histogram.counts)
    return [int(n) for n in counts]


def _rounded(value: float, digits: int) -> float:
    return int(value) if digits == 0 else round(value, digits)


def _edge(value: float) -> float:
    value = float(f"{value:.6g}")
    return int(value) if value.is_integer() else value


def share(count: int, n: int) -> float:
    """Return count / n as the JSON holds it; 0 of none."""
    return round(count / n, 6) if n else 0.0


def draw(
    name: str,
    title: str,
    described: dict[str, dict[str, Any]],
    colours: dict[str, str],
    *,
    x: str,
    what: str,
    log_x: bool = False,
    log_y: bool = False,
    mark: float | None = None,
) -> str:
    """Return a chart with a step line per source: which share of it lies in each bin.

    Args:
        described: source → its part of `described`; at least one.
        x: what is counted, with its unit.
        what: of what the shares are, such as `captions`.
        mark: where an upright line stands.
    """
    from matplotlib.ticker import LogLocator, MaxNLocator

    from curate.report import plots

    n = sum(one["n"] for one in described.values())
    edges = next(iter(described.values()))["histogram"]["edges"]
    bins = "bin" if log_x else f"{float(f'{edges[1] - edges[0]:.3g}'):,.10g}" if len(edges) > 1 else "1"
    with plots.chart(name, f"{title} (n = {n:,})", x, f"% of {what} per {bins}") as drawn:
        for source, one in described.items():
            counts = one["histogram"]["counts"]
            heights = [100 * count / one["n"] for count in counts]
            drawn.axes.plot(
                edges, [*heights, heights[-1]], drawstyle="steps-post", color=colours[source], linestyle=plots.dashes(source, colours)
            )
        if log_x:
            drawn.axes.set_xscale("log")
            if edges[-1] < 200 * edges[0]:  # powers of ten may be one tick alone
                near = edges[-1] < 10 * edges[0]
                drawn.axes.xaxis.set_major_locator(MaxNLocator(6) if near else LogLocator(subs=(1, 2, 5)))
        if log_y:
            drawn.axes.set_yscale("log")
        if mark is not None:
            drawn.axes.axvline(mark, color=plots.SOFT, linewidth=1)
        plots.grouped(drawn.axes)
    return drawn.svg
