"""The embedding pass against open_clip called by hand, and clip_score against the scores sorted in Python."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curate.embed import SCORE, embed
from curate.listing import list_records
from curate.measure import measure
from curate.recipe import Embed, Recipe, SourceSpec
from shards.core.errors import UsageError

ARCHITECTURE = str(Path(__file__).resolve().parents[2] / "train" / "models" / "configs" / "tiny-vit-32.json")


def photos(n: int) -> list[tuple[str, bytes | None, str]]:
    """Return n pictures of noise, one that is broken, and one that is missing."""
    rows: list[tuple[str, bytes | None, str]] = []
    for i in range(n):
        out = io.BytesIO()
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (40, 48, 3), np.uint8)).save(out, "JPEG")
        rows.append((f"{i}.jpg", out.getvalue(), f"picture number {i}"))
    return [*rows, ("broken.jpg", b"\xff\xd8 no picture", "a broken one"), ("gone.jpg", None, "a missing one")]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a file with weights drawn from a seed."""
    import open_clip
    import torch

    open_clip.add_model_config(ARCHITECTURE)
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.pt"
    torch.save(open_clip.create_model("tiny-vit-32").state_dict(), path)
    return str(path)


def parts_of(folder: Path, work: str) -> list[Any]:
    spec = SourceSpec("folder", str(folder), name="folder")
    recipe = Recipe(sources=(spec,), samples="all", filters=({"name": "clip_score", "min": 0.0},))
    files, _ = list_records(recipe, spec, work, 1, "inline")
    return measure(recipe, [(spec, files)], work, 1, "inline")


def test_embeddings_and_scores_are_open_clips(captioned: Callable[..., Path], tmp_path: Path, weights: str) -> None:
    import open_clip
    import torch

    rows = photos(40)
    parts = parts_of(captioned(rows), str(tmp_path / "work"))
    found = embed(Embed(ARCHITECTURE, weights, batch=7), parts, str(tmp_path / "work"), 1, "inline")
    network, _, transform = open_clip.create_model_and_transforms("tiny-vit-32", pretrained=weights)
    tokenize = open_clip.get_tokenizer("tiny-vit-32")
    seen = 0
    for one in found:
        images, texts, table = np.load(one.images), np.load(one.texts), pq.read_table(one.part.path).to_pylist()
        assert len(images) == len(texts) == len(table) == one.part.rows
        for i, row in enumerate(table):
            if row["status"]:
                assert row[SCORE] is None
                assert not images[i].any()
                continue
            content = Path(row["path"]).read_bytes()
            with torch.inference_mode():
                a = network.eval().encode_image(transform(Image.open(io.BytesIO(content))).unsqueeze(0), normalize=True)[0].numpy()
                b = network.encode_text(tokenize([row["caption"]]), normalize=True)[0].numpy()
            np.testing.assert_allclose(images[i], a, atol=2e-3)
            np.testing.assert_allclose(texts[i], b, atol=2e-3)
            assert row[SCORE] == pytest.approx(float(a @ b), abs=2e-4)
            seen += 1
    assert seen == 40


def test_a_second_time_nothing_is_read(captioned: Callable[..., Path], tmp_path: Path, weights: str) -> None:
    work = str(tmp_path / "work")
    folder = captioned(photos(5))
    parts = parts_of(folder, work)
    first = embed(Embed(ARCHITECTURE, weights), parts, work, 1, "inline")
    for file in folder.glob("*.jpg"):
        file.unlink()
    assert embed(Embed(ARCHITECTURE, weights), parts, work, 1, "inline") == first


def test_the_top_share_is_kept(captioned: Callable[..., Path], build: Callable[..., Any], tmp_path: Path, weights: str) -> None:
    folder = captioned(photos(20))
    flags = (
        "--source",
        "folder",
        "--input",
        folder,
        "--samples",
        "all",
        "--no-near",
        "--embed-model",
        ARCHITECTURE,
        "--embed-checkpoint",
        weights,
    )
    code, out, err = build(*flags, "--clip-score-top", "0.5")
    assert code == 0, err
    kept = pq.read_table(out / "00000.parquet").to_pylist()
    scores = {
        r["source_id"]: r[SCORE]
        for e in sorted((tmp_path / "out.work" / "embedded").glob("*.parquet"))
        for r in pq.read_table(e).to_pylist()
    }
    ranked = sorted((s for s in scores.values() if s is not None), reverse=True)
    assert {r["source_id"] for r in kept} == {k for k, s in scores.items() if s is not None and s >= ranked[9]}
    assert all(r[SCORE] == scores[r["source_id"]] for r in kept)


def test_refusals(captioned: Callable[..., Path], build: Callable[..., Any], tmp_path: Path, weights: str) -> None:
    flags = ("--source", "folder", "--input", captioned(photos(1)), "--samples", "all")
    code, _, err = build(*flags, "--clip-score-min", "0.1")
    assert (code, "embed" in err) == (2, True)
    with pytest.raises(UsageError, match="list_models"):
        embed(Embed("no-such-model", weights), parts_of(captioned(photos(1)), str(tmp_path / "w")), str(tmp_path / "w"), 1, "inline")
    with pytest.raises(UsageError, match="no weights for tiny-vit-32"):
        wrong = tmp_path / "wrong.pt"
        import torch

        torch.save({"a": torch.zeros(1)}, wrong)
        embed(Embed(ARCHITECTURE, str(wrong)), parts_of(captioned(photos(1)), str(tmp_path / "w")), str(tmp_path / "w"), 1, "inline")


def test_the_ledger_shows_the_score() -> None:
    import duckdb

    from curate.filters.clip_score import Options, detail

    query = f'SELECT {detail(Options())} FROM (VALUES (0.2134), (NULL::DOUBLE)) AS t("{SCORE}")'
    assert duckdb.sql(query).fetchall() == [("score 0.2134",), ("no score",)]


def test_a_checkpoint_of_ours_brings_its_size_and_colours(captioned: Callable[..., Path], tmp_path: Path) -> None:
    import open_clip
    import torch

    open_clip.add_model_config(ARCHITECTURE)
    torch.manual_seed(1)
    network, mean, std = open_clip.create_model("tiny-vit-32", force_image_size=48), [0.1, 0.2, 0.3], [0.9, 0.8, 0.7]
    torch.save({"state_dict": network.state_dict(), "config": {"image_size": 48, "augment": {"mean": mean, "std": std}}}, tmp_path / "c.pt")
    rows = photos(3)
    (found,) = embed(
        Embed(ARCHITECTURE, str(tmp_path / "c.pt")), parts_of(captioned(rows), str(tmp_path / "w")), str(tmp_path / "w"), 1, "inline"
    )
    transform = open_clip.image_transform(48, is_train=False, mean=mean, std=std)
    names = [row["source_id"] for row in pq.read_table(found.part.path).to_pylist()]
    with torch.inference_mode():
        expected = network.eval().encode_image(transform(Image.open(io.BytesIO(rows[1][1] or b""))).unsqueeze(0), normalize=True)[0].numpy()
    np.testing.assert_allclose(np.load(found.images)[names.index("1.jpg")], expected, atol=2e-3)
