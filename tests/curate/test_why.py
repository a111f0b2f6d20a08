"""`curate why`: by whatever a person has of a sample, with all copies of its picture; nothing reaches the terminal raw."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from drawing import captioned_folder, encoded, picture
from PIL import Image

from curate.cli import main
from curate.report.page import visible
from shards import cli as shards_cli
from shards.sample import uid_of

HOSTILE = "\x1b[31mred\x1b]0;title\x07 \u202eback\u202c \U000e0041\U000e0042 tags"


def _near(i: int) -> bytes:
    return encoded(Image.open(io.BytesIO(encoded(picture(i)))).convert("RGB"), quality=60)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build of four pictures, one of which has an exact and a near copy, and one has a hostile caption."""
    folder = tmp_path_factory.mktemp("why")
    rows: list[tuple[str, bytes | None, str]] = [(f"deep/{i}.jpg", encoded(picture(i)), f"picture {i}") for i in range(3)]
    rows += [("deep/same.jpg", encoded(picture(1)), "the same"), ("deep/near.jpg", _near(1), "nearly")]
    rows += [("evil.jpg", encoded(picture(9)), HOSTILE)]
    (folder / "photos/deep").mkdir(parents=True)
    flags = ["--source", "folder", "--input", str(captioned_folder(folder / "photos", rows)), "--samples", "all"]
    assert main(["build-shards", "--engine", "inline", *flags, "--no-profanity", "--output", str(folder / "out")]) == 0
    return folder / "out"


def _why(capsys: pytest.CaptureFixture[str], out: Path, *names: str) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert main(["why", str(out), *names, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("name", ["deep/2.jpg", "2.jpg", "/home/somebody/photos/deep/2.jpg", "{uid}", "{uid:.12}", "{uid:.6}"])
def test_a_sample_is_found_by_what_a_person_has_of_it(name, out, capsys):
    uid = uid_of("folder", "deep/2.jpg")
    (row,) = _why(capsys, out, name.format(uid=uid))
    assert row["uid"] == uid
    assert row["decision"] == "kept"


@pytest.mark.parametrize("name", ["deep/1.jpg", "deep/same.jpg", "deep/near.jpg"])
def test_all_copies_of_a_picture_are_told_with_distance_and_decision(name, out, capsys):
    (row,) = _why(capsys, out, name)
    group = {one["source_id"]: one for one in [row, *row["copies"]]}
    assert set(group) == {"deep/1.jpg", "deep/same.jpg", "deep/near.jpg"}
    assert sorted(one["decision"] for one in group.values()) == ["dropped", "dropped", "kept"]
    assert {one["reason"] for one in group.values()} == {"", "exact_duplicate", "near_duplicate"}
    near = next(one for one in group.values() if one["reason"] == "near_duplicate")
    assert re.fullmatch(r"\d of 64 bits differ", near["detail"])
    assert main(["why", str(out), name]) == 0
    said = capsys.readouterr().out
    assert "2 more samples have this picture:" in said
    assert all(one["uid"] in said for one in group.values())


def test_a_page_shows_every_copy_with_its_picture(out, tmp_path, capsys):
    page = tmp_path / "copies.html"
    assert main(["why", str(out), "near.jpg", "--pictures", str(page)]) == 0
    text = page.read_text()
    uids = [uid_of("folder", f"deep/{name}.jpg") for name in ("1", "same", "near")]
    assert [uid in text for uid in uids] == [True] * 3
    pictures = re.findall(r'src="data:image/webp;base64,([^"]+)"', text)
    assert [Image.open(io.BytesIO(base64.b64decode(one))).format for one in pictures] == ["WEBP"] * 3
    assert "no picture" not in text
    capsys.readouterr()


def test_nothing_reaches_the_terminal_raw(out, tmp_path, capsys):
    rows = _why(capsys, out, "evil.jpg")
    assert rows[0]["caption_raw"] == HOSTILE
    assert main(["why", str(out), "evil.jpg", "--json"]) == 0
    said = capsys.readouterr().out
    assert not re.search("[\x1b\x07\u202a-\u202e\U000e0000-\U000e007f]", said)
    assert json.loads(said)[0]["caption_raw"] == HOSTILE  # escaped, not lost


def test_the_ids_of_the_page_work_in_why_and_remove(out, capsys):
    text = (out / "report.html").read_text()
    uids = set(re.findall(r'<code class="uid">([0-9a-f]{32})</code>', text))
    assert uid_of("folder", "deep/1.jpg") in uids
    assert main(["why", str(out), *sorted(uids)]) == 0
    assert shards_cli.main(["remove", str(out), uid_of("folder", "deep/1.jpg")[:12], "--dry-run"]) == 0
    capsys.readouterr()


def test_a_near_duplicate_stands_beside_the_one_that_stays(out):
    report = json.loads((out / "report.json").read_text())
    drops = {drop["reason"]: drop["examples"] for drop in report["ledger"]["sets"][0]["sources"][0]["dropped"]}
    for reason in ("near_duplicate", "exact_duplicate"):
        (row,) = drops[reason]
        leader = next(iter(report["ledger"]["sets"][0]["duplicates"]["largest"]))["survivor"]
        assert row["twin"]["uid"] == leader
        assert row["twin"]["picture"]
    assert "stays, on the right" in (out / "report.html").read_text()


def test_a_name_that_fits_nothing_is_said(out, capsys):
    assert main(["why", str(out), "nobody.jpg", "2.jpg"]) == 1
    said = capsys.readouterr()
    assert "'nobody.jpg' is in no row of the ledger" in said.err
    assert uid_of("folder", "deep/2.jpg") in said.out


def test_the_page_shows_tags_and_turning_marks_as_escapes():
    assert visible(HOSTILE) == "␛[31mred␛]0;title␇ \\u202eback\\u202c \\U000e0041\\U000e0042 tags"
    assert visible("שלום 👩‍🚀 a\tb") == "שלום 👩‍🚀 a\tb"


def test_a_copy_of_a_copy_names_the_file_that_it_equals(out, tmp_path, capsys):
    """`copy0` is a near copy of picture 0, `copy1` has the bytes of `copy0`: nobody may say that it has those of picture 0."""
    near = _near(0)
    rows = [("c024.jpg", encoded(picture(0)), "the first"), ("copy0.jpg", near, "one"), ("copy1.jpg", near, "two")]
    (tmp_path / "in").mkdir()
    (tmp_path / "in/copies").mkdir()
    flags = [
        "--source",
        "folder",
        "--input",
        str(captioned_folder(tmp_path / "in/copies", rows)),
        "--samples",
        "all",
        "--prefer",
        "caption",
    ]
    assert main(["build-shards", "--engine", "inline", *flags, "--no-profanity", "--output", str(tmp_path / "out")]) == 0
    rows = {row["source_id"]: row for row in _why(capsys, tmp_path / "out", "c024.jpg", "copy0.jpg", "copy1.jpg")}
    equal = next(row for row in rows.values() if row["reason"] == "exact_duplicate")
    twin = next(row for row in rows.values() if row["reason"] == "near_duplicate")
    assert equal["duplicate_of"] == twin["duplicate_of"] == rows["c024.jpg"]["uid"]
    assert equal["detail"] == f"same bytes as {twin['uid']}, itself near_duplicate: {twin['detail']}"
    page = tmp_path / "page.html"
    assert main(["why", str(tmp_path / "out"), equal["source_id"], "--pictures", str(page)]) == 0
    said = capsys.readouterr().out
    stays = rows["c024.jpg"]["uid"]
    told = f"dropped: exact_duplicate (same bytes as {twin['source_id']}, itself near_duplicate: {twin['detail']}); {stays} stays"
    assert told in said
    assert told in page.read_text()
    assert f"exact_duplicate of {stays}" not in said


def test_the_cards_of_the_page_have_the_id_of_each_sample(out, tmp_path, capsys):
    page = tmp_path / "copies.html"
    assert main(["why", str(out), "near.jpg", "--pictures", str(page)]) == 0
    text = page.read_text()
    assert all(f"<bdi>deep/{name}.jpg</bdi>" in text for name in ("1", "same", "near"))
    capsys.readouterr()


def test_an_input_is_called_by_its_name(out, tmp_path, capsys):
    assert main(["why", str(out), "deep/2.jpg"]) == 0
    assert "(photos, record 2)" in capsys.readouterr().out
    (tmp_path / "my.csv").write_text("image,caption\n0.jpg,words\n")
    (tmp_path / "0.jpg").write_bytes(encoded(picture(0)))
    flags = ["--source", "folder", "--input", str(tmp_path / "my.csv"), "--samples", "all", "--engine", "inline"]
    assert main(["build-shards", *flags, "--output", str(tmp_path / "out")]) == 0
    assert main(["why", str(tmp_path / "out"), "0.jpg"]) == 0
    assert "(my.csv, record 0)" in capsys.readouterr().out


def test_a_subset_leads_to_the_build_that_has_the_ledger(out, tmp_path, capsys):
    for name, more in (("view", []), ("tars", ["--materialize", "--engine", "inline"])):
        folder = out.parent / name
        assert shards_cli.main(["subset", str(out), "--samples", "2", "--output", str(folder), *more]) == 0
        capsys.readouterr()
        assert main(["why", str(folder), "2.jpg"]) == 2
        said = capsys.readouterr().err
        assert f"no ledger in '{folder}'" in said
        assert f"try: curate why {out} 2.jpg" in said
