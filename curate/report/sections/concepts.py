"""How often captions mention the classes of downstream sets: coverage, head and tail, and what is never mentioned."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from curate.report import plots
from curate.report.concepts import ConceptList, shared_forms
from curate.report.histograms import share
from curate.report.stats import totals

if TYPE_CHECKING:
    from curate.report.subject import Subject

LEAST = (1, 10, 100)  # a class is covered where at least so many captions mention it
LABEL = 22  # letters of a line of a label
ENDS = 10  # the classes named at the head and at the tail
Found = dict[str, dict[str, tuple[int, int]]]  # source → class → mentions, captions


def collect(subject: Subject) -> dict[str, Any]:
    """Count each set's classes in each source; nothing where no source has a caption.

    A source covers a class where at least so many of its captions mention it. `equal` makes sources of different sizes compare:
    how many classes are expected in a random sample of as many captions as the smallest source has. `share` is of the set's
    classes; at the head and the tail it is of the source's captions.
    """
    known = totals(subject.con, "words")
    captions = {source: known.get(source, 0) for source in subject.sources}
    if not any(captions.values()):
        return {}
    equal = min(n for n in captions.values() if n)
    return {
        "least": list(LEAST),
        "captions": captions,
        "equal": equal,
        "sets": [_of_set(concepts, _found(subject, concepts.name), captions, equal) for concepts in subject.concepts],
    }


def _found(subject: Subject, name: str) -> Found:
    sums = "sum(count)::BIGINT, sum(captions)::BIGINT"
    query = f"SELECT source, text, {sums} FROM others WHERE kind = 'concept' AND starts_with(text, $prefix) GROUP BY source, text"
    by_class: Found = {}
    prefix = f"{name}\t"
    for source, text, count, captions in subject.con.execute(query, {"prefix": prefix}).fetchall():
        by_class.setdefault(source, {})[text.removeprefix(prefix)] = (count, captions)
    return by_class


def _of_set(concepts: ConceptList, by_class: Found, captions: dict[str, int], equal: int) -> dict[str, Any]:
    names = [names[0] for names in concepts.classes]
    of_class = {source: {name: by_class.get(source, {}).get(name, (0, 0)) for name in names} for source in captions}
    never = [name for name in names if not any(of_class[source][name][1] for source in captions)]
    return {
        "name": concepts.name,
        "classes": len(names),
        "sources": [_of_source(source, of_class[source], captions[source], equal) for source in captions],
        "unmentioned": len(never),
        "never": never,
        "shared": shared_forms(concepts),
        "synonyms": {every[0]: list(every[1:]) for every in concepts.classes if every[1:]},
        "table": _table(names, of_class),
    }


def _table(names: list[str], of_class: dict[str, dict[str, tuple[int, int]]]) -> dict[str, Any]:
    """Return for each class its mentions, the captions that mention it, and those of each source."""
    each = tuple(of_class) if len(of_class) > 1 else ()
    columns = [{"name": "class", "number": False}, *({"name": name, "number": True} for name in ("mentions", "captions", *each))]
    total = {name: [sum(of[name][i] for of in of_class.values()) for i in (0, 1)] for name in names}
    return {"columns": columns, "rows": [[name, *total[name], *(of_class[source][name][1] for source in each)] for name in names]}


def _of_source(source: str, of_class: dict[str, tuple[int, int]], captions: int, equal: int) -> dict[str, Any]:
    """Return one source's coverage of a set. `ranked`: for each mentioned class by rank, the captions that mention it."""
    ranked = sorted(((holding, count, name) for name, (count, holding) in of_class.items() if holding), key=lambda row: (-row[0], row[2]))
    ends = [
        {"class": name, "mentions": count, "captions": holding, "share": round(holding / captions, 9)} for holding, count, name in ranked
    ]
    covered = [sum(holding >= least for holding, _, _ in ranked) for least in LEAST]
    mentions = sum(count for count, _ in of_class.values())
    expected = round(expected_classes([holding for holding, _, _ in ranked], captions, equal), 2) if captions else None
    return {
        "source": source,
        "captions": captions,
        "covered": [{"least": least, "classes": n, "share": share(n, len(of_class))} for least, n in zip(LEAST, covered, strict=True)],
        "equal": expected,
        "equal_share": None if expected is None else round(expected / len(of_class), 6),
        "mentions": mentions,
        "per_1000_captions": round(1000 * mentions / captions, 3) if captions else None,
        "head": ends[:ENDS],
        "tail": ends[ENDS:][-ENDS:],
        "unmentioned": len(of_class) - len(ranked),
        "never": [name for name, (_, holding) in of_class.items() if not holding],
        "ranked": [holding for holding, _, _ in ranked],
    }


def expected_classes(holding: Sequence[int], captions: int, drawn: int) -> float:
    """Return how many classes are expected to be mentioned in a random sample of captions, drawn without replacement.

    A class is missed with the probability C(N - n, m) / C(N, m) (rarefaction, Hurlbert 1971).

    Args:
        holding: n, the captions that mention each class.
        captions: N, how many there are. drawn: m, at most N.
    """
    ways = lambda n: math.lgamma(n + 1) - math.lgamma(n - drawn + 1)
    missed = [math.exp(ways(captions - n) - ways(captions)) if captions - n >= drawn else 0.0 for n in holding]
    return len(missed) - math.fsum(missed)


def figures(values: dict[str, Any], colours: dict[str, str]) -> dict[str, str]:
    """Draw the coverage of all sets, and for each set the captions that mention its classes, from the head to the tail."""
    if not values:
        return {}
    drawn = {"concepts-coverage": _coverage(values, colours)}
    for place, concept_set in enumerate(values["sets"]):
        series: dict[str, tuple[Sequence[float], Sequence[float]]] = {
            row["source"]: (range(1, len(row["ranked"]) + 1), [1000 * n / row["captions"] for n in row["ranked"]])
            for row in concept_set["sources"]
            if len(row["ranked"]) > 1  # of one class there is no head and no tail
        }
        if series:
            key, x = f"concepts-{place}", f"class by rank, of {concept_set['classes']:,}"
            title = f"{concept_set['name']}: from head to tail"
            drawn[key] = plots.lines(key, title, series, colours, x=x, y="captions that mention it, per 1,000", log_y=True)
    return drawn


def room(labels: Sequence[str]) -> float:
    """Return the inches that labels of the y axis need, by the letters of DejaVu Sans, which are wide, at 9 points.

    A small letter has 0.6 em in the mean, a capital 0.75, M and W 1; the longest label of our lists needs 1.9 inches.
    """
    lines = [line for label in labels for line in label.split("\n")]
    widest = max(sum(1.0 if c in "MW" else 0.75 if c.isupper() else 0.6 for c in line) for line in lines)
    return 0.3 + 9 / 72 * widest


def _coverage(values: dict[str, Any], colours: dict[str, str]) -> str:
    """Draw a row per set and a dot per source: the share of classes expected in equally many captions of each source."""
    sets = values["sets"]
    sources = [(nr, source) for nr, (source, captions) in enumerate(values["captions"].items()) if captions]
    title = f"Classes expected in {values['equal']:,} captions"
    labels = [textwrap.fill(f"{concept_set['name']} ({concept_set['classes']:,})".replace("_", " "), LABEL) for concept_set in sets]
    height = 0.9 + 0.35 * len(sets)
    with plots.chart("concepts-coverage", title, "share of the set's classes", "", height=height, left=room(labels)) as drawn:
        for place, (nr, source) in enumerate(sources):
            # Sources lie a little above one another, so that equal shares stay apart.
            offset = 0.6 * ((place + 0.5) / len(sources) - 0.5)
            shares = [concept_set["sources"][nr]["equal_share"] for concept_set in sets]
            drawn.axes.plot(shares, [row + offset for row in range(len(sets))], "o", markersize=5, color=colours[source])
        drawn.axes.set_yticks(range(len(sets)), labels)
        drawn.axes.set_ylim(len(sets) - 0.5, -0.5)
        drawn.axes.set_xlim(-0.02, 1.02)
        drawn.axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"])
    return drawn.svg
