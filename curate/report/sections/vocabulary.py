"""Vocabulary: how many words each source has, how they are distributed, and the commonest words and bigrams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from curate.report.histograms import share
from curate.report.stats import token_counts, totals
from curate.report.stopwords import STOP_WORDS
from curate.report.subject import Subject

if TYPE_CHECKING:
    import duckdb

TOP = 30  # commonest words and bigrams listed
DEPTH = 3_000  # commonest ones fetched, in which TOP without stop words are looked for
TABLE = 5_000  # words of the searchable table


def collect(subject: Subject) -> dict[str, Any]:
    """Return per source, and for all together: tokens, types, the type–token and rank–frequency curves with the laws fitted to them,
    the share of words that occur once, top words and bigrams; and the commonest words of all with their counts per source.

    All counts are exact. `rarefied` is the number of different words expected in a random sample of as many tokens as the smallest
    source has, `equal`: by it vocabularies of sources of different sizes compare.
    """
    con, sources = subject.con, subject.sources
    pool_words(con)
    equal = min(token_counts(con).values(), default=0)
    captions = totals(con, "words")
    own = "(SELECT * FROM words WHERE source = $source)", "(SELECT * FROM bigrams WHERE source = $source)"
    summed = "bigrams" if len(sources) == 1 else "(SELECT bigram, sum(count)::BIGINT AS count FROM bigrams GROUP BY bigram)"
    table = _table(con, sources)
    return {
        "equal": equal,
        "sources": {s: {"captions": captions.get(s, 0)} | _described(con, *own, {"source": s}, equal) for s in sources},
        "all": {"captions": sum(captions.values())} | _described(con, "pool", summed, {}, equal),
        "stop_words": sorted(STOP_WORDS),
        "listed": len(table["rows"]),
        "table": table,
    }


def pool_words(con: duckdb.DuckDBPyConnection) -> None:
    """Make the table `pool` (word, count, captions): the words of all sources together."""
    sums = "sum(count)::BIGINT AS count, sum(captions)::BIGINT AS captions"
    con.execute(f"CREATE OR REPLACE TEMP TABLE pool AS SELECT word, {sums} FROM words GROUP BY word")


def _described(con: duckdb.DuckDBPyConnection, words: str, bigrams: str, given: dict[str, str], equal: int) -> dict[str, Any]:
    """Return the numbers of the words and bigrams that two subqueries with parameters `given` name."""
    import numpy as np

    from curate.report import spectrum

    found = con.execute(f"SELECT count, count(*) AS types FROM {words} GROUP BY count ORDER BY count", given).fetchnumpy()
    counts, types = np.asarray(found["count"], np.int64), np.asarray(found["types"], np.int64)
    tokens, n, hapax = int((counts * types).sum()), int(types.sum()), int(types[counts == 1].sum())
    equal = min(equal, tokens)
    _, _, top_words = _commonest(con, words, "word", ("captions",), given)
    different, pairs, top_bigrams = _commonest(con, bigrams, "bigram", (), given)
    return {
        "tokens": tokens,
        "types": n,
        "hapax": hapax,
        "hapax_share": share(hapax, n),
        "rarefied": {"tokens": equal, "types": round(float(spectrum.rarefied(counts, types, np.array([equal]))[0]))},
        "heaps": spectrum.heaps(counts, types),
        "zipf": spectrum.zipf(counts, types),
        "words": top_words,
        "bigrams": {"types": different, "tokens": pairs, **top_bigrams},
    }


def _commonest(
    con: duckdb.DuckDBPyConnection, rows: str, key: str, more: tuple[str, ...], given: dict[str, str]
) -> tuple[int, int, dict[str, Any]]:
    """Return how many rows there are, their sum, and the TOP ones: {"all", "content"}, those of equal count by their bytes.

    `content` are the TOP without stop words. They are looked for among the DEPTH commonest, and only where these do not suffice
    among all: that takes seconds for ten million bigrams.
    """
    first = ", ".join(f"'{name}': {name}" for name in (key, *more))
    least = f"min({{'down': -count, {first}}}, {DEPTH})"  # the DEPTH smallest rows: count descending, then the text
    n, total, deep = con.execute(f"SELECT count(*), coalesce(sum(count), 0)::BIGINT, {least} FROM {rows}", given).fetchall()[0]
    deep = [{key: row[key], "count": -row["down"], **{name: row[name] for name in more}} for row in deep or []]
    content = [row for row in deep if STOP_WORDS.isdisjoint(row[key].split(" "))][:TOP]
    if len(content) < TOP and n > DEPTH:
        columns = ", ".join((key, "count", *more))
        free = f"NOT list_has_any(string_split({key}, ' '), $stop)"
        query = f"SELECT {columns} FROM {rows} WHERE {free} ORDER BY count DESC, {key} LIMIT {TOP}"
        rows_found = con.execute(query, {**given, "stop": sorted(STOP_WORDS)}).fetchall()
        content = [dict(zip((key, "count", *more), row, strict=True)) for row in rows_found]
    return n, total, {"all": deep[:TOP], "content": content}


def _table(con: duckdb.DuckDBPyConnection, sources: tuple[str, ...]) -> dict[str, Any]:
    """Return the TABLE commonest words of all: word, occurrences, captions that hold it, occurrences in each source."""
    con.execute(f"CREATE OR REPLACE TEMP TABLE commonest AS SELECT * FROM pool ORDER BY count DESC, word LIMIT {TABLE}")
    counts = {
        (word, source): n
        for word, source, n in con.execute("SELECT word, source, w.count FROM words w SEMI JOIN commonest USING (word)").fetchall()
    }
    rows = con.execute("SELECT word, count, captions FROM commonest ORDER BY count DESC, word").fetchall()
    each = sources if len(sources) > 1 else ()
    columns = [{"name": "word", "number": False}, *({"name": name, "number": True} for name in ("count", "captions", *each))]
    return {"columns": columns, "rows": [[word, n, holding, *(counts.get((word, s), 0) for s in each)] for word, n, holding in rows]}


def figures(values: dict[str, Any], colours: dict[str, str]) -> dict[str, str]:
    """Draw the type–token and the rank–frequency curves, a line per source."""
    from curate.report import plots

    sources = {source: found for source, found in values["sources"].items() if found["tokens"]}
    if not sources:
        return {}
    n = f"n = {values['all']['tokens']:,} tokens"
    return {
        "heaps": plots.lines(
            "heaps", f"Different words in a sample of tokens, {n}", _curves(sources, "heaps"), colours,
            x="tokens drawn at random", y="different words, expected", log_x=True, log_y=True,
        ),
        "zipf": plots.lines(
            "zipf", f"Words by rank and frequency, {n}", _curves(sources, "zipf"), colours,
            x="rank of the word", y="occurrences", log_x=True, log_y=True,
        ),
    }  # fmt: skip


def _curves(sources: dict[str, Any], law: str) -> dict[str, tuple[Sequence[float], Sequence[float]]]:
    curves = {source: found[law]["curve"] for source, found in sources.items()}
    return {source: ([x for x, _ in curve], [y for _, y in curve]) for source, curve in curves.items()}
