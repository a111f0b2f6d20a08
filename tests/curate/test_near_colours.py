"""Near duplicates and colours: hues that a pHash does not see, the second look at them, and the coloured copy before the gray one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from drawing import encoded
from PIL import Image

Build = Callable[..., tuple[int, Path, str]]
Captioned = Callable[..., Path]


def base(seed: int) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((320, 240), Image.Resampling.BICUBIC)


def hued(image: Image.Image, blue: int, red: int) -> Image.Image:
    """Return an image with the luma of another and one hue throughout."""
    levels = np.asarray(image.convert("YCbCr")).copy()
    levels[..., 0] = 60 + levels[..., 0] // 2  # such that no channel is clipped
    levels[..., 1], levels[..., 2] = blue, red
    return Image.frombytes("YCbCr", image.size, levels.tobytes()).convert("RGB")


def decided(out: Path) -> dict[str, tuple[str, str]]:
    rows = [row for part in sorted((out / "ledger").iterdir()) for row in pq.read_table(part).to_pylist()]
    return {row["source_id"]: (row["decision"], row["reason"]) for row in rows}


def kept(out: Path) -> set[str]:
    return {name for name, (decision, _) in decided(out).items() if decision == "kept"}


def test_pictures_that_differ_in_hue_alone(build: Build, captioned: Captioned, tmp_path: Path) -> None:
    """By default they are near duplicates; with the second look each hue stays once, its re-encoded copy goes."""
    mug = base(1)
    rows = [(f"{name}.jpg", encoded(hued(mug, *hue), quality=92), f"a {name} mug") for name, hue in HUES.items()]
    rows += [("green small.jpg", encoded(hued(mug, *HUES["green"]).resize((200, 150)), quality=40), "a green mug, small")]
    flags = ("--source", "folder", "--input", captioned(rows), "--samples", "all", "--work", tmp_path / "work")
    code, out, err = build(*flags, output="default")
    assert code == 0, err
    assert len(kept(out)) == 1
    assert "whatever their colours (near: {colour: true} looks at them, too); hash: scaled, twice as fast as reference" in err
    code, out, err = build(*flags, "--near-colour", output="coloured")
    assert code == 0, err
    assert {name.split(".")[0].split()[0] for name in kept(out)} == set(HUES)
    assert len(kept(out)) == len(HUES)
    assert len(list((tmp_path / "work" / "measured").glob("*.parquet"))) == 1  # nothing was measured again


HUES = {"green": (90, 100), "red": (110, 190), "blue": (180, 110)}


@pytest.mark.parametrize("stored", ["L", "RGB", "PNG"])
@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_a_coloured_copy_stays_before_a_gray_one(build: Build, captioned: Captioned, stored: str, seed: int) -> None:
    """Of eight ranks some put the gray one first; a preference that the recipe names comes before the colour."""
    photo = base(7)
    gray = photo.convert("L").convert("L" if stored == "L" else "RGB")
    content = encoded(gray, "PNG") if stored == "PNG" else encoded(gray)
    rows = [("gray.jpg", content, "in gray"), ("colour.jpg", encoded(photo), "in colour")]
    flags = ("--source", "folder", "--input", captioned(rows), "--samples", "all", "--seed", str(seed))
    code, out, err = build(*flags)
    assert code == 0, err
    assert decided(out) == {"colour.jpg": ("kept", ""), "gray.jpg": ("dropped", "near_duplicate")}


def test_resolution_comes_before_colour(build: Build, captioned: Captioned) -> None:
    photo = base(7)
    rows = [("gray.jpg", encoded(photo.resize((640, 480)).convert("L")), "large"), ("colour.jpg", encoded(photo), "small")]
    code, out, err = build("--source", "folder", "--input", captioned(rows), "--samples", "all", "--prefer", "resolution")
    assert code == 0, err
    assert kept(out) == {"gray.jpg"}


def test_the_default_hash_is_scaled_and_every_kind_says_what_it_costs(build: Build, captioned: Captioned, capsys: Any) -> None:
    from curate.cli import main
    from curate.recipe import HASHES, Near

    assert Near().hash == "scaled"
    code, out, err = build("--source", "folder", "--input", captioned([("a.jpg", encoded(base(1)), "one")]), "--samples", "all")
    assert code == 0, err
    assert json.loads((out / "manifest.json").read_text())["notes"]["codecs"]["phash"] == "phash-scaled-2"
    assert main(["list", "hashes"]) == 0
    said = capsys.readouterr().out
    assert all(f"{name} " in said and about in said for name, about in HASHES.items())


def test_the_figures_of_the_hashes_are_those_of_the_benchmark() -> None:
    from curate.recipe import HASHES

    record = json.loads((Path(__file__).resolve().parents[2] / "benchmarks" / "measure.json").read_text())
    true_pairs = {kind: sum(found[kind][0] for found in record["recall"].values()) for kind in HASHES}
    assert true_pairs["scaled"] == true_pairs["reference"] == 476
    assert true_pairs["reference"] - true_pairs["fast"] == 3
    speed = record["per_cpu_second"]
    assert 1.5 <= speed["scaled"] / speed["reference"] < 2.5  # "twice as fast"
    assert 1.35 <= speed["fast"] / speed["scaled"] < 1.45  # "1.4 times"


def test_a_profile_that_is_passed_over_is_told(build: Build, captioned: Captioned) -> None:
    rows = [("torn.png", encoded(base(1), "PNG", icc_profile=b"x" * 40), "one"), ("fine.png", encoded(base(2), "PNG"), "two")]
    code, out, err = build("--source", "folder", "--input", captioned(rows), "--samples", "all")
    assert code == 0, err
    assert kept(out) == {"torn.png", "fine.png"}
    assert "1 picture encoded again without the colour profile that it names: such as torn.png: a profile for an unknown" in err
