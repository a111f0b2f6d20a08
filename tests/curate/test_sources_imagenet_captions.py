"""imagenet_captions: records joined to photos in trees and tars, texts chosen and joined, odd and torn files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagenet_sets as sets
import pytest
from imagenet_sets import FORMS, NUMBERS, PHOTOS, VAL, form
from native import ledger, peak_memory, pointed, records, sidecar

from curate.sources import imagenet_captions, imagenet_templates
from curate.sources.base import Record
from shards.core.errors import TornFileError, UsageError
from shards.manifest import read_manifest


@pytest.mark.parametrize("name", FORMS)
def test_captions_find_their_photos_in_every_form(tmp_path: Path, name: str) -> None:
    images = form(name, tmp_path / "imagenet")
    path = sets.captions(tmp_path, [sets.caption(n) for n in reversed(PHOTOS)] + [sets.caption("n01440764_7.JPEG")])
    found = records(imagenet_captions, path, images=str(images))
    assert {r.source_id: pointed(r) for r in found[:-1]} == PHOTOS
    assert [r.class_index for r in found[:-1]] == [3, 3, 2, 2, 1, 1, 0, 0]
    assert (found[-1].status, found[-1].detail, found[-1].image) == ("image_missing", "no n01440764/n01440764_7.JPEG in the images", None)


def test_texts_of_a_record(tmp_path: Path) -> None:
    name = "n01440764_100.JPEG"
    path = sets.captions(
        tmp_path, [sets.caption(name), sets.caption(name, title="", tags=None), sets.caption(name, description=None, tags=[])]
    )
    images = str(sets.tree(tmp_path / "train"))

    def captions(**options: Any) -> list[tuple[str, ...]]:
        return [r.captions for r in records(imagenet_captions, path, images=images, **options)]

    assert captions() == [(f"Title {name} A day out one two",), ("A day out",), (f"Title {name}",)]
    assert captions(text_fields=("title", "tags", "description"))[0] == (f"Title {name} one two A day out",)
    assert captions(text_fields=("tags",)) == [("one two",), ("",), ("",)]
    apart = captions(texts="apart")
    assert apart == [(f"Title {name}", "A day out", "one two"), ("", "A day out", ""), (f"Title {name}", "", "")]
    assert captions(text_fields=("title",), texts="apart") == [(f"Title {name}",), ("",), (f"Title {name}",)]


def test_odd_records_are_rows(tmp_path: Path) -> None:
    name = "n01440764_100.JPEG"
    odd = [
        sets.caption(name), "text", None, {}, sets.caption("../" + name, wnid="n01440764"), sets.caption(name, wnid="../n01440764"),
        sets.caption(name, title="\ud800"), sets.caption(name, title=7), sets.caption(name, wnid=None), sets.caption(name, tags="a b"),
    ]  # fmt: skip
    path = sets.captions(tmp_path, odd)
    found = records(imagenet_captions, path, images=str(sets.tree(tmp_path / "train")))
    assert [r.status for r in found] == ["", *["bad_record"] * 5, "", "", "", ""]
    assert found[6].captions == ("\ufffd A day out one two",)
    assert found[7].captions == ("7 A day out one two",)
    assert found[9].captions == (f"Title {name} A day out a b",)
    assert [r.row for r in found] == list(range(len(odd)))


@pytest.mark.parametrize(
    ("value", "options", "says"),
    [
        ([["n1.JPEG", "t"]], {}, "its records are lists"),
        ([{"image_id": "a", "subreddit": "cats", "url": "u", "caption": "c"}], {}, "there is no 'filename'"),
        ([{"filename": "a", "title": "t", "tags": []}], {}, "there is no 'description'"),
        ([], {"text_fields": ()}, "text_fields: found none"),
        ([], {"text_fields": ("title", "title")}, "text_fields: found title, title"),
        ([], {"images": ""}, "no images"),
        ([], {"images": "nowhere"}, "no file at 'nowhere'"),
        ({"a": 1}, {}, "an object of a"),
    ],
)
def test_other_metadata_is_refused_by_name(tmp_path: Path, value: Any, options: dict[str, Any], says: str) -> None:
    images = str(sets.tree(tmp_path / "train"))
    with pytest.raises(UsageError, match=says):
        imagenet_captions.inputs(str(sets.captions(tmp_path, value)), imagenet_captions.Options(**{"images": images} | options))


def test_the_published_zip_is_refused_with_advice(tmp_path: Path) -> None:
    (tmp_path / "imagenet_captions.zip").write_bytes(b"PK\x03\x04rest")
    with pytest.raises(UsageError, match="zip file: unpack it first"):
        imagenet_captions.inputs(
            str(tmp_path / "imagenet_captions.zip"), imagenet_captions.Options(images=str(sets.tree(tmp_path / "train")))
        )


def test_torn_metadata_and_torn_images(tmp_path: Path) -> None:
    rows = [sets.caption(n) for n in PHOTOS]
    images = sets.train_tar(tmp_path, tmp_path / "scratch")
    options = imagenet_captions.Options(images=str(images))
    (one,) = imagenet_captions.inputs(str(sets.captions(tmp_path, rows)), options)
    images.write_bytes(images.read_bytes()[: images.stat().st_size // 2])
    found: list[Record] = []
    with pytest.raises(TornFileError, match=r"img_train\.tar"):
        found.extend(imagenet_captions.read(one, options))
    assert [r.source_id for r in found] == list(PHOTOS)
    assert 0 < sum(1 for r in found if not r.status) < len(found)
    text = Path(one.path).read_text()
    Path(one.path).write_text(text[: len(text) // 2])
    again: list[Record] = []
    with pytest.raises(TornFileError, match=r"imagenet_captions\.json"):
        again.extend(imagenet_captions.read(one, options))
    assert again == found[: len(again)]
    assert again


def test_memory_stays_flat(tmp_path: Path) -> None:
    images = str(sets.tree(tmp_path / "train"))

    def peak(n: int) -> int:
        path = sets.captions(tmp_path, [sets.caption(f"n01440764_{i}.JPEG", description="x" * 400) for i in range(n)])
        return peak_memory(imagenet_captions, path, n, images=images)

    peak(10)
    assert peak(16_000) < 1.3 * peak(5_000)


def test_a_build_of_captions(tmp_path: Path, build: Callable[..., tuple[int, Path, str]]) -> None:
    """Mark-up and line feeds are cleaned; profane texts, missing images and repeated file names are rows."""
    images = sets.class_tars(tmp_path / "train")
    names = list(PHOTOS)
    rows = [
        sets.caption(names[0], description='Caught\nat <a href="http://h.example">dawn</a> &amp; sold', tags=[]),
        sets.caption(names[1], title="fuck", description=None, tags=[]),
        sets.caption(names[2], title="", description="<b></b>", tags=[]),
        sets.caption("n03146219_7.JPEG"),
        sets.caption(names[4], title="again", description="", tags=["x-y"]),
        sets.caption(names[4]),
    ]
    path = sets.captions(tmp_path, rows)
    code, out, talk = build("--source", "imagenet_captions", "--input", path, "--images", images, "--samples", "all")
    assert code == 0, talk
    assert [r["reason"] for r in sorted(ledger(out), key=lambda r: r["row"])] == [
        "", "profanity", "caption_missing", "image_missing", "", "duplicate_id",
    ]  # fmt: skip
    found = {r["source_id"]: r for r in sidecar(out)}
    assert found[names[0]]["caption"] == f"Title {names[0]} Caught at dawn & sold"
    assert found[names[4]]["caption"] == "again x-y"
    assert found[names[4]]["imagenet_captions.wnid"] == "n03126707"


def test_byte_order_marks_are_passed_over(tmp_path: Path) -> None:
    root = sets.kaggle(tmp_path / "k")
    for path in (root / "LOC_synset_mapping.txt", root / "LOC_val_solution.csv"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    found = records(imagenet_templates, root, split="val")
    assert {r.source_id: r.class_index for r in found} == {name: NUMBERS[wnid] for name, wnid in VAL.items()}
    assert found[0].class_name == "cuirass"
    path = sets.captions(tmp_path, [sets.caption(n) for n in PHOTOS])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(records(imagenet_captions, path, images=str(root))) == len(PHOTOS)


def test_an_image_that_arrives_later_is_noticed(tmp_path: Path, build: Callable[..., tuple[int, Path, str]]) -> None:
    images = sets.tree(tmp_path / "train")
    name = "n01440764_100.JPEG"
    content = (images / "n01440764" / name).read_bytes()
    (images / "n01440764" / name).unlink()
    path = sets.captions(tmp_path, [sets.caption(n) for n in PHOTOS])
    flags = ("--source", "imagenet_captions", "--input", path, "--images", images, "--samples", "all", "--work", tmp_path / "work")
    code, out, talk = build(*flags)
    assert code == 0, talk
    assert read_manifest(str(out)).samples == 7
    (images / "n01440764" / name).write_bytes(content)
    code, out, talk = build(*flags, output="later")
    assert code == 0, talk
    assert read_manifest(str(out)).samples == 8
