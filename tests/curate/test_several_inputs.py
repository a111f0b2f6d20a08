"""Several native files for `curate fetch` and `curate report`, and plug-ins from files for them and for `curate list`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from curate.cli import COMMANDS, main
from curate.fetch.normalise import normalise
from shards.core import cli, registry
from shards.sample import uid_of

SOURCE = '''"""URLs and captions with a bar between them."""

from dataclasses import dataclass

from curate.sources.base import Record, list_inputs
from shards.core.config import option

VERSION = 1
IMAGES = "pool"


@dataclass(frozen=True)
class Options:
    mark: str = option("|", "what stands between URL and caption")


def inputs(pattern, options):
    return list_inputs(pattern, (".bars",))


def read(input, options):
    with open(input.path) as file:
        for row, line in enumerate(file):
            url, caption = line.strip().split(options.mark)
            yield Record(url, (caption,), row, (url,))
'''
FILTER = '''"""Refuse nothing at all."""

from dataclasses import dataclass

VERSION = 1
MEASURE = ()
COLUMNS = ()


@dataclass(frozen=True)
class Options:
    pass


def measurer(options):
    return lambda facts: ()


def refuse(options):
    return "false"


def detail(options):
    return "''"
'''


@pytest.fixture(autouse=True)
def forget_plugins() -> Iterator[None]:
    yield
    registry._given.clear()


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Four files, of which one is not asked for."""
    paths = []
    for name in "abcd":
        paths.append(tmp_path / f"{name}.tsv")
        paths[-1].write_text(f"a dog called {name}\thttps://example.org/{name}.jpg\n")
    return paths


WAYS = {
    "a repeated flag": lambda a, b, c: ["--input", a, "--input", b, "--input", c],
    "several behind one flag": lambda a, b, c: ["--input", a, b, c],
    "both": lambda a, b, c: ["--input", a, b, "--input", c],
}


def urls_of(folder: Path) -> list[str]:
    import pyarrow.parquet as pq

    return sorted(url for path in folder.glob("*.parquet") for url in pq.read_table(path)["url"].to_pylist())


@pytest.mark.parametrize("way", list(WAYS))
def test_fetch_takes_all_that_are_named_and_no_other(
    files: list[Path], tmp_path: Path, way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--source", "cc3m", "--output", str(tmp_path / "pool"), *WAYS[way](*map(str, files[:3]))]
    config = cli.parse("curate fetch", COMMANDS["fetch"], flags)
    rows = normalise(config, str(tmp_path / "rows"))
    assert urls_of(tmp_path / "rows") == [f"https://example.org/{name}.jpg" for name in "abc"]
    assert rows.records == 3
    assert "given twice" not in capsys.readouterr().err


@pytest.mark.parametrize("way", list(WAYS))
def test_report_takes_all_that_are_named_and_no_other(files: list[Path], way: str, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--source", "cc3m", *WAYS[way](*map(str, files[:3])), "--word", "dog", "--json", "--engine", "inline"]
    assert main(["report", *flags]) == 0
    printed = capsys.readouterr()
    (source,) = json.loads(printed.out)["sources"].values()
    assert (source["captions"], [row["caption"][-1] for row in sorted(source["rows"], key=lambda row: row["caption"])]) == (3, list("abc"))
    assert "given twice" not in printed.err


def test_one_input_is_its_own_pattern(files: list[Path], tmp_path: Path) -> None:
    """Names of inputs, and with them the ids of some sources, are those of a pool that was begun with one `--input`."""
    flags = ["--source", "cc3m", "--output", str(tmp_path / "pool"), "--input", str(files[0])]
    assert cli.parse("curate fetch", COMMANDS["fetch"], flags).pattern == str(files[0])


def test_fetch_and_report_find_a_source_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plugin, native = tmp_path / "bars.py", tmp_path / "x.bars"
    plugin.write_text(SOURCE)
    native.write_text("https://example.org/1.jpg;a dog\nhttps://example.org/2.jpg;two dogs\n")
    named = ["--source", "bars", "--input", str(native), "--plugin", str(plugin), "--mark", ";"]
    config = cli.parse("curate fetch", COMMANDS["fetch"], [*named, "--output", str(tmp_path / "pool")])
    assert normalise(config, str(tmp_path / "rows")).urls == 2
    registry._given.clear()
    assert main(["report", *named, "--word", "dog", "--json", "--workers", "1"]) == 0  # in a worker process
    (source,) = json.loads(capsys.readouterr().out)["sources"].values()
    assert [row["uid"] for row in source["rows"]] == [uid_of("bars", "https://example.org/1.jpg")]


def test_report_finds_the_sources_that_a_recipe_brings_along(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bars.py").write_text(SOURCE)
    (tmp_path / "x.bars").write_text("https://example.org/1.jpg|a dog\n")
    recipe = {"plugins": [str(tmp_path / "bars.py")], "sources": [{"reader": "bars", "input": str(tmp_path / "x.bars")}]}
    (tmp_path / "r.yaml").write_text(json.dumps(recipe))
    assert main(["report", "--config", str(tmp_path / "r.yaml"), "--word", "dog", "--json", "--engine", "inline"]) == 0
    assert list(json.loads(capsys.readouterr().out)["sources"]) == ["bars"]


def test_list_shows_plugins_from_files_with_their_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bars.py").write_text(SOURCE)
    (tmp_path / "nothing.py").write_text(FILTER)
    files = ["--plugin", str(tmp_path / "bars.py"), str(tmp_path / "nothing.py")]
    assert main(["list", "sources", *files]) == 0
    assert "bars: URLs and captions with a bar between them.\n    mark: " in capsys.readouterr().out
    registry._given.clear()
    assert main(["list", "filters", *files, "--json"]) == 0
    assert {"name": "nothing", "about": "Refuse nothing at all.", "options": {}} in json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("verb", ["fetch", "report", "list"])
def test_a_plugin_that_is_not_there_is_said(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    flags = {"fetch": ["--source", "cc3m", "--input", "x", "--output", "y"], "report": ["x"], "list": []}[verb]
    assert main([verb, *flags, "--plugin", "none.py"]) == 2
    assert "no plug-in at 'none.py'" in capsys.readouterr().err
