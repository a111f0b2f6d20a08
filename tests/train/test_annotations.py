"""Captions of several layers, weights, and tokens of a layer: as a batch has them, against naive twins."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from shards.core.errors import RunError, UsageError
from shards.manifest import read_manifest
from shards.preflight import preflight
from shards.reader import read_samples
from tests.train import runs
from train import loop
from train.config import in_todays_words
from train.data.annotations import LayerShare, bounds_of, layer_shares
from train.data.augment.params import Augment
from train.data.batch import Batch, Needs
from train.data.loader import Loader
from train.data.noise import Noise
from train.data.order import CAPTION, sample_words
from train.tasks.clip import Config

MakeShards = Callable[..., str]
SEED = 11
CAPTIONED = Needs(views=(Augment(scale=(0.3, 1.0)),), captions=True)


def keys_of(folder: str) -> list[str]:
    return [s.key for s in read_samples(read_manifest(folder), [])]


def lay(folder: str, name: str, columns: dict[str, list[Any]], per_shard: int = 8, **about: Any) -> None:
    """Write a layer of a build's samples in their order."""
    inside = Path(folder) / "layers" / name
    inside.mkdir(parents=True)
    table = pa.table({"uid": keys_of(folder), **columns})
    for number, first in enumerate(range(0, len(table), per_shard)):
        pq.write_table(table.slice(first, per_shard), inside / f"{number:05d}.parquet")
    (inside / "layer.json").write_text(json.dumps({"columns": list(columns), "digest": name, **about}))


def take(folder: str, n: int, **options: Any) -> list[Batch]:
    """Return batches of 5 by default: then there is one stream, and blocks of several samples."""
    settings = {"batch_size": 5, "image_size": 8, "seed": SEED, "needs": CAPTIONED, "workers": 2, **options}
    with contextlib.closing(Loader([(read_manifest(folder), None)], **settings).batches()) as batches:
        return list(itertools.islice(batches, n))


def captions_of(batches: list[Batch]) -> list[str]:
    return [caption for batch in batches for caption in batch.captions]


# Computed with the code before there could be several layers (2026-11-29): 12 batches of 20.
FROZEN = [
    ((), "first", "2e1e8f55e12218d2"),
    ((), "sampled", "b1bfe2972af090ce"),
    ((LayerShare("recaps"),), "first", "9f6ecbbcc8c16f99"),
    ((LayerShare("recaps"),), "sampled", "48edc1d202d23c96"),
    ((LayerShare("recaps", 0.3),), "first", "36f5db9461b7039d"),
    ((LayerShare("recaps", 0.3),), "sampled", "d14d795193de0821"),
    ((LayerShare("recaps", 0.0),), "first", "2e1e8f55e12218d2"),
]


def test_the_words_of_one_layer_are_those_of_before(make_shards: MakeShards) -> None:
    folder = make_shards(20, captions=3)
    recaps = [[f"recap {i} of {key}" for i in range(3)] if row % 2 == 0 else None for row, key in enumerate(keys_of(folder))]
    lay(folder, "recaps", {"caption": recaps})
    for layers, captions, expected in FROZEN:
        batches = take(folder, 12, layers=layers, captions=captions, batch_size=20)
        assert hashlib.sha256("\n".join(captions_of(batches)).encode()).hexdigest()[:16] == expected, (layers, captions)
        windows = [tuple(map(tuple, batch.windows)) for batch in batches]
        assert hashlib.sha256(repr(windows).encode()).hexdigest()[:16] == "85b48520bc4482b9"


def test_several_layers_are_drawn_at_their_shares(make_shards: MakeShards) -> None:
    folder = make_shards(20)
    keys = keys_of(folder)
    lay(folder, "long", {"captions": [[f"long {key}"] for key in keys]})
    lay(folder, "short", {"caption": [f"short {key}" if row % 2 else None for row, key in enumerate(keys)]})
    own = {s.key: s.members["txt"].decode() for s in read_samples(read_manifest(folder))}
    shares = (LayerShare("long", 0.2), LayerShare("short", 0.5))
    kinds: Counter[str] = Counter()
    for batch in take(folder, 240, layers=shares):
        for epoch, uid, caption in zip(batch.epoch.tolist(), batch.uids, batch.captions, strict=True):
            word = int(sample_words(SEED, CAPTION, epoch, uid, 2)[1])
            drawn = (word >> 11) / 2**53
            layer = "long" if drawn < 0.2 else "short" if drawn < 0.7 else "own"
            missing = layer == "short" and keys.index(uid) % 2 == 0
            assert caption == (own[uid] if layer == "own" or missing else f"{layer} {uid}")
            kinds[layer] += 1
    assert abs(kinds["long"] - 240) <= 56  # 1,200 draws: sd 13.9 and 17.3
    assert abs(kinds["short"] - 600) <= 70


def test_shares_that_add_up_to_one_leave_no_sample_its_own(make_shards: MakeShards) -> None:
    folder = make_shards(20)
    for name in ("a", "b", "c"):
        lay(folder, name, {"caption": [name] * 20})
    shares = layer_shares(("a@0.7", "b@0.2", "c@0.1"))
    assert bounds_of(shares) == [0.7, 0.9, 1.0]  # of floats the last would be 0.9999999999999999
    assert set(captions_of(take(folder, 80, layers=shares))) == {"a", "b", "c"}


def test_texts_name_layers_and_shares() -> None:
    assert layer_shares(()) == ()
    assert layer_shares(("recaps",)) == (LayerShare("recaps", 1.0),)
    assert layer_shares(("a@0.25", "b@.5")) == (LayerShare("a", 0.25), LayerShare("b", 0.5))
    for texts, word in (
        (("a", "b@0.5"), "'a' among 2"),
        (("a@0.6", "b@0.6"), "add up to 1.2"),
        (("a@1.5",), "share 1.5"),
        (("a@-1",), "share -1"),
        (("a@nan",), "share nan"),
        (("a@",), "share ''"),
        (("a@often",), "share 'often'"),
        (("@0.5",), "'@0.5'"),
        (("a@0.1", "a@0.2"), "layers a, a"),
    ):
        with pytest.raises(UsageError, match=word):
            layer_shares(texts)


def test_layers_are_flags_and_keys_alike(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("layer: [a@0.25, b@0.5]\nweights: tags.weight\n")
    by_file, by_flags = (
        Config.from_flags({"config": str(file)}),
        Config.from_flags({"layer": ["a@0.25", "b@0.50"], "weights": "tags.weight"}),
    )
    assert by_file.layers() == by_flags.layers() == (LayerShare("a", 0.25), LayerShare("b", 0.5))
    assert by_file.digest == by_flags.digest != Config().digest
    assert Config(layer=("a",)).digest == Config(layer=("a@1",)).digest
    assert Config(weights="x").digest != Config().digest == Config(tokens="ids").digest
    file.write_text(by_file.to_yaml())
    assert Config.from_flags({"config": str(file)}).digest == by_file.digest
    file.write_text("layer: [a]\nlayer_share: 0.5\n")
    with pytest.raises(UsageError, match="layer_share"):
        Config.from_flags({"config": str(file)})


@pytest.mark.usefixtures("micro_models", "one_thread")
def test_checkpoints_of_one_layer_and_its_share_go_on_or_are_refused(make_shards: MakeShards, tmp_path: Path) -> None:
    build, out = make_shards(20), tmp_path / "run"
    lay(build, "recaps", {"caption": ["words"] * 20})
    values: dict[str, Any] = {"layer": ("recaps@0.3",), "samples_seen": 32, "json": False}
    loop.train(runs.config("clip", build, out, **values))
    older = runs.state(out)
    digest = older["manifests"][0].pop("layers")["recaps"]
    older["manifests"][0]["layer"] = digest
    older["config"] = {key: value for key, value in older["config"].items() if key != "weights"} | {"layer": "recaps", "layer_share": 0.3}
    for changed in ({"layer_share": 0.4}, {"layer": "others"}):
        torch.save(older | {"config": older["config"] | changed}, out / "checkpoint.pt")
        with pytest.raises(UsageError, match="is of another training: layer"):
            loop.train(runs.config("clip", build, out, **values))
    torch.save(older, out / "checkpoint.pt")
    assert loop.train(runs.config("clip", build, out, **values)) == 0
    info = Path(build) / "layers" / "recaps" / "layer.json"
    info.write_text(info.read_text().replace('"digest": "recaps"', '"digest": "other"'))
    with pytest.raises(UsageError, match="data"):
        loop.train(runs.config("clip", build, out, **values))


def test_an_older_configuration_without_a_layer_is_todays() -> None:
    essence = Config().essence()
    older = {key: value for key, value in essence.items() if key != "weights"} | {"layer": "", "layer_share": 1.0}
    assert in_todays_words(older) == essence == in_todays_words(essence)


def test_weights_come_from_the_sidecar_or_a_layer(make_shards: MakeShards) -> None:
    folder = make_shards(20)
    keys = keys_of(folder)
    lay(folder, "tags", {"weight": [row / 3 for row in range(20)], "count": list(range(20))})
    information = {row["key"]: row["information"] for row in _sidecar_rows(folder)}
    expected = {
        "information": information,
        "tags.weight": {key: row / 3 for row, key in enumerate(keys)},
        "tags.count": {key: row for row, key in enumerate(keys)},
    }
    for name, values in expected.items():
        preflight(read_manifest(folder), captions=False, weights=name)
        for batch in take(folder, 8, weights=name):
            assert batch.weights is not None
            assert batch.weights.dtype == torch.float32
            assert batch.weights.tolist() == [float(np.float32(values[uid])) for uid in batch.uids]
            part = batch.part(slice(1, 4)).weights
            assert part is not None
            assert torch.equal(part, batch.weights[1:4])
    assert take(folder, 1)[0].weights is None


def _sidecar_rows(folder: str) -> list[dict[str, Any]]:
    return [
        row for path in sorted(Path(folder).glob("*.parquet")) for row in pq.read_table(path, columns=["key", "information"]).to_pylist()
    ]


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (None, "no number"),
        (float("nan"), "no number"),
        (-0.5, "weight -0.5"),
        (float("inf"), "weight inf"),
        (1e300, r"weight 1e\+300"),
    ],
)
def test_a_wrong_weight_is_named_before_training_and_by_the_loader(make_shards: MakeShards, wrong: Any, word: str) -> None:
    folder = make_shards(20)
    key = keys_of(folder)[13]
    lay(folder, "tags", {"weight": pa.array([wrong if row == 13 else 1.0 for row in range(20)], pa.float64())})
    with pytest.raises(UsageError, match=f"00001.tar: {key}: {word}.*'tags.weight'"):
        preflight(read_manifest(folder), captions=False, weights="tags.weight")
    with pytest.raises(RunError, match=f"00001.tar: sample {key}: {word}.*'tags.weight'"):
        take(folder, 4, weights="tags.weight")


def test_weights_that_cannot_be_are_refused(make_shards: MakeShards) -> None:
    folder = make_shards(20)
    lay(folder, "tags", {"zero": [0.0] * 20, "words": ["1"] * 20, "flags": [True] * 20, "weight": [1.0] * 20})
    for name, word in (
        ("tags.zero", "all 0"),
        ("tags.words", "holds string"),
        ("tags.flags", "holds bool"),
        ("tags.weigth", "no column 'tags.weigth' with weights"),
        ("caption", "holds string"),
    ):
        with pytest.raises(UsageError, match=word):
            preflight(read_manifest(folder), captions=False, weights=name)
    with pytest.raises(UsageError) as error:
        take(folder, 1, weights="tags.weigth")
    assert "tags.weight" in str(error.value.advice)


def lay_tokens(folder: str, name: str = "ids") -> None:
    """Lay tokens beside a build, as a user does: with the command of the other room."""
    code = "import sys; from curate.cli import main; sys.exit(main())"
    arguments = ["layer", "tokens", folder, name, "--workers", "1", "--engine", "inline"]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True)


@pytest.mark.parametrize("sidecars", [True, False])
def test_tokens_of_a_layer_are_those_of_encoding(make_shards: MakeShards, sidecars: bool) -> None:
    folder = make_shards(40)
    if not sidecars:
        for file in Path(folder).glob("*.parquet"):
            file.unlink()
    lay_tokens(folder)
    for length, noise in ((77, Noise()), (8, Noise()), (20, Noise(captions=0.5))):
        options = {"needs": Needs(captions=True, context_length=length), "noise": noise}
        for plain, laid in zip(take(folder, 16, **options), take(folder, 16, tokens="ids", **options), strict=True):
            assert plain.tokens is not None
            assert laid.tokens is not None
            assert torch.equal(plain.tokens, laid.tokens)
            assert (plain.uids, plain.captions) == (laid.uids, laid.captions)


@pytest.mark.usefixtures("micro_models", "one_thread")
def test_a_training_on_tokens_of_a_layer_is_the_same_training(make_shards: MakeShards, tmp_path: Path) -> None:
    build = make_shards(20)
    lay_tokens(build)
    for name, tokens in (("plain", ""), ("laid", "ids")):
        loop.train(runs.config("clip", build, tmp_path / name, tokens=tokens, samples_seen=48))
    assert runs.same_bits(tmp_path / "plain", tmp_path / "laid")
    assert loop.train(runs.config("clip", build, tmp_path / "plain", tokens="ids", samples_seen=48)) == 0
    with pytest.raises(UsageError, match="reads no text"):
        loop.train(runs.config("simclr", build, tmp_path / "simclr", tokens="ids", samples_seen=48))


def test_a_sample_without_ids_is_encoded_and_others_ids_are_found_out(make_shards: MakeShards) -> None:
    folder = make_shards(20)
    lay_tokens(folder)
    needs = Needs(captions=True, context_length=16)
    plain = [batch.tokens.tolist() for batch in take(folder, 8, needs=needs) if batch.tokens is not None]
    file = Path(folder) / "layers" / "ids" / "00001.parquet"
    table = pq.read_table(file)
    rows = table["tokens"].to_pylist()
    for row in (2, 3):
        rows[row] = None
    pq.write_table(table.set_column(1, "tokens", pa.array(rows, pa.list_(pa.uint16()))), file)
    assert plain == [batch.tokens.tolist() for batch in take(folder, 8, needs=needs, tokens="ids") if batch.tokens is not None]
    rows[0] = rows[1]
    pq.write_table(table.set_column(1, "tokens", pa.array(rows, pa.list_(pa.uint16()))), file)
    with pytest.raises(RunError, match=r"00001\.tar: sample .* are of another caption"):
        take(folder, 4, needs=needs, tokens="ids")


def test_tokens_that_cannot_serve_are_refused(make_shards: MakeShards) -> None:
    folder = make_shards(20)
    lay_tokens(folder)
    lay(folder, "recaps", {"caption": ["words"] * 20})
    for options, word in (
        ({"captions": "sampled"}, "--tokens ids with --captions sampled"),
        ({"layers": (LayerShare("recaps"),)}, "--tokens ids with --layer recaps"),
        ({"needs": Needs(captions=True, context_length=78)}, "a context length of 78"),
        ({"needs": Needs()}, "reads no text"),
        ({"tokens": "idz"}, "no tokens in a layer 'idz'"),
        ({"tokens": "recaps"}, "no tokens in a layer 'recaps'"),
    ):
        with pytest.raises(UsageError, match=word):
            take(folder, 1, **{"tokens": "ids", "needs": Needs(captions=True, context_length=16), **options})
    with pytest.raises(UsageError, match="--tokens ids with --captions sampled"):
        Config(manifest=(folder,), output="unused", epochs=1.0, tokens="ids", captions="sampled").check()
    info = Path(folder) / "layers" / "ids" / "layer.json"
    about = json.loads(info.read_text())
    for key, value in (("sha256", "0" * 64), ("context_length", 32), ("vocabulary", "other.txt.gz")):
        info.write_text(json.dumps(about | {"tokenizer": about["tokenizer"] | {key: value}}))
        with pytest.raises(UsageError, match=f"tokenizer of the layer 'ids': {key} {value}"):
            take(folder, 1, tokens="ids", needs=Needs(captions=True, context_length=16))


@pytest.mark.usefixtures("micro_models", "one_thread")
def test_columns_that_a_task_does_not_read_are_refused(make_shards: MakeShards) -> None:
    build = make_shards(16)
    lay(build, "more", {"caption": ["other words"] * 16, "coarse": [0, 1] * 8})
    for task, options, word in (
        ("simclr", {"layer": ("more",)}, "reads no captions"),
        ("clip", {"labels": "more.coarse"}, "reads no labels"),
    ):
        with pytest.raises(UsageError, match=word):
            runs.built(task, build, **options)


@pytest.mark.usefixtures("micro_models", "one_thread")
def test_labels_of_a_layer_are_part_of_what_a_checkpoint_remembers(make_shards: MakeShards, tmp_path: Path) -> None:
    build = make_shards(16)
    lay(build, "more", {"coarse": [0, 1] * 8})
    settings = {"labels": "more.coarse", "classes": 2, "epochs": 1.0}
    loop.train(runs.config("supervised", build, tmp_path / "run", **settings))
    about = Path(build) / "layers" / "more" / "layer.json"
    about.write_text(json.dumps({"columns": ["coarse"], "digest": "other labels"}))
    with pytest.raises(UsageError, match="data"):
        loop.train(runs.config("supervised", build, tmp_path / "run", **settings))
