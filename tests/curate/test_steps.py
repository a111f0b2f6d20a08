"""Balance by concepts and duplicates by meaning inside a build: against the pure functions, which their own tests hold."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from drawing import encoded, picture
from PIL import Image

from curate.balance import balance_keys
from curate.steps import Vectors
from shards.manifest import read_manifest
from shards.sample import rank_key

ARCHITECTURE = str(Path(__file__).resolve().parents[2] / "train" / "models" / "configs" / "tiny-vit-32.json")


def sidecars(out: Path) -> list[dict[str, Any]]:
    return [row for shard in sorted(out.glob("*.parquet")) for row in pq.read_table(shard).to_pylist()]


def test_concepts_order_the_build(captioned: Callable[..., Path], build: Callable[..., Any], tmp_path: Path) -> None:
    texts = ["a cat"] * 12 + ["a dog"] * 3 + ["a hill"] * 2
    folder = captioned([(f"{i}.jpg", encoded(picture(i)), text) for i, text in enumerate(texts)])
    (tmp_path / "concepts.txt").write_text("cat\ndog\n")
    flags = (
        "--source",
        "folder",
        "--input",
        folder,
        "--no-near",
        "--balance",
        "concepts",
        "--concepts",
        tmp_path / "concepts.txt",
        "--seed",
        5,
    )
    code, out, err = build(*flags, "--samples", "all")
    assert code == 0, err
    rows = sidecars(out)
    draws = np.array([rank_key(5, row["uid"]) / 2.0**64 for row in rows])
    keys = balance_keys([row["caption"] for row in rows], draws, ["cat", "dog"])
    assert [row["rank"] for row in rows] == list(range(17))
    assert (np.diff(keys[:15]) >= 0).all()
    assert np.isinf(keys[15:]).all()
    assert {row["caption"] for row in rows[15:]} == {"a hill"}
    code, small, err = build(*flags, "--samples", 9, output="small")
    assert code == 0, err
    assert [row["uid"] for row in sidecars(small)] == [row["uid"] for row in rows[:9]]


def noise(seed: int, shift: int = 0) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 240, (32, 32, 3), np.uint8) + np.uint8(shift)
    Image.fromarray(pixels.astype(np.uint8)).save(out, "JPEG", quality=95)
    return out.getvalue()


def test_duplicates_by_meaning_name_a_survivor(captioned: Callable[..., Path], build: Callable[..., Any], tmp_path: Path) -> None:
    import open_clip
    import torch

    open_clip.add_model_config(ARCHITECTURE)
    torch.manual_seed(0)
    torch.save(open_clip.create_model("tiny-vit-32").state_dict(), tmp_path / "tiny.pt")
    rows = [(f"{i}.jpg", noise(i), f"picture {i}") for i in range(6)] + [("copy.jpg", noise(2, shift=2), "picture 2")]
    flags = ("--source", "folder", "--input", captioned(rows), "--samples", "all", "--no-near")
    flags += ("--embed-model", ARCHITECTURE, "--embed-checkpoint", tmp_path / "tiny.pt", "--semantic", "0.0005")
    code, out, err = build(*flags)
    assert code == 0, err
    dropped = read_manifest(str(out)).sources["folder"]["dropped"]
    assert dropped == {"semantic_duplicate": 1}
    ledger = {row["source_id"]: row for row in pq.read_table(out / "ledger").to_pylist()}
    lost = next(row for row in ledger.values() if row["decision"] == "dropped")
    kept = next(row for row in ledger.values() if row["uid"] == lost["duplicate_of"])
    assert {lost["source_id"], kept["source_id"]} == {"2.jpg", "copy.jpg"}
    assert rank_key(0, kept["uid"]) < rank_key(0, lost["uid"])
    assert lost["detail"].startswith("cosine 1.000") or lost["detail"].startswith("cosine 0.999")


def test_a_model_is_needed(captioned: Callable[..., Path], build: Callable[..., Any]) -> None:
    folder = captioned([("0.jpg", noise(0), "a cat")])
    code, _, err = build("--source", "folder", "--input", folder, "--samples", "all", "--semantic", "0.1")
    assert code == 2
    assert "dedup.semantic needs a model" in err
    code, _, err = build("--source", "folder", "--input", folder, "--samples", "all", "--balance", "concepts")
    assert code == 2
    assert "--concepts FILE" in err


def test_rows_of_many_files(tmp_path: Path) -> None:
    arrays = [np.arange(12, dtype=np.float16).reshape(4, 3), 100 + np.arange(6, dtype=np.float16).reshape(2, 3)]
    for i, array in enumerate(arrays):
        np.save(tmp_path / f"{i}.npy", array)
    places = [(1, 1), (0, 3), (1, 0), (0, 0)]
    rows = Vectors([str(tmp_path / f"{i}.npy") for i in range(2)], np.array([(part << 32) | row for part, row in places]))
    expected = np.stack([arrays[part][row] for part, row in places])
    assert len(rows) == 4
    np.testing.assert_array_equal(rows[0:4], expected)
    np.testing.assert_array_equal(rows[np.array([2, 0])], expected[[2, 0]])


@pytest.mark.parametrize("scope", ["source", "all"])
def test_appending_a_source_keeps_the_order_of_the_first_unless_all_are_counted(
    scope: str, tmp_path: Path, captioned: Any, build: Any
) -> None:
    import yaml

    (tmp_path / "concepts.txt").write_text("cat\ndog\n")
    one = captioned([(f"{i}.jpg", encoded(picture(i)), "a cat" if i % 3 else "a dog and a cat") for i in range(12)], "one")
    two = captioned([(f"{i}.jpg", encoded(picture(100 + i)), "a dog") for i in range(12)], "two")
    orders = []
    for k, folders in enumerate([[one], [one, two]]):
        sources = [{"reader": "folder", "name": folder.name, "input": str(folder)} for folder in folders]
        balance = {"by": "concepts", "concepts": str(tmp_path / "concepts.txt"), "scope": scope}
        file = tmp_path / f"{k}.yaml"
        file.write_text(yaml.safe_dump({"sources": sources, "samples": "all", "dedup": {"near": None}, "balance": balance}))
        code, out, err = build("--config", file, output=f"out{k}")
        assert code == 0, err
        orders.append([row["uid"] for row in sidecars(out) if row["source"] == "one"])
    assert (orders[0] == orders[1]) == (scope == "source")
