"""Folder sets: every layout, every way a name can fail to mean one image."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from shards.core.errors import TornFileError, UsageError
from shards.folders import read_folder
from shards.image_names import Resolver
from shards.tables.notes import noting


def _fill(folder: Path, files: dict[str, str | bytes]) -> str:
    """Write files; images are never opened, so theirs may be anything."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(folder)


def _pairs(found) -> list[tuple[str, tuple[str, ...]]]:
    return [(i.id, i.captions) for i in found]


TWO = [("images/a.jpg", ("one", "two")), ("images/b.jpg", ("three",))]
LAYOUTS = {
    "csv": ("c.csv", 'image,caption\na.jpg,one\nb.jpg,three\na.jpg,"two"\n'),
    "csv in .txt": ("captions.txt", "image,caption\r\na.jpg,one\r\na.jpg,two\r\nb.jpg,three\r\n"),
    "csv with bars": ("results.csv", "image_name| comment_number| comment\na.jpg| 0| one\na.jpg| 1| two\nb.jpg| 0| three\n"),
    "csv by id": ("c.csv", "\ufeffImageID,Title\na,one\na,two\nb,three\n"),
    "tsv": ("c.tsv", "filepath\ttitle\nimages/a.jpg\tone\nimages/a.jpg\ttwo\nimages/b.jpg\tthree\n"),
    "jsonl": ("c.jsonl", '{"file": "a.jpg", "captions": ["one", "two"]}\n\n{"file": "b.jpg", "captions": "three"}\n'),
    "json": ("c.json", '[{"file": "a.jpg", "text": "one"}, {"file": "a.jpg", "text": "two"}, {"file": "b.jpg", "text": "three"}]'),
    "token": ("r.token", "a.jpg#0\tone\na.jpg#1\ttwo\nb.jpg#0\tthree\n"),
    "karpathy": (
        "dataset.json",
        json.dumps({
            "images": [{"filename": "a.jpg", "filepath": "images", "split": "train", "sentences": [{"raw": "one"}, {"raw": "two", "tokens": []}]},
                       {"filename": "b.jpg", "split": "val", "sentences": [{"raw": "three"}, {"raw": ""}, None]}],
            "dataset": "coco",
        }),
    ),
    "coco": (
        "captions.json",
        json.dumps({
            "images": [{"id": 7, "file_name": "a.jpg", "license": 2}, {"id": 8, "file_name": "b.jpg", "license": 3}],
            "annotations": [{"image_id": 7, "caption": "one"}, {"image_id": 8, "caption": "three"}, {"image_id": 7, "caption": "two"}],
            "licenses": [{"id": 2, "name": "BY", "url": "http://by"}],
        }),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_each_layout_gives_images_with_all_their_captions(tmp_path, name):
    file, content = LAYOUTS[name]
    path = _fill(tmp_path, {"images/a.jpg": "", "images/b.jpg": "", "images/c.jpg": "", file: content})
    found = read_folder(path)
    assert found.layout == name.split()[0]
    assert _pairs(found) == TWO == _pairs(found)
    assert [i.image for i in found] == [f"{path}/images/a.jpg", f"{path}/images/b.jpg"]
    assert _pairs(read_folder(f"{path}/{file}")) == TWO
    assert _pairs(read_folder(path, captions_file=file, images="images")) == TWO
    assert _pairs(read_folder(path, captions_file=file, images=f"{path}/images", layout=found.layout)) == TWO
    if name == "coco":
        assert [i.licence for i in found] == ["http://by", ""]


def test_a_quote_that_is_never_closed_swallows_no_rows(tmp_path):
    """Four rows are four rows; a caption over several lines, well quoted, is one."""
    text = 'image,caption\na.jpg,"An unclosed, one\nb.jpg,5" tall\nc.jpg,"two\nlines, ""said"" d.jpg"\nd.jpg,"last'
    path = _fill(tmp_path, {**dict.fromkeys(("a.jpg", "b.jpg", "c.jpg", "d.jpg"), ""), "captions.csv": text})
    assert _pairs(read_folder(path)) == [
        ("a.jpg", ('"An unclosed, one',)),
        ("b.jpg", ('5" tall',)),
        ("c.jpg", ('two\nlines, "said" d.jpg',)),
        ("d.jpg", ('"last',)),
    ]


words = st.lists(st.sampled_from([*'ab ",|', "\n", "\r\n", "é", "\u2028", "NA", "a.jpg", '""']), max_size=8).map("".join)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(words, min_size=1, max_size=5), st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
def test_captions_written_as_csv_come_back(tmp_path, captions, quoting):
    """Whatever they hold, save a line that begins like a row of its own: that is taken for one."""
    names = [f"{i}.jpg" for i in range(len(captions))]
    _fill(tmp_path, dict.fromkeys(names, ""))
    with (tmp_path / "captions.csv").open("w", newline="") as file:
        writer = csv.writer(file, quoting=quoting)
        writer.writerow(("image", "caption"))
        writer.writerows(zip(names, captions, strict=True))
    assume(not any(".jpg" in line and "," in line for text in captions for line in re.split(r"[\r\n]", text)[1:]))
    assert _pairs(read_folder(str(tmp_path))) == [
        (n, (c.replace("\r\n", "\n"),) if c.strip() else ()) for n, c in zip(names, captions, strict=True)
    ]


def test_images_elsewhere_have_ids_relative_to_their_folder(tmp_path):
    _fill(tmp_path / "pictures", {"x/a.jpg": ""})
    path = _fill(tmp_path / "text", {"c.csv": "image,caption\na.jpg,one\n"})
    assert _pairs(read_folder(path, images=str(tmp_path / "pictures"))) == [("x/a.jpg", ("one",))]


def test_sidecars(tmp_path):
    path = _fill(
        tmp_path,
        {
            "a.jpg": "",
            "a.txt": "one\n",
            "b.png": "",
            "b.json": '{"caption": "two", "license": "BY", "n": 1}',
            "c.jpg": "",
            "d.jpg": "",
            "d.json": "{",
            "e.txt": "no picture",
            "README.txt": "about",
            "sub/f.JPG": "",
            "sub/f.txt": "six",
            "g.jpg": "",
            "g.txt": "seven",
            "g.json": '{"caption": "other", "m": 2}',
            "._a.jpg": "",
            ".cache/h.jpg": "",
        },
    )
    found = read_folder(path)
    items = {i.id: i for i in found}
    assert found.layout == "sidecar"
    assert {k: i.captions for k, i in items.items()} == {
        "a.jpg": ("one",),
        "b.png": ("two",),
        "c.jpg": (),
        "d.jpg": (),
        "e.txt": (),
        "sub/f.JPG": ("six",),
        "g.jpg": ("seven",),
    }
    assert (items["b.png"].licence, items["b.png"].meta["n"], items["g.jpg"].meta["m"]) == ("BY", 1, 2)
    assert (items["d.jpg"].status, items["e.txt"].status, items["c.jpg"].status) == ("bad_record", "image_missing", "")
    assert items["e.txt"].image == ""


def test_class_folders(tmp_path):
    path = _fill(tmp_path, {"train/polar_bear/1.jpg": "", "val/ant/1.jpg": "", "val/polar_bear/1.jpg": "", "notes.txt": "hello"})
    found = read_folder(path)
    assert (found.layout, found.classes) == ("classes", ("ant", "polar_bear"))
    assert [(i.id, i.class_index, i.class_name) for i in found] == [
        ("train/polar_bear/1.jpg", 1, "polar_bear"),
        ("val/ant/1.jpg", 0, "ant"),
        ("val/polar_bear/1.jpg", 1, "polar_bear"),
    ]


def test_plain_images_have_neither(tmp_path):
    found = read_folder(_fill(tmp_path, {"a.jpg": "", "sub/b.webp": ""}))
    assert (found.layout, found.classes) == ("images", ())
    assert [(i.id, i.captions, i.class_index) for i in found] == [("a.jpg", (), -1), ("sub/b.webp", (), -1)]


def test_a_layout_can_be_given(tmp_path):
    path = _fill(tmp_path, {"cat/a.jpg": "", "cat/a.txt": "x", "c.csv": "image,caption\na.jpg,y\n"})
    assert [read_folder(path, layout=layout).layout for layout in ("sidecar", "classes", "images")] == ["sidecar", "classes", "images"]
    with pytest.raises(UsageError, match="has the layout csv"):
        read_folder(path, layout="coco")
    with pytest.raises(UsageError, match="unknown layout"):
        read_folder(path, layout="xml")


def test_na_is_a_caption_but_what_data_frames_write_for_nothing_is_none(tmp_path):
    csv = _fill(tmp_path / "a", {"1.jpg": "", "2.jpg": "", "3.jpg": "", "c.csv": "image,caption\n1.jpg,NA\n2.jpg,null\n3.jpg, \n"})
    with noting() as notes:
        assert [i.captions for i in read_folder(csv)] == [("NA",), (), ()]
    assert list(notes.lines()) == ["1 caption that only says nan, None or null: taken for none, such as 'null'"]
    lines = '{"image": "1.jpg", "caption": null}\n{"image": "2.jpg", "caption": "nan"}\n'
    assert [i.captions for i in read_folder(_fill(tmp_path / "b", {"1.jpg": "", "2.jpg": "", "c.jsonl": lines}))] == [(), ()]


def test_quotes(tmp_path):
    """CSV quoting as the csv module has it; in TSV a lone quote is a character and swallows nothing."""
    files = {"1.jpg": "", "2.jpg": "", "c.csv": 'image,caption\n1.jpg,"a ""b"", c\nd"\n2.jpg,e\n'}
    assert [i.captions for i in read_folder(_fill(tmp_path / "a", files))] == [('a "b", c\nd',), ("e",)]
    files = {"1.jpg": "", "2.jpg": "", "3.jpg": "", "c.tsv": 'image\tcaption\n1.jpg\t"12 inch\n2.jpg\t"so ""x"""\n3.jpg\t5" and 6"\n'}
    assert [i.captions for i in read_folder(_fill(tmp_path / "b", files))] == [('"12 inch',), ('so "x"',), ('5" and 6"',)]


def test_bad_rows_become_items_and_lose_no_good_one(tmp_path):
    files = {"1.jpg": "", "2.jpg": "", "c.tsv": "image\tcaption\n1.jpg\tone\nalone\n\n\tno name\ngone.jpg\tx\n2.jpg\ttwo\n"}
    items = list(read_folder(_fill(tmp_path / "a", files)))
    assert [(i.status, bool(i.image)) for i in items] == [
        *[("", True), ("bad_record", False), ("bad_record", False), ("image_missing", False), ("", True)]
    ]
    assert items[1].problem == "row 3: 1 fields, not 2"
    assert items[3].captions == ("x",)
    files = {"1.jpg": "", "r.token": "1.jpg#0\tone\nnonsense\n", "x.jsonl": ""}
    assert [i.status for i in read_folder(_fill(tmp_path / "b", files))] == ["", "bad_record"]
    files = {"1.jpg": "", "c.jsonl": '{"image": "1.jpg", "caption": "one"}\n{"image": \n[1]\n{"caption": "two"}\n'}
    assert [i.status for i in read_folder(_fill(tmp_path / "c", files))] == ["", *["bad_record"] * 3]
    coco = {
        "images": [{"id": 1, "file_name": "1.jpg"}, {"id": 2}],
        "annotations": [{"image_id": 1, "caption": "a"}, {"image_id": 9, "caption": "b"}],
    }
    items = list(read_folder(_fill(tmp_path / "d", {"1.jpg": "", "c.json": json.dumps(coco)})))
    assert [(i.status, i.captions) for i in items] == [("", ("a",)), ("bad_record", ()), ("bad_record", ("b",))]


def test_bytes_that_are_no_utf8_stay_one_caption(tmp_path):
    items = list(read_folder(_fill(tmp_path, {"1.jpg": "", "c.csv": b"image,caption\n1.jpg,caf\xe9 au lait\n"})))
    assert items[0].captions == ("café au lait",)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("x/a.jpg", "x/a.jpg"),
        ("b.jpg", "y/b.jpg"),
        ("b", "y/b.jpg"),
        ("b.png", "y/b.jpg"),
        ("./y\\b.jpg", "y/b.jpg"),
        ("/somewhere/else/y/b.jpg", "y/b.jpg"),
        ("deep/z/a.jpg", "z/a.jpg"),
        ("z/a", "z/a.jpg"),
        ("v1.5", "v1.5.png"),
        ("a.jpg", ""),
        ("a", ""),
        ("c", ""),
        ("c.jpg", "c.jpg"),
        ("nothing", ""),
        ("../x/a.jpg", "x/a.jpg"),
    ],
)
def test_a_name_means_one_image_or_none(name, expected):
    found, problem = Resolver(("c.jpg", "c.png", "v1.5.png", "x/a.jpg", "y/b.jpg", "z/a.jpg")).find(name)
    assert found == expected
    assert bool(problem) == (not expected)


def test_ambiguous_layouts_and_columns_are_refused(tmp_path):
    path = _fill(tmp_path, {"1.jpg": "", "a.csv": "image,caption\n1.jpg,x\n", "b.tsv": "image\tcaption\n1.jpg\ty\n", "c.csv": "n,m\n1,2\n"})
    with pytest.raises(UsageError, match=r"several captions files: a\.csv \(csv\), b\.tsv \(tsv\)"):
        read_folder(path)
    assert _pairs(read_folder(path, captions_file="b.tsv")) == [("1.jpg", ("y",))]
    with pytest.raises(UsageError) as error:
        read_folder(path, captions_file="a.csv", caption_column="captoin")
    assert "did you mean 'caption'" in str(error.value)
    with pytest.raises(UsageError, match="image column and a caption column") as error:
        read_folder(path, captions_file="c.csv")
    assert error.value.allowed == "its columns: n, m"
    odd = _fill(tmp_path / "odd", {"1.jpg": "", "c.csv": "n,m\n1,2\n"})
    assert _pairs(read_folder(odd, image_column="n", caption_column="m")) == [("1.jpg", ("2",))]


def test_what_is_not_there_is_a_usage_error(tmp_path):
    for path, options in (
        (str(tmp_path / "none"), {}),
        (_fill(tmp_path / "empty", {"a.txt": "x"}), {}),
        (str(tmp_path / "empty"), {"captions_file": "no.csv"}),
        (str(tmp_path / "empty"), {"images": "no"}),
    ):
        with pytest.raises(UsageError):
            read_folder(path, **options)


def test_half_a_coco_file_is_torn(tmp_path):
    whole = json.dumps({"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": [{"image_id": 1, "caption": "a"}]})
    with pytest.raises(TornFileError):
        read_folder(_fill(tmp_path, {"1.jpg": "", "c.json": whole[: len(whole) // 2]}))


def test_an_unreadable_part_of_a_folder_is_a_usage_error(tmp_path):
    _fill(tmp_path, {"a/1.jpg": "", "b/2.jpg": ""})
    code = (
        "import os, sys\n"
        "from shards.core.errors import UsageError\nfrom shards.folders import read_folder\n"
        "os.chmod(sys.argv[1] + '/b', 0)\n"
        "if os.getuid() == 0:\n    os.chmod(sys.argv[1], 0o755)\n    os.setuid(65534)\n"
        "try:\n    read_folder(sys.argv[1])\nexcept UsageError as error:\n    sys.exit(str(error))\n"
    )
    if os.getuid() == 0:  # another user must be able to reach the folder
        for parent in [tmp_path, *tmp_path.parents][:-2]:
            parent.chmod(parent.stat().st_mode | 0o055)
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    (tmp_path / "b").chmod(0o755)
    assert "cannot read the folder" in done.stderr, done.stderr


def test_many_files_in_many_folders_are_found_by_name(tmp_path):
    names = [f"{i % 20:02d}/{i:06d}.jpg" for i in range(2000)]
    _fill(tmp_path, dict.fromkeys(names, ""))
    (tmp_path / "c.csv").write_text("image,caption\n" + "".join(f"{n.split('/')[1]},caption {n}\n" for n in names))
    assert _pairs(read_folder(str(tmp_path))) == [(n, (f"caption {n}",)) for n in names]


def test_folders_in_memory(tmp_path):
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe({"/set/images/a.jpg": b"", "/set/c.csv": b"image,caption\na.jpg,one\n"})
    assert [(i.id, i.image, i.captions) for i in read_folder("memory://set")] == [("images/a.jpg", "memory://set/images/a.jpg", ("one",))]
