"""Controlled noise and labels: shares, by uid alone, captions swapped inside their shard, the planted truth recoverable."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shards.core.errors import ProvenderError, RunError, UsageError
from shards.manifest import read_manifest
from shards.reader import read_samples
from shards.sample import uid_of
from train.data.annotations import label_array
from train.data.batch import Needs
from train.data.loader import Batch, Loader
from train.data.noise import Noise
from train.data.order import NOISE, identity, words

MakeShards = Callable[..., str]
IDENTITIES = [identity(uid_of("noise", str(i))) for i in range(4000)]


def take(build: str, n: int, batch_size: int = 8, start: int = 0, **options: Any) -> list[Batch]:
    loader = Loader([(read_manifest(build), None)], batch_size=batch_size, image_size=8, seed=3, **options)
    with contextlib.closing(loader.batches(start)) as batches:
        return list(itertools.islice(batches, n))


def own_members(build: str, name: str) -> dict[str, str]:
    return {s.key: s.members[name].decode() for s in read_samples(read_manifest(build))}


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_shares_are_met(share: float) -> None:
    noise = Noise(captions=share, labels=share, seed=4)
    limit = 4 * math.sqrt(share * (1 - share) / len(IDENTITIES))
    wrong_captions = [noise.has_wrong_caption(one) for one in IDENTITIES]
    wrong_labels = [noise.has_wrong_label(one) for one in IDENTITIES]
    assert abs(np.mean(wrong_captions) - share) <= limit
    assert abs(np.mean(wrong_labels) - share) <= limit
    both = np.mean(np.logical_and(wrong_captions, wrong_labels))
    assert abs(both - share**2) <= 4 * math.sqrt(share**2 * (1 - share**2) / len(IDENTITIES))  # they are independent


def test_noise_is_the_words_of_its_definition() -> None:
    noise = Noise(captions=0.3, labels=0.2, seed=9)
    for one in IDENTITIES[:200]:
        for kind, share, wrong in ((0, 0.3, noise.has_wrong_caption(one)), (1, 0.2, noise.has_wrong_label(one))):
            first, second = words(9, NOISE, (kind, *one), 2).tolist()
            assert wrong == ((first >> 11) * 2.0**-53 < share)
            if kind == 0:
                assert noise.caption_row(one, 5, 20) == ((6 + second % 19) % 20 if wrong else 5)
            else:
                assert noise.label(one, 7, 10) == ((8 + second % 9) % 10 if wrong else 7)


def test_wrong_ones_are_others_and_every_other_alike() -> None:
    noise = Noise(captions=1.0, labels=1.0)
    rows = Counter(noise.caption_row(one, 3, 5) for one in IDENTITIES)
    labels = Counter(noise.label(one, 0, 5) for one in IDENTITIES)
    assert set(rows) == {0, 1, 2, 4}
    assert set(labels) == {1, 2, 3, 4}
    for counts in (rows, labels):
        assert max(abs(n - 1000) for n in counts.values()) < 4.5 * math.sqrt(4000 * 0.25 * 0.75)
    assert noise.caption_row(IDENTITIES[0], 0, 1) == 0  # nobody else's to take
    assert noise.label(IDENTITIES[0], 0, 1) == 0


def test_seeds_plant_other_noise_and_a_larger_share_contains_a_smaller() -> None:
    few, many, other = Noise(captions=0.1), Noise(captions=0.4), Noise(captions=0.1, seed=1)
    small = {one for one in IDENTITIES if few.has_wrong_caption(one)}
    assert small <= {one for one in IDENTITIES if many.has_wrong_caption(one)}
    apart = {one for one in IDENTITIES if other.has_wrong_caption(one)}
    assert len(small & apart) < 0.25 * len(small)  # a tenth is expected


@pytest.mark.parametrize("values", [{"captions": -0.1}, {"labels": 1.5}])
def test_shares_that_are_none_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=f"noise.{next(iter(values))}"):
        Noise(**values)


@pytest.mark.parametrize("sidecar", [True, False])
def test_captions_are_swapped_within_the_shard_and_the_truth_can_be_told(make_shards: MakeShards, sidecar: bool) -> None:
    build = make_shards(48, per_shard=16)
    own = own_members(build, "txt")
    if not sidecar:
        for file in Path(build).glob("*.parquet"):
            file.unlink()
    noise = Noise(captions=0.5, seed=2)
    needs = Needs(captions=True)
    seen: dict[str, set[str]] = {}
    for batch_size in (2, 16):  # blocks of 5 or 6 samples, and of one
        loader = Loader([(read_manifest(build), None)], batch_size=batch_size, image_size=8, seed=3, needs=needs, noise=noise)
        (source,) = loader.sources
        shard_of = {own[record.uid]: record.path for _, record in (source.record(position) for position in range(48))} if sidecar else {}
        with contextlib.closing(loader.batches()) as batches:
            for batch in itertools.islice(batches, 96 // batch_size):
                for position, uid, caption in zip(batch.positions.tolist(), batch.uids, batch.captions, strict=True):
                    _, record = source.record(position)
                    seen.setdefault(uid, set()).add(caption)
                    assert caption in own.values()
                    assert not sidecar or shard_of[caption] == record.path
                    assert (caption != own[uid]) == noise.has_wrong_caption(record.identity)
    assert all(len(texts) == 1 for texts in seen.values())  # the same in every epoch, whatever the batches
    wrong = sum(seen[uid] != {own[uid]} for uid in own)
    assert 12 <= wrong <= 36  # 24 expected, sd 3.5


def test_noisy_tokens_are_those_of_the_noisy_captions(make_shards: MakeShards) -> None:
    from train.data.text import Tokenizer

    build = make_shards(16)
    needs = Needs(captions=True, context_length=20)
    for batch in take(build, 2, needs=needs, noise=Noise(captions=0.7)):
        assert batch.tokens is not None
        assert batch.tokens.tolist() == Tokenizer(20)(batch.captions).tolist()


def test_labels_are_wrong_where_has_wrong_label_says_so(make_shards: MakeShards) -> None:
    build = make_shards(32, classes=True)
    own = own_members(build, "cls")
    noise = Noise(labels=0.5)
    for batch in take(build, 4, needs=Needs(classes=4), noise=noise):
        assert batch.labels is not None
        for uid, label in zip(batch.uids, batch.labels.tolist(), strict=True):
            assert 0 <= label < 4
            assert (label != int(own[uid])) == noise.has_wrong_label(identity(uid))


@pytest.mark.parametrize("sidecar", [True, False])
def test_labels_come_from_the_sidecar_or_from_cls(make_shards: MakeShards, sidecar: bool) -> None:
    build = make_shards(24, classes=True)
    own = own_members(build, "cls")
    if not sidecar:
        for file in Path(build).glob("*.parquet"):
            file.unlink()
    batches = take(build, 3, needs=Needs(classes=4))
    told = {uid: label for b in batches if b.labels is not None for uid, label in zip(b.uids, b.labels.tolist(), strict=True)}
    assert told == {uid: int(text) for uid, text in own.items()}
    assert all(batch.captions == [] and batch.tokens is None for batch in batches)  # not asked for


def test_samples_without_labels_have_minus_one(make_shards: MakeShards) -> None:
    build = make_shards(8)  # class −1 in the sidecar, no .cls
    (batch,) = take(build, 1, needs=Needs(classes=4), noise=Noise(labels=1.0))
    assert batch.labels is not None
    assert batch.labels.tolist() == [-1] * 8
    (batch,) = take(build, 1, needs=Needs(classes=4, multi_label=True))
    assert batch.labels is not None
    assert batch.labels.tolist() == [[-1.0] * 4] * 8


def layered(build: str, tmp_path: Path, rows: list[dict[str, object]]) -> None:
    """Lay columns beside a build, as a user does: with the command of the other room."""
    (tmp_path / "layer.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code = "import sys; from curate.cli import main; sys.exit(main())"
    arguments = ["layer", "add", build, "tags", str(tmp_path / "layer.jsonl")]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_labels_come_from_a_column_of_a_layer(make_shards: MakeShards, tmp_path: Path) -> None:
    build = make_shards(16)
    uids = sorted(own_members(build, "txt"))
    layered(build, tmp_path, [{"uid": uid, "group": i % 5} for i, uid in enumerate(uids) if i != 3])
    told = {}
    for batch in take(build, 2, needs=Needs(classes=5), labels="tags.group"):
        assert batch.labels is not None
        told |= dict(zip(batch.uids, batch.labels.tolist(), strict=True))
    assert told == {uid: -1 if i == 3 else i % 5 for i, uid in enumerate(uids)}


def test_a_column_that_is_not_there_is_named(make_shards: MakeShards) -> None:
    with pytest.raises(UsageError, match="no column 'clas' with labels") as error:
        take(make_shards(8), 1, needs=Needs(classes=4), labels="clas")
    assert error.value.advice == "did you mean 'class'?"


@pytest.mark.parametrize("stated", ["4", "999999999", "99999999999999999999", "--5", "cat"])
def test_a_label_that_is_no_class_names_its_sample(make_shards: MakeShards, stated: str) -> None:
    build = make_shards(12, classes=True)
    key = sorted(own_members(build, "cls"))[5]
    rewrite_cls(build, key, stated)
    with pytest.raises(RunError) as error:
        take(build, 2, needs=Needs(classes=4))
    assert key in str(error.value)
    assert stated in str(error.value)


def rewrite_cls(build: str, key: str, text: str) -> None:
    """Make a build foreign, with one sample's .cls changed: new tars, new index, no sidecars."""
    import io
    import tarfile

    from shards import cli

    for path in sorted(Path(build).glob("*.tar")):
        with tarfile.open(path) as file:
            members = [(m.name, file.extractfile(m).read()) for m in file]  # type: ignore[union-attr]
        with tarfile.open(path, "w") as file:
            for name, content in members:
                content = text.encode() if name == f"{key}.cls" else content
                about = tarfile.TarInfo(name)
                about.size = len(content)
                file.addfile(about, io.BytesIO(content))
    for file in [*Path(build).glob("*.parquet"), *Path(build).glob("*.idx"), Path(build, "manifest.json")]:
        file.unlink()
    assert cli.main(["index", build]) == 0


def test_labels_as_arrays() -> None:
    single, multi = Needs(classes=4), Needs(classes=4, multi_label=True)
    assert label_array([2, -1, [3], [], [1, 2]], single).tolist() == [2, -1, 3, -1, 1]
    assert label_array([2, -1, [3], [], [1, 2]], multi).tolist() == [[0, 0, 1, 0], [-1] * 4, [0, 0, 0, 1], [0] * 4, [0, 1, 1, 0]]
    assert (label_array([1], single).dtype, label_array([1], multi).dtype) == (np.int64, np.float32)


def sidecar_labels(build: str, labels: Callable[[str], Any]) -> None:
    """Give each sidecar another column `group`, of labels by uid."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in Path(build).glob("*.parquet"):
        table = pq.read_table(path)
        pq.write_table(table.append_column("group", pa.array([labels(uid) for uid in table["uid"].to_pylist()])), path)


def test_lists_of_labels_are_multi_hot(make_shards: MakeShards) -> None:
    build = make_shards(8)
    wanted = {uid: [int(uid[0], 16) % 4, 3] for uid in own_members(build, "txt")}
    sidecar_labels(build, wanted.__getitem__)
    (batch,) = take(build, 1, needs=Needs(classes=4, multi_label=True), labels="group")
    assert batch.labels is not None
    for uid, row in zip(batch.uids, batch.labels.tolist(), strict=True):
        assert row == [float(number in wanted[uid]) for number in range(4)]


@pytest.mark.parametrize("label", [4, -2, 1.5, "cat", [1, 7], [0, None]])
def test_a_column_with_what_is_no_class_names_the_sample(make_shards: MakeShards, label: Any) -> None:
    build = make_shards(8)
    sidecar_labels(build, lambda _: label)
    with pytest.raises(ProvenderError) as error:
        take(build, 1, needs=Needs(classes=4, multi_label=isinstance(label, list)), labels="group")
    assert any(uid in str(error.value) for uid in own_members(build, "txt"))
