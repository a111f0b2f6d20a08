"""Native metadata as people have it: columns of any name and type, folders of folders, links, blanks around URLs."""

from __future__ import annotations

import base64
import datetime
import json
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from native import jpeg, make_pool, make_tar, pointed, records

from curate.cli import main
from curate.config import SOURCES, BuildConfig, resolve
from curate.listing import ListTask, join_pool, layout_of, list_input, record_row
from curate.recipe import SourceSpec
from curate.sources import folder, huggingface, imagenet_templates, img2dataset, laion, redcaps, shutterstock, table, webdataset, yfcc
from curate.sources.base import Record, list_inputs, several
from shards.core import fs, registry
from shards.core.errors import UsageError

URL = "http://h.example/1.jpg"
UUID = "0f8fad5b-d9cb-469f-a165-70867728950e"


def fill(folder: Path, files: dict[str, str | bytes]) -> Path:
    """Write files and return their folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def parquet(path: Path, **columns: Any) -> Path:
    """Write a parquet file of these columns."""
    pq.write_table(pa.table(columns), path)
    return path


def listed(work: Path, reader: str, path: Path) -> list[dict[str, Any]]:
    """Return the rows that a source's one input becomes on disk."""
    module = registry.get(SOURCES, reader)
    (one,) = module.inputs(str(path), module.Options())
    target = str(work / "listed.parquet")
    list_input(ListTask(SourceSpec(reader, str(path), reader), one, target, None, False))
    rows: list[dict[str, Any]] = pq.read_table(target).to_pylist()
    return rows


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("md5", b"\x01\x02" * 8, "0102" * 8),
        ("md5", b"a" * 16, "61" * 16),
        ("sha256", b"\xff" * 32, "ff" * 32),
        ("hash", Decimal(2**63), 2**63),
        ("key", datetime.datetime(2020, 1, 1), "2020-01-01T00:00:00"),
        ("width", Decimal("10.0"), 10),
        ("face_bboxes", [[0.5, float("nan")]], [[0.5, None]]),
    ],
)
def test_laion_columns_of_any_type(tmp_path: Path, column: str, value: Any, expected: Any) -> None:
    path = parquet(tmp_path / "p.parquet", url=[URL.encode()], text=[b"a kite"], **{column: [value]})
    (found,) = records(laion, path)
    assert (found.captions, found.urls, found.status) == (("a kite",), (URL,), "")
    assert json.loads(found.meta) == {column: expected}


@pytest.mark.parametrize("uid", [UUID, UUID.upper(), bytes.fromhex(UUID.replace("-", ""))])
def test_datacomp_uids_as_uuids(tmp_path: Path, uid: Any) -> None:
    (found,) = records(laion, parquet(tmp_path / "p.parquet", url=[URL], text=["a kite"], uid=[uid]))
    assert (found.source_id, found.status) == (UUID.replace("-", ""), "")


def test_laion_columns_of_other_names_and_of_one_name(tmp_path: Path) -> None:
    path = parquet(tmp_path / "p.parquet", link=[URL], words=[["a", "b"]])
    assert records(laion, path, url_column="link", caption_column="words")[0].captions == ("a", "b")
    with pytest.raises(UsageError, match="there is no URL") as error:
        records(laion, path)
    assert error.value.advice == "--url-column NAME --caption-column NAME"
    twice = pa.Table.from_arrays([pa.array([URL]), pa.array(["one"]), pa.array(["two"])], names=["url", "text", "text"])
    pq.write_table(twice, path)
    with pytest.raises(UsageError, match="2 columns are called 'text'"):
        records(laion, path)
    assert records(laion, path, caption_column="text.1")[0].captions == ("two",)


def test_exports_in_binary_and_with_times(tmp_path: Path) -> None:
    path = parquet(
        tmp_path / "s.parquet", id=[Decimal(7)], url=[URL.encode()], description=[b"a kite"], contributor=[datetime.date(2020, 1, 1)]
    )
    (found,) = records(shutterstock, path)
    assert (found.source_id, found.captions, json.loads(found.meta)) == ("7", ("a kite",), {"contributor": "2020-01-01"})
    path = parquet(
        tmp_path / "r.parquet", image_id=[1.0, None], url=[URL, URL], caption=[["a"], ["b"]], created_utc=[datetime.date(1970, 1, 2)] * 2
    )
    one, two = records(redcaps, path)
    assert (one.source_id, one.captions, json.loads(one.meta)["created_utc"]) == ("1", ("a",), 86400)
    assert two.status == "bad_record"


@pytest.mark.parametrize("form", ["plain", "data URI", "over lines"])
def test_pictures_in_base64(tmp_path: Path, form: str) -> None:
    pictures = [jpeg(i) for i in range(2)]
    encode = base64.encodebytes if form == "over lines" else base64.b64encode
    texts = [("data:image/jpeg;base64," if form == "data URI" else "") + encode(picture).decode() for picture in pictures]
    path = parquet(tmp_path / "p.parquet", image=texts, caption=["a kite", "two mugs"])
    assert [pointed(r) for r in records(huggingface, path)] == pictures
    assert [pointed(r) for r in records(table, path)] == pictures
    broken = parquet(tmp_path / "b.parquet", image=["data:image/png;base64,!!!"], caption=["a kite"])
    assert [r.status for r in (*records(huggingface, broken), *records(table, broken))] == ["bad_record"] * 2


def test_huggingface_captions_in_structs_and_two_columns_of_one_name(tmp_path: Path) -> None:
    image = pa.array([{"bytes": jpeg(1), "path": None}])
    path = tmp_path / "p.parquet"
    for captions in ([{"en": "a"}], [[{"text": "a"}]], [b"a"], [[["a"]]]):
        pq.write_table(pa.table({"image": image, "caption": captions}), path)
        assert records(huggingface, path)[0].captions == ("a",)
    pq.write_table(
        pa.Table.from_arrays(
            [image, pa.array(["a"]), pa.array(["b"]), pa.array([1]), pa.array([2])], names=["image", "caption", "caption", "n", "n"]
        ),
        path,
    )
    with pytest.raises(UsageError, match="2 columns are called 'caption'"):
        records(huggingface, path)
    (found,) = records(huggingface, path, caption_column="caption.1")
    assert (found.captions, json.loads(found.meta)) == (("b",), {"caption": "a", "n": 1, "n.1": 2})


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("mapped", ["flags", "columns"])
def test_a_table_of_any_columns(tmp_path: Path, kind: str, mapped: str) -> None:
    rows = [
        {"Nr": "n1", "Adresse": f" {URL} ", "Worte": "a kite", "Jahr": "1999"},
        {"Nr": "n2", "Adresse": "", "Worte": "no picture", "Jahr": "2"},
    ]
    path = tmp_path / f"t.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path.write_text(";".join(rows[0]) + "\n" + "".join(";".join(row.values()) + "\n" for row in rows))
    flags = {"url_column": "Adresse", "caption_column": "Worte", "id_column": "Nr"}
    options: dict[str, Any] = flags if mapped == "flags" else {"columns": {k.removesuffix("_column"): v for k, v in flags.items()}}
    one, two = records(table, path, **options)
    assert (one.source_id, one.urls, one.captions, json.loads(one.meta)) == ("n1", (URL,), ("a kite",), {"Jahr": "1999"})
    assert (two.status, two.captions) == ("image_missing", ("no picture",))
    with pytest.raises(UsageError, match="its columns are Nr, Adresse, Worte, Jahr: none is known to be the url") as error:
        records(table, path)
    assert "--url-column NAME" in error.value.advice
    with pytest.raises(UsageError, match="no column 'Wörte'") as error:
        records(table, path, **flags | {"caption_column": "Wörte"})
    assert error.value.advice == "did you mean 'Worte'?"


def test_a_table_of_paths_and_usual_names(tmp_path: Path) -> None:
    fill(tmp_path, {"pics/a b.jpg": "x", "t.csv": "file_name,caption\npics/a b.jpg,one\n../out.jpg,two\n,three\n"})
    one, two, three = records(table, tmp_path / "t.csv")
    assert one.image is not None
    assert (one.source_id, one.image.path, one.captions) == ("pics/a b.jpg", str(tmp_path / "pics/a b.jpg"), ("one",))
    assert [two.status, three.status] == ["bad_record", "image_missing"]


def test_a_table_without_a_header_is_read_by_numbers(tmp_path: Path) -> None:
    path = fill(tmp_path, {"t.csv": f"7,{URL},a kite\n"}) / "t.csv"
    with pytest.raises(UsageError, match="its columns have no names") as error:
        records(table, path)
    assert (error.value.allowed, error.value.advice) == (
        f"no header; its first row: 1: '7', 2: '{URL}', 3: 'a kite'",
        "--url-column NUMBER --caption-column NUMBER",
    )
    (found,) = records(table, path, url_column="2", caption_column="3", id_column="1")
    assert (found.source_id, found.urls, found.captions) == ("7", (URL,), ("a kite",))
    (found,) = records(shutterstock, path, columns={"url": "2", "caption": "3"})
    assert (found.urls, found.captions) == ((URL,), ("a kite",))


def test_a_folder_whose_table_is_not_understood_says_its_columns(tmp_path: Path) -> None:
    fill(tmp_path, {"a.jpg": "x", "t.csv": "Datei,Worte\na.jpg,one\n"})
    with pytest.raises(UsageError, match=r"t\.csv: not found: an image column and a caption column") as error:
        records(folder, tmp_path)
    assert (error.value.allowed, error.value.advice) == ("its columns: Datei, Worte", "--image-column NAME --caption-column NAME")
    for options in ({"image_column": "Datei", "caption_column": "Worte"}, {"columns": {"image": "Datei", "caption": "Worte"}}):
        assert records(folder, tmp_path, **options)[0].captions == ("one",)
    with pytest.raises(UsageError, match="columns: 'imag'"):
        records(folder, tmp_path, columns={"imag": "Datei"})
    assert [r.captions for r in records(folder, tmp_path, layout="images")] == [()]


def test_a_table_beside_class_folders_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path, {"cat/1.jpg": "x", "dog/1.jpg": "x", "prices.csv": "a,b\n1,2\n"})
    assert [r.class_name for r in records(folder, tmp_path)] == ["cat", "dog"]
    assert "not used" in (said := capsys.readouterr().err)
    assert "prices.csv" in said
    assert "a, b" in said


def test_folders_of_captioned_folders_and_globs_of_folders(tmp_path: Path) -> None:
    """Equal file names in two folders are two samples."""
    for one in "ab":
        fill(tmp_path / "set" / one, {"1.jpg": "x", "captions.csv": f"file,caption\n1.jpg,of {one}\n"})
    fill(tmp_path / "set" / "c" / "d", {"1.jpg": "x", "t.jsonl": '{"file": "1.jpg", "caption": "of d"}\n'})
    expected = [("a/1.jpg", ("of a",)), ("b/1.jpg", ("of b",)), ("c/d/1.jpg", ("of d",))]
    for pattern in (f"{tmp_path}/set", f"{tmp_path}/set/*", f"{tmp_path}/set/{{a,b,c}}", several([f"{tmp_path}/set/{x}" for x in "abc"])):
        assert [(r.source_id, r.captions) for r in records(folder, pattern)] == expected
    assert [r.source_id for r in records(folder, tmp_path / "set" / "a")] == ["1.jpg"]


def test_several_inputs_are_one_pattern(tmp_path: Path) -> None:
    fill(tmp_path, {"x/1.parquet": "", "x/n.md": "", "y/1.parquet": "", "z,{1}.parquet": ""})
    patterns = [f"{tmp_path}/x", f"{tmp_path}/y/*.parquet", f"{tmp_path}/z,{{1}}.parquet"]
    assert [one.name for one in list_inputs(several(patterns), (".parquet",))] == ["x/1.parquet", "y/1.parquet", "z,{1}.parquet"]
    assert several(["a"]) == "a"
    assert several(["a", "b"]) == "{a,b}"
    assert [one.name for one in list_inputs(f"{tmp_path}/*", (".parquet",))] == ["z,{1}.parquet"]  # a glob of files names files
    recipe = resolve(BuildConfig(source="folder", input=("data/a", "data/b"), samples="all"))
    assert recipe.sources[0].input == "data/{a,b}"


@pytest.mark.parametrize(("flags", "says"), [([], "no --source"), (["--source", "folder"], "no --input")])
def test_missing_flags_are_called_flags(flags: list[str], says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    given = ["--input", "x"] if not flags else []
    assert main(["build-shards", *flags, *given, "--samples", "3", "--output", str(tmp_path / "o")]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert "sources[0]" not in said


def test_what_reading_changed_is_noted_beside_the_records(tmp_path: Path) -> None:
    path = fill(tmp_path, {"t.csv": f"url,caption\n{URL},caf\xe9\n{URL}?2,nan\n".encode("latin-1")}) / "t.csv"
    rows = listed(tmp_path, "table", path)
    assert [row["captions"] for row in rows] == [["café"], [""]]
    metadata = pq.read_metadata(tmp_path / "listed.parquet").metadata
    assert [(kind, count) for kind, count, _ in json.loads(metadata[b"notes"])] == [
        ("texts that are no UTF-8, read as cp1252", 1),
        ("[caption that only says|captions that only say] nan, None or null: taken for none", 1),
    ]
    assert "csv table" in layout_of([str(tmp_path / "listed.parquet")])


def test_what_tools_write_for_nothing_is_no_caption_of_any_source() -> None:
    row = record_row(Record("1", ("null", "a kite", "NaN", "NA"), 0, (f" {URL} ", URL)), "x", {})
    assert (row["captions"], row["urls"]) == (["", "a kite", "", "NA"], [URL])


def test_images_that_no_row_names_and_hidden_ones_are_counted(tmp_path: Path) -> None:
    fill(tmp_path / "set", {"1.jpg": "x", "2.jpg": "x", "._1.jpg": "x", "@eaDir/1.jpg": "x", "t.csv": "file,caption\n1.jpg,one\n"})
    listed(tmp_path, "folder", tmp_path / "set")
    notes = json.loads(pq.read_metadata(tmp_path / "listed.parquet").metadata[b"notes"])
    assert [note[:2] for note in notes] == [
        ["[image|images] that the captions file does not name", 1],
        ["hidden [file or thumbnail|files and thumbnails] passed over", 2],
    ]


def test_links_to_nothing_and_pipes_are_rows(tmp_path: Path) -> None:
    fill(tmp_path / "set", dict.fromkeys(("a.txt", "b.txt", "c.txt"), "words here") | {"a.jpg": "x"})
    os.symlink("nowhere.jpg", tmp_path / "set" / "b.jpg")
    os.mkfifo(tmp_path / "set" / "c.jpg")
    rows = listed(tmp_path, "folder", tmp_path / "set")
    assert [(row["source_id"], row["status"], row["detail"]) for row in rows] == [
        ("a.jpg", "", ""),
        ("b.jpg", "image_missing", "a link to nothing"),
        ("c.jpg", "image_missing", "no regular file"),
    ]


def test_urls_with_blanks_around_them_join_their_pool(tmp_path: Path) -> None:
    """On either side, or both."""
    urls = [f"http://h.example/{i}.jpg" for i in range(3)]
    make_pool(tmp_path / "pool", {f" {urls[0]}\t": jpeg(0), urls[1]: jpeg(1), f"{urls[2]}\n": jpeg(2)})
    (tmp_path / "t.jsonl").write_text(
        "".join(json.dumps({"url": url, "text": "a kite"}) + "\n" for url in (urls[0], f" {urls[1]} ", f"\t{urls[2]}"))
    )
    listed(tmp_path, "table", tmp_path / "t.jsonl")
    fs.make_dirs(str(tmp_path / "records"))
    (joined,) = join_pool([str(tmp_path / "listed.parquet")], str(tmp_path / "pool"), str(tmp_path), "table")
    assert [(row["urls"], row["status"]) for row in pq.read_table(joined).to_pylist()] == [([url], "") for url in urls]
    found = records(img2dataset, tmp_path / "pool")
    assert {r.urls[0] for r in found} == set(urls)


def test_class_folders_with_equal_file_names_keep_every_image(tmp_path: Path) -> None:
    """As in Caltech-101. ILSVRC's names, which hold their class, stay ids as they are."""
    fill(tmp_path / "set", {f"{name}/image_0001.jpg": "x" for name in ("ant", "bee", "cat")})
    found = records(imagenet_templates, tmp_path / "set")
    assert {(r.source_id, r.class_name) for r in found} == {(f"{name}/image_0001.jpg", name) for name in ("ant", "bee", "cat")}
    names = [f"n0144076{i}" for i in range(2)]
    fill(tmp_path / "train", {f"{name}/{name}_1.JPEG": "x" for name in names} | {"LOC_synset_mapping.txt": f"{names[0]} a\n{names[1]} b\n"})
    assert [r.source_id for r in records(imagenet_templates, tmp_path / "train")] == ["n01440760_1.JPEG", "n01440761_1.JPEG"]


def test_webdataset_members_of_any_encoding(tmp_path: Path) -> None:
    huge = "9" * 5000
    members = [
        ("1.jpg", b"x"),
        ("1.txt", "a scene".encode("utf-16")),
        ("2.jpg", b"x"),
        ("2.json", f'{{"caption": ["a", "b"], "n": {huge}}}'.encode()),
    ]
    one, two = records(webdataset, make_tar(tmp_path / "a.tar", [*members, ("3.jpg", b"x"), ("3.txt", b"nan")]))[:2]
    assert (one.captions, two.captions, json.loads(two.meta)) == (("a scene",), ("a", "b"), {"n": huge})


def test_an_id_list_with_a_header_and_quotes(tmp_path: Path) -> None:
    from curate.sources import _yfcc

    (tmp_path / "ids.csv").write_text("photo_id\n\"12\"\n7\n\n'9'\n")
    assert list(_yfcc.read_ids(str(tmp_path / "ids.csv"))) == [7, 9, 12]
    (tmp_path / "ids.csv").write_text("12\nphoto_id\n")
    with pytest.raises(UsageError, match="'photo_id' is no photo id"):
        _yfcc.read_ids(str(tmp_path / "ids.csv"))
    assert yfcc.IMAGES == "pool"
