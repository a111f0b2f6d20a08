"""`--dry-run`: what a recipe would do, against a build of the same recipe, and with inputs that are not there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from drawing import encoded, picture

from curate.cli import main
from curate.config import RECIPES
from shards.core import recipes


def dry(capsys: pytest.CaptureFixture[str], *flags: Any) -> tuple[int, str, str]:
    code = main(["build-shards", *map(str, flags), "--dry-run"])
    return (code, *capsys.readouterr())


def test_what_words_would_remove_is_what_a_build_removes(
    captioned: Callable[..., Path], build: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    captions = ["a red barn", "", "what the fuck", "shit happens, they say", "two dogs", "<b></b>", "Maine Coon on a sofa"]
    folder = captioned([(f"{i}.jpg", encoded(picture(i)), text) for i, text in enumerate(captions)])
    flags = ("--source", "folder", "--input", folder, "--samples", "all", "--caption-length-min-words", 3)
    code, out, _ = dry(capsys, *flags, "--json")
    assert code == 0
    found = json.loads(out)
    assert found["sources"][0]["records_read"] == len(captions)
    code, built, err = build(*flags)
    assert code == 0, err
    dropped = json.loads((built / "manifest.json").read_text())["sources"]["folder"]["dropped"]
    assert {r["reason"]: r["count"] for r in found["removed"]} == dropped == {"caption_length": 1, "caption_missing": 2, "profanity": 2}
    text = dry(capsys, *flags)[1]
    assert "profanity would remove 2 of 7 (28.6%)\n  by source: folder 2\n  most often: fuck 1, shit 1" in text


def test_profanity_is_told_by_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i, name in enumerate(["cock", "cock", "hen"]):
        (tmp_path / "set" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name / f"{i}.jpg").write_bytes(encoded(picture(i)))
    code, out, _ = dry(
        capsys, "--source", "folder", "--input", tmp_path / "set", "--template", "a shitty photo of a {}", "--samples", "all"
    )
    assert code == 0
    assert "by class: cock 2, hen 1" in out


def test_no_image_is_opened(captioned: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    folder = captioned([("0.jpg", b"no image at all", "a red barn by the sea")])
    code, out, _ = dry(capsys, "--source", "folder", "--input", folder, "--samples", "all", "--image-size-min-side", 64, "--json")
    assert (code, json.loads(out)["removed"]) == (0, [])


def test_missing_inputs_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = dry(capsys, "--source", "cc12m", "--input", "nowhere/cc12m.tsv", "--images", "nowhere/pool", "--samples", 2_700_000)
    assert code == 0
    assert "missing:\n  cc12m: images nowhere/pool\n  cc12m: input nowhere/cc12m.tsv" in out
    assert "2,700,000 samples in 513 shards of 5,273" in out


def test_a_wrong_layout_is_no_missing_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cc12m.tsv").write_text("a cat\thttp://a.org/1.jpg\n" * 3)
    code, _, err = dry(capsys, "--source", "cc12m", "--input", tmp_path / "cc12m.tsv", "--images", "nowhere/pool", "--samples", 1)
    assert code == 2
    assert "use --source cc3m" in err


@pytest.mark.parametrize("name", recipes.names(RECIPES))
def test_every_recipe_is_explained_where_nothing_is_there(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = dry(capsys, "--config", name)
    assert (code, "Traceback" in err) == (0, False), err
    assert out.startswith("recipe ")
    assert "missing:" in out


@pytest.mark.parametrize("quota", [False, True])
def test_a_size_that_cannot_be_reached_is_told_with_what_is_left(
    quota: bool, captioned: Callable[..., Path], build: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Oracle: the build of the same recipe, which is refused from that size on, and not below."""
    rows = [(f"{i}.jpg", encoded(picture(i)), "" if i < 3 else f"thing {i}") for i in range(8)]
    source = {"reader": "folder", "input": str(captioned(rows))}
    for size in (5, 6):
        recipe = {"sources": [source | ({"samples": size} if quota else {})], "clean": True} | ({} if quota else {"samples": size})
        (tmp_path / "r.yaml").write_text(json.dumps(recipe))
        code, out, _ = dry(capsys, "--config", tmp_path / "r.yaml")
        assert code == 0
        assert build("--config", tmp_path / "r.yaml", output=f"out{size}")[0] == (0 if size == 5 else 2)
        whose = " of folder" if quota else ""
        assert (f"too few: {size} samples{whose} cannot be reached: at most 5 are left" in out) == (size == 6)
        assert ("6 (at most 5)" in out) == (quota and size == 6)
    plan = json.loads(dry(capsys, "--config", tmp_path / "r.yaml", "--json")[1])
    assert (plan["sources"][0]["most"], len(plan["short"])) == (5, 1)
    plan = json.loads(dry(capsys, "--config", tmp_path / "r.yaml", "--json", "--limit", 2)[1])
    assert (plan["sources"][0]["most"], plan["sources"][0]["all_read"], plan["short"]) == (None, False, [])


def test_pictures_known_to_be_missing_and_those_that_may_be_are_apart(
    captioned: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for rows, further in (
        ([("0.jpg", encoded(picture(0)), "a barn")], ""),
        ([("1.jpg", encoded(picture(1)), "b"), ("2.jpg", None, "c")], "further "),
    ):
        out = dry(capsys, "--source", "folder", "--input", captioned(rows, f"in{len(rows)}"), "--samples", "all")[1]
        assert ("image_missing would remove 1" in out) == bool(further)
        assert f"  which {further}pictures are missing or do not decode" in out
