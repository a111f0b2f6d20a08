"""The driver's edges: what it refuses, and how it counts."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from demo import audit, run
from shards.core.errors import UsageError
from shards.sample import uid_of


def test_a_folder_that_is_not_the_demos_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="holds something"):
        run.demo(run.DemoConfig(output=str(tmp_path)))
    assert (tmp_path / "thesis.tex").exists()


def test_a_taken_port_is_refused_before_anything_is_drawn(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UsageError, match="cannot listen"):
            run.demo(run.DemoConfig(output=str(tmp_path / "out"), port=taken.getsockname()[1]))
    assert not (tmp_path / "out").exists()


def record(source_id: str, defect: str = "", of: str = "") -> dict[str, str]:
    return {"source": "s", "source_id": source_id, "defect": defect, "of": of}


def test_the_audit_counts_groups_and_mended_captions(tmp_path: Path) -> None:
    plan = {
        "records": [
            record("a"),
            record("a1", "exact_copy", "a"),
            record("a2", "exact_copy", "a"),
            record("b"),
            record("b1", "resized_copy", "b"),
            record("c", "mojibake"),
            record("d", "mojibake"),
            record("e", "tiny"),
            record("f", "tiny"),
        ]
    }
    # The original goes and a copy stays: still two of two. b's copy is missed; d's caption is not mended; f slipped through.
    fates = {"a": "exact_duplicate", "a1": "kept", "a2": "exact_duplicate", "b": "kept", "b1": "kept", "c": "kept", "d": "kept"}
    fates |= {"e": "image_size", "f": "spare"}
    ledger = [
        {
            "uid": uid_of("s", k),
            "decision": v if v in ("kept", "spare") else "dropped",
            "reason": "" if v in ("kept", "spare") else v,
        }
        for k, v in fates.items()
    ]
    (tmp_path / "shards/curated/ledger").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(ledger), tmp_path / "shards/curated/ledger/0.parquet")
    captions = [{"source": "s", "source_id": "c", "caption": "at the café"}, {"source": "s", "source_id": "d", "caption": "at the cafÃ©"}]
    pq.write_table(pa.Table.from_pylist(captions), tmp_path / "shards/curated/00000.parquet")
    found: dict[str, Any] = {row["defect"]: (row["planted"], row["found"]) for row in audit.audit(tmp_path, plan)}
    assert found["exact_copy"] == (2, 2)
    assert found["resized_copy"] == (1, 0)
    assert found["mojibake"] == (2, 1)
    assert found["tiny"] == (2, 1)
    assert found["dead"] == (0, 0)
