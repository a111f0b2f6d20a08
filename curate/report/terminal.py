"""`curate report --terminal`: the report as text, from the same values as the page: tables and sparklines, a screen or less each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from curate.report.numbers import SECTIONS
from curate.report.page import percent
from shards.core.console import bar, paint, painted, sparkline, table, width_of

# The page's eight colours of sources (plots.PALETTE), as those of a terminal's 256 that read on black and on white.
STYLES = tuple(f"38;5;{n}" for n in (32, 172, 36, 175, 74, 166, 142, 246))
BOLD = "1"
REASONS = 8
CHART = 20  # columns of a chart at most
WORDS = 20  # of a list; what the width does not hold is cut
Chart = Callable[[int], str]  # from how many columns there are to what is drawn in them


def styles(sources: Iterable[str], colour: bool = True) -> dict[str, str]:
    """Return each source's style by its place, as its colour on the page; none without colour."""
    return {source: STYLES[i % len(STYLES)] if colour else "" for i, source in enumerate(sources)}


def terminal(values: dict[str, Any], width: int, colour: bool) -> str:
    """Return a whole report as text.

    Args:
        values: what report.json holds; sections that are missing or empty are left out.
        width: columns to stay within.
        colour: whether sources have their colours, by ANSI codes.
    """
    style = styles([source["name"] for source in values["sources"]], colour)
    blocks = []
    for name, view in VIEWS.items():
        found = view(values[name], style, width) if values.get(name) else []
        if found:
            blocks.append("\n\n".join([paint(SECTIONS.get(name, name), BOLD if colour else ""), *found]))
    n = sum(source["samples"] for source in values["sources"])
    return "\n\n\n".join([f"{n:,} samples from {len(style)} source{'s' * (len(style) != 1)}", *blocks])


def _ledger(values: dict[str, Any], style: dict[str, str], width: int) -> list[str]:
    sources = [source for one in values["sets"] for source in one["sources"]]
    inputs, rows, dropped = sum(source["inputs"] for source in sources), [], Counter[str]()
    for source in sources:
        dropped.update({drop["reason"]: drop["count"] for drop in source["dropped"]})
        counts = (source["kept"]["count"], source["holdout"]["count"], source["spare"]["count"], source["dropped_count"])
        rows.append((_name(source["name"], style), source["inputs"], *counts, percent(source["kept"]["share"])))
    bars = [_bar(source["kept"]["share"], style.get(source["name"], "")) for source in sources]
    reasons = [(reason, n, percent(n / inputs)) for reason, n in dropped.most_common(REASONS) if n]
    found = [(one["duplicates"]["groups"], one["duplicates"]["copies"], one["placeholders"]["samples"]) for one in values["sets"]]
    groups, copies, placeholders = map(sum, zip(*found, strict=True))
    return [
        *_charted(("source", "inputs", "kept", "held out", "spare", "dropped", "share"), rows, "kept", bars, width),
        *_charted(("dropped", "samples", "of inputs"), reasons, "", [_bar(n / inputs) for _, n, _ in reasons], width),
        *([f"{copies:,} copies in {groups:,} groups of duplicates; {placeholders:,} placeholders"] if copies or placeholders else []),
    ]


def _vocabulary(values: dict[str, Any], style: dict[str, str], width: int) -> list[str]:
    numbers, words, pairs = [], [], []
    for source, found in values["sources"].items():
        name, laws = _name(source, style), (found["heaps"].get("beta"), found["zipf"].get("exponent"))
        numbers.append((name, found["tokens"], found["types"], percent(found["hapax_share"]), *(_digits(law) for law in laws)))
        words.append((name, _list(row["word"] for row in found["words"]["content"])))
        pairs.append((name, _list(row["bigram"] for row in found["bigrams"]["content"])))
    return [
        *_table(("source", "tokens", "words", "once", "Heaps", "Zipf"), numbers, width),
        *_table(("source", "commonest words, without stop words"), words, width),
        *_table(("source", "commonest bigrams, without stop words"), pairs, width),
    ]


def _apart(values: dict[str, Any], style: dict[str, str], width: int) -> list[str]:
    rows = []
    for source in values["sources"]:
        for side, says in (("over", "more"), ("under", "less")):
            words = [w for w in values["words"] if (w["source"], w["side"], w["stop"]) == (source, side, False)]
            label = _name(source, style) if side == "over" else ""
            rows.append((label, says, _list(f"{w['word']} {abs(w['z']):.1f}" for w in words)))
    return _table(("source", "says", "words, with |z|, without stop words"), rows, width)


def _captions(values: dict[str, Any], style: dict[str, str], width: int) -> list[str]:
    lengths, lines, others = [], [], []
    for source, found in values["sources"].items():
        words, name = found["words"], _name(source, style)
        if words:
            lengths.append((name, words["n"], *(words[k] for k in ("p5", "median", "p95", "max"))))
            lines.append(_spark(words["histogram"]["counts"], style.get(source, "")))
        told = (("clip_tokens", "over_77_share"), ("repetition", "over_share"), ("duplicates", "share"))
        languages = (found["language"] or {"shares": []})["shares"]
        shares = [percent((found[kind] or {}).get(key)) for kind, key in told] + [percent(_readable(found["readability"]))]
        others.append((name, *shares, _list(f"{row['code']} {percent(row['share'])}" for row in languages)))
    header = ("source", f"> {values['context']} tokens", "repetitive", "duplicates", "readable", "languages")
    return [
        *_charted(("source", "captions", "5%", "median", "95%", "max"), lengths, "words per caption", lines, width),
        *_table(header, others, width),
    ]


def _readable(found: dict[str, Any] | None) -> float | None:
    return next((row["share"] for row in found["classes"] if row["class"] == "words"), None) if found else None


def _images(values: dict[str, Any], style: dict[str, str], width: int) -> list[str]:
    rows, lines = [], []
    for source, found in values["sources"].items():
        if found["width"] and found["height"] and found["bytes"] and found["aspect"]:
            side, size = found["shorter_side"], f"{found['width']['median']}x{found['height']['median']}"
            row = (_name(source, style), found["width"]["n"], size, percent(side["below_share"]) if side else "")
            rows.append((*row, found["aspect"]["median"], _list(one["format"] for one in found["formats"] or []), found["bytes"]["median"]))
            lines.append(_spark(found["bytes"]["histogram"]["counts"], style.get(source, "")))
    header = ("source", "images", "median", f"< {values['side']} px", "aspect", "formats", "bytes")
    return _charted(header, rows, "bytes, log scale", lines, width)


def _concepts(values: dict[str, Any], style: dict[str, str], width: int) -> list[str]:
    """Return a table of the share of each set's classes that a source mentions, of as many sources as the width holds."""
    first = [(one["name"], one["classes"], one["unmentioned"]) for one in values["sets"]]
    header: list[str] = ["classes mentioned", "classes", "never"]
    columns = [[percent(one["sources"][i]["covered"][0]["share"]) for one in values["sets"]] for i in range(len(values["captions"]))]
    sources, shown = list(values["captions"]), len(columns)
    while shown > 1 and not _fits(header + sources[:shown], first, columns[:shown], width):
        shown -= 1
    names = [painted(source, style.get(source, "")) for source in sources[:shown]]
    rows = [(*row, *(column[i] for column in columns[:shown])) for i, row in enumerate(first)]
    more = [f"and {len(columns) - shown} sources more, for which {width} columns have no room"] if shown < len(columns) else []
    return [*_table([*header, *names], rows, width), *more]


def _fits(header: list[str], first: Sequence[tuple[Any, ...]], columns: list[list[str]], width: int) -> bool:
    rows = [(*row, *(column[i] for column in columns)) for i, row in enumerate(first)]
    return all(len(line) <= width for line in table(header, rows, width).splitlines())


def _method(values: dict[str, Any], style: dict[str, str], width: int) -> list[str]:
    rows = [(n, one["samples"], one["shards"], one["seed"], one["manifest"][:12]) for n, one in enumerate(values["sets"], start=1)]
    return [
        *_table(("set", "samples", "shards", "seed", "manifest"), rows, width),
        "Counts are exact.\nLanguages are those of a random sample.",
    ]


def _table(header: Sequence[str], rows: list[tuple[Any, ...]], width: int) -> list[str]:
    return [table(header, rows, width)] if rows else []


def _charted(header: Sequence[str], rows: list[tuple[Any, ...]], what: str, charts: list[Chart], width: int) -> list[str]:
    """Return a table with a chart in each row, as wide as there is room, or without: half a chart says something else."""
    if not rows:
        return []
    room = min(CHART, width - 2 - width_of(table(header, rows).split("\n")[1]))
    if room < CHART // 3:
        return _table(header, rows, width)
    return _table([*header, what], [(*row, chart(room)) for row, chart in zip(rows, charts, strict=True)], width)


def _name(source: str, style: dict[str, str]) -> str:
    return painted(source, style.get(source, ""))


def _spark(counts: Sequence[int], style: str) -> Chart:
    """Return what draws a sparkline of at most so many columns: neighbouring bins are added up."""

    def draw(most: int) -> str:
        step = -(-len(counts) // most)
        return painted(sparkline(sum(counts[i : i + step]) for i in range(0, len(counts), step)), style)

    return draw


def _bar(value: float, style: str = "") -> Chart:
    return lambda most: painted(bar(value, most), style)


def _digits(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _list(words: Iterable[str]) -> str:
    return ", ".join(list(words)[:WORDS])


VIEWS = {
    "ledger": _ledger,
    "vocabulary": _vocabulary,
    "apart": _apart,
    "captions": _captions,
    "images": _images,
    "concepts": _concepts,
    "method": _method,
}
