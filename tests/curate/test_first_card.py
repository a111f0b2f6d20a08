"""The README.md that a build has before `curate card`: `datasets` reads the tars by it, and nothing else of the folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from card_reader import front, load, sidecar
from drawing import encoded, picture

from curate.cli import main
from shards.cli import main as shards_main
from shards.first_card import FIRST_CARD

Build = Callable[..., tuple[int, Path, str]]
Captioned = Callable[..., Path]
COUNT = 12


@pytest.fixture
def built(build: Build, captioned: Captioned) -> Path:
    """A build with held-out samples, dropped ones with examples, ledger and sidecars: parquet files of four kinds."""
    rows = [(f"{i}.jpg", encoded(picture(i)), f"a photo of thing {i}") for i in range(COUNT)]
    folder = captioned([*rows, ("same.jpg", encoded(picture(0)), "a photo of thing 0 again")])
    code, out, err = build("--source", "folder", "--input", folder, "--samples", "all", "--holdout", "0.25", "--json-member")
    assert code == 0, err
    return out


@pytest.mark.slow  # `datasets` takes seconds to import
def test_datasets_gives_images_with_captions_right_after_the_build(built: Path, tmp_path: Path) -> None:
    rows = {row["uid"]: row for row in sidecar(built)}
    assert len(list(built.rglob("*.parquet"))) > len(list(built.glob("*.tar")))
    samples = load(built, tmp_path / "cache")
    assert sorted(samples.column_names) == ["__key__", "__url__", "jpg", "json", "txt"]
    assert sorted(samples["__key__"]) == sorted(rows)
    raw = samples.cast_column("jpg", type(samples.features["jpg"])(decode=False))
    for sample in raw:
        row = rows[sample["__key__"]]
        assert sample["txt"] == row["caption"]
        assert hashlib.sha256(sample["jpg"]["bytes"]).hexdigest() == row["sha256"]
    held = load(built / "holdout", tmp_path / "cache")
    assert sorted(held["__key__"]) == sorted(row["uid"] for row in sidecar(built / "holdout"))
    assert len(samples) + len(held) == COUNT


def test_every_build_has_the_same_one_and_the_hub_reads_it(built: Path) -> None:
    for folder in (built, built / "holdout"):
        assert (folder / "README.md").read_text() == FIRST_CARD
        values = front(folder)
        assert values["configs"] == [{"config_name": "default", "data_files": [{"split": "train", "path": "*.tar"}]}]
        assert values["tags"] == ["webdataset", "provender"]


def test_curate_card_takes_its_place_without_a_word_and_no_others(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["card", str(built)]) == 0
    text = (built / "README.md").read_text()
    assert text != FIRST_CARD
    assert f"num_examples: {len(sidecar(built))}" in text
    (built / "README.md").write_text(FIRST_CARD + "one line of somebody's own\n")
    assert main(["card", str(built)]) == 2
    assert "says something else" in capsys.readouterr().err


def test_it_is_no_part_of_what_is_proved(built: Path) -> None:
    assert shards_main(["verify", str(built), "--strict"]) == 0
    manifest = (built / "manifest.json").read_bytes()
    (built / "README.md").unlink()
    assert shards_main(["verify", str(built), "--strict"]) == 0
    assert (built / "manifest.json").read_bytes() == manifest


@pytest.mark.slow
@pytest.mark.usefixtures("curate_here")
def test_it_stays_through_remove_and_compact(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uid = sidecar(built)[0]["uid"]
    assert shards_main(["remove", str(built), uid]) == 0
    assert shards_main(["compact", str(built)]) == 0
    assert (built / "README.md").read_text() == FIRST_CARD
    assert shards_main(["verify", str(built), "--strict"]) == 0
    assert uid not in {row["uid"] for row in sidecar(built)}


def test_a_readme_that_was_there_before_a_broken_off_build_stays(build: Build, captioned: Captioned, built: Path) -> None:
    """The same command finds nothing to do, and touches no card that somebody wrote since."""
    (built / "README.md").write_text("ours\n")
    folder = built.parent / "photos"
    code, out, err = build("--source", "folder", "--input", folder, "--samples", "all", "--holdout", "0.25", "--json-member")
    assert (code, out) == (0, built)
    assert "nothing to do" in err
    assert (built / "README.md").read_text() == "ours\n"


@pytest.mark.slow  # `datasets` takes seconds to import
def test_datasets_reads_subsets_and_merged_sets_with_tars_of_their_own(built: Path, tmp_path: Path) -> None:
    half, both = tmp_path / "half", tmp_path / "both"
    assert shards_main(["subset", str(built), "--fraction", "0.5", "--materialize", "--output", str(half), "--engine", "inline"]) == 0
    parts = [str(half), str(built / "holdout")]
    assert shards_main(["merge", *parts, "--materialize", "--output", str(both), "--engine", "inline"]) == 0
    for folder in (half, both):
        assert front(folder)["configs"] == [{"config_name": "default", "data_files": [{"split": "train", "path": "*.tar"}]}]
        samples = load(folder, tmp_path / "cache")
        assert sorted(samples["__key__"]) == sorted(row["uid"] for row in sidecar(folder))
        assert len(samples) > 0
        assert shards_main(["verify", str(folder), "--strict", "--engine", "inline"]) == 0


def test_a_set_over_other_tars_has_none_and_a_replaced_one_takes_its_own_along(built: Path, tmp_path: Path) -> None:
    view = tmp_path / "view"
    command = ["subset", str(built), "--samples", "3", "--output", str(view), "--engine", "inline"]
    assert shards_main(command) == 0
    assert not (view / "README.md").exists()
    assert shards_main([*command, "--materialize", "--overwrite"]) == 0
    assert (view / "README.md").read_text() == FIRST_CARD
    assert shards_main([*command, "--overwrite"]) == 0
    assert not (view / "README.md").exists()
    assert shards_main([*command, "--materialize", "--overwrite"]) == 0
    (view / "README.md").write_text("ours\n")
    assert shards_main([*command, "--overwrite"]) == 0
    assert (view / "README.md").read_text() == "ours\n"
