"""The loader on parts of builds: scattered subsets and take-downs are honoured to the sample, by both engines."""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shards import cli
from shards.compact import compact
from shards.core.errors import UsageError
from shards.manifest import read_manifest
from shards.reader import read_samples
from shards.remove import remove
from shards.uids import UidSet, pack
from train.data.annotations import LayerShare
from train.data.batch import Batch, Needs
from train.data.loader import Loader

MakeShards = Callable[..., str]


def keys_of(folder: str) -> list[str]:
    return [s.key for s in read_samples(read_manifest(folder), [])]


def take(folder: str, n: int, start: int = 0, *, batch_size: int = 1, engine: str = "cpu") -> list[Batch]:
    needs = Needs(captions=True)
    loader = Loader([(read_manifest(folder), None)], batch_size=batch_size, image_size=16, seed=3, engine=engine, needs=needs)
    with contextlib.closing(loader.batches(start)) as batches:
        return list(itertools.islice(batches, n))


@pytest.mark.parametrize("engine", ["cpu", "dali"])
def test_a_scattered_subset_is_an_epoch_with_its_own_pictures(make_shards: MakeShards, tmp_path: Path, engine: str) -> None:
    folder, sub, copied = make_shards(40), str(tmp_path / "sub"), str(tmp_path / "copied")
    arguments = ["subset", folder, "--where", "caption LIKE '%circle%' OR caption LIKE '%stripe%'"]
    assert cli.main([*arguments, "--output", sub]) == 0
    assert cli.main([*arguments, "--output", copied, "--materialize", "--engine", "inline"]) == 0
    chosen = keys_of(sub)
    batches = take(sub, len(chosen), engine=engine)
    assert sorted(b.uids[0] for b in batches) == sorted(chosen)
    own = {s.key: s.members["txt"].decode() for s in read_samples(read_manifest(folder))}
    assert all(b.captions[0] == own[b.uids[0]] for b in batches)
    pictures = {b.uids[0]: b.images for b in take(copied, len(chosen), engine=engine)}
    assert all(torch.equal(b.images, pictures[b.uids[0]]) for b in batches)


@pytest.mark.parametrize("engine", ["cpu", "dali"])
def test_what_was_taken_down_is_seen_no_more_and_compacting_changes_nothing(make_shards: MakeShards, engine: str) -> None:
    folder = make_shards(40)
    keys = keys_of(folder)
    gone = {keys[0], keys[9], *keys[16:24]}  # the whole third shard among them
    remove(folder, UidSet(pack(gone)))
    before = take(folder, 60, engine=engine)
    assert sorted(b.uids[0] for b in before[:30]) == sorted(set(keys) - gone)
    assert {b.uids[0] for b in before}.isdisjoint(gone)
    compact(folder)
    after = take(folder, 60, engine=engine)
    assert [(b.uids, b.captions) for b in after] == [(b.uids, b.captions) for b in before]
    assert all(torch.equal(one.images, two.images) for one, two in zip(after, before, strict=True))


def layered(folder: str, tmp_path: Path, rows: list[dict[str, object]], *flags: str) -> None:
    """Lay captions beside a build, as a user does: with the command of the other room."""
    (tmp_path / "layer.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code = "import sys; from curate.cli import main; sys.exit(main())"
    arguments = ["layer", "add", folder, "recaps", str(tmp_path / "layer.jsonl"), *flags]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True)


def captions_seen(folder: str, n: int, **options: Any) -> dict[str, set[str]]:
    needs = Needs(captions=True)
    loader = Loader(
        [(read_manifest(folder), None)], batch_size=1, image_size=8, seed=0, layers=(LayerShare("recaps"),), needs=needs, **options
    )
    texts: dict[str, set[str]] = {}
    with contextlib.closing(loader.batches()) as batches:
        for batch in itertools.islice(batches, n):
            texts.setdefault(batch.uids[0], set()).add(batch.captions[0])
    return texts


def test_a_layer_is_preferred_at_its_share(make_shards: MakeShards, tmp_path: Path) -> None:
    folder = make_shards(20, captions=3)
    keys = keys_of(folder)
    layered(folder, tmp_path, [{"uid": key, "caption": f"recap of {key}"} for key in keys])
    needs = Needs(captions=True)

    def taken(share: float, captions: str = "first") -> list[str]:
        source = [(read_manifest(folder), None)]
        layers = (LayerShare("recaps", share),)
        loader = Loader(source, batch_size=20, image_size=8, seed=0, layers=layers, captions=captions, needs=needs, workers=2)
        with contextlib.closing(loader.batches()) as batches:
            return [caption for batch in itertools.islice(batches, 30) for caption in batch.captions]

    recaps = [sum(caption.startswith("recap") for caption in taken(share)) for share in (0.0, 0.3, 1.0)]
    assert recaps[0] == 0
    assert abs(recaps[1] - 180) <= 45  # sd 11.2
    assert recaps[2] == 600
    own = [caption for caption in taken(0.3, "sampled") if not caption.startswith("recap")]
    endings = Counter(caption.partition(", again ")[2] for caption in own)
    assert set(endings) == {"", "1", "2"}
    assert abs(len(own) - 420) <= 45
    assert all(abs(n - len(own) / 3) <= 45 for n in endings.values())  # sd 9.7


def test_captions_come_from_a_layer_where_it_has_some(make_shards: MakeShards, tmp_path: Path) -> None:
    folder = make_shards(20, captions=2)
    keys = keys_of(folder)
    layered(folder, tmp_path, [{"uid": k, "caption": f"recap of {k}"} for k in keys[::2]])
    own = {s.key: s.members["txt"].decode() for s in read_samples(read_manifest(folder))}
    expected = {k: {f"recap of {k}"} if i % 2 == 0 else {own[k]} for i, k in enumerate(keys)}
    assert captions_seen(folder, 20) == expected


def test_several_captions_of_a_layer_are_drawn(make_shards: MakeShards, tmp_path: Path) -> None:
    folder = make_shards(6)
    rows = [{"uid": k, "caption": f"{k} {i}"} for k in keys_of(folder) for i in range(3)]
    layered(folder, tmp_path, rows, "--many")
    assert captions_seen(folder, 180, captions="sampled") == {k: {f"{k} {i}" for i in range(3)} for k in keys_of(folder)}
    assert captions_seen(folder, 6) == {k: {f"{k} 0"} for k in keys_of(folder)}


def test_a_layer_that_is_not_there_is_named(make_shards: MakeShards, tmp_path: Path) -> None:
    folder = make_shards(6)
    with pytest.raises(UsageError, match="no captions in a layer 'recaps'"):
        captions_seen(folder, 1)


def test_resuming_a_subset_is_going_on(make_shards: MakeShards, tmp_path: Path) -> None:
    folder, sub = make_shards(60), str(tmp_path / "sub")
    assert cli.main(["subset", folder, "--where", "contains(caption, 'e')", "--output", sub]) == 0
    whole = take(sub, 9, batch_size=8)
    for one, two in zip(take(sub, 4, start=5, batch_size=8), whole[5:], strict=True):
        assert (one.uids, one.captions, one.windows) == (two.uids, two.captions, two.windows)
        assert torch.equal(one.images, two.images)
        assert np.array_equal(one.epoch, two.epoch)
