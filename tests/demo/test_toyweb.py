"""The toy web: the same seed gives the same bytes, the plan tells the truth, the held-out pictures are new."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from demo import files, toyweb
from demo.scene import CLASSES, compose, render

SMALL = toyweb.Size(scale=0.06, test_per_class=2, train_per_class=1)


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("web")
    toyweb.draw(folder, seed=3, size=SMALL)
    return folder


@pytest.fixture(scope="module")
def plan(web: Path) -> dict[str, Any]:
    return json.loads((web / "plan.json").read_text(encoding="utf-8"))


def digests(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


def native(web: Path) -> dict[str, list[tuple[str, str, str]]]:
    """(id, url, caption) of every record, read from the native files with json and split alone."""
    posts = [a for p in sorted((web / "redcaps/annotations").glob("*.json")) for a in json.loads(p.read_text())["annotations"]]
    found = {"redcaps": [(a["image_id"], a["url"], a["raw_caption"]) for a in posts]}
    for source, name, url in (("cc3m", "Train_GCC-training.tsv", 1), ("cc12m", "cc12m.tsv", 0)):
        rows = [line.split("\t") for line in (web / source / name).read_text(encoding="utf-8").split("\n")[:-1]]
        assert {len(row) for row in rows} == {2}
        found[source] = [(f"{row[url]}\n{row[1 - url]}", row[url], row[1 - url]) for row in rows]
    return found


def served(web: Path, path: str) -> bytes:
    routes = json.loads((web / "routes.json").read_text())
    route = routes.get(path, {})
    return (web / "files" / route.get("file", route.get("location", path)[1:])).read_bytes()


def with_defect(plan: dict[str, Any], defect: str) -> list[dict[str, str]]:
    return [r for r in plan["records"] if r["defect"] == defect]


def test_same_seed_same_bytes_with_any_number_of_workers(web: Path, tmp_path: Path) -> None:
    toyweb.draw(tmp_path, seed=3, size=SMALL, workers=1)
    assert digests(tmp_path) == digests(web)


def test_another_seed_draws_other_pictures() -> None:
    assert compose((0, 1, 0)) != compose((1, 1, 0))
    assert render(compose((0, 1, 0))).tobytes() == render(compose((0, 1, 0))).tobytes()
    assert render(compose((0, 1, 0))).tobytes() != render(compose((0, 1, 0)), attempt=1).tobytes()


def test_every_record_of_the_plan_stands_in_the_native_files(web: Path, plan: dict[str, Any]) -> None:
    for source, rows in native(web).items():
        ids = [r["source_id"] for r in plan["records"] if r["source"] == source]
        assert sorted(ids) == sorted(row[0] for row in rows)
        assert len(set(ids)) == len(ids) == plan["records_per_source"][source]


def test_counts_are_the_records_defects(plan: dict[str, Any]) -> None:
    for source, planted in plan["planted"].items():
        assert planted == Counter(r["defect"] for r in plan["records"] if r["source"] == source and r["defect"])
        wanted = toyweb.IN_PICTURES | toyweb.IN_WORDS | toyweb.IN_SERVING | toyweb.COPIES | toyweb.WITHOUT_PICTURE
        assert set(planted) == {*wanted, "viral_copy"}
        assert planted["placeholder"] >= 20


def test_each_word_defect_is_in_its_caption(web: Path, plan: dict[str, Any]) -> None:
    captions = {row[0]: row[2] for rows in native(web).values() for row in rows}
    said = {d: [captions[r["source_id"]] for r in with_defect(plan, d)] for d in toyweb.IN_WORDS}
    assert set(said["no_caption"]) == {""}
    assert all("<b>" in c and "&amp;" in c for c in said["html_caption"])
    assert all(any(a in c for a in ("Ã©", "Ãª")) for c in said["mojibake"])
    assert all(c.startswith("IMG_") for c in said["file_name"])
    assert all(c.split()[-1] in toyweb.profane_words() for c in said["profanity"])
    assert len(toyweb.profane_words()) >= 5


def test_each_picture_defect_is_in_its_file(web: Path, plan: dict[str, Any]) -> None:
    opened = {
        d: [Image.open(io.BytesIO(served(web, r["path"]))) for r in with_defect(plan, d)] for d in ("cmyk", "animated", "tiny", "banner")
    }
    assert {i.mode for i in opened["cmyk"]} == {"CMYK"}
    assert all(i.n_frames == 3 for i in opened["animated"])
    assert all(max(i.size) <= 24 for i in opened["tiny"])
    assert all(i.width / i.height > 4 for i in opened["banner"])
    for record in with_defect(plan, "truncated"):
        with pytest.raises(OSError, match=r"truncated|broken"):
            Image.open(io.BytesIO(served(web, record["path"]))).load()
    assert all(served(web, r["path"]).startswith(b"<!DOCTYPE html") for r in with_defect(plan, "html_body"))
    assert all(Image.open(io.BytesIO(served(web, r["path"]))).getexif()[0x0112] == 6 for r in with_defect(plan, "rotated"))


def test_copies_copy_what_the_plan_says(web: Path, plan: dict[str, Any]) -> None:
    paths = {(r["source"], r["source_id"]): r["path"] for r in plan["records"]}
    for kind in toyweb.COPIES:
        for record in with_defect(plan, kind):
            copy, first = served(web, record["path"]), served(web, paths[record["source"], record["of"]])
            assert (copy == first) == (kind == "exact_copy")
            sizes = [Image.open(io.BytesIO(b)).size for b in (copy, first)]
            assert (sizes[0] == sizes[1]) == (kind != "resized_copy")


def test_the_placeholder_is_one_low_information_picture_under_many_captions(web: Path, plan: dict[str, Any]) -> None:
    from curate.images import ImagePolicy, open_image
    from shards.phash import LOW_INFORMATION

    captions = {row[0]: row[2] for rows in native(web).values() for row in rows}
    for source in toyweb.SOURCES:
        records = [r for r in with_defect(plan, "placeholder") if r["source"] == source]
        assert {served(web, r["path"]) for r in records} == {files.placeholder()}
        assert len({captions[r["source_id"]] for r in records}) >= 20
    assert open_image(files.placeholder(), ImagePolicy()).information < LOW_INFORMATION


def test_dead_links_have_no_file(web: Path, plan: dict[str, Any]) -> None:
    assert with_defect(plan, "dead")
    for record in with_defect(plan, "dead"):
        with pytest.raises(FileNotFoundError):
            served(web, record["path"])


def test_held_out_classes_and_counts(web: Path) -> None:
    for split, n in (("test", SMALL.test_per_class), ("train", SMALL.train_per_class)):
        assert {p.name: len(list(p.iterdir())) for p in (web / "heldout" / split).iterdir()} == dict.fromkeys(CLASSES, n)
    assert len(CLASSES) >= 10
    assert len(CLASSES) * toyweb.Size().test_per_class >= 500


def phashes(contents: list[bytes]) -> Any:
    """Every decodable picture's pHash by our reference mode, which tests of curate hold against imagededup's."""
    import numpy as np

    from curate.images import ImagePolicy, ImageRefusedError, open_image

    found = []
    for content in contents:
        try:
            found.append(open_image(content, ImagePolicy(), "reference").phash)
        except ImageRefusedError:
            continue
    return np.array(found, dtype="uint64")


def training_pictures(web: Path, plan: dict[str, Any]) -> list[bytes]:
    paths = {r["path"] for r in plan["records"] if r["defect"] != "dead"}
    return [served(web, path) for path in sorted(paths)]


def nearest(left: Any, right: Any) -> int:
    """The smallest Hamming distance between two sets of hashes, by brute force."""
    import numpy as np

    return min(int(np.bitwise_count(one ^ right).min()) for one in left)


def test_no_held_out_picture_is_near_a_training_one(web: Path, plan: dict[str, Any]) -> None:
    held_out = phashes([p.read_bytes() for p in sorted((web / "heldout").rglob("*.jpg"))])
    training = phashes(training_pictures(web, plan))
    assert len(held_out) == len(CLASSES) * 3
    assert nearest(held_out, training) > 4


def test_only_planted_copies_are_near_each_other(web: Path, plan: dict[str, Any]) -> None:
    import numpy as np

    clean = {r["path"] for r in plan["records"] if r["defect"] in ("", "cmyk", "rotated", "mojibake", "profanity")}
    found = phashes([served(web, path) for path in sorted(clean)])
    assert len(found) == len(clean)
    distances = np.bitwise_count(found[:, None] ^ found[None, :])
    assert distances[~np.eye(len(found), dtype=bool)].min() > 4


@pytest.mark.slow
def test_the_demos_own_web_by_imagededup(tmp_path: Path) -> None:
    import numpy as np
    from imagededup.methods import PHash

    plan = toyweb.draw(tmp_path)
    peer = PHash(verbose=False)
    by_peer = {p: int(code, 16) for p in sorted((tmp_path / "heldout/test").rglob("*.jpg")) if (code := peer.encode_image(p))}
    assert len(by_peer) == len(CLASSES) * toyweb.Size().test_per_class >= 500
    training = []
    for content in training_pictures(tmp_path, plan):
        try:
            pixels = Image.open(io.BytesIO(content)).convert("RGB")
        except OSError:
            continue
        training.append(int(peer.encode_image(image_array=np.asarray(pixels)), 16))
    assert nearest(np.array(list(by_peer.values()), dtype="uint64"), np.array(training, dtype="uint64")) > 4
