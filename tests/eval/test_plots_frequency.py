"""Concept frequency against class accuracy: counts from a CSV and from a real report, names by digest, the class below the fit."""

from __future__ import annotations

import io
import json
import math
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import plots_world as planted
import pytest
from PIL import Image

from eval import predictions, results
from eval.config import SelectConfig
from eval.plots import _counts, frequency
from eval.plots._config import PlotConfig
from eval.plots._view import View, view_of
from eval.plots.base import Chart, MissingError, Section
from eval.statistics.curves import fit
from eval.statistics.proportions import wilson
from eval.tables import selected
from shards.core.config import digest
from shards.core.errors import TornFileError, UsageError


def built(folder: Path, concepts: tuple[str, ...], **flags: Any) -> Section:
    """Return the section of two models with their answers kept."""
    return frequency.build(view(folder, concepts, **flags))


def view(folder: Path, concepts: tuple[str, ...], **flags: Any) -> View:
    path = str(folder / "results.jsonl")
    results.append(path, planted.answered(path))
    config = PlotConfig(results=path, concepts=concepts, **{"classnames": (planted.write_names(folder),), **flags})
    return view_of(config, selected(SelectConfig(results=path)))


def test_points_are_classes_with_their_accuracy(tmp_path: Path) -> None:
    seen = view(tmp_path, (planted.write_counts(tmp_path),))
    section = frequency.build(seen)
    assert [figure.title for figure in section.figures] == ["pets10, laion", "pets10, redcaps"]
    for figure in section.figures:
        assert isinstance(figure, Chart)
        (classes,) = [line for line in figure.series if line.kind == "points"]
        row = next(row for row in seen.rows if row["labels"]["source"] == classes.name)
        kept = predictions.read(seen.config.results, row["predictions"][0])
        for point in classes.points:
            own = kept.correct()[kept.labels == planted.PETS.index(point.label)]
            assert point.y == pytest.approx(own.mean())
            assert (point.low, point.high) == pytest.approx(wilson(int(own.sum()), len(own)))
            assert point.x == (planted.COUNTS[point.label] or frequency.NEVER)
        assert figure.ticks[0] == (frequency.NEVER, "0")


def test_the_fit_and_the_class_below_it(tmp_path: Path) -> None:
    section = built(tmp_path, (planted.write_counts(tmp_path),))
    fits, below = section.tables
    assert [(line[1], line[0].rpartition(", ")[2]) for line in below.rows] == [(planted.BELOW, "laion"), (planted.BELOW, "redcaps")]
    figure = section.figures[1]
    assert isinstance(figure, Chart)
    assert f"Below the fit: {planted.BELOW}." in figure.said
    curve, classes = figure.series
    mentioned = [point for point in classes.points if point.x >= 1]
    oracle = fit(np.array([point.x for point in mentioned]), np.array([point.y for point in mentioned]), "log-linear")
    at = np.array([point.x for point in curve.points])
    assert [point.y for point in curve.points] == pytest.approx(oracle.predict(at).tolist())
    assert [point.low for point in curve.points] == pytest.approx(oracle.interval(at)[0].tolist())
    line = dict(zip(fits.header, fits.rows[1], strict=True))
    assert line["points per tenfold"] == pytest.approx(oracle.parameters[1] * math.log(10))
    assert line["from"] < 0.06 * math.log(10) < line["to"]  # as planted
    assert line["never mentioned"] == 1


def test_counts_may_be_of_one_source(tmp_path: Path) -> None:
    section = built(tmp_path, (f"laion={planted.write_counts(tmp_path)}",))
    assert [figure.title for figure in section.figures] == ["pets10, laion"] or len(section.figures) == 1


def write_tars(folder: Path, captions: list[str]) -> Path:
    """Write a folder with a tar of pictures and captions, and return it."""
    out = folder / "set"
    out.mkdir()
    with tarfile.open(out / "00000.tar", "w") as tar:
        for at, caption in enumerate(captions):
            picture = io.BytesIO()
            Image.fromarray(np.random.default_rng(at).integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(picture, "JPEG")
            for suffix, content in (("jpg", picture.getvalue()), ("txt", caption.encode())):
                member = tarfile.TarInfo(f"{at:05d}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return out


@pytest.mark.slow
def test_a_real_report_gives_the_counts(tmp_path: Path) -> None:
    from curate.cli import main

    wanted = {"Beagle": 9, "Bengal": 5, "Pug": 2, "American Bulldog": 3}
    captions = [f"my {name.lower()} in the park, number {at}" for name, count in wanted.items() for at in range(count)]
    names = tmp_path / "pets10.txt"
    names.write_text("".join(f"{name}\n" for name in planted.PETS))
    page = tmp_path / "report.html"
    flags = ["--engine", "inline", "--concepts", str(names), "--output", str(page)]
    assert main(["report", str(write_tars(tmp_path, captions)), *flags]) == 0
    counts = _counts.read_counts(str(tmp_path / "report.json"))
    found, missing, name = _counts.counts_of(counts, planted.PETS)
    assert name == "pets10"
    assert missing == []
    assert found == {pet: wanted.get(pet, 0) for pet in planted.PETS}
    assert _counts.counts_of(_counts.read_counts(str(tmp_path)), planted.PETS)[0] == found  # a build's folder, its report in it
    assert built(tmp_path, (str(tmp_path / "report.json"),)).figures


def test_a_csv_of_curate_report_may_hold_several_sets(tmp_path: Path) -> None:
    path = tmp_path / "concepts.csv"
    path.write_text(
        "set,class,mentions,captions\nothers,dog,9,8\nothers,Pug,1,1\npets,abyssinian,5,4\npets,american-bulldog,3,3\npets,pug,0,0\n"
    )
    counts = _counts.read_counts(str(path))
    found, missing, name = _counts.counts_of(counts, ("Abyssinian", "American Bulldog", "Pug", "Boxer"))
    assert (found, missing, name) == ({"Abyssinian": 4, "American Bulldog": 3, "Pug": 0}, ["Boxer"], "pets")
    assert _counts.counts_of(counts, ("red", "green", "blue"))[0] == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class,colour\na,b\n", "columns class, colour"),
        ("class,count\nPug,many\n", "line 2: 'many' is no count"),
        ("class,count\nPug,-1\n", "line 2: count -1"),
    ],
)
def test_a_csv_that_is_none(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "counts.csv"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        _counts.read_counts(str(path))


def test_other_bad_counts(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no report\.json in it"):
        _counts.read_counts(str(tmp_path))
    with pytest.raises(UsageError, match="no such file"):
        _counts.read_counts(str(tmp_path / "none.csv"))
    (tmp_path / "report.json").write_text(json.dumps({"concepts": 3}))
    with pytest.raises(TornFileError, match="no report"):
        _counts.read_counts(str(tmp_path))


def test_class_names_are_known_by_their_digest(tmp_path: Path) -> None:
    from eval.downstream import dtd, pets

    keys = {digest(list(names)): names for names in (pets.CLASSES, dtd.CLASSES, planted.PETS)}
    assert set(_counts.class_names(keys, (), "")) == set(keys) - {planted.NAMES_DIGEST}
    assert _counts.class_names(keys, (planted.write_names(tmp_path),), "")[planted.NAMES_DIGEST] == planted.PETS
    with pytest.raises(MissingError, match="the class names of pets10 are not known"):
        built(tmp_path, (planted.write_counts(tmp_path),), classnames=())


def test_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no --concepts"):
        built(tmp_path, ())
    path = str(tmp_path / "other.jsonl")
    results.append(path, planted.curves())
    bare = view_of(PlotConfig(results=path, concepts=(planted.write_counts(tmp_path),)), selected(SelectConfig(results=path)))
    with pytest.raises(MissingError, match="no row has its answers"):
        frequency.build(bare)
