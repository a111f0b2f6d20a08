"""Which image a name means, and what stands beside an image: as file systems, galleries and spreadsheets spell it."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path

import pytest

from shards.core.errors import UsageError
from shards.folders import FolderItem, read_folder
from shards.image_names import Resolver
from shards.tables.notes import noting

NFC, NFD = "café.jpg", unicodedata.normalize("NFD", "café.jpg")


def fill(folder: Path, files: dict[str, str | bytes]) -> str:
    """Write files; images are never opened, so theirs may be anything."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(folder)


def items(folder: Path, files: dict[str, str | bytes]) -> dict[str, FolderItem]:
    """Return the items of a folder of these files by id."""
    return {item.id: item for item in read_folder(fill(folder, files))}


@pytest.mark.parametrize(
    ("image", "name"),
    [
        (NFD, NFC), (NFC, NFD), ("A.JPG", "a.jpg"), ("a.jpg", "A.JPG"), ("Sub/A.jpg", "sub/a.JPG"), ("my pic.jpg", "my%20pic.jpg"),
        ("caf\u00e9.jpg", "caf%C3%A9.jpg"), ("x.jpg", "http://h.example/dir/x.jpg?size=2"), ("my pic.jpg", "https://h.example/my%20pic.jpg#x"),
        ("dir/x.jpg", "C:\\data\\dir\\x.jpg"), ("x.jpg", " x.jpg "), ("a%20b.jpg", "a%20b.jpg"),
    ],
)  # fmt: skip
def test_spellings_of_one_name(image: str, name: str) -> None:
    assert Resolver((image, "other.jpg")).find(name) == (image, "")


def test_a_loose_spelling_that_fits_two_fits_none() -> None:
    found, why = Resolver(("x/A.jpg", "y/A.JPG")).find("a.jpg")
    assert found == ""
    assert why.startswith("ambiguous: 'a.jpg' fits 2 images")
    assert Resolver(("A.jpg", "a.jpg")).find("a.jpg") == ("a.jpg", "")
    assert Resolver(("a.jpg",)).find("http://[bad/b.jpg")[0] == ""


def test_sidecars_as_people_have_them(tmp_path: Path) -> None:
    names = {"a.jpg": "a.jpg.txt", "b.jpg": "b.caption", "C.JPG": "c.TXT", NFD: NFC.replace(".jpg", ".txt"), "e.jpg": "e.jpg.json"}
    texts = {sidecar: f"beside {image}" for image, sidecar in names.items()}
    texts["e.jpg.json"] = json.dumps({"title": "beside e.jpg", "rating": 1})
    found = items(tmp_path, dict.fromkeys(names, "") | texts)
    assert {name: item.captions for name, item in found.items()} == {image: (f"beside {image}",) for image in names}
    assert found["e.jpg"].meta == {"rating": 1}


def test_a_sidecar_has_a_caption_on_each_line_in_any_encoding(tmp_path: Path) -> None:
    files = {
        "a.jpg": "",
        "a.txt": "first\r\nsecond\n\n",
        "b.jpg": "",
        "b.txt": "a scene\nof two".encode("utf-16"),
        "c.jpg": "",
        "c.txt": b"caf\xe9",
    }
    files |= {
        "d.jpg": "",
        "d.json": '["one", "two"]',
        "e.jpg": "",
        "e.json": '{"caption": ' + "9" * 5000 + "}",
        "f.jpg": "",
        "f.txt": "nan",
    }
    with noting() as notes:
        found = items(tmp_path, files)
    assert [found[f"{name}.jpg"].captions for name in "abcdf"] == [
        ("first", "second"),
        ("a scene", "of two"),
        ("café",),
        ("one", "two"),
        (),
    ]
    assert found["e.jpg"].captions == ("9" * 5000,)
    assert list(notes.counts.values()) == [2, 1, 1]  # two with several lines, one in cp1252, one that says nan


def test_links_to_nothing_cost_their_own_row(tmp_path: Path) -> None:
    fill(tmp_path, {"a.jpg": "", "a.txt": "fine", "b.jpg": ""})
    os.symlink("nowhere.txt", tmp_path / "b.txt")
    found = {item.id: item for item in read_folder(str(tmp_path))}
    assert found["a.jpg"].captions == ("fine",)
    assert (found["b.jpg"].status, found["b.jpg"].problem) == ("bad_record", "b.txt cannot be read: No such file or directory")


def test_coco_with_what_tools_leave_in_it(tmp_path: Path) -> None:
    """Ids as text, captions in lists or missing, licences as objects, and items that are no objects: nobody else's row goes."""
    content = {
        "images": [{"id": "1", "file_name": "a.jpg", "license": {"id": 3}}, None, {"id": 2, "file_name": "b.jpg", "license": 3}, {"id": [9], "file_name": "c.jpg"}],
        "annotations": [{"image_id": 1, "caption": ["one", "two"]}, None, {"image_id": 2}, {"image_id": [9], "caption": {"en": "three"}}, {"image_id": 2, "caption": "nan"}],
        "licenses": [7, {"id": 3, "url": "http://by"}],
    }  # fmt: skip
    with noting() as notes:
        found = items(tmp_path, {"a.jpg": "", "b.jpg": "", "c.jpg": "", "coco.json": json.dumps(content)})
    assert [found[f"{name}.jpg"].captions for name in "abc"] == [("one", "two"), (), ("three",)]
    assert [found[f"{name}.jpg"].licence for name in "abc"] == ["http://by", "http://by", ""]
    assert [found[name].status for name in ("image 1", "annotation 1")] == ["bad_record"] * 2
    assert notes.counts["[annotation|annotations] without a caption"] == 2


def test_a_parquet_of_captions(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    fill(tmp_path, {"a.jpg": "", "b.jpg": ""})
    pq.write_table(pa.table({"file_name": ["a.jpg", "b.jpg"], "text": [["one", "two"], None], "n": [1, 2]}), tmp_path / "captions.parquet")
    found = list(read_folder(str(tmp_path)))
    assert [(item.id, item.captions, item.meta) for item in found] == [("a.jpg", ("one", "two"), {"n": 1}), ("b.jpg", (), {"n": 2})]
    assert read_folder(str(tmp_path)).layout == "parquet"


def test_pictures_and_captions_in_nested_objects(tmp_path: Path) -> None:
    line = json.dumps({"image": {"path": "a.jpg"}, "caption": {"en": "one"}}) + "\n"
    assert items(tmp_path, {"a.jpg": "", "c.jsonl": line})["a.jpg"].captions == ("one",)


def test_a_captions_file_without_a_header_is_read_by_numbers(tmp_path: Path) -> None:
    path = fill(tmp_path, {"a.jpg": "", "c.csv": "a.jpg,one\n"})
    found = read_folder(path, image_column="1", caption_column="2")
    assert [(item.id, item.captions) for item in found] == [("a.jpg", ("one",))]
    with pytest.raises(UsageError, match="not found: an image column and a caption column") as error:
        read_folder(path, captions_file="c.csv")
    assert error.value.allowed == "its columns: no header; its first row: 1: 'a.jpg', 2: 'one'"
    assert error.value.advice == "--image-column 1 --caption-column 2"
