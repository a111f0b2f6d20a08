"""Random walks through subset, merge, remove and compact beside a model: every set is always the list of keys that it should be."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from shards import cli
from shards.compact import compact
from shards.manifest import read_manifest
from shards.reader import read_samples
from shards.remove import remove
from shards.uids import UidSet, pack, uids_of
from shards.verify import verify


class Walk:
    """Two builds, whatever is cut and merged from them, and what of each build was taken down."""

    def __init__(self, make_shards, tmp_path: Path, seed: int) -> None:
        self.rng, self.tmp, self.steps = random.Random(seed), tmp_path, 0
        self.builds = [make_shards(26, "one"), make_shards(17, "two", seed=1, source="other", per_shard=5)]
        self.sets = {folder: self.read(folder) for folder in self.builds}
        self.gone: set[str] = set()
        self.copied: set[str] = set()  # sets with bytes of their own, which no take-down elsewhere reaches

    @staticmethod
    def read(folder: str) -> list[str]:
        return [s.key for s in read_samples(read_manifest(folder), [])]

    def expected(self, folder: str) -> list[str]:
        return [key for key in self.sets[folder] if folder in self.copied or key not in self.gone]

    def new(self) -> str:
        return str(self.tmp / f"deep{self.steps % 3}" / f"set{self.steps}")

    def subset(self) -> None:
        parent, out = self.rng.choice(sorted(self.sets)), self.new()
        keys = self.expected(parent)
        if not keys:
            return
        kind = self.rng.choice(["window", "uids", "where"])
        if kind == "window":
            a, b = sorted(self.rng.sample(range(len(keys) + 1), 2))
            flags, keys = ["--window", f"{a}:{b}"], keys[a:b]
        elif kind == "uids":
            chosen = self.rng.sample(keys, self.rng.randint(1, len(keys)))
            (self.tmp / "u.txt").write_text("\n".join(chosen))
            flags, keys = ["--uids", str(self.tmp / "u.txt")], [k for k in keys if k in set(chosen)]
        else:
            digit = self.rng.choice("0123456789abcdef")
            flags, keys = ["--where", f"contains(uid, '{digit}{digit}')"], [k for k in keys if digit * 2 in k]
            if not keys:
                return
        copy = parent in self.copied or (kind != "window" and self.rng.random() < 0.3)
        more = ["--materialize", "--engine", "inline"] if copy else []
        assert cli.main(["subset", parent, *flags, "--output", out, *more]) == 0
        self.sets[out] = keys
        if copy:
            self.copied.add(out)

    def merge(self) -> None:
        one, two = self.rng.sample(sorted(set(self.sets) - self.copied), 2)
        if not self.expected(one) and not self.expected(two):
            return
        out = self.new()
        assert cli.main(["merge", one, two, "--output", out]) == 0
        self.sets[out] = list(dict.fromkeys([*self.expected(one), *self.expected(two)]))

    def remove(self) -> None:
        build = self.rng.choice(self.builds)
        keys = self.expected(build)
        gone = set(self.rng.sample(keys, min(len(keys) - 1, self.rng.randint(1, 6)))) if len(keys) > 1 else set()
        if gone:
            assert remove(build, UidSet(pack(gone))).samples == len(gone)
            self.gone |= gone

    def compact(self) -> None:
        compact(self.rng.choice(self.builds))

    def check(self) -> None:
        for folder in self.sets:
            manifest = read_manifest(folder)
            assert self.read(folder) == self.expected(folder) == list(uids_of(manifest))
            assert manifest.samples == sum(e.used for e in manifest.shards) == sum(s["kept"] for s in manifest.sources.values())


@pytest.mark.parametrize("seed", range(4))
def test_every_set_is_what_the_model_says(make_shards, tmp_path, seed):
    walk = Walk(make_shards, tmp_path, seed)
    for walk.steps in range(14):
        getattr(walk, walk.rng.choice(["subset", "subset", "subset", "merge", "remove", "remove", "compact"]))()
        walk.check()
    for build in walk.builds:
        assert list(verify(read_manifest(build, removed=True), engine="inline")) == []
