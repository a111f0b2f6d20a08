"""Every plug-in is found by its file name, says what it is, and keeps the shape that its folder asks for."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from shards.core import registry
from shards.core.errors import UsageError
from shards.schema import REASONS, arrow_schema

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("curate.sources", "curate.filters", "train.tasks", "train.losses", "eval.datasets", "eval.protocols", "shards.core.engines")
HEADINGS = ("What it does", "Why", "Example", "Options")


def plugins(package: str) -> list[str]:
    return list(registry.names(package))


@pytest.mark.parametrize("package", FOLDERS)
def test_the_files_of_a_folder_are_its_plugins(package: str) -> None:
    folder = ROOT / package.replace(".", "/")
    files = {p.stem for p in folder.glob("*.py") if not p.stem.startswith("_") and p.stem != "base"}
    assert set(plugins(package)) == files
    assert files
    for name in files:
        assert registry.summary(package, name).endswith((".", ":"))


@pytest.mark.parametrize("package", FOLDERS)
def test_an_unknown_name_lists_the_known_ones_and_the_closest(package: str) -> None:
    first = plugins(package)[0]
    with pytest.raises(UsageError) as error:
        registry.get(package, first + "x")
    assert first in error.value.allowed
    assert f"did you mean {first!r}?" in error.value.advice


@pytest.mark.parametrize("name", plugins("curate.sources"))
def test_a_source_has_its_parts(name: str) -> None:
    module = registry.get("curate.sources", name)
    assert isinstance(module.VERSION, int)
    assert module.IMAGES in ("inline", "pool", "either")
    module.Options()  # every option has a default
    assert callable(module.inputs)
    assert callable(module.read)


@pytest.mark.parametrize("name", plugins("curate.filters"))
def test_a_filter_has_its_parts(name: str) -> None:
    import duckdb

    from curate.filters.base import Facts

    module = registry.get("curate.filters", name)
    options = module.Options()
    assert set(module.MEASURE) <= {f.name for f in dataclasses.fields(options)}
    for heading in HEADINGS:
        assert heading.lower() in module.__doc__.lower(), heading
    assert name not in REASONS
    values = ()
    if module.COLUMNS:
        facts = Facts("s", "a caption", ("a caption",), "a caption", 4, 3, 4, 3, "JPEG", 99, "")
        values = module.measurer(options)(facts)
        assert len(values) == len(module.COLUMNS)
    arrow_schema(module.COLUMNS)
    columns = {"width": 4, "height": 3, "original_width": 4, "original_height": 3, "caption": "a caption"}
    columns |= {"original_format": "JPEG", "frames": 1, "information": 30.0} | {
        f"{name}.{c}": v for (c, _), v in zip(module.COLUMNS, values, strict=True)
    }
    row = ", ".join(f'{"NULL" if v is None else repr(v)} AS "{k}"' for k, v in columns.items())
    refused, detail = duckdb.sql(f"SELECT ({module.refuse(options)}), ({module.detail(options)}) FROM (SELECT {row})").fetchall()[0]
    assert refused in (True, False, None)
    assert isinstance(detail, str)


def test_the_lists_are_made_from_the_plugins(capsys: pytest.CaptureFixture[str]) -> None:
    from curate.cli import main

    assert main(["list", "sources"]) == 0
    listed = capsys.readouterr().out
    assert all(f"{name}: " in listed for name in plugins("curate.sources"))
    assert main(["list", "reasons"]) == 0
    reasons = capsys.readouterr().out
    assert all(reason in reasons for reason in (*REASONS, *plugins("curate.filters")))
