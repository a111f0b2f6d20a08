"""Mentions of the classes of all default lists, per CPU-second of one core: `mentions` against a plain search through tokens.

Real captions, as in words.py, are counted once (`wordcount.count`); then classes are searched in the stream of words. The plain
search, a dictionary of forms asked for the longest form at every word, gets a part of them; the counts of that part must be equal.

    python benchmarks/concepts.py [--captions 1000000] [--plain 50000] [--rounds 3]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _captions import REAL
from _record import record
from words import varied


def main() -> None:
    """Time both, and write the figures."""
    from curate.report.concepts import default_lists, mentions
    from curate.report.wordcount import count, tokens

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--captions", type=int, default=1_000_000)
    parser.add_argument("--plain", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if not REAL.is_dir():
        print(f"concepts: no real captions at {REAL}; PROVENDER_REALDATA names another place")
        return
    lists, captions = default_lists(), varied(arguments.captions)
    part = captions[: arguments.plain]
    found = {(row["set"], row["class"]): row["count"] for row in mentions(count(part), lists).to_pylist()}  # compiles the loop
    split = [tokens(caption) for caption in part]
    start = time.process_time()
    expected = plain(split)
    plain_rate = len(part) / (time.process_time() - start)
    if found != expected:
        raise SystemExit("concepts: the counts differ")
    counts, times = count(captions), []
    for _ in range(arguments.rounds):
        start = time.process_time()
        table = mentions(counts, lists)
        times.append(time.process_time() - start)
    rate = len(captions) / statistics.median(times)
    classes = sum(len(one.classes) for one in lists)
    values = {
        "captions": len(captions), "lists": len(lists), "classes": classes, "mentioned": table.num_rows,
        "mentions": sum(table["count"].to_pylist()), "captions_per_second": round(rate), "plain_per_second": round(plain_rate),
    }  # fmt: skip
    line = (
        f"{len(captions):,} real captions, {classes:,} classes of {len(lists)} lists, one core: {rate / 1e6:.1f} M captions per CPU-s "
        f"searched after words are counted (target 0.5), {rate / plain_rate:,.0f}× a plain search through the same words, equal counts"
    )
    record("concepts", values, line)


def plain(captions: list[list[str]]) -> Counter[tuple[str, str]]:
    """Count mentions by asking, at every word, for the longest form that begins there."""
    from curate.report.concepts import default_lists, forms_of

    found: Counter[tuple[str, str]] = Counter()
    for one in default_lists():
        forms = forms_of(one)
        longest = max(map(len, forms))
        for words in captions:
            at = 0
            while at < len(words):
                size = next((n for n in range(longest, 0, -1) if tuple(words[at : at + n]) in forms and at + n <= len(words)), 0)
                for place in forms[tuple(words[at : at + size])] if size else ():
                    found[one.name, one.classes[place][0]] += 1
                at += size or 1
    return found


if __name__ == "__main__":
    main()
