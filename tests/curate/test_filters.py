"""caption_length, image_size, aspect_ratio: columns measured in Python, conditions decided in SQL."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.filters import aspect_ratio, caption_length, image_size, profanity
from curate.filters.base import Facts
from shards.core import registry
from shards.core.config import load
from shards.core.errors import UsageError
from shards.schema import arrow_schema


def facts(caption: str = "a cat", width: int | None = 64, height: int | None = 48, captions: tuple[str, ...] = ()) -> Facts:
    """Return what a filter sees of one sample."""
    w, h = width or 0, height or 0
    return Facts("toy", caption, captions or (caption,), caption, w, h, w, h, "JPEG", 1000, "")


def decide(module: ModuleType, rows: list[Facts], **options: Any) -> list[tuple[bool | None, str]]:
    """Return (refused, detail) per row, as DuckDB sees it. Width 0 stands for NULL."""
    chosen = module.Options(**options)
    measure, name = module.measurer(chosen), module.__name__.rpartition(".")[2]
    con = duckdb.connect()
    columns = {"original_width": "INTEGER", "original_height": "INTEGER"}
    columns |= {
        f"{name}.{c}": {"int32": "INTEGER", "string": "VARCHAR", "double": "DOUBLE", "int64": "BIGINT"}[kind] for c, kind in module.COLUMNS
    }
    spelt = ", ".join(f'"{column}" {kind}' for column, kind in columns.items())
    con.execute(f"CREATE TABLE t (i INTEGER, {spelt})")
    for i, row in enumerate(rows):
        values = [i, row.original_width or None, row.original_height or None, *measure(row)]
        con.execute(f"INSERT INTO t VALUES ({', '.join('?' * len(values))})", values)
    return con.execute(f"SELECT {module.refuse(chosen)}, {module.detail(chosen)} FROM t ORDER BY i").fetchall()


@pytest.mark.parametrize("name", registry.names("curate.filters"))
def test_every_filter_keeps_the_interface(name: str) -> None:
    module = registry.get("curate.filters", name)
    options = module.Options()
    assert set(module.MEASURE) <= set(module.Options.__dataclass_fields__)
    arrow_schema(module.COLUMNS)
    assert len(module.measurer(options)(facts())) == len(module.COLUMNS)
    assert isinstance(module.VERSION, int)
    for heading in ("What it does:", "Why:", "Example:", "Options:"):
        assert heading in (module.__doc__ or "")
    for option_name, field in module.Options.__dataclass_fields__.items():
        assert field.metadata["help"]
        assert option_name in (module.__doc__ or "").partition("Options:")[2]


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30), min_size=1, max_size=12),
    st.integers(0, 4), st.integers(4, 8), st.integers(0, 5), st.integers(5, 40),
)  # fmt: skip
def test_caption_length_against_python(captions: list[str], min_words: int, max_words: int, min_chars: int, max_chars: int) -> None:
    limits = {"min_words": min_words, "max_words": max_words, "min_chars": min_chars, "max_chars": max_chars}
    for text, (refused, detail) in zip(captions, decide(caption_length, [facts(c) for c in captions], **limits), strict=True):
        words, chars = len(text.split()), len(text)
        assert refused == (not (min_words <= words <= max_words and min_chars <= chars <= max_chars))
        assert detail == f"{words} words, {chars} characters"


def test_caption_length_by_default_asks_for_one_word() -> None:
    assert [r for r, _ in decide(caption_length, [facts(""), facts(" "), facts("a"), facts("a b")])] == [True, True, False, False]


sides = st.integers(1, 3000)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(sides, sides), min_size=1, max_size=12), sides, sides, sides)
def test_image_size_against_python(sizes: list[tuple[int, int]], min_side: int, more: int, root: int) -> None:
    limits = {"min_side": min_side, "max_side": min_side + more, "min_pixels": root, "max_pixels": root * 900}
    for (w, h), (refused, detail) in zip(sizes, decide(image_size, [facts("x", w, h) for w, h in sizes], **limits), strict=True):
        kept = min(w, h) >= min_side and max(w, h) <= min_side + more and root <= w * h <= root * 900
        assert refused == (not kept)
        assert detail == f"{w} × {h} px"


def test_huge_areas_do_not_overflow() -> None:
    assert decide(image_size, [facts("x", 2_000_000_000, 2_000_000_000)], max_pixels=10) == [(True, "2000000000 × 2000000000 px")]


def test_no_limit_drops_nothing_and_unknown_sizes_are_kept() -> None:
    assert [r for r, _ in decide(image_size, [facts(width=1, height=1)])] == [False]
    assert [r for r, _ in decide(image_size, [facts(width=None, height=None)], min_side=10)] == [None]
    assert [r for r, _ in decide(aspect_ratio, [facts(width=None, height=None)])] == [None]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(sides, sides), min_size=1, max_size=12), st.integers(4, 40))
def test_aspect_ratio_against_python(sizes: list[tuple[int, int]], quarters: int) -> None:
    """Quarters are exact in floating point, so that the border case is exact, too."""
    for (w, h), (refused, _) in zip(sizes, decide(aspect_ratio, [facts("x", w, h) for w, h in sizes], max=quarters / 4), strict=True):
        assert refused == (4 * max(w, h) > quarters * min(w, h))


def test_aspect_ratio_border_and_detail() -> None:
    rows = [facts("x", 300, 100), facts("x", 100, 301)]
    assert decide(aspect_ratio, rows) == [(False, "3.00 : 1"), (True, "3.01 : 1")]


@pytest.mark.parametrize(
    ("module", "options"),
    [
        (caption_length, {"min_words": 5, "max_words": 4}),
        (caption_length, {"min_chars": -1}),
        (image_size, {"min_side": 100, "max_side": 50}),
        (image_size, {"min_pixels": 100, "max_pixels": 50}),
        (aspect_ratio, {"max": 0.5}),
        (aspect_ratio, {"max": float("nan")}),
    ],
)
def test_limits_that_keep_nothing_are_refused(module: ModuleType, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        module.refuse(load(module.Options, options))


def test_profanity_sees_all_captions() -> None:
    rows = [facts("a cat"), facts("a cat", captions=("a cat", "what a shit cat, shit!")), facts("Shit happens. SHIT")]
    assert decide(profanity, rows) == [(False, ""), (True, "shit"), (True, "shit")]
