"""The whole demo, run once as a user runs it: what curation finds, what the model learns, and what is printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import readme_blocks
from readme_blocks import ROOT

from demo import audit, run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo() -> tuple[Path, str]:
    """Run `make demo`, the README's first command; gives its folder and what it printed."""
    return ROOT / "demo/out", readme_blocks.run("make demo")


@pytest.fixture(scope="module")
def summary(demo: tuple[Path, str]) -> dict[str, Any]:
    return json.loads((demo[0] / "summary.json").read_text())


def test_every_defect_is_found(summary: dict[str, Any]) -> None:
    rows = {row["defect"]: row for row in summary["defects"]}
    assert set(rows) == set(audit.FATES)
    for defect, row in rows.items():
        # Copies encoded or scaled anew may lie beyond r = 4: nearly all must be found; everything else to the last one.
        least = 0.95 * row["planted"] if defect in ("recoded_copy", "resized_copy", "viral_copy") else row["planted"]
        assert least <= row["found"] <= row["planted"], row


def test_builds_balance_and_have_the_same_size(demo: tuple[Path, str]) -> None:
    plan = json.loads((demo[0] / "web/plan.json").read_text())
    kept = set()
    for name in run.BUILDS:
        manifest = json.loads((demo[0] / "shards" / name / "manifest.json").read_text())
        for source, counts in manifest["sources"].items():
            assert counts["inputs"] == plan["records_per_source"][source]
            assert counts["inputs"] == counts["kept"] + counts["holdout"] + counts["spare"] + sum(counts["dropped"].values())
        kept.add(sum(c["kept"] for c in manifest["sources"].values()))
    assert kept == {2000}


def test_the_model_is_well_above_chance(summary: dict[str, Any]) -> None:
    zero = {name: summary["results"][name]["zeroshot"] for name in ("curated", "uncurated")}
    assert zero["curated"]["low"] >= 3 / summary["classes"]
    assert zero["curated"]["n"] >= 500
    assert zero["curated"]["samples_seen"] == zero["uncurated"]["samples_seen"]
    assert summary["classes"] >= 10


def test_what_is_printed_is_what_was_measured(demo: tuple[Path, str], summary: dict[str, Any]) -> None:
    out, said = demo
    for result in summary["results"].values():
        if "zeroshot" in result:  # SimCLR reads no text
            assert f"{result['zeroshot']['value'] * 100:.1f}" in said
        assert f"{result['probe']['value'] * 100:.1f}" in said
    assert "one seed" in said
    report = out / "shards/curated/report.html"
    assert f"report: {report.relative_to(ROOT)}" in said
    assert report.stat().st_size > 100_000


def test_each_block_of_the_readme_prints_what_it_shows(demo: tuple[Path, str]) -> None:
    """The demo first, then what the README does with its outcome; `make test` alone is left out, for it runs this."""
    for step in readme_blocks.steps():
        if step.command == "make test":
            continue
        printed = demo[1] if step.command == "make demo" else readme_blocks.run(step.command)
        assert readme_blocks.differences(step.shown, printed) == [], step.command


def test_the_quick_start_works_on_a_folder_of_ones_own(tmp_path: Path) -> None:
    """Three commands, as they stand: drawn pictures with captions, a short training, its zero-shot accuracy."""
    from tests.conftest import SHAPES, draw

    for i in range(80):
        jpeg, caption, shape = draw(i)
        for folder, name in (("photos", f"{i}.jpg"), (f"classes/{SHAPES[shape]}", f"{i}.jpg")):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / name).write_bytes(jpeg)
        (tmp_path / "photos" / f"{i}.txt").write_text(caption)
    script = readme_blocks.scripts()[0].replace("--output run", "--output run --steps 2")  # the recipe's length is not what is tried
    printed = readme_blocks.run(script, tmp_path)
    assert json.loads((tmp_path / "shards/manifest.json").read_text())["samples"] == 80
    assert "acc1" in printed
    assert (tmp_path / "shards/report.html").is_file()
