"""Decontamination: the search against brute force, planted copies, and builds that drop exactly what was planted."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from drawing import encoded, picture
from PIL import Image, ImageOps

from curate.decontaminate.claims import recall
from curate.decontaminate.plant import KINDS, planted
from curate.decontaminate.search import near_embeddings, near_views
from curate.decontaminate.sets import list_images, open_sets
from curate.decontaminate.views import BORDERS, CROPS, VIEWS, view_hashes
from curate.images import ImagePolicy, open_image
from curate.recipe import Exclude
from curate.report.examples import read_examples
from shards.core.errors import UsageError
from shards.phash import LOW_INFORMATION

Build = Callable[..., tuple[int, Path, str]]
Captioned = Callable[..., Path]


def photo(i: int) -> Image.Image:
    return picture(i, 240, 180)


def phash(content: bytes) -> int:
    return open_image(content, ImagePolicy(), "reference").phash


# ---- the search


def test_near_views_are_those_of_brute_force() -> None:
    rng = np.random.default_rng(0)
    views = rng.integers(0, 2**64, (300, 5), dtype=np.uint64)
    views[20:40, 2] = views[60:80, 4]  # views of several images may share a hash
    views[5, 1] = views[5, 3]
    usable = rng.random(300) < 0.9
    build = rng.integers(0, 2**64, 4000, dtype=np.uint64)
    for i, (image, view) in enumerate(rng.integers(0, (300, 5), (2000, 2)).tolist()):
        build[i] = int(views[image, view]) ^ sum({1 << int(b) for b in rng.integers(0, 64, rng.integers(0, 7))})
    build = np.unique(build)
    found = near_views(build, views, usable, 4)
    distance = np.bitwise_count(build[:, None, None] ^ views[None]).astype(int)
    distance[:, ~usable] = 65
    expected = [(b, distance[b, i].min(), i, distance[b, i].argmin()) for b, i in zip(*np.nonzero(distance.min(2) <= 4), strict=True)]
    assert len(expected) > 1000
    assert list(zip(found.build, found.distance, found.image, found.view, strict=True)) == sorted(expected)


def test_near_views_of_nothing() -> None:
    some, none = np.array([1, 2], np.uint64), np.empty(0, np.uint64)
    assert len(near_views(none, some[:, None], np.array([True, True]), 4).build) == 0
    assert len(near_views(some, none.reshape(0, 3), np.empty(0, bool), 4).build) == 0
    assert len(near_views(some, some[:, None], np.array([False, False]), 4).build) == 0


def test_near_embeddings_are_those_of_a_plain_product() -> None:
    rng = np.random.default_rng(1)
    tests = rng.normal(size=(90, 12))
    build = np.concatenate(
        [tests[rng.integers(0, 90, 60)] + rng.normal(size=(60, 12)) * 0.15, rng.normal(size=(80, 12)), np.zeros((3, 12))]
    )
    tests /= np.linalg.norm(tests, axis=1, keepdims=True)
    build[:-3] /= np.linalg.norm(build[:-3], axis=1, keepdims=True)
    rows, columns, apart = near_embeddings(build.astype(np.float16), tests.astype(np.float32), 0.1, block=37)
    exact = 1 - build.astype(np.float16).astype(np.float64) @ tests.T
    expected = sorted((i, exact[i, j], j) for i, j in zip(*np.nonzero(exact < 0.1), strict=True))
    assert len(expected) > 30
    assert [(i, j) for i, _, j in expected] == list(zip(rows.tolist(), columns.tolist(), strict=True))
    assert np.allclose(apart, [d for _, d, _ in expected], atol=1e-5)
    with pytest.raises(ValueError):
        near_embeddings(build, tests, 1.5)


# ---- views and plants


def test_each_view_is_near_the_copy_that_it_stands_for() -> None:
    """Copies made at full size, in colour, by the amounts of the views; a view works on a small gray image."""
    apart = []
    for i in range(12):
        image = photo(i)
        width, height = image.size
        short, left = min(image.size), (width - height) // 2
        copies = [ImageOps.mirror(image), image.crop((left, 0, left + short, short))]
        for a, b, c, d in CROPS:
            copies.append(image.crop((round(width * a), round(height * b), width - round(width * c), height - round(height * d))))
        copies += [ImageOps.expand(image, round(short * share), (colour,) * 3) for colour, share in BORDERS]
        views = view_hashes(encoded(image))
        assert len(views) == len(VIEWS) - 1
        apart.append([int(views[k] ^ np.uint64(phash(encoded(copy)))).bit_count() for k, copy in enumerate(copies)])
    distance = np.array(apart)
    assert (distance <= 4).mean() > 0.9
    assert np.median(distance, axis=0).max() <= 4
    assert distance[:, 0].max() <= 4  # the flip


def test_planted_copies_are_what_their_kind_says() -> None:
    image = photo(3)
    width, height = image.size
    content = encoded(image)
    copies = dict(zip(KINDS, (Image.open(io.BytesIO(c)) for c in planted(content)), strict=True))
    assert planted(content) == planted(content)
    pixels = np.asarray(image, float)

    def like(a: Image.Image, b: np.ndarray) -> bool:
        return a.size == b.shape[1::-1] and np.abs(np.asarray(a.convert("RGB"), float) - b).mean() < 8

    assert like(copies["re-encoded"], pixels)
    assert like(copies["flipped"], pixels[:, ::-1])
    assert copies["squared"].size == (height, height)
    assert copies["resized"].width != width
    assert abs(copies["resized"].width / copies["resized"].height - width / height) < 0.02
    assert 0.79 * width <= copies["cropped"].width <= 0.96 * width
    assert 0.79 * height <= copies["cropped"].height <= 0.96 * height
    border = (copies["bordered"].width - width) // 2
    assert 0.03 * height - 1 <= border <= 0.12 * height + 1
    assert like(copies["bordered"].crop((border, border, border + width, border + height)), pixels)
    rows = copies["captioned"].height - height
    assert 0.07 * height <= rows <= 0.23 * height
    assert like(copies["captioned"].crop((0, 0, width, height)), pixels) or like(
        copies["captioned"].crop((0, rows, width, height + rows)), pixels
    )


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (1, 300), (300, 1), (3000, 20)])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_pictures_of_any_size_have_views_and_copies(size: tuple[int, int], mode: str) -> None:
    content = encoded(photo(1).resize(size).convert(mode))
    assert view_hashes(content).shape == (len(VIEWS) - 1,)
    assert all(open_image(copy, ImagePolicy()).width >= 1 for copy in planted(content))


# ---- sets


def folder_of(tmp_path: Path, name: str, contents: dict[str, bytes]) -> Path:
    for file, content in contents.items():
        path = tmp_path / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / name


def test_a_set_is_the_same_from_a_folder_and_from_a_tar(tmp_path: Path) -> None:
    import tarfile

    contents = {f"cat/{i}.jpg": encoded(photo(i)) for i in range(3)} | {"dog/x.png": encoded(photo(9), "PNG"), "readme.txt": b"hello"}
    folder = folder_of(tmp_path, "test", contents)
    with tarfile.open(tmp_path / "test.tar", "w", format=tarfile.USTAR_FORMAT) as file:
        file.add(folder, "test")
    opened = open_sets((str(folder), str(tmp_path / "test.tar")), "reference", ImagePolicy(), True, str(tmp_path / "work"), 1, "inline")
    assert [s.name for s in opened] == ["test", "test.tar"]
    assert opened[0].names == ["cat/0.jpg", "cat/1.jpg", "cat/2.jpg", "dog/x.png"]
    assert sorted(opened[1].names) == [f"test.tar/test/{name}" for name in opened[0].names]
    assert [name for name, _ in list_images(f"{folder}/*/*.jpg")[0]] == opened[0].names[:3]
    by_bytes = [dict(zip(s.sha256, s.views.tolist(), strict=True)) for s in opened]
    assert by_bytes[0] == by_bytes[1]
    assert opened[0].views.shape == (4, len(VIEWS))
    assert opened[0].views[:, 0].tolist() == [phash(contents[name]) for name in opened[0].names]
    assert opened[0].planted.shape == (4, len(KINDS))


def test_recall_is_what_brute_force_finds(tmp_path: Path) -> None:
    plain = {"plain.png": encoded(Image.new("RGB", (60, 60), (1, 2, 3)), "PNG")}
    folder = folder_of(tmp_path, "test", {f"{i}.jpg": encoded(photo(i)) for i in range(9)} | plain)
    (one,) = open_sets((str(folder),), "reference", ImagePolicy(), True, str(tmp_path / "work"), 1, "inline")
    found = recall(one, Exclude())
    usable = [name != "plain.png" for name in one.names]
    assert one.usable.tolist() == usable
    for mode, views in (("as it is", one.views[usable, :1]), (f"{len(VIEWS)} views", one.views[usable])):
        for k, kind in enumerate(KINDS):
            near = [
                any(int(view ^ copy).bit_count() <= 4 for view in views.ravel())
                for name in one.names
                if (copy := opened(planted(stored(folder / name))[k]))
            ]
            assert found[mode][kind] == pytest.approx(sum(near) / len(one.names), abs=0.001)


def opened(content: bytes) -> np.uint64 | None:
    """Return a picture's hash, or None where it holds too little information."""
    found = open_image(content, ImagePolicy(), "reference")
    return np.uint64(found.phash) if found.information >= LOW_INFORMATION else None


def stored(path: Path) -> bytes:
    return open_image(path.read_bytes(), ImagePolicy()).encoded or path.read_bytes()


def test_a_set_without_an_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no image in the test set"):
        list_images(str(folder_of(tmp_path, "test", {"a.txt": b"x"})))
    with pytest.raises(UsageError, match="no test set"):
        list_images(str(tmp_path / "nowhere"))


def test_a_broken_test_image_is_counted_and_the_rest_counts(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "test", {"a.jpg": encoded(photo(1))[:900], "b.jpg": encoded(photo(2)), "c.jpg": b""})
    (one,) = open_sets((str(folder),), "reference", ImagePolicy(), True, str(tmp_path / "work"), 1, "inline")
    assert [bool(s) for s in one.status] == [True, False, True]
    assert one.usable.tolist() == [False, True, False]
    assert len(one.planted) == 1


# ---- builds


@pytest.fixture
def contaminated(tmp_path: Path, captioned: Captioned) -> tuple[Path, Path, dict[str, str]]:
    """A test set, a training set with copies of it, and which of its images must go, and how."""
    tests = {f"{i:02d}.jpg": encoded(photo(i)) for i in range(8)} | {"plain.jpg": encoded(Image.new("RGB", (90, 70), (9, 120, 200)))}
    copies: dict[str, tuple[bytes, str]] = {
        "same.jpg": (tests["00.jpg"], "downstream/00.jpg: same bytes"),
        "same-too.jpg": (tests["00.jpg"], "downstream/00.jpg: same bytes"),
        "again.jpg": (encoded(photo(1), quality=60), "downstream/01.jpg: as it is, "),
        "smaller.jpg": (encoded(photo(2).resize((160, 120))), "downstream/02.jpg: as it is, "),
        "mirror.jpg": (encoded(ImageOps.mirror(photo(3))), "downstream/03.jpg: flipped, "),
        "square.jpg": (encoded(photo(4).crop((30, 0, 210, 180))), "downstream/04.jpg: square, "),
        "framed.jpg": (encoded(ImageOps.expand(photo(5), 9, (255, 255, 255))), "downstream/05.jpg: white border 5%, "),
        "flat.jpg": (tests["plain.jpg"], "downstream/plain.jpg: same bytes"),
    }
    clean = {f"clean{i}.jpg": encoded(photo(100 + i)) for i in range(12)} | {
        "grey.jpg": encoded(Image.new("RGB", (90, 70), (10, 121, 200)))
    }
    rows = [(name, content, f"words of {name}") for name, content in [*((n, c) for n, (c, _) in copies.items()), *clean.items()]]
    return captioned(rows), folder_of(tmp_path, "downstream", tests), {name: detail for name, (_, detail) in copies.items()}


def ledger(out: Path) -> dict[str, dict[str, Any]]:
    rows = [row for path in sorted((out / "ledger").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    return {row["source_id"]: row for row in rows}


def test_a_build_drops_exactly_the_planted_images(contaminated: Any, build: Build, tmp_path: Path) -> None:
    photos, tests, copies = contaminated
    flags = ("--source", "folder", "--input", photos, "--samples", "all", "--exclude-near", tests)
    code, out, err = build(*flags)
    assert code == 0, err
    dropped = {name: row for name, row in ledger(out).items() if row["reason"] == "near_test_image"}
    assert set(dropped) == set(copies)
    assert all(row["detail"].startswith(copies[name]) and not row["duplicate_of"] for name, row in dropped.items())
    manifest = json.loads((out / "manifest.json").read_text())
    said = manifest["notes"]["excluded"]
    (one,) = said["sets"]
    assert (said["radius"], said["views"]) == (4, len(VIEWS))
    assert (one["name"], one["images"], one["low_information"], one["near_test_image"]) == ("downstream", 9, 1, 8)
    assert one["recall"]["as it is"]["flipped"] <= 1 / 9
    assert one["recall"][f"{len(VIEWS)} views"]["flipped"] == pytest.approx(8 / 9, abs=0.001)  # no copy of the plain one is found
    assert "recall on planted copies" in err
    assert "captioned" in err
    assert str(tests) not in (out / "manifest.json").read_text()

    pairs = pq.read_table(out / "examples" / "contamination.parquet").to_pylist()
    listed = {row["uid"] for row in pairs}  # of two that have the same bytes, one
    assert {name for name, row in dropped.items() if row["uid"] not in listed} < {"same.jpg", "same-too.jpg"}
    assert len(listed) == len(copies) - 1
    assert {(row["set"], row["test_image"]) for row in pairs} == {("downstream", d.split("/")[1].split(":")[0]) for d in copies.values()}
    shown = [row for row in read_examples(str(out)) if row["kind"] == "test"]
    assert len(shown) == 2 * (len(copies) - 1)
    assert all(row["thumbnail"] for row in shown)
    assert {(row["position"], row["source"]) for row in shown} == {(0, "folder"), (1, "downstream")}
    assert "downstream" in (out / "report.html").read_text()


def test_without_views_only_copies_as_they_are_go(contaminated: Any, build: Build, tmp_path: Path) -> None:
    photos, tests, copies = contaminated
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps({
        "sources": [{"reader": "folder", "input": str(photos)}], "samples": "all", "exclude": {"sets": [str(tests)], "views": False},
    }))  # fmt: skip
    code, out, err = build("--config", recipe)
    assert code == 0, err
    dropped = {name for name, row in ledger(out).items() if row["reason"] == "near_test_image"}
    assert dropped == {name for name, detail in copies.items() if "as it is" in detail or "same bytes" in detail}


def test_the_images_of_a_build_can_be_kept_out(contaminated: Any, build: Build) -> None:
    photos, tests, copies = contaminated
    (tests / "captions.csv").write_text("image,caption\n" + "".join(f"{path.name},words\n" for path in sorted(tests.glob("*.jpg"))))
    code, downstream, err = build("--source", "folder", "--input", tests, "--samples", "all", output="downstream-build")
    assert code == 0, err
    code, out, err = build("--source", "folder", "--input", photos, "--samples", "all", "--exclude-near", downstream)
    assert code == 0, err
    assert {name for name, row in ledger(out).items() if row["reason"] == "near_test_image"} == set(copies)


def test_a_changed_test_set_is_another_build(contaminated: Any, build: Build) -> None:
    photos, tests, _ = contaminated
    flags = ("--source", "folder", "--input", photos, "--samples", "all", "--exclude-near", tests)
    code, out, err = build(*flags)
    assert code == 0, err
    before = (out / "manifest.json").read_bytes()
    code, _, err = build(*flags)
    assert code == 0
    assert "nothing to do" in err
    assert "hash downstream" not in err  # the work folder knows it
    (tests / "new.jpg").write_bytes(encoded(photo(103)))
    code, _, err = build(*flags)
    assert code == 2
    assert "other inputs" in err
    code, _, err = build(*flags, "--overwrite")
    assert code == 0, err
    assert (out / "manifest.json").read_bytes() != before
    assert ledger(out)["clean3.jpg"]["reason"] == "near_test_image"


def test_a_test_set_that_is_not_there_is_named(contaminated: Any, build: Build) -> None:
    photos, tests, _ = contaminated
    code, _, err = build("--source", "folder", "--input", photos, "--samples", "all", "--exclude-near", f"{tests}-2")
    assert code == 2
    assert f"{tests}-2" in err


@pytest.mark.parametrize(("key", "value"), [("radius", -1), ("radius", 33), ("embedding", 1.5)])
def test_a_distance_that_means_nothing_is_refused(contaminated: Any, build: Build, tmp_path: Path, key: str, value: float) -> None:
    photos, tests, _ = contaminated
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps({
        "sources": [{"reader": "folder", "input": str(photos)}], "samples": "all", "exclude": {"sets": [str(tests)], key: value},
    }))  # fmt: skip
    code, _, err = build("--config", recipe)
    assert code == 2
    assert f"exclude.{key}: found {value}" in err


def test_a_dry_run_lists_the_test_sets_and_those_that_are_missing(contaminated: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from curate.cli import main

    photos, tests, _ = contaminated
    flags = ("--source", "folder", "--input", photos, "--samples", "all", "--exclude-near", tests, f"{tests}-2")
    assert main(["build-shards", *map(str, flags), "--dry-run", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["excluded"] == [{"path": str(tests), "missing": False}, {"path": f"{tests}-2", "missing": True}]


@pytest.mark.slow
def test_an_embedding_finds_what_it_is_near_to(contaminated: Any, build: Build, tmp_path: Path) -> None:
    """Weights drawn from a seed: what they find is held against a plain product of the same model's embeddings."""
    import open_clip
    import torch

    from curate.embed import load_model
    from curate.recipe import Embed

    photos, tests, copies = contaminated
    model = str(Path(__file__).resolve().parents[2] / "train" / "models" / "configs" / "tiny-vit-32.json")
    open_clip.add_model_config(model)
    torch.manual_seed(0)
    torch.save(open_clip.create_model("tiny-vit-32").state_dict(), tmp_path / "tiny.pt")
    network = load_model(Embed(model, str(tmp_path / "tiny.pt")))
    own, theirs = (sorted(folder.glob("*.jpg")) for folder in (photos, tests))
    seen = [network.images([path.read_bytes() for path in paths]).astype(np.float64) for paths in (own, theirs)]
    nearest = dict(zip([path.name for path in own], (1 - seen[0] @ seen[1].T).min(axis=1), strict=True))
    clean = sorted(distance for name, distance in nearest.items() if name not in copies)
    threshold = round(float(np.mean(clean[1:3])), 6)  # two clean images are that near, too

    flags = ("--source", "folder", "--input", photos, "--samples", "all", "--exclude-near", tests, "--exclude-embedding", threshold)
    code, _, err = build(*flags)
    assert code == 2
    assert "--embed-model" in err
    code, out, err = build(*flags, "--embed-model", model, "--embed-checkpoint", tmp_path / "tiny.pt")
    assert code == 0, err
    dropped = {name: row["detail"] for name, row in ledger(out).items() if row["reason"] == "near_test_image"}
    assert set(dropped) == set(copies) | {name for name, distance in nearest.items() if distance < threshold}
    assert len(dropped) == len(copies) + 2
    assert all("cosine distance" in detail for name, detail in dropped.items() if name not in copies)
    (one,) = json.loads((out / "manifest.json").read_text())["notes"]["excluded"]["sets"]
    assert one["recall"]["embedding"]["re-encoded"] > 0.8
    assert "embeddings nearer than" in err


def test_a_sample_that_is_taken_down_leaves_the_list_of_pairs(contaminated: Any, build: Build, tmp_path: Path) -> None:
    from curate.cli import main

    photos, tests, _ = contaminated
    code, out, err = build("--source", "folder", "--input", photos, "--samples", "all", "--exclude-near", tests)
    assert code == 0, err
    gone = ledger(out)["mirror.jpg"]["uid"]
    (tmp_path / "uids.txt").write_text(gone + "\n")
    assert main(["forget", str(out), "--uids", str(tmp_path / "uids.txt")]) == 0
    pairs = pq.read_table(out / "examples" / "contamination.parquet").to_pylist()
    assert len(pairs) == 6
    assert gone not in {row["uid"] for row in pairs}
    assert gone not in {row["uid"] for row in read_examples(str(out))}
