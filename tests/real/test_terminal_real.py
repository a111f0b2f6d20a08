"""Real captions on a terminal: what `--word` counts and `shards inspect` shows, against the caption files themselves."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from curate import cli
from shards import cli as shards_cli

pytestmark = pytest.mark.slow  # the build, with its report


@pytest.fixture(scope="module")
def built(realdata: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Flickr8k, all five captions of each photo, all kept."""
    out = str(tmp_path_factory.mktemp("terminal") / "build")
    flags = ["--captions", "each", "--samples", "all", "--samples-per-shard", "200", "--no-near", "--no-exact", "--no-profanity"]
    source = ["--source", "folder", "--input", str(realdata / "pairs/flickr8k"), "--name", "flickr8k"]
    assert cli.main(["build-shards", *source, *flags, "--output", out, "--engine", "inline"]) == 0
    return out


def captions(realdata: Path) -> list[str]:
    with (realdata / "pairs/flickr8k/captions.txt").open(newline="") as file:
        return [row["caption"] for row in csv.DictReader(file)]


@pytest.mark.parametrize("word", ["dog", "white dog", "in the snow", "a"])
def test_words_are_counted_as_in_the_file(built: str, realdata: Path, capsys: pytest.CaptureFixture[str], word: str) -> None:
    whole = re.compile(rf"(?<![a-z0-9'])(?={word}(?![a-z0-9']))".replace(" ", "[^a-z0-9]+"))  # Flickr8k is ASCII
    times = [len(whole.findall(caption.lower())) for caption in captions(realdata)]
    capsys.readouterr()
    assert cli.main(["report", built, "--word", word, "--most", "3", "--json", "--engine", "inline"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["sources"].values()
    assert (found["captions"], found["occurrences"]) == (sum(n > 0 for n in times), sum(times))
    assert found["all_captions"] == len(times)
    for row in found["rows"]:
        assert row["caption"] in set(captions(realdata))
        assert [row["caption"][a:b].lower() for a, b in row["at"]] == [word] * len(row["at"])


def test_inspect_shows_lengths_as_in_the_file(built: str, realdata: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lengths = sorted(len(caption.split()) for caption in captions(realdata))
    capsys.readouterr()
    assert shards_cli.main(["inspect", built, "--json"]) == 0
    words = json.loads(capsys.readouterr().out)["distributions"]["words"]["all"]
    assert (words["samples"], words["min"], words["max"]) == (len(lengths), lengths[0], lengths[-1])
    assert words["median"] == lengths[(len(lengths) - 1) // 2]
