"""Test images that training data hold, too: the search against brute force, real builds, rows without them, the page."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from curate.cli import main as curate
from eval import metrics, predictions, results
from eval.answers import Answers
from eval.cli import main
from eval.metrics import Score
from eval.overlap.near import RADIUS, NearIndex, hash_of
from eval.overlap.rows import Without
from eval.overlap.search import counts, kind_of, matches
from shards.manifest import read_manifest
from shards.reader import Shard
from tests.curate.drawing import captioned_folder, encoded, picture
from tests.train import runs
from train import loop

CLASSES = ("barn", "boat", "tree")


@pytest.fixture(scope="module", autouse=True)
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    runs.know_models(tmp_path_factory.mktemp("models"))
    with runs.one_thread():
        yield


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A build of 40 pictures."""
    root = tmp_path_factory.mktemp("pretrain")
    rows = [(f"{i}.jpg", encoded(picture(i)), f"a picture of number {i}") for i in range(40)]
    folder = captioned_folder(root / "photos", rows)
    flags = [
        "build-shards",
        "--source",
        "folder",
        "--input",
        str(folder),
        "--output",
        str(root / "build"),
        "--engine",
        "inline",
        "--samples",
        "all",
    ]
    assert curate(flags) == 0
    return str(root / "build")


@pytest.fixture(scope="module")
def trained(build: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("run") / "clip"
    assert loop.train(runs.config("clip", build, out)) == 0
    return str(out)


def again(content: bytes, scale: float, quality: int) -> bytes:
    """Return a picture resized and encoded anew, as another collection has it."""
    image = Image.open(io.BytesIO(content))
    return encoded(image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS), quality=quality)


@pytest.fixture(scope="module")
def things(build: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """24 images in three classes: 3 are the build's byte for byte, 3 are copies of its pictures, 18 are others."""
    root = tmp_path_factory.mktemp("test") / "things"
    for i in range(24):
        content = encoded(picture(1000 + i))
        if i < 3:
            content = encoded(picture(i))
        elif i < 6:
            content = again(encoded(picture(i)), 1.5, 70)
        path = root / CLASSES[i % 3] / f"{i:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return str(root)


def evaluated(tmp_path: Path, verb: str, *flags: str) -> list[dict[str, Any]]:
    table = str(tmp_path / "results.jsonl")
    assert main([verb, *flags, "--results", table]) == 0
    return results.read(table)


@pytest.mark.parametrize("seed", range(4))
def test_near_pairs_are_those_of_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    few = rng.integers(0, 2**64, 300, dtype=np.uint64)
    many = rng.integers(0, 2**64, 2000, dtype=np.uint64)
    for row in range(400):  # copies that differ in 0 to 7 bits
        flips = rng.choice(64, rng.integers(0, 8), replace=False)
        many[row] = few[rng.integers(300)] ^ np.uint64(sum(1 << int(bit) for bit in flips))
    usable = rng.random(300) < 0.8
    apart = np.array([[int(a ^ b).bit_count() for b in many.tolist()] for a in few.tolist()])
    expected = {(i, j, apart[i, j]) for i, j in np.argwhere(apart <= RADIUS).tolist() if usable[i]}
    assert len(expected) > 100
    here, there, bits = NearIndex(few, usable).pairs(many)
    assert set(zip(here.tolist(), there.tolist(), bits.tolist(), strict=True)) == expected
    assert len(here) == len(expected)


def test_no_hashes_give_no_pairs() -> None:
    empty = np.zeros(0, np.uint64)
    assert [len(part) for part in NearIndex(empty, np.zeros(0, bool)).pairs(empty)] == [0, 0, 0]


def test_hashes_are_near_those_of_a_build(build: str) -> None:
    manifest = read_manifest(build)
    kind = kind_of(manifest)
    with Shard(manifest, manifest.shards[0]) as shard:
        kept = [int(value, 16) for value in shard.sidecar(["phash"]).column("phash").to_pylist()]
        content = [shard.read(i, "jpg") for i in range(len(shard))]
    apart = [(hash_of(jpeg, kind)[0] ^ known).bit_count() for jpeg, known in zip(content, kept, strict=True)]
    assert max(apart) <= 2
    small = [(hash_of(again(jpeg, 0.6, 60), kind)[0] ^ known).bit_count() for jpeg, known in zip(content, kept, strict=True)]
    assert np.mean(np.array(small) <= RADIUS) > 0.9


def test_what_does_not_decode_or_says_nothing_matches_nothing() -> None:
    assert hash_of(b"no picture", "scaled") == (0, False)
    assert hash_of(encoded(Image.new("RGB", (64, 64), (90, 90, 90))), "scaled")[1] is False


def test_matches_of_each_kind(build: str, things: str) -> None:
    from eval.data import open_examples
    from eval.datasets.base import Columns

    test = open_examples(things, "", "", Columns())
    found = matches(test, [read_manifest(build)])
    assert counts(found) == {"bytes": 3, "uid": 0, "near": 3}
    assert {test.ids[match.place].rpartition("/")[2] for match in found} == {f"{i:02}.jpg" for i in range(6)}
    for match in found:
        if match.how == "bytes":
            assert match.picture() == test.read(match.place)
    itself = open_examples(things, "", "", Columns())
    assert counts(matches(test, [], [itself])) == {"bytes": 24, "uid": 0, "near": 0}


def test_rows_say_what_was_seen_and_what_is_left(build: str, trained: str, things: str, tmp_path: Path) -> None:
    flags = ["--checkpoint", trained, "--data", things, "--pretrain", build, "--without-overlap"]
    rows = evaluated(tmp_path, "zeroshot", *flags)
    whole = [row for row in rows if row["data"] == "things"]
    left = [row for row in rows if row["data"] == "things without overlap"]
    assert [row["metric"] for row in whole] == [row["metric"] for row in left]
    assert whole[0]["settings"]["seen"] == {"bytes": 3, "uid": 0, "near": 3}
    assert whole[0]["settings"]["searched"] == [read_manifest(build).digest]
    assert (whole[0]["n"], left[0]["n"]) == (24, 18)
    assert left[0]["dataset"] != whole[0]["dataset"]
    kept = predictions.read(str(tmp_path / "results.jsonl"), whole[0]["predictions"][0])
    seen = {results_uid(Path(things) / CLASSES[i % 3] / f"{i:02}.jpg") for i in range(6)}
    unseen = np.array([uid.decode() not in seen for uid in kept.uids])
    assert left[0]["value"] == pytest.approx(kept.correct()[unseen].mean())
    page = next((tmp_path / "results.overlap").iterdir()).read_text()
    assert "6 of 24 test images of <bdi>things</bdi> are in the training data" in page
    assert page.count("<img ") == 12
    assert "<script" not in page


def results_uid(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()[: predictions.UID_DIGITS]


def test_a_training_set_is_searched_and_means_are_over_draws(trained: str, things: str, tmp_path: Path) -> None:
    rows = evaluated(
        tmp_path, "probe", "--checkpoint", trained, "--data", things, "--train", things, "--k", "2", "--seeds", "3", "--data-name", "t"
    )
    assert {row["data"] for row in rows} == {"t"}
    everything = evaluated(
        tmp_path / "all", "probe", "--checkpoint", trained, "--data", things, "--train", things, "--k", "2", "--without-overlap"
    )
    assert all(row["data"] == "things" for row in everything)  # no image is left, so there is no second row
    assert everything[0]["settings"]["seen"]["bytes"] == 24


@pytest.mark.parametrize("wrong", [0, 1])
def test_draws_that_give_the_same_keep_the_interval_over_images(wrong: int, trained: str, things: str) -> None:
    """Over two draws without spread a t interval would have no width; of one draw there is none over draws."""
    from eval.data import open_examples

    examples = open_examples(things)
    scores = np.eye(3)[examples.labels]
    scores[:wrong] = np.roll(scores[:wrong], 1, axis=1)
    one, two = (tuple(Answers(examples, scores) for _ in range(count)) for count in (1, 2))
    nothing = np.zeros(0, "S64")
    value = 1 - wrong / 24
    same = Without(nothing).score("acc1", Score(value, runs=(value, value), answers=two))
    expected = metrics.accuracy(metrics.ranks(scores, examples.labels))
    assert same is not None
    assert (same.value, same.low, same.high) == (expected.value, expected.low, expected.high)
    assert same.interval == "wilson over test images (all 2 draws give the same)"
    alone = Without(nothing).score("acc1", Score(value, runs=(value,), answers=one))
    assert alone is not None
    assert (alone.low, alone.high, alone.interval) == (None, None, "")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--without-overlap"], "no training data to compare with"),
        (["--pretrain", "{things}"], "manifest"),
    ],
)
def test_refusals(flags: list[str], words: str, trained: str, things: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "results.jsonl"
    stated = [flag.format(things=things) for flag in flags]
    assert main(["zeroshot", "--checkpoint", trained, "--data", things, "--results", str(table), *stated]) == 2
    assert words in capsys.readouterr().err
    assert not table.exists()


def test_a_build_that_the_checkpoint_was_not_trained_on_is_refused(
    checkpoint_file: str, build: str, things: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--checkpoint", checkpoint_file, "--data", things, "--pretrain", build, "--results", str(tmp_path / "r.jsonl")]
    assert main(["zeroshot", *flags]) == 2
    assert "which the checkpoint was not trained on" in capsys.readouterr().err


def test_images_with_captions_are_searched_too(build: str, trained: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = evaluated(tmp_path, "retrieval", "--checkpoint", trained, "--data", build, "--pretrain", build, "--without-overlap")
    assert "results have no row without overlap" in capsys.readouterr().err
    assert rows[0]["settings"]["seen"] == {"bytes": rows[0]["n"], "uid": 0, "near": 0}
