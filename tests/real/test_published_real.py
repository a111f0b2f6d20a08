"""The published table itself: the counts of the research notes, the best over its grid, and what is copied."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eval.cli import main
from eval.published import Published, read, rows_of

# paper-and-sources 1.4, as printed: best over the grid, CLIP then fine-tuned, RN50; 1/5/10/20/full shots.
BEST = {
    ("Scratch", "CIFAR100"): "–/–/–/–/72.8", ("Scratch", "DTD"): "–/–/–/–/44.6",
    ("CC3m", "CIFAR100"): "23.8/37.3/45.4/52.4/83.5", ("CC3m", "PETS"): "6.7/28.7/45.9/67.9/86.2",
    ("CC12m", "DTD"): "11.4/38.2/48.2/57.0/65.9", ("CC12m", "CALTECH101"): "7.0/46.1/71.7/–/85.7",
    ("YFCC2.7m", "REAL"): "6.1/26.9/38.0/49.2/82.2", ("YFCC2.7m", "CLIPART"): "3.5/15.6/26.8/40.9/69.9",
    ("LAION2.7m", "CIFAR100"): "26.8/39.0/46.2/54.5/83.7", ("Redcaps2.7m", "PETS"): "7.9/29.2/48.9/71.4/87.8",
    ("Shutterstock2.7m", "DTD"): "11.4/43.9/51.8/60.7/68.6", ("WIT2.7m", "PETS"): "6.5/22.1/34.4/57.0/83.2",
    ("LAION15m", "CIFAR100"): "41.5/47.0/54.0/60.2/83.7", ("LAION1m", "DTD"): "16.5/31.3/38.4/50.6/60.6",
    ("IN1K-Captions", "CLIPART"): "4.1/17.2/25.5/39.7/72.3", ("IN_1K_CLIP_captions", "REAL"): "17.1/46.0/57.6/65.7/83.0",
}  # fmt: skip
FILLED = 3812
SHOTS = ("1", "5", "10", "20", "all")


@pytest.fixture(scope="module")
def table(realdata: Path) -> str:
    return str(realdata / "reference" / "Hyperparameters_results.csv")


@pytest.fixture(scope="module")
def published(table: str) -> Published:
    return read(table)


def test_the_table_is_read_whole(published: Published) -> None:
    assert published.lines == 947
    assert published.no_numbers == 21
    assert sum(cell.column in ("1", "5", "10", "20", "full", "100", "200") for cell in published.cells) == FILLED


def test_multiples_are_as_many_as_in_the_notes(published: Published) -> None:
    counts = {}
    for target, columns in (
        ("EuroSAT", ("5", "10", "20")), ("CameraTraps", ("1", "5", "10", "20")), ("CassavaLeafDisease", ("5", "10", "20")),
        ("CLIPART", ("1", "5", "10", "20")), ("REAL", ("1", "5", "10", "20")),
    ):  # fmt: skip
        pairs = [published.multiples[target, column] for column in columns]
        counts[target] = (sum(hits for hits, _ in pairs), sum(total for _, total in pairs))
    assert counts == {
        "EuroSAT": (175, 175), "CameraTraps": (266, 266), "CassavaLeafDisease": (222, 222), "CLIPART": (255, 260), "REAL": (249, 256),
    }  # fmt: skip
    marked = {(cell.target, cell.column) for cell in published.cells if "subsampled" in cell.signs}
    assert {target for target, _ in marked} == set(counts)  # CIFAR100, DTD, CALTECH101 and PETS used the whole test set


def test_copies_warm_ups_and_heads_are_marked(published: Published) -> None:
    copies = {(cell.model, cell.copied_from, cell.target) for cell in published.cells if "copied" in cell.signs}
    assert copies == {
        (model, source, target)
        for model, source in (
            (("LAION2B", "RN50", "CLIP"), "LAION2B VITB32 CLIP"),
            (("LAION0m", "RN50", "CLIP"), "Scratch RN50 CLIP"),
        )
        for target in ("CIFAR100", "DTD", "PETS")
    }
    heads = {cell.target for cell in published.cells if "head" in cell.signs}
    assert heads == {"DTD", "CALTECH101", "PETS", "REAL", "CLIPART", "CameraTraps", "CassavaLeafDisease"}
    usual = [cell for cell in published.cells if cell.entries["ds_bs"] == "128" and cell.entries["ds_epochs"] == "128"]
    warm = {(cell.target, cell.column) for cell in usual if "warmup" in cell.signs}
    shots = {cell.target: {column for target, column in warm if target == cell.target} for cell in usual}
    assert all("1" in columns for columns in shots.values())
    assert {target: columns - {"1"} for target, columns in shots.items() if columns != {"1"}} == {
        "DTD": {"5"}, "PETS": {"5", "10"}, "CameraTraps": {"5", "10", "20"}, "EuroSAT": {"5", "10", "20"},
        "CassavaLeafDisease": {"5", "10", "20"},
    }  # fmt: skip


def test_the_best_over_the_grid_is_that_of_the_notes(table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = str(tmp_path / "published.jsonl")
    assert main(["import", table, "--output", output]) == 0
    capsys.readouterr()
    flags = ["--protocol", "finetune", "--where", "loss=CLIP", "arch=RN50", "--best", "lr,bs,epochs,pretrain_bs", "--json"]
    assert main(["table", output, *flags]) == 0
    rows = json.loads(capsys.readouterr().out)
    found = {(row["labels"]["source"], row["data"], str(row["k"])): row for row in rows}
    assert len(found) == len(rows)
    compared = 0
    for (source, target), cells in BEST.items():
        for shots, expected in zip(SHOTS, cells.split("/"), strict=True):
            row = found.get((source, target, shots))
            assert (row is None) == (expected == "–"), (source, target, shots)
            if row is not None:
                assert 100 * row["value"] == pytest.approx(float(expected), abs=0.0501), (source, target, shots)
                compared += 1
    assert compared == 71
    chosen = [row for row in rows if row["chosen"]["of"] > 1]
    assert {row["chosen"]["by"] for row in chosen} == {"test"}
    assert all("on test" in row["interval"] for row in chosen)


def test_every_cell_but_repeated_zeros_is_a_row(published: Published) -> None:
    rows = list(rows_of(published))
    assert sum(row.protocol == "finetune" for row in rows) == sum(cell.column != "zero" for cell in published.cells)
    assert len({row.config for row in rows}) == len(rows)
    assert all(0 <= row.low <= row.value <= row.high <= 1 for row in rows if row.low is not None and row.high is not None)
