"""Decontamination on CIFAR-10's own duplicates between test and train (ciFAIR): what each mode finds."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curate.cli import main
from curate.decontaminate.claims import recall
from curate.decontaminate.search import near_views
from curate.decontaminate.sets import open_sets
from curate.decontaminate.views import VIEWS
from curate.images import ImagePolicy, open_image
from curate.recipe import Exclude


@pytest.fixture(scope="module")
def cifar(realdata: Path) -> Path:
    return realdata / "neardup" / "cifar10"


def judged(cifar: Path) -> list[tuple[str, str, int]]:
    """Return ciFAIR's pairs as (test image, train image, judgment); 1 is a near duplicate, 2 very similar."""
    with (cifar / "pairs.csv").open() as file:
        return [
            (r["test_file"].removeprefix("test/"), r["train_file"].removeprefix("train/"), int(r["judgment"])) for r in csv.DictReader(file)
        ]


def test_what_each_mode_finds_of_the_known_pairs(cifar: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each pair's hashes are compared one by one: the search must find the same ones."""
    (test,) = open_sets((str(cifar / "test"),), "reference", ImagePolicy(), True, str(tmp_path), 1, "inline")
    pairs = judged(cifar)
    train = sorted({name for _, name, _ in pairs})
    hashes = {name: open_image((cifar / "train" / name).read_bytes(), ImagePolicy(), "reference").phash for name in train}
    distinct = np.unique(np.array(list(hashes.values()), np.uint64))
    shares = {}
    for mode, views in (("as it is", test.views[:, :1]), (f"{len(VIEWS)} views", test.views)):
        found = near_views(distinct, views, test.usable, 4)
        hits = {(test.names[image], int(distinct[build])) for build, image in zip(found.build, found.image, strict=True)}
        one_by_one = {
            (t, n)
            for t, n, _ in pairs
            if (np.bitwise_count(views[test.names.index(t)] ^ np.uint64(hashes[n])) <= 4).any() and test.usable[test.names.index(t)]
        }
        assert {(t, n) for t, n, _ in pairs if (t, hashes[n]) in hits} == one_by_one
        shares[mode] = [round(float(np.mean([(t, n) in one_by_one for t, n, j in pairs if j == judgment])), 3) for judgment in (1, 2)]
    with capsys.disabled():
        print(f"\nCIFAR-10 test-train pairs found at r <= 4 (near duplicates, very similar): {shares}", end=" ")  # noqa: T201
    as_it_is, with_views = shares.values()
    assert 0.1 < as_it_is[0] < 0.4  # "a fifth": hashes alone are far from a guarantee
    assert with_views[0] > as_it_is[0]
    assert with_views[1] < 0.5


def test_a_build_of_the_train_images_without_those_of_the_test_set(cifar: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    flags = ["--source", "folder", "--input", str(cifar / "train"), "--template", "a photo of a {}", "--samples", "all"]
    assert main(["build-shards", "--engine", "inline", *flags, "--exclude-near", str(cifar / "test"), "--output", str(out)]) == 0
    talk = capsys.readouterr().err
    assert "recall on planted copies" in talk
    pairs = pq.read_table(out / "examples" / "contamination.parquet").to_pylist()
    ledger = pq.read_table(sorted((out / "ledger").glob("*.parquet"))).to_pylist()
    names = {row["uid"]: row["source_id"] for row in ledger}
    dropped = {row["source_id"] for row in ledger if row["reason"] == "near_test_image"}
    found = {(row["test_image"], names[row["uid"]]) for row in pairs}
    assert {train for _, train in found} == dropped
    assert len(dropped) >= 12
    # What goes, goes for a reason: the pictures look alike, whoever listed them.
    alike = [correlation(cifar / "test" / test, cifar / "train" / train) for test, train in found]
    assert np.median(alike) > 0.8
    assert min(alike) > 0.4


def correlation(a: Path, b: Path) -> float:
    """Return the correlation of two pictures' pixels, the second one flipped where that is more."""
    first, second = (np.asarray(Image.open(path).convert("L"), float) for path in (a, b))
    return max(float(np.corrcoef(first.ravel(), other.ravel())[0, 1]) for other in (second, second[:, ::-1]))


def test_recall_on_photos_by_kind_of_copy(realdata: Path, tmp_path: Path) -> None:
    """What the views promise (their docstring, docs/LOG.md), on photos and on kinds of copies that they were not drawn from."""
    folder = str(realdata / "classification" / "oxford-pets")
    (pets,) = open_sets((folder,), "reference", ImagePolicy(), True, str(tmp_path), 1, "inline")
    alone, views = recall(pets, Exclude()).values()
    assert min(views["re-encoded"], views["resized"], views["flipped"]) > 0.97
    assert max(alone["flipped"], alone["cropped"], alone["captioned"]) < 0.1
    assert views["bordered"] > 0.8
    assert views["captioned"] > 0.6
    assert 0.1 < views["cropped"] < 0.6
    assert all(views[kind] >= alone[kind] for kind in alone)
