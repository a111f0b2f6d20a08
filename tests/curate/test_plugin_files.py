"""Filters and sources from files: on by `--plugin` and by a recipe, digested into it, and named where they fail."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from drawing import encoded, picture
from native import ledger, sidecar

from curate.cli import main
from curate.config import BuildConfig, resolve
from shards.core import registry

Build = Callable[..., tuple[int, Path, str]]
Captioned = Callable[..., Path]

FILTER = '''"""Drop captions with too many vowels."""

from dataclasses import dataclass

from shards.core.config import option

VERSION = 1
MEASURE = ()
COLUMNS = (("count", "int32"),)


@dataclass(frozen=True)
class Options:
    most: int = option(4, "most vowels", least=0)


def measurer(options):
    return lambda facts: (MEASURED,)


def refuse(options):
    return f'"vowels.count" > {options.most}'


def detail(options):
    return """concat("vowels.count", ' vowels')"""
'''
MEASURED = "sum(letter in 'aeiou' for letter in facts.caption)"
SOURCE = '''"""Read pictures named in a file of lines."""

from __future__ import annotations

from dataclasses import dataclass

from curate.sources.base import Pointer, Record, list_inputs

VERSION = 1
IMAGES = "inline"
COLUMNS = (("length", "int64"),)


@dataclass(frozen=True)
class Options:
    pass


def inputs(pattern, options):
    return list_inputs(pattern, (".lines",))


def read(input, options):
    with open(input.path) as file:
        for row, line in enumerate(file):
            path, caption = line.strip().split("|")
            yield Record(path, (caption,), row, image=Pointer(path), meta='{"length": %d}' % len(caption))
'''
CAPTIONS = ["a barn", "an aeroplane above a house", "two dogs", "birds"]
VOWELS = [2, 13, 2, 1]  # counted by hand


@pytest.fixture(autouse=True)
def forget() -> Any:
    yield
    registry._given.clear()


@pytest.fixture
def photos(captioned: Captioned) -> Path:
    return captioned([(f"{i}.jpg", encoded(picture(i)), text) for i, text in enumerate(CAPTIONS)])


def plugin(folder: Path, text: str, name: str = "vowels.py") -> Path:
    path = folder / name
    path.write_text(text.replace("MEASURED", MEASURED))
    return path


def base(photos: Path, **more: Any) -> dict[str, Any]:
    return {"sources": [{"reader": "folder", "input": str(photos)}], "samples": "all"} | more


def test_a_filter_from_a_file_is_on_and_has_flags(build: Build, photos: Path, tmp_path: Path) -> None:
    file = plugin(tmp_path, FILTER)
    flags = ("--source", "folder", "--input", photos, "--samples", "all", "--plugin", file)
    code, out, err = build(*flags)
    assert code == 0, err
    assert [(r["reason"], r["detail"]) for r in sorted(ledger(out), key=lambda r: r["source_id"])][1] == ("vowels", "13 vowels")
    assert sorted(row["vowels.count"] for row in sidecar(out)) == [1, 2, 2]
    code, out, err = build(*flags, "--vowels-most", "1", output="strict")
    assert code == 0, err
    assert [row["vowels.count"] for row in sidecar(out)] == [1]
    code, out, err = build(*flags, "--no-vowels", output="without")
    assert code == 0, err
    assert len(sidecar(out)) == 4


def test_a_recipe_names_plugin_files_and_its_saved_copy_gives_the_same(build: Build, photos: Path, tmp_path: Path) -> None:
    file = plugin(tmp_path, FILTER)
    (tmp_path / "r.yaml").write_text(json.dumps(base(photos, plugins=[str(file)], filters=[{"name": "vowels", "most": 1}])))
    code, out, err = build("--config", tmp_path / "r.yaml")
    assert code == 0, err
    assert [row["vowels.count"] for row in sidecar(out)] == [1]
    registry._given.clear()
    code, again, err = build("--config", out / "recipe.yaml", output="again")
    assert code == 0, err
    assert (again / "manifest.json").read_bytes() == (out / "manifest.json").read_bytes()


def test_the_digest_of_a_recipe_follows_the_files_content(photos: Path, tmp_path: Path) -> None:
    def digest() -> str:
        return resolve(BuildConfig(config=str(tmp_path / "r.yaml"))).digest

    file = plugin(tmp_path, FILTER)
    (tmp_path / "r.yaml").write_text(json.dumps(base(photos, plugins=[str(file)])))
    first = digest()
    file.write_text(file.read_text() + "\n")
    second = digest()
    plugin(tmp_path, FILTER)
    assert (digest() == first, second == first) == (True, False)
    (tmp_path / "r.yaml").write_text(json.dumps(base(photos)))
    assert digest() not in (first, second)


def test_a_changed_file_measures_anew(build: Build, photos: Path, tmp_path: Path) -> None:
    file = plugin(tmp_path, FILTER)
    flags = ("--source", "folder", "--input", photos, "--samples", "all", "--plugin", file, "--no-profanity", "--work", tmp_path / "work")
    assert build(*flags)[0] == 0
    file.write_text(file.read_text().replace("aeiou", "b"))
    code, out, err = build(*flags, output="changed")
    assert code == 0, err
    assert sorted(row["vowels.count"] for row in sidecar(out)) == [0, 1, 1, 1]


@pytest.mark.slow
def test_a_source_from_a_file_in_worker_processes(photos: Path, tmp_path: Path) -> None:
    file = plugin(tmp_path, SOURCE, "lines.py")
    (tmp_path / "set.lines").write_text("".join(f"{photos / f'{i}.jpg'}|{text}\n" for i, text in enumerate(CAPTIONS)))
    flags = ["--source", "lines", "--input", str(tmp_path / "set.lines"), "--samples", "all", "--plugin", str(file), "--workers", "2"]
    assert main(["build-shards", *flags, "--output", str(tmp_path / "out")]) == 0
    assert sorted(row["lines.length"] for row in sidecar(tmp_path / "out")) == sorted(map(len, CAPTIONS))


@pytest.mark.parametrize("engine", ["inline", "local"])
def test_an_error_in_a_filter_names_file_line_and_sample_in_three_lines(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], engine: str
) -> None:
    file = plugin(tmp_path, FILTER.replace("(MEASURED,)", "(1 // (len(facts.caption) - 6),)"))
    line = file.read_text().split("\n").index("    return lambda facts: (1 // (len(facts.caption) - 6),)") + 1
    flags = ["--source", "folder", "--input", str(photos), "--samples", "all", "--plugin", str(file), "--engine", engine]
    assert main(["build-shards", *flags, "--output", str(tmp_path / "out")]) == 1
    err = capsys.readouterr().err
    said = err[err.index("error: ") :].rstrip("\n").split("\n")
    assert said == [
        f"error: {file}, line {line}: ZeroDivisionError: integer division or modulo by zero",
        "  for the sample '0.jpg' of folder",
        "  the line reads: return lambda facts: (1 // (len(facts.caption) - 6),)",
    ]
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("old", "new", "code", "said"),
    [
        ("(MEASURED,)", "('many',)", 1, "it measured 'many', which is no int32"),
        ("(MEASURED,)", "(2**40,)", 1, "which is no int32"),
        ("(MEASURED,)", "(1, 2)", 1, "it measured (1, 2)"),
        ("(MEASURED,)", "None", 1, "it measured None"),
        ('vowels.count" >', 'vowels.cuont" >', 1, "vowels.cuont"),
        ("return f'", "return 3 + f'", 1, "TypeError"),
        ("VERSION = 1", "VERSION = 1 / 0", 1, "line 7: ZeroDivisionError"),
        ("VERSION = 1", "VERSION = (", 1, "line 7: SyntaxError"),
        ("VERSION = 1", "", 2, "lacks VERSION"),
        ('"int32"', '"int33"', 2, "did you mean 'int32'?"),
        ("def refuse", "def refuze", 2, "to be a source"),
    ],
)
def test_a_filter_with_a_mistake_is_named(build: Build, photos: Path, tmp_path: Path, old: str, new: str, code: int, said: str) -> None:
    assert old in FILTER
    file = plugin(tmp_path, FILTER.replace(old, new))
    found, out, err = build("--source", "folder", "--input", photos, "--samples", "all", "--plugin", file)
    assert found == code, err
    assert said in err
    assert "vowels.py" in err
    assert "Traceback" not in err
    assert not (out / "manifest.json").exists()


def test_an_error_in_a_source_names_file_line_and_record(build: Build, photos: Path, tmp_path: Path) -> None:
    file = plugin(tmp_path, SOURCE, "lines.py")
    (tmp_path / "set.lines").write_text(f"{photos / '0.jpg'}|a barn\nno caption here\n")
    code, _, err = build("--source", "lines", "--input", tmp_path / "set.lines", "--samples", "all", "--plugin", file)
    assert code == 1
    line = SOURCE.split("\n").index('            path, caption = line.strip().split("|")') + 1
    assert f"lines.py, line {line}: ValueError: not enough values to unpack" in err
    assert "in read(), at record 1 of set.lines" in err


@pytest.mark.parametrize(("name", "said"), [("profanity.py", "is taken"), ("folder.py", "is taken"), ("kept-1 x.py", "is no word")])
def test_a_name_that_is_taken_or_no_word_is_refused(build: Build, photos: Path, tmp_path: Path, name: str, said: str) -> None:
    code, _, err = build("--source", "folder", "--input", photos, "--samples", "all", "--plugin", plugin(tmp_path, FILTER, name))
    assert code == 2
    assert said in err


def test_a_file_that_is_not_there_is_refused(build: Build, photos: Path) -> None:
    code, _, err = build("--source", "folder", "--input", photos, "--samples", "all", "--plugin", "nowhere.py")
    assert code == 2
    assert "no plug-in at 'nowhere.py'" in err


def test_the_example_of_the_documentation_works_and_the_kinds_are_all_of_them(build: Build, captioned: Captioned, tmp_path: Path) -> None:
    from shards.schema import KINDS, arrow_schema

    page = (Path(__file__).resolve().parents[2] / "docs" / "plugins.md").read_text()
    file = tmp_path / "caption_digits.py"
    file.write_text(page.partition("```python\n")[2].partition("```")[0])
    photos = captioned([("0.jpg", encoded(picture(0)), "12345 67"), ("1.jpg", encoded(picture(1)), "a barn")])
    flags = ("--source", "folder", "--input", photos, "--samples", "all", "--plugin", file, "--caption-digits-max-share", "0.3")
    code, out, err = build(*flags)
    assert code == 0, err
    assert {(r["source_id"], r["reason"], r["detail"]) for r in ledger(out)} == {
        ("0.jpg", "caption_digits", "0.88 digits"), ("1.jpg", "", "")
    }  # fmt: skip
    table = page.partition("## Kinds of columns")[2].partition("## When")[0]
    assert [line.split("`")[1] for line in table.split("\n") if line.startswith("| `")] == list(KINDS)
    assert arrow_schema(tuple((kind, kind) for kind in KINDS)).names == list(KINDS)


WORDS = """
    most: int = option(4, "most vowels", least=0)
    words: LIST = option(DEFAULT, "words that let a caption stay")
"""


@pytest.mark.parametrize(
    ("kind", "empty"),
    [
        ("list[str]", "[]"),
        pytest.param("tuple[str, ...]", "()", marks=pytest.mark.slow),
        pytest.param("list[str] | None", "None", marks=pytest.mark.slow),
    ],
)
def test_a_list_of_words_is_a_list_from_flags_and_from_a_recipe(kind: str, empty: str, photos: Path, tmp_path: Path, build: Build) -> None:
    text = FILTER.replace('    most: int = option(4, "most vowels", least=0)\n', WORDS.replace("LIST", kind).replace("DEFAULT", empty)[1:])
    refuse = "return f'\"vowels.count\" > {options.most} AND NOT list_contains({list(options.words or ())!r}, caption)'"
    file = plugin(tmp_path, text.replace("return f'\"vowels.count\" > {options.most}'", refuse))
    recipe = {"plugins": [str(file)], "filters": [{"name": "vowels", "most": 1, "words": CAPTIONS[:2]}]}
    (tmp_path / "r.yaml").write_text(json.dumps(base(photos, **recipe)))
    flags = ("--source", "folder", "--input", photos, "--samples", "all", "--plugin", file, "--vowels-most", "1")
    ways = {"two": [*flags, "--vowels-words", *CAPTIONS[:2]], "one": [*flags, "--vowels-words", CAPTIONS[0]]}
    ways["recipe"] = ["--config", tmp_path / "r.yaml"]
    kept = {}
    for name, words in ways.items():
        code, out, err = build(*words, output=name)
        assert code == 0, err
        kept[name] = sorted(row["caption"] for row in sidecar(out))
    assert kept == {"two": ["a barn", "an aeroplane above a house", "birds"], "one": ["a barn", "birds"], "recipe": kept["two"]}


@pytest.mark.parametrize("kind", ["set[str]", "list", "tuple[int, int]", "bytes", "dict[int, str]", "list[set[str]]"])
def test_an_option_of_a_type_that_no_flag_can_say_is_refused_when_it_is_loaded(
    kind: str, photos: Path, tmp_path: Path, build: Build
) -> None:
    file = plugin(tmp_path, FILTER.replace("    most: int", f"    words: {kind} = option((), 'words')\n    most: int"))
    code, _, err = build("--source", "folder", "--input", photos, "--samples", "all", "--plugin", file)
    assert code == 2
    assert "the option 'words' has the type" in err
    assert "list[X]" in err


def test_an_option_needs_no_help(photos: Path, tmp_path: Path, build: Build) -> None:
    file = plugin(tmp_path, FILTER.replace('most: int = option(4, "most vowels", least=0)', "most: int = 4"))
    code, out, err = build("--source", "folder", "--input", photos, "--samples", "all", "--plugin", file, "--vowels-most", "1")
    assert code == 0, err
    assert [row["vowels.count"] for row in sidecar(out)] == [1]
