"""Words that set a source apart from the others: log-odds ratios with an informative Dirichlet prior.

After Monroe, Colaresi and Quinn (2008), "Fightin' Words: Lexical Feature Selection and Evaluation for Identifying the Content of
Political Conflict", Political Analysis 16, 372–403. A source says a word y times in n, all others together y' times in n'.
The prior of both is the share p of the word in all sources, as if a0 tokens of it had been seen: a = a0 · p (their eq. 23).

    log-odds ratio  d = ln((y + a) / (n + a0 - y - a)) - ln((y' + a) / (n' + a0 - y' - a))     (eq. 15 and 16, of point estimates)
    its variance    v = 1 / (y + a) + 1 / (y' + a)                                             (eq. 20)
    z = d / sqrt(v)                                                                            (eq. 22)

Here a0 = min(n, n'): as much text as the smaller side has. A fixed a0 would be little beside large sources, and a word that
one side alone says would drown in the variance 1 / a of the side that never says it. So the order of the words also does not depend on
size: ten times the text, in the same proportions, has sqrt(10) times the z. The prior pulls z toward zero: it is cautious.
But words come in bunches, and a source has thousands: z ranks them, and is no test of one word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from curate.report import stats
from curate.report.sections.vocabulary import pool_words
from curate.report.stopwords import STOP_WORDS
from curate.report.subject import Subject

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

TOP, TOP_STOP = 20, 10  # words listed each way, and stop words
LEAST = 1.96  # |z| of a word that is listed
SAMPLES = 4  # captions shown of a word
SCORED = """
WITH counted AS (
    SELECT word, coalesce(own.count, 0) AS y, pool.count - coalesce(own.count, 0) AS rest, $a0::DOUBLE * pool.count / ($n + $others) AS a
    FROM pool LEFT JOIN (SELECT word, count FROM words WHERE source = $source) own USING (word)),
scored AS (
    SELECT *, ln((y + a) / ($n + $a0 - y - a)) - ln((rest + a) / ($others + $a0 - rest - a)) AS d,
        d / sqrt(1 / (y + a) + 1 / (rest + a)) AS z
    FROM counted)
SELECT word, list_contains($stop, word) AS stop, y, rest, d, z FROM scored WHERE {sign} * z >= {least}
QUALIFY row_number() OVER (PARTITION BY stop ORDER BY {sign} * z DESC, word) <= if(stop, {top_stop}, {top})
ORDER BY {sign} * z DESC, word
"""


def collect(subject: Subject) -> dict[str, Any]:
    """Return the words that each source says more (`side` over) and less often (under) than all others together.

    `words`: rows of one list; of each source and side the TOP words that are no stop words, and TOP_STOP stop words, by z: `count`
    in the source and in the `rest`, both also per million words. Words with |z| < LEAST are in no list.
    `samples`: by source and word up to SAMPLES rows of the random sample whose captions say it, lowest ranks first.
    With one source, or fewer that say anything, there is nothing to compare, and both are empty.
    """
    con = subject.con
    tokens = {source: n for source, n in stats.token_counts(con).items() if n}
    compared = [source for source in subject.sources if source in tokens] if len(tokens) > 1 else []
    total = sum(tokens.values())
    if compared:
        pool_words(con)
    words = [row for source in compared for row in _apart(con, source, tokens[source], total - tokens[source])]
    listed: dict[str, set[str]] = {source: set() for source in compared}
    for row in words:
        listed[row["source"]].add(row["word"])
    sides = {
        source: {"tokens": tokens[source], "rest": total - tokens[source], "prior": _prior(tokens[source], total)} for source in compared
    }
    return {"least": LEAST, "sources": sides, "words": words, "samples": _samples(subject.sample, listed)}


def _prior(n: int, total: int) -> int:
    return min(n, total - n)


def _apart(con: duckdb.DuckDBPyConnection, source: str, n: int, others: int) -> list[dict[str, Any]]:
    rows = []
    given = {"source": source, "n": n, "others": others, "a0": _prior(n, n + others), "stop": sorted(STOP_WORDS)}
    for side, sign in (("over", 1), ("under", -1)):
        query = SCORED.format(sign=sign, least=LEAST, top=TOP, top_stop=TOP_STOP)
        for word, stop, y, rest, d, z in con.execute(query, given).fetchall():
            rows.append(
                {
                    "source": source,
                    "side": side,
                    "word": word,
                    "stop": stop,
                    "count": y,
                    "rest": rest,
                    "per_million": round(1e6 * y / n, 2),
                    "rest_per_million": round(1e6 * rest / others, 2),
                    "log_odds": round(d, 3),
                    "z": round(z, 2),
                }
            )
    return rows


def _samples(sample: pa.Table, listed: dict[str, set[str]]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Return rows of the sample for each listed word of a source, at most SAMPLES, in the sample's order: lowest rank first."""
    from curate.report.sampled import sample_of, shown
    from curate.report.wordcount import tokens

    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for source, words in listed.items():
        found[source] = {word: [] for word in sorted(words)}
        for row in sample_of(sample, source):
            for word in words.intersection(tokens(row["caption"] or "")):
                if len(found[source][word]) < SAMPLES:
                    found[source][word].append(shown(row))
    return found


def figures(values: dict[str, Any], colours: dict[str, str]) -> dict[str, str]:
    """There is nothing to draw: the bars stand beside the words."""
    return {}
