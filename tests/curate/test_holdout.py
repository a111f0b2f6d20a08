"""Held-out samples are a set of their own beside the build: readable, verified, apart from the kept ones, and taken down with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from drawing import encoded, picture
from native import ledger, sidecar

from shards.cli import main as shards

Build = Callable[..., tuple[int, Path, str]]
Captioned = Callable[..., Path]
COUNT = 24


@pytest.fixture
def flags(captioned: Captioned) -> tuple[Any, ...]:
    rows = [(f"{i}.jpg", encoded(picture(i)), f"picture number {i}") for i in range(COUNT)]
    rows += [(f"copy{i}.jpg", content, f"copy of {i}") for i, (_, content, _) in enumerate(rows)]
    return ("--source", "folder", "--input", captioned(rows), "--samples", "all", "--holdout", "0.3")


def uids(out: Path, decision: str) -> set[str]:
    return {row["uid"] for row in ledger(out) if row["decision"] == decision}


def test_what_is_held_out_is_a_set_of_its_own(build: Build, flags: tuple[Any, ...], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = build(*flags)
    assert code == 0, err
    held = {row["uid"] for row in sidecar(out / "holdout")}
    assert held == uids(out, "holdout")
    assert {row["uid"] for row in sidecar(out)} == uids(out, "kept")
    assert 0 < len(held) < COUNT
    assert f"holdout: {len(held)} samples held out" in err
    for one in (out, out / "holdout"):
        assert shards(["verify", str(one), "--engine", "inline"]) == 0
    note = json.loads((out / "manifest.json").read_text())["notes"]["holdout"]
    assert note["samples"] == len(held)
    assert shards(["inspect", str(out / "holdout"), "--json"]) == 0
    assert note["manifest"] in capsys.readouterr().out


def test_no_held_out_picture_has_a_copy_among_the_kept_ones(build: Build, flags: tuple[Any, ...]) -> None:
    _, out, _ = build(*flags)
    kept, held = ({row["original_sha256"] for row in sidecar(folder)} for folder in (out, out / "holdout"))
    assert len(kept) + len(held) == COUNT
    assert not kept & held


def test_the_kept_part_does_not_change_and_the_same_command_finds_nothing_to_do(
    build: Build, flags: tuple[Any, ...], tmp_path: Path
) -> None:
    first = build(*flags, output="first")[1]
    again = build(*flags, output="again")[1]
    names = sorted(p.relative_to(first) for p in first.rglob("*") if p.is_file())
    assert names == sorted(p.relative_to(again) for p in again.rglob("*") if p.is_file())
    assert [n for n in names if n.suffix in {".tar", ".json", ".parquet"} and (first / n).read_bytes() != (again / n).read_bytes()] == []
    assert "nothing to do" in build(*flags, output="again")[2]


def test_without_held_out_samples_there_is_no_such_folder(build: Build, flags: tuple[Any, ...]) -> None:
    build(*flags)
    _, out, err = build(*flags[:-2], "--overwrite")
    assert not (out / "holdout").exists()
    assert "held out" not in err


@pytest.mark.usefixtures("curate_here")
def test_a_take_down_reaches_what_is_held_out(build: Build, flags: tuple[Any, ...]) -> None:
    _, out, _ = build(*flags)
    gone = min(uids(out, "holdout"))
    content = next(row["original_sha256"] for row in sidecar(out / "holdout") if row["uid"] == gone)
    assert shards(["remove", str(out), gone]) == 0
    assert json.loads((out / "holdout" / "manifest.json").read_text())["samples"] == len(uids(out, "holdout"))
    assert shards(["compact", str(out), "--engine", "inline"]) == 0
    assert content not in {row["original_sha256"] for folder in (out, out / "holdout") for row in sidecar(folder)}
    assert shards(["verify", str(out / "holdout"), "--engine", "inline"]) == 0
