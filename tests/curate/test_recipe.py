"""Recipes: default filters stay on unless told otherwise, duplicates are looked for across sources, and every build says so."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from drawing import encoded, picture
from native import ledger

from curate.config import BuildConfig, resolve
from shards.cli import main as shards
from shards.core.errors import UsageError

Build = Callable[..., tuple[int, Path, str]]
Captioned = Callable[..., Path]


def written(folder: Path, values: dict[str, Any]) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(json.dumps({"sources": [{"reader": "folder", "input": "."}], "samples": "all"} | values))
    return path


def filters(folder: Path, values: dict[str, Any], **extra: Any) -> list[str]:
    """Return the names of a recipe's filters, with options that are not the default ones."""
    recipe = resolve(BuildConfig(config=str(written(folder, values)), extra=extra))
    return [f["name"] for f in recipe.filters]


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({}, ["caption_length", "profanity"]),
        ({"filters": []}, ["caption_length", "profanity"]),
        ({"filters": [{"name": "aspect_ratio"}]}, ["caption_length", "profanity", "aspect_ratio"]),
        ({"filters": [{"name": "aspect_ratio"}, {"name": "profanity"}]}, ["caption_length", "aspect_ratio", "profanity"]),
        ({"filters": [{"name": "aspect_ratio"}], "defaults": False}, ["aspect_ratio"]),
        ({"defaults": False}, []),
    ],
)
def test_filters_of_a_recipe_stand_behind_the_default_ones(tmp_path: Path, values: dict[str, Any], names: list[str]) -> None:
    assert filters(tmp_path, values) == names


def test_an_entry_changes_a_default_filter(tmp_path: Path) -> None:
    recipe = resolve(BuildConfig(config=str(written(tmp_path, {"filters": [{"name": "caption_length", "min_words": 4}]}))))
    assert [(f["name"], f.get("min_words")) for f in recipe.filters] == [("profanity", None), ("caption_length", 4)]


def test_a_flag_takes_a_default_filter_away(tmp_path: Path) -> None:
    assert filters(tmp_path, {"filters": [{"name": "aspect_ratio"}]}, **{"no-profanity": True}) == ["caption_length", "aspect_ratio"]


def test_a_saved_recipe_gives_the_same_build(tmp_path: Path) -> None:
    import yaml

    from curate.build import recipe_yaml

    first = resolve(BuildConfig(config=str(written(tmp_path, {"filters": [{"name": "aspect_ratio"}], "defaults": False}))))
    (tmp_path / "saved.yaml").write_text(recipe_yaml(first))
    again = resolve(BuildConfig(config=str(tmp_path / "saved.yaml")))
    assert yaml.safe_load(recipe_yaml(again)) == yaml.safe_load(recipe_yaml(first))
    assert again.digest == first.digest


def test_a_filter_named_twice_is_refused_since_one_would_be_lost(tmp_path: Path) -> None:
    twice = [{"name": "expression", "keep": "width > 3"}, {"name": "expression", "keep": "height > 3"}]
    with pytest.raises(UsageError, match="'expression' stands there 2 times"):
        filters(tmp_path, {"filters": twice})


@pytest.mark.slow
def test_a_build_says_which_default_filters_are_off(build: Build, captioned: Captioned, tmp_path: Path) -> None:
    folder = captioned([("0.jpg", encoded(picture(0)), "what the fuck"), ("1.jpg", encoded(picture(1)), "a red barn")])
    flags = ("--source", "folder", "--input", folder, "--samples", "all")
    code, out, err = build(*flags)
    assert code == 0, err
    assert "default filters that are off" not in err
    assert Counter(row["decision"] for row in ledger(out)) == {"kept": 1, "dropped": 1}
    code, _, err = build(*flags, "--no-profanity", output="other")
    assert code == 0, err
    assert "default filters that are off: profanity\n" in err
    code, _, err = build(*flags, "--no-profanity", "--dry-run", output="none")
    assert code == 0
    assert "default filters that are off: profanity\n" in err


@pytest.mark.parametrize(("scope", "kept"), [("", 6), ("all", 6), ("source", 12)])
def test_two_equal_folders_keep_every_picture_once_unless_told_otherwise(
    build: Build, captioned: Captioned, tmp_path: Path, capsys: pytest.CaptureFixture[str], scope: str, kept: int
) -> None:
    rows = [(f"{i}.jpg", encoded(picture(i)), f"picture number {i}") for i in range(6)]
    sources = [{"reader": "folder", "name": name, "input": str(captioned(rows, name))} for name in ("a", "b")]
    code, out, err = build("--config", written(tmp_path, {"sources": sources}), *(("--dedup-scope", scope) if scope else ()))
    assert code == 0, err
    decisions = Counter(row["reason"] or row["decision"] for row in ledger(out))
    assert decisions == ({"kept": 12} if kept == 12 else {"kept": 6, "exact_duplicate": 6})
    assert shards(["verify", str(out)]) == 0
    verified = capsys.readouterr().err
    page = re.sub(r"<[^>]*>", "", (out / "report.html").read_text())
    for said in (err, verified, page):
        if kept == 12:
            assert "duplicates were looked for within each source alone" in said
            assert "pictures that a + b share: 6 by their bytes" in said
        else:
            assert re.search("duplicates (are|were) looked for across all 2 sources", said)


FOLDER = {"reader": "folder", "input": "."}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"shards": {"samples": 0}}, "shards.samples: found 0"),
        ({"shards": {"samples": -5}}, "shards.samples: found -5"),
        ({"shards": {"samples": 10**400}}, "shards.samples: found 1000"),
        ({"shards": {"bytes": 0}}, "shards.bytes: found 0"),
        ({"samples": 10**30}, "samples: found 1000"),
        ({"seed": -1}, "seed: found -1"),
        ({"seed": 2**32}, "seed: found 4294967296"),
        ({"limit": 0}, "limit: found 0"),
        ({"holdout": 1.0}, "holdout: found 1.0"),
        ({"holdout": "nan"}, "holdout: found"),
        ({"dedup": {"near": {"radius": 17}}}, "dedup.near.radius: found 17"),
        ({"dedup": {"placeholder_min": 0}}, "dedup.placeholder_min: found 0"),
        ({"dedup": {"semantic": {"epsilon": "inf"}}}, "dedup.semantic.epsilon: found inf"),
        ({"exclude": {"radius": -1}}, "exclude.radius: found -1"),
        ({"exclude": {"embedding": 1}}, "exclude.embedding: found 1"),
        ({"image": {"size": 0}}, "image.size: found 0"),
        ({"image": {"quality": 101}}, "image.quality: found 101"),
        ({"filters": [{"name": "caption_length", "min_words": -1}]}, "filters.caption_length.min_words: found -1"),
        ({"filters": [{"name": "caption_length", "min_words": 5, "max_words": 4}]}, "min_words 5 is above max_words 4"),
        ({"filters": [{"name": "aspect_ratio", "max": "nan"}]}, "filters.aspect_ratio.max: found"),
        ({"filters": [{"name": ["x"]}]}, "filters: found"),
        ({"filters": "profanity"}, "filters: found 'profanity'"),
        ({"defaults": "no"}, "defaults: found 'no'"),
        ({"sources": ["folder"]}, "sources[0]: found 'folder'"),
        ({"sources": FOLDER}, "sources: found {"),
        ({"sources": [FOLDER | {"reader": ["x"]}]}, "sources[0].reader: found ['x']"),
        ({"sources": [FOLDER | {"options": "x"}]}, "options: found 'x'"),
        ({"dedup": 3}, "dedup: found 3"),
    ],
)
def test_a_number_out_of_its_range_and_a_value_of_another_shape_are_named(tmp_path: Path, values: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as error:
        resolve(BuildConfig(config=str(written(tmp_path, values)), dedup_scope="all" if values == {"dedup": 3} else None))
    assert said in error.value.found
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    "flags",
    [
        ("--samples-per-shard", "0"), ("--bytes-per-shard", "-1"), ("--seed", "-1"), ("--limit", "0"), ("--workers", "-1"),
        ("--holdout", "nan"), ("--near-radius", "65"), ("--semantic", "inf"), ("--image-max-side", "0"), ("--aspect-ratio-max", "nan"),
        ("--caption-length-max-words", "-3"), ("--language-min-confidence", "2"),
    ],
)  # fmt: skip
def test_a_flag_out_of_its_range_is_refused_before_any_input_is_looked_for(build: Build, flags: tuple[str, str]) -> None:
    code, out, err = build("--source", "folder", "--input", "nowhere", "--samples", "all", *flags)
    assert code == 2
    assert flags[1] in err
    assert "nowhere" not in err
    assert not out.exists()


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("compare", ("a", "b", "--radius", "-1")), ("compare", ("a", "b", "--workers", "-1")), ("report", ("a", "--sample", "0")),
        ("report", ("a", "--limit", "-1")), ("layer", ("tokens", "a", "b", "--workers", "-2")),
        ("fetch", ("--source", "cc3m", "--input", "a", "--output", "b", "--timeout", "nan")),
    ],
)  # fmt: skip
def test_other_commands_refuse_such_numbers_too(capsys: pytest.CaptureFixture[str], command: str, flags: tuple[str, ...]) -> None:
    from curate.cli import main

    assert main([command, *flags]) == 2
    assert f"found {flags[-1]}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("filters", "said"),
    [
        ([{"name": "blocklist", "urls": "nowhere.txt"}], "no file at 'nowhere.txt'"),
        ([{"name": "blocklist"}], "blocklist: no list"),
        ([{"name": "expression", "keep": "widht > 3"}], "widht"),
        ([{"name": "expression", "keep": "laion.similarity > 0.3"}], "laion.similarity"),
    ],
)
def test_a_filter_that_cannot_be_asked_shows_before_anything_is_read(
    build: Build, tmp_path: Path, filters: list[dict[str, Any]], said: str
) -> None:
    sources = [{"reader": "folder", "input": str(tmp_path / "is-not-there")}]
    code, out, err = build("--config", written(tmp_path, {"sources": sources, "filters": filters}))
    assert code == 2
    assert said in err
    assert "is-not-there" not in err
    assert not out.exists()


@pytest.mark.parametrize(
    ("flag", "hint"),
    [("--sampels", "--samples"), ("--caption-lenght-min-words", "--caption-length-min-words"), ("--no-profanty", "--no-profanity")],
)
def test_a_misspelt_flag_gets_a_hint(build: Build, flag: str, hint: str) -> None:
    code, _, err = build("--source", "folder", "--input", ".", flag, "3")
    assert code == 2
    assert f"did you mean '{hint}'?" in err


def test_what_was_given_is_not_advised(build: Build, captioned: Captioned) -> None:
    folder = captioned([(f"{i}.jpg", encoded(picture(i)), "") for i in range(3)])
    code, _, err = build("--source", "folder", "--input", folder, "--samples", "all")
    assert code == 2
    assert "0 of 3 inputs survive (caption_missing 3)" in err
    assert "--samples all" not in err
    code, _, err = build("--source", "folder", "--input", folder, "--samples", "2", output="other")
    assert "--samples all takes what there is" in err


@pytest.mark.parametrize(("unsure", "said"), [("keep", "stay, whatever their language"), ("drop", "go, right ones among them")])
def test_what_becomes_of_captions_in_no_sure_language_is_said(
    build: Build, captioned: Captioned, capsys: pytest.CaptureFixture[str], unsure: str, said: str
) -> None:
    captions = ("dog", "a man is riding a brown horse along the beach at sunset")
    folder = captioned([(f"{i}.jpg", encoded(picture(i)), text) for i, text in enumerate(captions)])
    code, out, err = build("--source", "folder", "--input", folder, "--samples", "all", "--language-unsure", unsure)
    assert code == 0, err
    assert said in err
    assert sum(row["decision"] == "kept" for row in ledger(out)) == (2 if unsure == "keep" else 1)


def quotas(folder: Path, shares: list[float], samples: Any) -> list[int | None]:
    """Return the quotas that shares of a total become; they are all that the resolved recipe says."""
    sources = [FOLDER | {"name": f"s{i}", "share": share} for i, share in enumerate(shares)]
    recipe = resolve(BuildConfig(config=str(written(folder, {"sources": sources, "samples": samples}))))
    assert [s.share for s in recipe.sources] == [None] * len(shares)
    return [s.samples for s in recipe.sources]


@pytest.mark.parametrize(
    ("shares", "samples", "expected"),
    [
        ([0.7, 0.2, 0.1], 1000, [700, 200, 100]),
        ([0.29, 0.71], 100, [29, 71]),
        ([0.33, 0.33, 0.33], 100, [34, 33, 33]),
        ([0.5, 0.5], 7, [4, 3]),
        ([1.0], 5, [5]),
        ([0.45, 0.35, 0.2], 3, [1, 1, 1]),
    ],
)
def test_shares_are_parts_of_the_total(tmp_path: Path, shares: list[float], samples: int, expected: list[int]) -> None:
    assert quotas(tmp_path, shares, samples) == expected


@pytest.mark.parametrize(
    ("shares", "samples", "said"),
    [
        ([0.7, 0.2], 100, "0.7 + 0.2 = 0.9"),
        ([0.5, 0.5], "all", "shares: of all samples"),
        ([0.99, 0.01], 10, "source s1: a share of 0.01 of 10 samples is none"),
        ([1.5, -0.5], 10, "sources[0].share: found 1.5"),
    ],
)
def test_shares_that_cannot_be_meant_are_refused(tmp_path: Path, shares: list[float], samples: Any, said: str) -> None:
    with pytest.raises(UsageError) as error:
        quotas(tmp_path, shares, samples)
    assert said in error.value.found


def test_counts_and_shares_do_not_mix(tmp_path: Path) -> None:
    for other in ({"samples": 3}, {}):
        sources = [FOLDER | {"name": "a", "share": 1.0}, FOLDER | {"name": "b"} | other]
        with pytest.raises(UsageError, match="some sources have `share`"):
            resolve(BuildConfig(config=str(written(tmp_path, {"sources": sources, "samples": 10}))))


def test_a_source_with_too_few_for_its_share_is_said_with_a_total_that_works(build: Build, captioned: Captioned, tmp_path: Path) -> None:
    sources = []
    for name, first, count, share in (("a", 0, 9, 0.6), ("b", 20, 3, 0.4)):
        rows = [(f"{i}.jpg", encoded(picture(i)), f"picture number {i}") for i in range(first, first + count)]
        sources.append({"reader": "folder", "name": name, "input": str(captioned(rows, name)), "share": share})
    recipe = written(tmp_path, {"sources": sources, "samples": 10})
    code, _, err = build("--config", recipe)
    assert code == 2
    assert "asked for 4 samples of b; 3 of 3 inputs of b survive" in err
    assert "allowed: at most 3 of b\n  try: 7 samples in all, in these shares of the 2 sources" in err
    code, out, err = build("--config", recipe, "--samples", "7")
    assert code == 0, err
    assert Counter(row["source"] for row in ledger(out) if row["decision"] == "kept") == {"a": 4, "b": 3}
    again, copy, err = build("--config", out / "recipe.yaml", output="copy")
    assert again == 0, err
    assert (copy / "manifest.json").read_bytes() == (out / "manifest.json").read_bytes()
