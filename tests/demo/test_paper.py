"""The world of examples/mini-paper.yaml: what its captions say is what was planted, and the study over it is understood."""

from __future__ import annotations

import csv
import os
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from readme_blocks import ROOT

from demo import paper
from eval.study.jobs import plan
from eval.study.spec import read
from shards.manifest import read_manifest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("paper") / "demo/paper"
    assert paper.run(["draw", "--output", str(out)]) == 0
    return out


def rows_of(path: Path) -> list[list[str]]:
    """Return the rows of a CSV file below its header."""
    with path.open(newline="") as file:
        return list(csv.reader(file))[1:]


def test_captions_name_what_they_should(world: Path) -> None:
    for source in paper.SOURCES:
        captions = dict(rows_of(world / "drawn" / source / "captions.csv"))
        truth = {uid: int(number) for uid, number in rows_of(world / "drawn" / source / "truth.csv")}
        kind = "grounds" if source == "grounds" else "things"
        names = paper.TARGETS[kind]
        kept = [row for path in sorted((world / "shards" / source).glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
        assert len(kept) == len(captions) == 2000
        assert all(names[truth[row["uid"]]] in row["caption"] for row in kept)
        assert len(Counter(truth.values())) == len(names)
    noisy = dict(rows_of(world / "drawn/noisy/captions.csv"))
    right = sum(paper.CLASSES[int(name[:5]) % 16] in caption for name, caption in noisy.items())
    assert right / 2000 == pytest.approx(1 - paper.NOISE * 15 / 16, abs=0.03)  # a wrong caption may name the same thing by chance


def test_the_example_is_a_study_over_it(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world.parent.parent)
    os.symlink(ROOT / "demo/train.yaml", "demo/train.yaml")
    os.symlink(ROOT / "demo/simclr.yaml", "demo/simclr.yaml")
    jobs = plan(read(str(ROOT / "examples/mini-paper.yaml")), "study")
    kinds = Counter(job.kind for job in jobs)
    # 3 sources × 2 sizes × 2 draws, × 3 objectives; on 2 targets 36 fine-tunings, 36 probes, 12 zero-shots and a control each
    assert kinds == {"subset": 12, "train": 36, "evaluate": 2 * (36 + 36 + 12 + 1)}
    assert read_manifest(str(world / "shards/things")).samples == 2000
