"""shutterstock: url⇥caption, and exports with a header in the formats and names that licences bring."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from native import records

from curate.sources import shutterstock
from curate.sources.base import Input
from shards.core.errors import TornFileError, UsageError
from shards.tables.values import worded

URL = "https://image.shutterstock.com/image-vector/x-600w-1.jpg"
# The fields of an image in Shutterstock's public API (openapi.json of shutterstock/public-api-sdk-generator).
API = {
    "id": "1572478477", "description": "Old wood texture", "keywords": ["wood", "old", "brown"], "image_type": "photo",
    "categories": [{"id": "26", "name": "Textures"}, {"id": "1", "name": "Nature"}], "contributor": {"id": "1653538"},
    "media_type": "image", "is_editorial": False, "is_adult": False, "assets": {"preview": {"url": URL, "width": 450, "height": 300}},
}  # fmt: skip
FLAT = {
    "id": "1572478477", "description": "Old wood texture", "keywords": "wood, old,brown", "categories": "Textures;Nature",
    "contributor": "1653538", "media_type": "image", "is_editorial": "no", "is_adult": "0", "preview_url": URL,
}  # fmt: skip


def write(folder: Path, content: str, name: str) -> Path:
    (folder / name).write_text(content, encoding="utf-8", newline="")
    return folder / name


def as_csv(folder: Path, rows: list[dict[str, Any]], name: str = "export.csv") -> Path:
    with (folder / name).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder / name


def test_headerless(tmp_path: Path) -> None:
    captions = ['Seamless geometric pattern. "Abstract', "NA", 'design"', "comma, comma"]
    path = write(tmp_path, "\ufeff" + "".join(f"{URL}?{i}\t{c}\n" for i, c in enumerate(captions)) + "no url\there\n", "s.tsv")
    found = records(shutterstock, path)
    assert [r.captions[0] for r in found[:-1]] == captions
    assert found[0].source_id == f"{URL}?0\n{captions[0]}"
    assert found[-1].status == "bad_record"


def test_exports_agree_whatever_their_format(tmp_path: Path) -> None:
    files = [
        as_csv(tmp_path, [FLAT]),
        write(tmp_path, "\t".join(FLAT) + "\n" + "\t".join(FLAT.values()) + "\n", "export.tsv"),
        write(tmp_path, json.dumps([FLAT]), "list.json"),
        write(tmp_path, json.dumps({"page": 1, "data": [API]}), "api.json"),
        write(tmp_path, json.dumps(API) + "\n", "api.jsonl"),
    ]
    for path in files:
        (found,) = records(shutterstock, path)
        assert (found.source_id, found.urls, found.status) == ("1572478477", (URL,), ""), path
        assert found.captions == ("Old wood texture", "wood, old, brown")
        assert json.loads(found.meta) == {
            "keywords": ["wood", "old", "brown"], "categories": ["Textures", "Nature"], "media_type": "image",
            "contributor": "1653538", "is_editorial": False, "is_adult": False,
        }  # fmt: skip


def test_order_of_columns_and_marks_do_not_matter(tmp_path: Path) -> None:
    expected = records(shutterstock, as_csv(tmp_path, [FLAT]))
    path = as_csv(tmp_path, [dict(reversed(FLAT.items()))])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert records(shutterstock, path) == expected


def test_swapped_columns_are_refused_by_name(tmp_path: Path) -> None:
    path = as_csv(tmp_path, [FLAT | {"description": URL, "preview_url": "Old wood texture"}])
    with pytest.raises(UsageError, match="no URL in the first 1 rows of 'preview_url'; they stand in 'description'"):
        records(shutterstock, path)


def test_the_caption_rules(tmp_path: Path) -> None:
    path = as_csv(tmp_path, [FLAT, FLAT | {"id": "2", "description": ""}, FLAT | {"id": "3", "keywords": ""}])
    text, words = "Old wood texture", "wood, old, brown"
    for field, expected in (
        ("description", [(text, words), (words,), (text,)]),
        ("keywords", [(words, text), (words,), (text,)]),
        ("both", [(f"{text} {words}",), (words,), (text,)]),
    ):
        assert [r.captions for r in records(shutterstock, path, field=field)] == expected


def test_a_column_map(tmp_path: Path) -> None:
    rows = [{"Asset": "7", "Headline": "a cat", "Body": "it sits", "Link": URL, "title": "not this"}]
    path = as_csv(tmp_path, rows)
    with pytest.raises(UsageError, match="none is the url") as error:
        records(shutterstock, path)
    assert error.value.advice == "--columns url=NAME"
    (found,) = records(shutterstock, path, columns={"id": "Asset", "caption": "headline", "url": "Link"})
    assert (found.source_id, found.captions, found.urls) == ("7", ("a cat",), (URL,))
    with pytest.raises(UsageError, match="no column 'Headlin'") as error:
        records(shutterstock, path, columns={"caption": "Headlin", "url": "Link"})
    assert "did you mean 'Headline'" in error.value.advice
    with pytest.raises(UsageError, match="columns: 'captoin'"):
        records(shutterstock, path, columns={"captoin": "Headline"})


def test_a_column_map_reaches_into_json(tmp_path: Path) -> None:
    path = write(tmp_path, json.dumps([{"asset": {"id": 9, "text": "deep"}, "url": URL}]), "deep.json")
    (found,) = records(shutterstock, path, columns={"id": "asset.id", "caption": "asset.text"})
    assert (found.source_id, found.captions) == ("9", ("deep",))


def test_without_an_id_url_and_caption_are_it(tmp_path: Path) -> None:
    first, second = records(
        shutterstock, as_csv(tmp_path, [{"id": "", "caption": "a", "url": URL}, {"id": "5", "caption": "a", "url": URL}])
    )
    assert (first.source_id, second.source_id) == (f"{URL}\na", "5")


def test_videos_and_bad_rows_are_rows(tmp_path: Path) -> None:
    rows = [FLAT | {"media_type": "video"}, FLAT | {"preview_url": "https://h/x.mp4?a=1"}, FLAT | {"preview_url": ""}, FLAT]
    path = as_csv(tmp_path, rows)
    path.write_text(path.read_text() + "one,cell\n" + ",".join(FLAT) + "\n")
    found = records(shutterstock, path)
    assert [r.status for r in found] == ["unsupported", "unsupported", "bad_record", "", "bad_record", "bad_record"]
    assert found[4].detail == "record 5: 2 fields, not 9"
    assert [r.row for r in found] == list(range(6))


def test_editorial_and_type_are_columns(tmp_path: Path) -> None:
    assert dict(shutterstock.COLUMNS)["is_editorial"] == "bool"
    rows = [FLAT | {"is_editorial": value} for value in ("true", "N", "1", "", "perhaps")]
    found = [json.loads(r.meta).get("is_editorial") for r in records(shutterstock, as_csv(tmp_path, rows))]
    assert found == [True, False, True, None, None]


def test_layouts_are_stated(tmp_path: Path) -> None:
    def stated(path: Path) -> str:
        return shutterstock.layout(Input(str(path), "x"), shutterstock.Options())

    assert stated(write(tmp_path, f"{URL}\ta\n", "s.tsv")) == "headerless TSV: url⇥caption"
    assert stated(as_csv(tmp_path, [FLAT])).startswith("csv export: id = id, url = preview_url, caption = description, keywords = keywords")


@pytest.mark.parametrize(
    ("content", "name", "says"),
    [
        (f"a cat\t{URL}\n", "a.tsv", "use --source cc3m"),
        ("URL,TEXT\nx,y\n", "a.csv", "use --source laion"),
        (f"{URL},a cat\n", "a.csv", "no line of the first 1 is url⇥caption"),
        ('{"image_id": "a", "subreddit": "b", "caption": "c"}\n', "a.jsonl", "use --source redcaps"),
        ('{"annotations": []}', "a.json", "a JSON object with a list 'data', or a list of records"),
        ("id,description\n1,a\n", "a.csv", "--columns url=NAME"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path: Path, content: str, name: str, says: str) -> None:
    with pytest.raises(UsageError) as error:
        shutterstock.inputs(str(write(tmp_path, content, name)), shutterstock.Options())
    assert says in str(error.value)


def test_a_rule_without_its_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="url⇥caption has no keywords"):
        records(shutterstock, write(tmp_path, f"{URL}\ta\n", "s.tsv"), field="both")
    with pytest.raises(UsageError, match="none is the keywords"):
        records(shutterstock, as_csv(tmp_path, [{"caption": "a", "url": URL}]), field="keywords")


def test_a_cut_export_gives_its_whole_rows(tmp_path: Path) -> None:
    path = as_csv(tmp_path, [FLAT | {"id": str(i)} for i in range(4)])
    path.write_bytes(path.read_bytes()[:-70])
    (one,) = shutterstock.inputs(str(path), shutterstock.Options())
    found = []
    with pytest.raises(TornFileError):
        found.extend(shutterstock.read(one, shutterstock.Options()))
    assert [r.source_id for r in found] == ["0", "1", "2"]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1).filter(worded).filter(str.strip), min_size=1, max_size=6))
def test_any_caption_comes_back(tmp_path: Path, captions: list[str]) -> None:
    rows = [{"url": URL, "id": str(i), "description": c} for i, c in enumerate(captions)]
    assert [r.captions[0] for r in records(shutterstock, as_csv(tmp_path, rows))] == [c.replace("\r\n", "\n") for c in captions]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    assert [r.captions[0] for r in records(shutterstock, write(tmp_path, lines, "x.jsonl"))] == captions
