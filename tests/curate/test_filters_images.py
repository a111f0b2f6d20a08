"""Filters on what an image is: size in bytes, format, frames, information; SQL against Python, and one build with them all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from drawing import encoded, picture
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from curate.filters import animated, image_format, image_size, near_constant
from shards.core.config import load
from shards.core.errors import UsageError

Build = Callable[..., tuple[int, Path, str]]
Captioned = Callable[..., Path]
FORMATS = ["JPEG", "MPO", "PNG", "GIF", "WEBP", "TIFF", "BMP", ""]
COLUMNS = {
    "original_width": "INTEGER", "original_height": "INTEGER", "original_format": "VARCHAR", "frames": "INTEGER",
    "information": "DOUBLE", '"image_size.bytes"': "BIGINT",
}  # fmt: skip


def decide(module: ModuleType, rows: list[tuple[Any, ...]], **options: Any) -> list[tuple[bool | None, str]]:
    """Return (refused, detail) of each row, whose values are in the order of COLUMNS."""
    chosen = module.Options(**options)
    con = duckdb.connect()
    con.execute(f"CREATE TABLE t (i INTEGER, {', '.join(f'{name} {kind}' for name, kind in COLUMNS.items())})")
    con.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?, ?, ?)", [(i, *row) for i, row in enumerate(rows)])
    return con.execute(f"SELECT {module.refuse(chosen)}, {module.detail(chosen)} FROM t ORDER BY i").fetchall()


def row(form: str = "JPEG", frames: int = 1, information: float = 40.0, bytes: int | None = 9000) -> tuple[Any, ...]:
    return (300, 200, form, frames, information, bytes)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 10**13), min_size=1, max_size=9), st.integers(0, 10**7), st.integers(0, 10**12))
def test_bytes_against_python(sizes: list[int], least: int, more: int) -> None:
    found = decide(image_size, [row(bytes=size) for size in sizes], min_bytes=least, max_bytes=least + more)
    assert found == [(not least <= size <= least + more, f"300 × 200 px, {size} bytes") for size in sizes]


def test_unknown_bytes_are_kept() -> None:
    assert decide(image_size, [row(bytes=None)], min_bytes=10)[0][0] is None


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(FORMATS[:-1]), max_size=4), st.lists(st.sampled_from(FORMATS[:-1]), max_size=4))
def test_formats_against_python(allow: list[str], deny: list[str]) -> None:
    def same(names: list[str]) -> set[str]:
        return {"JPEG" if name == "MPO" else name for name in names}

    found = decide(image_format, [row(form) for form in FORMATS], allow=tuple(map(str.lower, allow)), deny=tuple(deny))
    for form, (refused, detail) in zip(FORMATS, found, strict=True):
        plain = "JPEG" if form == "MPO" else form
        expected = bool(form) and ((bool(allow) and plain not in same(allow)) or plain in same(deny))
        assert bool(refused) == expected
        assert detail == form


def test_the_usual_short_names_are_understood_and_a_misspelt_one_is_refused() -> None:
    assert [r for r, _ in decide(image_format, [row("JPEG"), row("TIFF")], deny=("jpg", "tif"))] == [True, True]
    with pytest.raises(UsageError, match="JPGE"):
        image_format.Options(allow=("JPGE",))


def test_animated_counts_frames_of_animations_alone() -> None:
    rows = [row(form, frames) for form in FORMATS for frames in (1, 2, 30)]
    found = decide(animated, rows)
    assert [bool(r) for r, _ in found] == [form in ("PNG", "GIF", "WEBP") and n > 1 for _, _, form, n, *_ in rows]
    assert decide(animated, [row("GIF", 3), row("GIF", 4)], max_frames=3) == [(False, "3 frames (GIF)"), (True, "4 frames (GIF)")]
    with pytest.raises(UsageError):
        load(animated.Options, {"max_frames": 0})


def test_near_constant_is_a_threshold_on_information() -> None:
    assert decide(near_constant, [row(information=v) for v in (0.0, 1.24, 2.99, 3.0)], min_information=3.0) == [
        (True, "0.0 gray levels"), (True, "1.2 gray levels"), (True, "3.0 gray levels"), (False, "3.0 gray levels")
    ]  # fmt: skip
    with pytest.raises(UsageError):
        load(near_constant.Options, {"min_information": 200.0})


def test_each_refuses_its_own_in_a_build(build: Build, captioned: Captioned) -> None:
    more = [picture(6), picture(7)]
    flat = np.full((300, 400, 3), 120, np.uint8)
    flat[::2] += 1
    files = {
        "photo.jpg": encoded(picture(1)),
        "still.gif": encoded(picture(2), "GIF"),
        "moving.gif": encoded(picture(3), "GIF", save_all=True, append_images=more, duration=50),
        "moving.png": encoded(picture(4), "PNG", save_all=True, append_images=more, duration=50),
        "moving.webp": encoded(picture(5), "WEBP", save_all=True, append_images=more, duration=50),
        "pages.tif": encoded(picture(8), "TIFF", save_all=True, append_images=more),
        "wrong-name.jpg": encoded(picture(9), "BMP"),
        "flat.jpg": encoded(Image.fromarray(flat)),
        "small.jpg": encoded(picture(10, 24, 24), quality=50),
        "broken.jpg": encoded(picture(11))[:900],
    }
    folder = captioned([(name, content, f"the picture {name.partition('.')[0]}") for name, content in files.items()])
    flags = [
        "--image-format-deny",
        "BMP",
        "--animated-max-frames",
        "1",
        "--near-constant-min-information",
        "2",
        "--image-size-min-bytes",
        "850",
    ]
    code, out, err = build("--source", "folder", "--input", folder, "--samples", "all", *flags)
    assert code == 0, err
    ledger = {r["source_id"]: r for part in sorted((out / "ledger").iterdir()) for r in pq.read_table(part).to_pylist()}
    assert {name: (r["reason"], r["detail"]) for name, r in ledger.items() if r["reason"] not in ("", "image_size", "undecodable")} == {
        "moving.gif": ("animated", "3 frames (GIF)"),
        "moving.png": ("animated", "3 frames (PNG)"),
        "moving.webp": ("animated", "3 frames (WEBP)"),
        "wrong-name.jpg": ("image_format", "BMP"),
        "flat.jpg": ("near_constant", "0.0 gray levels"),
    }
    assert (ledger["small.jpg"]["reason"], ledger["small.jpg"]["detail"]) == ("image_size", f"24 × 24 px, {len(files['small.jpg'])} bytes")
    assert ledger["broken.jpg"]["reason"] == "undecodable"
    assert {name for name, r in ledger.items() if r["decision"] == "kept"} == {"photo.jpg", "still.gif", "pages.tif"}
