"""Words and bigrams of real captions and of naughty strings, against a plain Counter."""

from __future__ import annotations

import csv
import gzip
import itertools
import json
from collections import Counter
from pathlib import Path

import pytest

from curate.report.wordcount import count, tokens


def real_captions(realdata: Path) -> list[str]:
    with gzip.open(realdata / "captions/captions.tsv.gz", "rt", encoding="utf-8", newline="\n") as file:
        return [row["caption"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]


def naughty_strings(realdata: Path) -> list[str]:
    return [text.encode("utf-8", "replace").decode() for text in json.loads((realdata / "text/naughty_strings.json").read_text())]


@pytest.mark.parametrize(("texts", "fewest"), [(real_captions, 9_000), (naughty_strings, 300)])
def test_counts_are_the_counters(realdata: Path, texts: object, fewest: int) -> None:
    captions = texts(realdata)  # type: ignore[operator]
    found = count(captions)
    split = [tokens(caption) for caption in captions]
    assert dict(zip(found.words, found.count.tolist(), strict=True)) == Counter(itertools.chain(*split))
    assert dict(zip(found.words, found.captions.tolist(), strict=True)) == Counter(w for words in split for w in set(words))
    bigrams = {(found.words[a], found.words[b]): n for a, b, n in zip(found.first, found.second, found.pairs.tolist(), strict=True)}
    assert bigrams == Counter(pair for words in split for pair in itertools.pairwise(words))
    assert found.lengths.tolist() == [len(words) for words in split]
    assert len(found.words) > fewest
