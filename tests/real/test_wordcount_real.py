"""Words and bigrams of real captions and of naughty strings, against a plain Counter."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path

import pytest
from real_captions import captions

from curate.report.wordcount import count, tokens


def naughty_strings(realdata: Path) -> list[str]:
    return [text.encode("utf-8", "replace").decode() for text in json.loads((realdata / "text/naughty_strings.json").read_text())]


@pytest.mark.parametrize(("texts", "fewest"), [(captions, 9_000), (naughty_strings, 300)])
def test_counts_are_the_counters(realdata: Path, texts: object, fewest: int) -> None:
    every = texts(realdata)  # type: ignore[operator]
    found = count(every)
    split = [tokens(caption) for caption in every]
    assert dict(zip(found.words, found.count.tolist(), strict=True)) == Counter(itertools.chain(*split))
    assert dict(zip(found.words, found.captions.tolist(), strict=True)) == Counter(w for words in split for w in set(words))
    bigrams = {(found.words[a], found.words[b]): n for a, b, n in zip(found.first, found.second, found.pairs.tolist(), strict=True)}
    assert bigrams == Counter(pair for words in split for pair in itertools.pairwise(words))
    assert found.lengths.tolist() == [len(words) for words in split]
    assert len(found.words) > fewest
