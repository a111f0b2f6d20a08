"""A training reads the captions of foreign tars as a build from them does, and counts the same."""

from __future__ import annotations

import codecs
import contextlib
import itertools
from pathlib import Path
from typing import Any

import pytest
from pictures import encoded, photo

from curate.layer import lay_tokens
from curate.sources import webdataset
from curate.sources.base import Input
from shards.manifest import Manifest, read_manifest
from shards.preflight import preflight
from shards.tables.notes import noting
from shards.tables.text import NOT_UTF8
from tests.shards.foreign import foreign
from tests.train import runs
from train.data.batch import Batch, Needs
from train.data.loader import Loader
from train.loop import train

SAMPLES = 32
TEXTS = {
    0: ("Ein Café", "Ein Café".encode("cp1252")),
    1: ("mit Marke ä", codecs.BOM_UTF8 + "mit Marke ä".encode()),
    2: ("UTF-16 ö", codecs.BOM_UTF16_LE + "UTF-16 ö".encode("utf-16-le")),
    3: ("without a mark, in sixteen bits", "without a mark, in sixteen bits".encode("utf-16-be")),
    4: ("", b"nan"),
    5: ("", b" None\n"),
    6: ("naïve", "naïve".encode("latin-1")),
    7: ("ä" * 4000, ("ä" * 4000).encode()),
    8: ("x" + "ä" * 4000, ("x" + "ä" * 4000).encode()),
}


def expected(i: int) -> str:
    return TEXTS[i][0] if i in TEXTS else f"caption {i}"


def foreign_set(folder: Path) -> Manifest:
    def members(i: int) -> dict[str, bytes]:
        return {"jpg": encoded(photo(32, 32, seed=i)), "txt": TEXTS[i][1] if i in TEXTS else f"caption {i}".encode()}

    return foreign(folder, members, samples=SAMPLES, per_tar=SAMPLES)


def batches(manifest: Manifest, number: int, **settings: Any) -> list[Batch]:
    needs = Needs(captions=True, context_length=int(bool(settings)) * 77)
    loader = Loader([(manifest, None)], batch_size=16, image_size=16, seed=0, workers=2, needs=needs, **settings)
    with contextlib.closing(loader.batches()) as made:  # type: ignore[type-var]
        return list(itertools.islice(made, number))


def test_training_reads_what_a_build_reads_and_counts_the_same(tmp_path: Path) -> None:
    manifest = foreign_set(tmp_path / "set")
    path = str(tmp_path / "set" / "00000.tar")
    with noting() as tally:
        built = {record.row: "".join(record.captions) for record in webdataset.read(Input(path, "00000.tar"), webdataset.Options())}
    made = batches(manifest, SAMPLES // 16)
    trained = {p: c for batch in made for p, c in zip(batch.positions.tolist(), batch.captions, strict=True)}
    assert trained == built == {i: expected(i) for i in range(SAMPLES)}
    assert sum(batch.recoded for batch in made) == tally.counts[NOT_UTF8] == 2
    assert sum(batch.empty_captions for batch in made) == 2


def test_the_preflight_counts_them(tmp_path: Path) -> None:
    findings = preflight(foreign_set(tmp_path / "set"), captions=True)
    assert (findings.blank_captions, findings.captions_not_utf8, findings.captions_looked_at) == (2, 2, SAMPLES)
    assert any("2 of 32 captions looked at are no UTF-8, and are read as cp1252, such as 00000.tar" in line for line in findings.lines())


def test_a_layer_of_tokens_is_of_the_same_captions(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    foreign_set(folder)
    lay_tokens(read_manifest(str(folder)), "clip", 1, "inline", overwrite=False)
    for plain, laid in zip(
        batches(read_manifest(str(folder)), 2, tokens=""), batches(read_manifest(str(folder)), 2, tokens="clip"), strict=True
    ):
        assert plain.tokens is not None
        assert laid.tokens is not None
        assert (plain.tokens == laid.tokens).all()


@pytest.mark.usefixtures("micro_models", "one_thread")
def test_a_training_says_the_counts_at_its_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    foreign_set(tmp_path / "set")
    assert train(runs.config("clip", str(tmp_path / "set"), tmp_path / "run", epochs=1.0)) == 0
    said = capsys.readouterr().err
    assert "captions: 2 that are no UTF-8 were read as cp1252" in said
    assert "empty captions: 2 samples" in said
