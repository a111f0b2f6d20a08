"""The loader on small real builds: the same batches whatever the workers, the ranks and the point of resuming."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shards.core.errors import RunError, UsageError
from shards.manifest import read_manifest
from shards.reader import read_samples
from train.augment import Augment
from train.cpu import decode
from train.loader import Batch, Loader

MakeShards = Callable[..., str]


def loader(*builds: str, **options: Any) -> Loader:
    weights = options.pop("weights", [None] * len(builds))
    settings = {"batch_size": 16, "image_size": 24, "seed": 7, "workers": 2, **options}
    return Loader([(read_manifest(b), w) for b, w in zip(builds, weights, strict=True)], **settings)


def take(source: Loader, n: int, start: int = 0) -> list[Batch]:
    with contextlib.closing(source.batches(start)) as batches:
        return list(itertools.islice(batches, n))


def assert_same(one: Batch, two: Batch) -> None:
    assert (one.step, one.uids, one.captions, one.windows) == (two.step, two.uids, two.captions, two.windows)
    assert torch.equal(one.images, two.images)
    for name in ("flip", "factors", "order", "gray", "sigma"):
        assert np.array_equal(getattr(one.params, name), getattr(two.params, name))
    assert np.array_equal(one.epoch, two.epoch)
    assert np.array_equal(one.sources, two.sources)


def break_at(*broken: int) -> Callable[[int, bytes], bytes]:
    return lambda i, jpeg: jpeg[: len(jpeg) // 2] if i in broken else jpeg


SIMCLR = Augment(scale=(0.08, 1.0), flip=0.5, color_jitter=(0.4, 0.4, 0.4, 0.1), gray=0.2, blur=0.5)


def test_an_epoch_holds_each_sample_once_with_its_own_picture_and_caption(make_shards: MakeShards) -> None:
    build = make_shards(37)
    batches = take(loader(build, batch_size=8), 10)
    seen = Counter((e, uid) for b in batches for e, uid in zip(b.epoch.tolist(), b.uids, strict=True))
    by_uid = {s.key: s.members for s in read_samples(read_manifest(build))}
    for epoch in (0, 1):
        assert {uid: n for (e, uid), n in seen.items() if e == epoch} == dict.fromkeys(by_uid, 1)
    assert sum(n for (e, _), n in seen.items() if e == 2) == 80 - 2 * 37
    for batch in batches[:3]:
        for i, uid in enumerate(batch.uids):
            assert batch.captions[i] == by_uid[uid]["txt"].decode()
            expected = decode(by_uid[uid]["jpg"], batch.windows[i], 24)
            assert np.array_equal(batch.images[i].permute(1, 2, 0).numpy(), expected)
    assert batches[0].images.shape == (8, 3, 24, 24)
    assert batches[0].images.dtype == torch.uint8


def test_resuming_at_a_step_is_going_on(make_shards: MakeShards) -> None:
    build = make_shards(37, captions=3)
    whole = take(loader(build, augment=SIMCLR, captions="sampled"), 8)
    for start in (1, 4, 7):
        for one, two in zip(take(loader(build, augment=SIMCLR, captions="sampled"), 8 - start, start), whole[start:], strict=True):
            assert_same(one, two)


def test_workers_and_world_size_change_nothing(make_shards: MakeShards) -> None:
    builds = [make_shards(37, "one"), make_shards(21, "two", seed=1, source="other")]
    whole = take(loader(*builds, weights=[1.0, 2.0], workers=1), 4)
    for one, two in zip(take(loader(*builds, weights=[1.0, 2.0], workers=5), 4), whole, strict=True):
        assert_same(one, two)
    ranks = [take(loader(*builds, weights=[1.0, 2.0], rank=r, world_size=4), 4) for r in range(4)]
    for step, expected in enumerate(whole):
        assert [uid for rank in ranks for uid in rank[step].uids] == expected.uids
        assert torch.equal(torch.cat([rank[step].images for rank in ranks]), expected.images)


def test_mixtures_meet_their_shares_and_count_repeats(make_shards: MakeShards) -> None:
    builds = [make_shards(30, "one"), make_shards(10, "two", seed=1, source="other")]
    mixed = loader(*builds, weights=[1.0, 1.0])
    counts = [Counter(b.sources.tolist()) for b in take(mixed, 5)]
    assert all(c == {0: 8, 1: 8} for c in counts)
    assert mixed.repeats(5) == [40 / 30, 40 / 10]
    assert mixed.epoch_samples == 40
    plain = loader(*builds)
    assert [b.sources.tolist().count(0) for b in take(plain, 5)] == [12] * 5


def test_the_first_samples_alone(make_shards: MakeShards) -> None:
    build = make_shards(37)
    few = loader(build, samples=11, batch_size=1)
    first = [s.key for s in itertools.islice(read_samples(read_manifest(build)), 11)]
    assert sorted(b.uids[0] for b in take(few, 11)) == sorted(first)
    with pytest.raises(UsageError, match="first 38 samples"):
        loader(build, samples=38)


def test_a_subset_reads_its_window_only(make_shards: MakeShards) -> None:
    import dataclasses

    whole = read_manifest(make_shards(20, per_shard=8))
    cut = (dataclasses.replace(whole.shards[0], use=(3, 8)), dataclasses.replace(whole.shards[1], use=(0, 2)))
    part = dataclasses.replace(whole, samples=7, shards=cut)
    one = Loader([(part, None)], batch_size=1, image_size=8, seed=0)
    assert sorted(b.uids[0] for b in take(one, 7)) == sorted(s.key for s in read_samples(part))


def test_captions_are_the_first_or_drawn_by_epoch(make_shards: MakeShards) -> None:
    build = make_shards(8, captions=4)
    assert all("again" not in c for b in take(loader(build, batch_size=8), 3) for c in b.captions)
    drawn = [c for b in take(loader(build, batch_size=8, captions="sampled"), 40) for c in b.captions]
    kinds = Counter(c.partition(", again ")[2] for c in drawn)
    assert set(kinds) == {"", "1", "2", "3"}
    assert all(50 <= n <= 110 for n in kinds.values())  # 80 expected, sd 7.7


def test_shards_without_sidecars_give_keys_and_txt(make_shards: MakeShards) -> None:
    build = make_shards(12)
    expected = {(u, c) for b in take(loader(build, batch_size=4), 3) for u, c in zip(b.uids, b.captions, strict=True)}
    for file in Path(build).glob("*.parquet"):
        file.unlink()
    assert {(u, c) for b in take(loader(build, batch_size=4), 3) for u, c in zip(b.uids, b.captions, strict=True)} == expected
    for file in Path(build).glob("*.idx"):
        file.unlink()
    assert {(u, c) for b in take(loader(build, batch_size=4), 3) for u, c in zip(b.uids, b.captions, strict=True)} == expected


def test_a_bad_image_is_replaced_by_its_neighbour_and_listed(make_shards: MakeShards) -> None:
    build = make_shards(24, recode=break_at(5, 6, 17))
    order = [s.key for s in read_samples(read_manifest(build))]
    good = {s.key for s in read_samples(read_manifest(build)) if s.members["jpg"][-2:] == b"\xff\xd9"}
    assert len(good) == 21
    first = loader(build, batch_size=8)
    batches = take(first, 3)
    assert len(first.replaced) == 3
    for uid, replacement, why in first.replaced:
        following = itertools.islice(itertools.cycle(order), order.index(uid) + 1, None)
        assert replacement == next(key for key in following if key in good)
        assert "cut off" in why
    assert {uid for b in batches for uid in b.uids} == good
    restored = loader(build, batch_size=8, replaced=list(first.replaced))
    for one, two in zip(take(restored, 2, start=1), batches[1:], strict=True):
        assert_same(one, two)
    assert sorted(restored.replaced) == sorted(first.replaced)


def test_where_nothing_decodes_the_loader_says_so(make_shards: MakeShards) -> None:
    build = make_shards(6, recode=lambda i, jpeg: b"<html>no</html>")
    with pytest.raises(RunError, match="6 samples in a row cannot be decoded"):
        take(loader(build, batch_size=2), 1)


def test_a_shard_that_is_not_what_the_manifest_says_is_an_error(make_shards: MakeShards) -> None:
    build = make_shards(12, per_shard=12)
    Path(build, "00000.idx").write_text("v1.2 0\n")
    with pytest.raises(RunError, match="its index has 0 samples"):
        take(loader(build, batch_size=2), 1)


def test_unknown_engines_are_refused(make_shards: MakeShards) -> None:
    with pytest.raises(UsageError, match="engine 'dalli'") as error:
        loader(make_shards(4), engine="dalli")
    assert "did you mean 'dali'" in error.value.advice


MEASURE = """
import contextlib, itertools, sys, resource
from shards.manifest import read_manifest
from train.loader import Loader
one = Loader([(read_manifest(sys.argv[1]), None)], batch_size=64, image_size=16, seed=0, workers=2)
with contextlib.closing(one.batches()) as batches:
    for batch in itertools.islice(batches, int(sys.argv[2])):
        pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_samples(make_shards: MakeShards) -> None:
    peaks = []
    for n in (200, 20_000):
        build = make_shards(n, f"build-{n}", per_shard=max(n // 10, 20), width=16, height=16)
        done = subprocess.run([sys.executable, "-c", MEASURE, build, str(n // 64 + 1)], capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout))
    assert peaks[1] <= 1.3 * peaks[0], peaks
