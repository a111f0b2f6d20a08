"""Sorting by buckets against Python's sort, whatever the buckets."""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path

import pyarrow as pa
import pytest

from curate.listing import connect
from curate.sorting import sorted_batches


@pytest.mark.parametrize("most", [10_000, 100, 7])
def test_buckets_give_the_order_of_one_sort(most: int, tmp_path: Path) -> None:
    numbers = random.Random(0).sample(range(500), 500)
    table = pa.table({
        "rank": numbers, "uid": [hashlib.sha256(str(i % 90).encode()).hexdigest()[:32] for i in numbers],
        "captions": [["é", f"caption {i}"] if i % 3 else [] for i in numbers], "bucket_like": [None if i % 5 else i / 7 for i in numbers],
    })  # fmt: skip
    con = connect(str(tmp_path))
    con.register("given", table)
    by_rank = sorted_batches(con, "FROM given", "rank", "rank / 500", 500, str(tmp_path), most)
    assert pa.Table.from_batches(list(by_rank)).to_pylist() == sorted(table.to_pylist(), key=lambda r: r["rank"])
    share = "('0x' || left(uid, 8))::BIGINT / 4294967296"
    by_uid = sorted_batches(con, "FROM given", "uid, rank", share, 500, str(tmp_path), most)
    assert pa.Table.from_batches(list(by_uid)).to_pylist() == sorted(table.to_pylist(), key=lambda r: (r["uid"], r["rank"]))
    con.close()
    assert not [name for name in os.listdir(tmp_path) if name.startswith("spill")]
