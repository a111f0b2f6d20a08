"""`evaluate export`: each format is read back by other means and holds what the table holds."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from eval import results
from eval.cli import main
from eval.export import escaped
from eval.results import Row

ROW = Row(
    name="a_b", data="pets", protocol="zeroshot", metric="acc1", main=False, value=0.5, low=0.45, high=0.5512, interval="wilson over test images",
    k=None, n=1000, n_undecodable=0, n_classes=37, runs=(0.4, 0.6), checkpoint="c" * 64, step=10, samples_seen=100,
    manifests=({"digest": "m" * 64, "weight": None, "samples": 10},), train_config="t" * 64, dataset="d" * 64,
    classes="k" * 64, config="e" * 64, settings={"lr": 0.1}, labels={"source": "red & caps", "size": 1000},
)  # fmt: skip


@pytest.fixture
def table(tmp_path: Path) -> str:
    path = str(tmp_path / "r.jsonl")
    per_class = replace(ROW, metric="mean_per_class", main=True, value=0.48)
    other = replace(ROW, data="dtd", main=True, value=0.25, low=None, high=None, dataset="x" * 64)
    results.append(
        path, [ROW, per_class, other, replace(ROW, name="b", k=5, protocol="probe"), replace(ROW, name="b", k="all", protocol="probe")]
    )
    return path


def test_datacomp_reads_it_as_its_own(table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "eval_results.jsonl"
    assert main(["export", table, "--format", "datacomp", "--where", "name=a_b", "--output", str(out)]) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]  # as evaluate.py of mlfoundations/datacomp does
    by_set = {line["dataset"]: line for line in lines}
    assert by_set["pets"] == {
        "key": "pets", "dataset": "pets", "metrics": {"acc1": 0.5, "mean_per_class_recall": 0.48, "main_metric": 0.48},
    }  # fmt: skip
    assert by_set["dtd"]["metrics"] == {"acc1": 0.25, "main_metric": 0.25}
    again = ["export", table, "--format", "datacomp", "--output", str(tmp_path / "two")]
    assert main(again) == 2
    assert "2 models" in capsys.readouterr().err
    assert main([*again, "--where", "name=b"]) == 2
    assert "several rows give acc1 of pets" in capsys.readouterr().err
    assert not (tmp_path / "two").exists()


def test_csv_holds_all_digits(table: str, tmp_path: Path) -> None:
    out = tmp_path / "r.csv"
    assert main(["export", table, "--output", str(out)]) == 0
    rows = list(csv.DictReader(io.StringIO(out.read_text())))
    assert len(rows) == 5
    assert float(rows[0]["high"]) == 0.5512
    assert rows[0]["labels.source"] == "red & caps"
    assert rows[0]["covers"] == "test images"


def test_parquet_holds_rows_with_their_types(table: str, tmp_path: Path) -> None:
    out = tmp_path / "r.parquet"
    assert main(["export", table, "--format", "parquet", "--output", str(out)]) == 0
    rows = pq.read_table(out).to_pylist()
    assert [row["k"] for row in rows] == [None, None, None, "5", "all"]
    assert (rows[0]["value"], rows[0]["n"], rows[0]["main"]) == (0.5, 1000, False)
    assert json.loads(rows[0]["settings"]) == {"lr": 0.1}
    assert json.loads(rows[0]["labels"]) == ROW.labels
    assert json.loads(rows[0]["manifests"]) == list(ROW.manifests)
    assert rows[0]["chance"] == pytest.approx(1 / 37)
    assert str(pq.read_schema(out).field("k").type) == "string"
    assert main(["export", table, "--format", "parquet", "--where", "data=dtd", "--output", str(out), "--overwrite"]) == 0
    assert [str(pq.read_schema(out).field(name).type) for name in ("low", "k")] == ["double", "string"]
    names = set(asdict(ROW))
    assert names <= set(rows[0])


def test_latex_is_a_booktabs_table_with_intervals(table: str, tmp_path: Path) -> None:
    out = tmp_path / "t.tex"
    assert main(["export", table, "--format", "latex", "--metric", "acc1", "--output", str(out)]) == 0
    text = out.read_text()
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")].splitlines()[1:]
    assert [line.count("&") for line in body] == [4, 4]
    assert body[0].startswith(r"a\_b & 50.0\,{\scriptsize [45.0, 55.1]} & 25.0 & --")
    assert r"\toprule" in text
    assert "% 95% intervals over: wilson over test images" in text
    head = text[text.index(r"\toprule") :].splitlines()[1]
    assert head == r"name & pets zeroshot & dtd zeroshot & pets probe $k=5$ & pets probe $k=all$ \\"
    assert main(["export", table, "--format", "latex", "--rows", "source", "--where", "k=5", "--output", str(out), "--overwrite"]) == 0
    assert r"red \& caps & 50.0" in out.read_text()
    assert escaped(r"50% of $x_1$ \ {~^#}") == r"50\% of \$x\_1\$ \textbackslash{} \{\textasciitilde{}\textasciicircum{}\#\}"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here")
def test_latex_compiles(table: str, tmp_path: Path) -> None:
    out = tmp_path / "t.tex"
    assert main(["export", table, "--format", "latex", "--output", str(out)]) == 0
    whole = tmp_path / "whole.tex"
    whole.write_text("\\documentclass{article}\\usepackage{booktabs}\\begin{document}\\input{t}\\end{document}\n")
    subprocess.run(["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "whole"], cwd=tmp_path, check=True, capture_output=True)


def test_files_are_not_replaced_unasked(table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "r.csv"
    out.write_text("mine")
    assert main(["export", table, "--output", str(out)]) == 2
    assert out.read_text() == "mine"
    assert main(["export", table]) == 2
    assert "no --output" in capsys.readouterr().err
    assert main(["export", table, "--output", str(out), "--overwrite"]) == 0
    assert main(["export", table, "--output", str(out), "--format", "xlsx"]) == 2
