"""webdataset, img2dataset and folder: sources whose records point at their images."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curate.sources import folder, img2dataset, webdataset
from curate.sources.base import Pointer, Record
from shards.core.errors import TornFileError, UsageError
from shards.tables.values import NULL_WORDS

UID = "0123456789abcdef0123456789abcdef"


def records(module: ModuleType, path: Path | str, **options: Any) -> list[Record]:
    """Return all records of all inputs."""
    chosen = module.Options(**options)
    return [r for one in module.inputs(str(path), chosen) for r in module.read(one, chosen)]


def make_tar(path: Path, members: list[tuple[str, bytes]], format: int = tarfile.GNU_FORMAT) -> Path:
    """Write a tar with the standard library's writer."""
    with tarfile.open(path, "w", format=format) as out:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))
    return path


def pointed(record: Record) -> bytes:
    """Return the bytes a record points at."""
    assert record.image is not None
    content = Path(record.image.path).read_bytes()[record.image.offset :]
    return content if record.image.size < 0 else content[: record.image.size]


def test_webdataset_members(tmp_path: Path) -> None:
    extras = {"caption": "from json", "url": "http://h.example/a", "license": "CC0", "width": float("nan"), "n": 3}
    make_tar(
        tmp_path / "a.tar",
        [
            ("d/1.JPG", b"one"), ("d/1.txt", "\ufeffa caption\n".encode()), ("d/1.cls", b"7"),
            ("2.png", b"two"), ("2.json", json.dumps(extras).encode()), ("2.cls", b"tabby cat"),
            ("3.txt", b"no image"),
            ("4.left.jpg", b"left"), ("4.right.jpg", b"right"), ("4.json", b"{torn"),
            (f"{UID}.webp", b"five"), (f"{UID}.txt", b"\xff"),
            ("6.jpeg", b"six"), ("6.txt", b" "), ("6.json", json.dumps({"captions": ["x", "y"], "uid": UID[::-1]}).encode()),
        ],
    )  # fmt: skip
    one, two, three, four, five, six = records(webdataset, tmp_path)
    assert (one.source_id, one.captions, one.class_index, pointed(one)) == ("a.tar/d/1", ("a caption\n",), 7, b"one")
    assert (two.captions, two.urls, two.licence) == (("from json",), ("http://h.example/a",), "CC0")
    assert (two.class_index, two.class_name, pointed(two)) == (-1, "tabby cat", b"two")
    assert json.loads(two.meta) == {"url": "http://h.example/a", "license": "CC0", "width": None, "n": 3}
    assert (three.status, three.image, three.detail) == ("image_missing", None, "members: txt")
    assert (pointed(four), four.captions, four.status) == (b"left", (), "")
    assert "no JSON" in four.detail
    assert (five.source_id, five.captions) == (UID, ("ÿ",))
    assert (six.source_id, six.captions) == (UID[::-1], ("x", "y"))
    assert [r.row for r in (one, two, three, four, five, six)] == list(range(6))


def test_webdataset_ids_carry_the_tars_place(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    for name in ("0.tar", "x/0.tar"):
        make_tar(tmp_path / name, [("k.jpg", b"j")])
    assert [r.source_id for r in records(webdataset, tmp_path)] == ["0.tar/k", "x/0.tar/k"]
    assert [r.source_id for r in records(webdataset, f"{tmp_path}/{{0..0}}.tar")] == ["0.tar/k"]
    assert [r.source_id for r in records(webdataset, tmp_path / "x")] == ["0.tar/k"]


def test_a_file_that_is_no_tar_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"<html>" * 200)
    with pytest.raises(UsageError, match="no tar"):
        webdataset.inputs(str(tmp_path), webdataset.Options())


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_torn_tar_gives_its_whole_samples(tmp_path: Path, data: st.DataObject) -> None:
    """Wherever the cut is: every sample whose members lie before it, none that is half there.

    Of a first sample alone nobody knows what it should have: it counts once a member of the next one is there.
    """
    sizes = [(700 + 300 * i, 5 * i) for i in range(4)]
    members = [(f"{i}.{ext}", bytes(size)) for i, pair in enumerate(sizes) for ext, size in zip(("jpg", "txt"), pair, strict=True)]
    path = make_tar(tmp_path / "cut.tar", members)
    with tarfile.open(path) as tar:
        ends = [m.offset_data + m.size for m in tar.getmembers() if m.name.endswith("txt")]
        second = tar.getmember("1.jpg").offset_data + tar.getmember("1.jpg").size
    whole = path.read_bytes()
    cut = data.draw(st.integers(1, ends[-1] - 1))
    path.write_bytes(whole[:cut])
    found: list[Record] = []
    one = webdataset.inputs(str(path), webdataset.Options())[0]
    with pytest.raises(TornFileError):
        found.extend(webdataset.read(one, webdataset.Options()))
    assert [r.source_id for r in found] == [f"cut.tar/{i}" for i, end in enumerate(ends) if end <= cut and second <= cut]


member_names = st.text(st.characters(codec="utf-8", exclude_characters="/\0.", exclude_categories=("Cs",)), min_size=1, max_size=60)

member_texts = st.text(st.characters(codec="utf-8")).filter(lambda text: text.strip().lower() not in NULL_WORDS)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(member_names, member_texts), min_size=1, max_size=6, unique_by=lambda t: t[0]),
       st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))  # fmt: skip
def test_any_key_and_caption_come_back(tmp_path: Path, samples: list[tuple[str, str]], format: int) -> None:
    members = [(f"{k}.{e}", c) for k, t in samples for e, c in (("jpg", k.encode()), ("txt", t.encode()))]
    found = records(webdataset, make_tar(tmp_path / "h.tar", members, format))
    assert [r.source_id for r in found] == [f"h.tar/{k}" for k, _ in samples]
    assert [pointed(r) for r in found] == [k.encode() for k, _ in samples]
    for record, (_, text) in zip(found, samples, strict=True):
        assert record.captions == ((text.removeprefix("\ufeff"),) if text.removeprefix("\ufeff").strip() else ())


def test_img2dataset_failures_are_records(tmp_path: Path) -> None:
    make_tar(tmp_path / "00000.tar", [("000000000.jpg", b"picture"), ("000000000.txt", b"a"), ("000000000.json", b"{}")])
    rows = {
        "key": ["000000000", "000000001", "000000002"],
        "url": ["http://h.example/0", "http://h.example/1", "http://h.example/2"],
        "caption": ["a", None, "c"],
        "status": ["success", "failed_to_download", "failed_to_resize"],
        "error_message": [None, "HTTP Error 404", "image decoding error"],
    }
    pq.write_table(pa.table(rows), tmp_path / "00000.parquet")
    kept, lost, broken = records(img2dataset, tmp_path)
    assert (kept.source_id, kept.captions, kept.status, pointed(kept)) == ("http://h.example/0\na", ("a",), "", b"picture")
    assert (lost.status, lost.detail, lost.image, lost.captions) == ("failed_to_download", "HTTP Error 404", None, ())
    assert (broken.status, broken.source_id) == ("failed_to_resize", "http://h.example/2\nc")


def test_img2dataset_refuses_what_is_no_pool(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no pool"):
        img2dataset.inputs(str(tmp_path), img2dataset.Options())
    with pytest.raises(UsageError, match="no folder"):
        img2dataset.inputs(str(tmp_path / "00000.tar"), img2dataset.Options())


def test_folder_with_captions(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "images" / name).write_bytes(name.encode())
    (tmp_path / "captions.txt").write_text('image,caption\na.jpg,"one, two"\na.jpg,three\ngone.jpg,four\nb.jpg,five\n')
    found = {r.source_id: r for r in records(folder, tmp_path)}
    assert len(found) == 3
    assert found["images/a.jpg"].captions == ("one, two", "three")
    assert pointed(found["images/b.jpg"]) == b"b.jpg"
    (missing,) = [r for r in found.values() if r.status]
    assert (missing.status, missing.image, missing.captions) == ("image_missing", None, ("four",))
    assert sorted(r.row for r in found.values()) == [0, 1, 2]


def test_class_folders_have_classes_and_no_captions(tmp_path: Path) -> None:
    for name in ("dog/1.jpg", "maine_coon/2.jpg", "dog/3.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert records(folder, tmp_path) == [
        Record("dog/1.jpg", (), 0, image=Pointer(str(tmp_path / "dog/1.jpg")), class_index=0, class_name="dog"),
        Record("dog/3.jpg", (), 1, image=Pointer(str(tmp_path / "dog/3.jpg")), class_index=0, class_name="dog"),
        Record("maine_coon/2.jpg", (), 2, image=Pointer(str(tmp_path / "maine_coon/2.jpg")), class_index=1, class_name="maine_coon"),
    ]


def test_folder_refusals_come_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no folder"):
        folder.inputs(str(tmp_path / "nowhere"), folder.Options())
    (tmp_path / "a.jpg").write_bytes(b"x")
    (tmp_path / "c.csv").write_text("image,caption\na.jpg,x\n")
    with pytest.raises(UsageError):
        folder.inputs(str(tmp_path), folder.Options(caption_column="titel"))
