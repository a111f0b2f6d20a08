"""Words and bigrams counted per CPU-second of one core, against a plain Counter; CLIP tokens; whole statistics made, and added up.

1. Real captions in random order, until there are --captions of them, to every second one of which a number is added, so that
   there are more different words and bigrams. `count` is given them as an Arrow array, as sidecars have them, Counter as a list.
   Both run in turns; the counts must be equal.
2. Shards of 10,000 of these captions are counted as a build counts them, all kinds of statistics, in a process of its own: the
   first shard loads what is compiled and meets every word for the first time. CLIP tokens alone, too.
3. --shards tables of statistics of 10,000 captions each are added up: text by Zipf's law over 300,000 words drawn one by one,
   hence with more different bigrams than real text has.

    python benchmarks/words.py [--captions 1000000] [--rounds 3] [--shards 100]
"""

from __future__ import annotations

import argparse
import ast
import itertools
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _captions import REAL, captions
from _record import record

VOCABULARY, EXPONENT, PER_SHARD = 300_000, 1.05, 10_000
LETTERS = "etaoinshrdlcumwfgypbvkjxqz"
QUERIES = {
    "bigrams": "SELECT source, count(*), sum(count) FROM bigrams GROUP BY ALL",
    "top": "SELECT bigram, count FROM bigrams ORDER BY count DESC, bigram LIMIT 5000",
    "spectrum": "SELECT count, count(*) FROM bigrams GROUP BY ALL",
    "words": "SELECT count(*) FROM words",
}


def main() -> None:
    """Time both, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--captions", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shards", type=int, default=100)
    parser.add_argument("--added-up", metavar="FOLDER", help=argparse.SUPPRESS)
    parser.add_argument("--made", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.made:
        print(repr(made()))
        return
    if arguments.added_up:
        print(repr(add_up(arguments.added_up)))
        return
    if not REAL.is_dir():
        print(f"words: no real captions at {REAL}; PROVENDER_REALDATA names another place")
        return
    making = ast.literal_eval(own_process("--made"))
    values = {"counting": counting(varied(arguments.captions), arguments.rounds), "making": making, "adding": adding(arguments.shards)}
    record("words", values, line(values))


def line(values: dict[str, Any]) -> str:
    """Return the line for RESULTS.md."""
    ours, made, sums = values["counting"], values["making"], values["adding"]
    return (
        f"{ours['captions']:,} real captions ({ours['words'] / 1e6:.1f} M words, {ours['different_words']:,} different, "
        f"{ours['different_bigrams']:,} bigrams), one core: words and bigrams counted in {ours['seconds']:.2f} CPU-s (target 4), "
        f"{ours['ratio']:.1f}× a Counter over the same words (target 3×; {ours['counter_seconds']:.1f} CPU-s), equal counts; "
        f"all statistics of {PER_SHARD:,} of them: {made['seconds']:.2f} CPU-s ({made['first_seconds']:.2f} for the first, with loading), "
        f"{made['bytes_a_sample']:.0f} bytes a sample, {made['peak_mb']} MB above the {made['before_mb']} MB before; "
        f"CLIP tokens {made['clip_tokens'] / 1000:,.0f} k captions/CPU-s ({made['clip_tokens_cold'] / 1000:,.0f} k while words are new); "
        f"statistics of {sums['shards']:,} shards of {PER_SHARD:,} ({sums['different_words']:,} words, "
        f"{sums['different_bigrams'] / 1e6:.1f} M bigrams from {sums['rows'] / 1e6:.1f} M rows): added up in {sums['seconds']:.1f} s "
        f"({sums['cpu_seconds']:.1f} CPU-s), asked in {sums['query_seconds']:.1f} s, {sums['peak_mb']:,} MB; "
        f"{sums['count_seconds']:.3f} CPU-s and {sums['kilobytes']:.0f} kB a shard to make"
    )


def varied(n: int) -> list[str]:
    """Return n captions: the real ones in random order, again and again, every second one with a number."""
    rng, found = random.Random(0), captions()
    return [f"{text} {rng.randrange(100_000)}" if i % 2 else text for i, text in enumerate(rng.choices(found, k=n))]


def counting(texts: list[str], rounds: int) -> dict[str, Any]:
    """Count the texts in turns by both means."""
    import pyarrow as pa

    from curate.report.wordcount import count, tokens

    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    array = pa.array(texts)
    count(array[:1000])  # compiled, and the patterns made

    def plain() -> tuple[Counter[str], Counter[tuple[str, str]]]:
        words, bigrams = Counter[str](), Counter[tuple[str, str]]()
        for text in texts:
            found = tokens(text)
            words.update(found)
            bigrams.update(itertools.pairwise(found))
        return words, bigrams

    times: dict[str, list[float]] = {"ours": [], "counter": []}
    for _ in range(rounds):
        ours = timed(lambda: count(array), times["ours"])
        words, bigrams = timed(plain, times["counter"])
    names = ours.words
    assert dict(zip(names, ours.count.tolist(), strict=True)) == words
    pairs = zip(ours.first.tolist(), ours.second.tolist(), ours.pairs.tolist(), strict=True)
    assert {(names[a], names[b]): n for a, b, n in pairs} == bigrams
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    return {
        "captions": len(texts),
        "words": int(ours.lengths.sum()),
        "different_words": len(words),
        "different_bigrams": len(bigrams),
        "seconds": statistics.median(times["ours"]),
        "counter_seconds": statistics.median(times["counter"]),
        "ratio": statistics.median(b / a for a, b in zip(times["ours"], times["counter"], strict=True)),
        "times": times,
    }


def own_process(*arguments: str) -> str:
    """Run a part of this benchmark in a process of its own and return what it prints."""
    return subprocess.run([sys.executable, __file__, *arguments], check=True, capture_output=True, text=True).stdout


def made() -> dict[str, Any]:
    """Count shards of real captions, in three sources, with all that a sidecar says."""
    import numpy as np
    import pyarrow as pa

    texts, rng = varied(6 * PER_SHARD), np.random.default_rng(0)
    shards = []
    for start in range(0, len(texts), PER_SHARD):
        size = rng.integers(200, 2000, (2, PER_SHARD), np.int32)
        columns = {"source": np.array(["one", "two", "three"])[rng.integers(0, 3, PER_SHARD)], "caption": texts[start : start + PER_SHARD]}
        columns |= {"width": size[0], "height": size[1], "bytes": size.prod(0, dtype=np.int64) // 8}
        shards.append(pa.table(columns | {"information": rng.uniform(0, 60, PER_SHARD), "original_format": ["JPEG"] * PER_SHARD}))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for shard in shards:
            timed(lambda shard=shard: count_shard(shard, f"{folder}/one.parquet"), times)
        size_of = Path(folder, "one.parquet").stat().st_size
    from curate.report import clip_tokens
    from shards.clip_bpe import clip_bpe

    clip: list[float] = []
    clip_bpe()._words.clear()
    for _ in range(4):
        timed(lambda: clip_tokens.clip_tokens(shards[0]["caption"]), clip)
    return {
        "first_seconds": times[0],
        "seconds": statistics.median(times[1:]),
        "bytes_a_sample": size_of / PER_SHARD,
        "before_mb": before // 1000,
        "peak_mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1000,
        "clip_tokens_cold": PER_SHARD / clip[0],
        "clip_tokens": PER_SHARD / statistics.median(clip[1:]),
    }


def count_shard(rows: Any, path: str) -> None:
    """Count a shard and write what was counted."""
    from curate.report.stats import count_rows, write_statistics

    write_statistics(path, count_rows(rows))


def timed(run: Callable[[], Any], times: list[float]) -> Any:
    """Run it once and note its CPU-seconds."""
    start = time.process_time()
    result = run()
    times.append(time.process_time() - start)
    return result


def adding(shards: int) -> dict[str, Any]:
    """Make statistics of synthetic shards, and add them up in a process of its own, whose memory is measured."""
    from curate.report.stats import count_rows, write_statistics

    with tempfile.TemporaryDirectory() as folder:
        times: list[float] = []
        rows = 0
        for number, table in enumerate(zipf(shards)):
            found = timed(lambda table=table: count_rows(table), times)
            rows += found.num_rows
            write_statistics(f"{folder}/{number:05d}.parquet", found)
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
        done = own_process("--added-up", folder)
    values = {"shards": shards, "rows": rows, "count_seconds": statistics.median(times), "kilobytes": size / shards / 1000}
    return values | ast.literal_eval(done)


def zipf(shards: int, seed: int = 0) -> Any:
    """Yield shards of captions of 3 to 17 words, a word of rank r being as likely as r ** -EXPONENT."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    rng = np.random.default_rng(seed)
    likely = np.cumsum(np.arange(1, VOCABULARY + 1) ** -EXPONENT)
    words = pa.array([spelled(rank) for rank in range(VOCABULARY)])
    for _ in range(shards):
        lengths = rng.integers(3, 18, PER_SHARD)
        ranks = np.minimum(np.searchsorted(likely, rng.random(lengths.sum()) * likely[-1]), VOCABULARY - 1)
        ends = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
        text = pc.binary_join(pa.ListArray.from_arrays(ends, words.take(pa.array(ranks))), " ")
        size = rng.integers(200, 2000, (2, PER_SHARD), np.int32)
        source = np.array(["one", "two", "three"])[rng.integers(0, 3, PER_SHARD)]
        yield pa.table({"source": source, "caption": text, "width": size[0], "height": size[1], "bytes": size.prod(0, dtype=np.int64) // 8})


def spelled(rank: int) -> str:
    """Return the word of a rank: the commoner, the shorter; no two alike."""
    word = ""
    while True:
        rank, letter = divmod(rank, len(LETTERS))
        word += LETTERS[letter] * (2 if rank else 1)  # about as long as words of captions are
        if not rank:
            return word


def add_up(folder: str) -> dict[str, Any]:
    """Add up statistics, ask what a report asks, and say what that took."""
    from curate.report import stats

    start, cpu = time.perf_counter(), time.process_time()
    with stats.add_up(sorted(str(path) for path in Path(folder).iterdir())) as con:
        added, cpu_added = time.perf_counter() - start, time.process_time() - cpu
        found = {name: con.sql(query).fetchall() for name, query in QUERIES.items()}
        asked = time.perf_counter() - start - added
        different = con.sql("SELECT count(DISTINCT word) FROM words").fetchall()[0][0]
    return {
        "seconds": added,
        "cpu_seconds": cpu_added,
        "query_seconds": asked,
        "different_words": different,
        "different_bigrams": sum(row[1] for row in found["bigrams"]),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000,
    }


if __name__ == "__main__":
    main()
