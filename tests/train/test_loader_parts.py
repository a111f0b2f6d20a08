"""The loader on parts of builds: scattered subsets and take-downs are honoured to the sample, by both engines."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from shards import cli
from shards.compact import compact
from shards.manifest import read_manifest
from shards.reader import read_samples
from shards.remove import remove
from shards.uids import UidSet, pack
from train.loader import Batch, Loader

MakeShards = Callable[..., str]


def keys_of(folder: str) -> list[str]:
    return [s.key for s in read_samples(read_manifest(folder), [])]


def take(folder: str, n: int, start: int = 0, *, batch_size: int = 1, engine: str = "cpu") -> list[Batch]:
    loader = Loader([(read_manifest(folder), None)], batch_size=batch_size, image_size=16, seed=3, engine=engine)
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


def test_resuming_a_subset_is_going_on(make_shards: MakeShards, tmp_path: Path) -> None:
    folder, sub = make_shards(60), str(tmp_path / "sub")
    assert cli.main(["subset", folder, "--where", "contains(caption, 'e')", "--output", sub]) == 0
    whole = take(sub, 9, batch_size=8)
    for one, two in zip(take(sub, 4, start=5, batch_size=8), whole[5:], strict=True):
        assert (one.uids, one.captions, one.windows) == (two.uids, two.captions, two.windows)
        assert torch.equal(one.images, two.images)
        assert np.array_equal(one.epoch, two.epoch)
