"""`evaluate import` on a generated excerpt in the published layout, with each flaw planted, and without."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from eval import results
from eval.cli import main
from eval.published import COLUMNS, TARGETS, by_chance, is_multiple, read, rows_of, training_steps

CELLS = ("zero", "1", "5", "10", "20", "full", "100", "200")


def line(us: str = "CC3m", ds: str = "EuroSAT", lr: float = 1e-4, arch: str = "RN50", loss: str = "CLIP", **cells: str) -> dict[str, str]:
    """Return one line of the table as its writer prints it."""
    model = {"loss": loss, "arch": arch, "us": us, "us_epochs": "16", "us_lr": "0.001", "us_bs": "1024", "us_wd": "0.1"}
    tuning = {"ds": ds, "ds_epochs": "128", "ds_lr": f"{lr:g}".replace("e-0", "E-0"), "ds_bs": "128", "ds_wd": "0.1"}
    return {**model, **tuning, **{name: cells.get(f"k{name}", cells.get(name, "")) for name in CELLS}}


def percent(share: float, images: int) -> str:
    return f"{100 * round(share * images) / images:.3f}".rstrip("0").rstrip(".")


def written(path: Path, lines: list[dict[str, str]], separator: str = "\t") -> str:
    content = [separator.join(["", *COLUMNS])]
    content += [separator.join([str(at), *(entry[name] for name in COLUMNS)]) for at, entry in enumerate(lines)]
    path.write_text("\n".join(content) + "\n")
    return str(path)


def excerpt(cut: bool, seed: int = 0) -> list[dict[str, str]]:
    """Return lines of four models on two targets at three learning rates; few-shot test sets whole, or cut to the shots."""
    rng = np.random.default_rng(seed)
    lines = []
    for us in ("CC3m", "YFCC2.7m", "WIT2.7m", "LAION2.7m"):
        for ds in ("EuroSAT", "DTD"):
            classes, whole = TARGETS[ds]
            zero = percent(0.021 if ds == "DTD" else 0.4, whole)
            for lr in (1e-4, 3e-4, 1e-3):
                few = {f"k{k}": percent(rng.uniform(0.2, 0.9), classes * k if cut and ds == "EuroSAT" else whole) for k in (5, 10, 20)}
                lines.append(line(us, ds, lr, zero=zero, full=percent(rng.uniform(0.5, 0.9), whole), **few))
    return lines


def test_a_cut_test_set_is_found_where_it_is_cut(tmp_path: Path) -> None:
    published = read(written(tmp_path / "cut.csv", excerpt(cut=True)))
    assert published.lines == 24
    signed = {(cell.target, cell.column) for cell in published.cells if "subsampled" in cell.signs}
    assert signed == {("EuroSAT", "5"), ("EuroSAT", "10"), ("EuroSAT", "20")}
    assert published.multiples["EuroSAT", "5"] == (12, 12)
    few = next(cell for cell in published.cells if cell.target == "EuroSAT" and cell.column == "5")
    assert few.images == 50
    assert next(cell for cell in published.cells if cell.target == "DTD" and cell.column == "5").images == 1880
    whole = read(written(tmp_path / "whole.csv", excerpt(cut=False)))
    assert not any("subsampled" in cell.signs for cell in whole.cells)


def test_multiples_by_accident_are_counted_against() -> None:
    assert is_multiple(42.0, 50)
    assert is_multiple(33.333, 3)
    assert not is_multiple(43.0, 50)
    assert by_chance(940, 1880) == pytest.approx(0.5, abs=0.001)
    assert by_chance(50, 5400) == pytest.approx(51 / 5401, rel=0.01)


def test_heads_at_chance_are_found_by_target(tmp_path: Path) -> None:
    published = read(written(tmp_path / "t.csv", excerpt(cut=False)))
    assert {cell.target for cell in published.cells if "head" in cell.signs} == {"DTD"}
    other = [{**entry, "loss": "SimCLR_LP-FT"} for entry in excerpt(cut=False)]
    assert not any("head" in cell.signs for cell in read(written(tmp_path / "u.csv", other)).cells)


def test_warm_up_that_is_longer_than_training(tmp_path: Path) -> None:
    """500 steps against 128 epochs of as many batches as shots make: the figures of the research notes."""
    targets = {"REAL": {1: 384}, "DTD": {1: 128, 5: 256, 10: 512}, "PETS": {5: 256, 10: 384}, "CameraTraps": {20: 384}}
    lines = [line(ds=ds, **{f"k{k}": "50" for k in steps}, full="60") for ds, steps in targets.items()]
    cells = read(written(tmp_path / "t.csv", lines)).cells
    assert {(c.target, c.shots): training_steps(c) for c in cells if c.shots} == {
        (ds, k): s for ds, steps in targets.items() for k, s in steps.items()
    }
    warm = {(c.target, c.column) for c in cells if "warmup" in c.signs}
    assert warm == {("REAL", "1"), ("DTD", "1"), ("DTD", "5"), ("PETS", "5"), ("PETS", "10"), ("CameraTraps", "20")}


def test_copied_values_are_found(tmp_path: Path) -> None:
    model = [line("LAION2B", ds, lr, "VITB32", full=value) for ds, values in (("CIFAR100", ("90.52", "89.64")), ("DTD", ("73.138", "74.309")))
             for lr, value in zip((3e-6, 1e-5), values, strict=True)]  # fmt: skip
    copies = [line("LAION2B", "CIFAR100", full="90.52"), line("LAION2B", "DTD", full="74.31"), line("LAION2B", "PETS", full="93.1")]
    honest = [line("CC3m", "CIFAR100", full="83.45"), line("CC3m", "DTD", full="74.31")]  # one agrees by chance
    cells = read(written(tmp_path / "t.csv", [*model, *copies, *honest])).cells
    copied = [cell for cell in cells if "copied" in cell.signs]
    assert {(cell.model, cell.target) for cell in copied} == {(("LAION2B", "RN50", "CLIP"), ds) for ds in ("CIFAR100", "DTD", "PETS")}
    assert {cell.copied_from for cell in copied} == {"LAION2B VITB32 CLIP"}


def test_rows_have_labels_settings_and_intervals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, output = written(tmp_path / "t.csv", [*excerpt(cut=True), line("Scratch", full="50", k20="Nan")]), str(tmp_path / "out.jsonl")
    assert main(["import", path, "--output", output]) == 0
    shown = capsys.readouterr()
    assert "EuroSAT" in shown.out
    assert "1 cell holds no number and no blank" in shown.err
    assert "36 cells of test sets cut" in shown.err
    rows = results.read(output)
    assert len(rows) == 24 * 4 + 8 + 1  # a `zero` that lines repeat is one row
    few = next(r for r in rows if r["data"] == "EuroSAT" and r["k"] == 5)
    assert few["labels"]["source"] == "CC3m"
    assert (few["settings"]["lr"], few["settings"]["bs"], few["settings"]["epochs"]) == (0.0001, 128, 128)
    assert (few["n"], few["n_classes"], few["protocol"]) == (50, 10, "finetune")
    assert few["interval"] == "wilson over test images, of a cut test set"
    assert few["low"] < few["value"] < few["high"]
    assert "data" not in rows[-1]["labels"]  # from scratch: there is no data to be unknown
    assert {r["k"] for r in rows if r["protocol"] == "zeroshot"} == {None}
    assert main(["table", output, "--best", "lr", "--where", "source=CC3m", "data=DTD", "k=all", "--protocol", "finetune", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["value"] == max(r["value"] for r in rows if r["labels"]["source"] == "CC3m" and r["data"] == "DTD" and r["k"] == "all")
    assert found["chosen"]["of"] == 3
    assert main(["import", path, "--output", output, "--strict"]) == 1


def test_commas_are_read_too_and_other_files_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(list(rows_of(read(written(tmp_path / "c.csv", excerpt(cut=True), ","))))) == 24 * 4 + 8
    bad = tmp_path / "bad.csv"
    bad.write_text("a,b\n1,2\n")
    output = str(tmp_path / "o.jsonl")
    assert main(["import", str(bad), "--output", output]) == 2
    assert "no column loss, arch" in capsys.readouterr().err
    assert main(["import", written(bad, [line(ds="Birds", full="3")]), "--output", output]) == 2
    assert "line 1: target 'Birds'" in capsys.readouterr().err
    assert main(["import", written(bad, [{**line(full="3"), "ds_lr": "fast"}]), "--output", output]) == 2
    assert "ds_lr is 'fast'" in capsys.readouterr().err
    assert main(["import", str(tmp_path / "none.csv"), "--output", output]) == 2
    assert not Path(output).exists()
