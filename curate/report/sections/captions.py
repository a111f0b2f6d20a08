"""The captions of each source: their length, repetition, language, duplicates, whether they can be read, and some of every length.

Lengths are exact. A CLIP length counts the start and the end token, as the context of 77 does. Repetition is the share of a
caption's words that stood in it before, rounded to 0.01. Languages are estimated on the random sample.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from curate.report import wordcount
from curate.report.histograms import Histogram, described, draw, read, share, texts
from curate.report.readability import CLASSES, readability
from curate.report.sampled import languages, sample_of, shown
from curate.report.stats import duplicates
from curate.report.subject import Subject, most_repeated

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CONTEXT = 77  # tokens that CLIP reads, start and end among them
REPETITIVE = 0.2  # CC12M leaves captions above it out
PERCENTILES = (1, 10, 25, 50, 75, 90, 99)
EXAMPLES = 3
MOST = 10  # repeated captions that are listed


def collect(subject: Subject) -> dict[str, Any]:
    """Return what is known of every source's captions; None stands for what nobody counted.

    Per source: `captions` (how many there are); `words`, `characters`, `clip_tokens` and `repetition`, see
    `histograms.described`; `language`, `duplicates`, `readability`, and `quantile_samples`.
    """
    import numpy as np

    con, sources = subject.con, subject.sources
    words, tokens, repetition = read(con, "words"), with_ends(read(con, "clip_tokens")), read(con, "repetition")
    measured = {
        "words": described(words, sources),
        "characters": described(read(con, "characters"), sources),
        "clip_tokens": described(tokens, sources, reach=1.5 * CONTEXT),
        "repetition": described(repetition, sources, digits=2),
    }
    for kind, histograms, limit, name in (("clip_tokens", tokens, CONTEXT, "over_77"), ("repetition", repetition, REPETITIVE, "over")):
        for source, one in measured[kind].items():
            if one is not None:
                over = histograms[source].above(limit)
                one |= {name: over, f"{name}_share": share(over, one["n"])}
    readable = texts(con, "readability")
    found = {}
    for source in sources:
        rows = [row for row in sample_of(subject.sample, source) if row["caption"] is not None]
        lengths = np.array([len(wordcount.tokens(row["caption"])) for row in rows], np.int64)  # no compiled loop to load
        found[source] = {
            "captions": words[source].n if source in words else None,
            **{kind: measured[kind][source] for kind in measured},
            "language": languages([row["caption"] for row in rows]),
            "duplicates": _duplicates(subject, source),
            "readability": _readability(readable.get(source), rows, lengths),
            "quantile_samples": quantile_samples(words[source], rows, lengths) if source in words else [],
        }
    return {"context": CONTEXT, "repetitive": REPETITIVE, "classes": list(CLASSES), "sources": found}


def with_ends(histograms: dict[str, Histogram]) -> dict[str, Histogram]:
    """Return lengths in CLIP tokens with the start and the end token."""
    return {source: Histogram(one.values + 2, one.counts) for source, one in histograms.items()}


def _duplicates(subject: Subject, source: str) -> dict[str, Any] | None:
    """Return how many captions say what another one has said, with the standard error, and which are repeated most."""
    found = duplicates(subject.con, source)
    n, error = found["captions"], found["standard_error"]
    if not n:
        return None
    rates = {"share": share(found["duplicates"], n), "share_error": round(error / n, 6)}
    return {**found, **rates, "most": most_repeated(subject, source, MOST)}


def _readability(counts: dict[str, int] | None, rows: list[dict[str, Any]], lengths: NDArray[np.int64]) -> dict[str, Any] | None:
    """Return n, and for each of `readability.CLASSES` its count, share, and the sample's first EXAMPLES (none for `words`)."""
    if not counts:
        return None
    n, examples = sum(counts.values()), _unreadable(rows, lengths)
    classes = [
        {"class": c, "count": counts.get(c, 0), "share": share(counts.get(c, 0), n), "examples": examples.get(c, [])} for c in CLASSES
    ]
    return {"n": n, "classes": classes}


def _unreadable(rows: list[dict[str, Any]], lengths: NDArray[np.int64]) -> dict[str, list[dict[str, Any]]]:
    import pyarrow as pa

    captions = pa.array([row["caption"] for row in rows], pa.string())
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in CLASSES}
    for row, place in zip(rows, readability(captions, lengths).tolist(), strict=True):
        if CLASSES[place] != "words" and len(found[CLASSES[place]]) < EXAMPLES:
            found[CLASSES[place]].append(shown(row))
    return found


def quantile_samples(words: Histogram, rows: list[dict[str, Any]], lengths: NDArray[np.int64]) -> list[dict[str, Any]]:
    """Return a row of the sample for each of PERCENTILES of the length in words: the nearest in length, of these the first.

    `lengths` are those of the rows. Each is another row; with too few rows, the outer percentiles have none. `percentile` and
    `target` are the percentile and its length, `words` is the length of this caption.
    """
    left = dict(enumerate(lengths.tolist()))
    found = []
    for percentile in sorted(sorted(PERCENTILES, key=lambda p: abs(p - 50))[: len(rows)]):
        target = int(words.quantile(percentile))
        place = min(left, key=lambda i: (abs(left[i] - target), i))
        found.append({"percentile": percentile, "target": target, "words": left.pop(place), **shown(rows[place])})
    return found


def figures(values: dict[str, Any], colours: dict[str, str]) -> dict[str, str]:
    """Return the charts, each of the sources that have the measure."""
    charts: dict[str, tuple[str, str, dict[str, Any]]] = {
        "words": ("Length in words", "words", {}),
        "characters": ("Length in characters", "characters", {}),
        "clip_tokens": (f"Length in CLIP tokens, line at {CONTEXT}", "tokens, start and end counted", {"log_y": True, "mark": CONTEXT}),
    }
    found = {}
    for kind, (title, x, given) in charts.items():
        known = {source: one[kind] for source, one in values["sources"].items() if one[kind]}
        if known:
            found[kind] = draw(f"captions-{kind}", title, known, colours, x=x, what="captions", **given)
    return found
