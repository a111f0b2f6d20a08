"""What a block list drops leaves a uid, a reason and a list's name: every file of build and work folder is read for more."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drawing import encoded, picture
from native import make_tar
from PIL import Image

from curate import cli
from curate.listing import connect
from curate.report.thumbnail import thumbnail
from shards.manifest import read_manifest
from shards.sample import uid_of

SECRET, PLAIN = "zanzibar", "words"
URLS = [f"https://{'bad.example' if i == 7 else 'a.org'}/{i}.jpg" for i in range(12)]
CAPTIONS = [f"{SECRET if i == 7 else PLAIN} of picture {i}" for i in range(12)]
# A CMYK picture is re-encoded into the work folder.
PICTURES = [encoded(picture(i).convert("CMYK") if i == 7 else picture(i)) for i in range(12)]
BLOCKED = PICTURES[7]

ALL = ("--samples", "all")


def _img2dataset(folder: Path) -> list[str]:
    keys = [f"{i:09d}" for i in range(12)]
    members = [(f"{key}.jpg", content) for key, content in zip(keys, PICTURES, strict=True)]
    make_tar(folder / "00000.tar", members)
    rows = {"key": keys, "url": URLS, "caption": CAPTIONS, "status": ["success"] * 12, "error_message": [None] * 12}
    pq.write_table(pa.table(rows, schema=pa.schema([(name, pa.string()) for name in rows])), folder / "00000.parquet")
    return [*ALL, "--source", "img2dataset", "--input", str(folder)]


def _huggingface(folder: Path) -> list[str]:
    folder.mkdir()
    images = [{"bytes": content, "path": None} for content in PICTURES]
    pq.write_table(pa.table({"image": images, "text": CAPTIONS, "url": URLS}), folder / "train.parquet")
    return [*ALL, "--source", "huggingface", "--input", str(folder / "train.parquet")]


def _fetched(folder: Path) -> list[str]:
    """A list of URLs beside an img2dataset folder that is joined on them."""
    _img2dataset(folder / "pool")
    lines = [f"{caption}\t{url}" for caption, url in zip(CAPTIONS, URLS, strict=True)]
    (folder / "cc3m.tsv").write_text("\n".join(lines) + "\n")
    return [*ALL, "--source", "cc3m", "--input", str(folder / "cc3m.tsv"), "--images", str(folder / "pool")]


SOURCES = {"img2dataset": _img2dataset, "huggingface": _huggingface, "cc3m": _fetched}
ENTRIES = {
    "urls": URLS[7],
    "hosts": "bad.example",
    "sha256": hashlib.sha256(BLOCKED).hexdigest(),
    "md5": hashlib.md5(BLOCKED, usedforsecurity=False).hexdigest(),
}


def _list(tmp_path: Path, kind: str) -> list[str]:
    """Write a list and return the flags that name it."""
    path = tmp_path / f"{kind}.list"
    path.write_text(ENTRIES[kind] + "\n")
    return [f"--blocklist-{kind}", str(path)]


def _secrets() -> list[bytes]:
    """Return what must be nowhere: words and address, the picture, its thumbnail, and the picture as shards would hold it."""
    small = thumbnail(BLOCKED)
    assert small
    out = io.BytesIO()
    Image.open(io.BytesIO(BLOCKED)).convert("RGB").save(out, "JPEG", quality=95)
    return [SECRET.encode(), URLS[7].encode(), b"bad.example", BLOCKED[-200:], small[30:], out.getvalue()[-200:]]


def _values(path: Path) -> list[bytes]:
    """Return what a file says: its bytes, what is packed in them, and all columns of a parquet file."""
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        return [gzip.decompress(data)]
    if data[:4] == b"\x28\xb5\x2f\xfd":
        return [pa.CompressedInputStream(pa.BufferReader(data), "zstd").read()]
    if path.suffix != ".parquet":
        return [data]
    table = pq.read_table(path)
    blobs = [name for name in table.column_names if pa.types.is_binary(table.schema.field(name).type)]
    found = [data, json.dumps(table.drop_columns(blobs).to_pylist(), default=str).encode()]
    for name in blobs:
        found += filter(None, table[name].to_pylist())
    return found + list((table.schema.metadata or {}).values())


def _telling(*folders: Path) -> list[str]:
    """Return the files that hold a secret."""
    secrets, found = _secrets(), []
    for folder in folders:
        for path in sorted(one for one in folder.rglob("*") if one.is_file()):
            if any(secret in value for value in _values(path) for secret in secrets):
                found.append(str(path.relative_to(folder)))
    return found


def _work(out: Path) -> Path:
    return Path(f"{out}.work")


def _rows(out: Path, reason: str) -> list[dict[str, Any]]:
    return [row for row in pq.read_table(out / "ledger").to_pylist() if row["reason"] == reason]


@pytest.mark.parametrize(("source", "kind"), [*((source, "hosts") for source in SOURCES), *(("img2dataset", kind) for kind in ENTRIES)])
def test_a_blocked_sample_leaves_its_uid_its_reason_and_the_lists_name(source, kind, tmp_path, build):
    code, out, err = build(*SOURCES[source](tmp_path / "native"), *_list(tmp_path, kind))
    assert code == 0, err
    (row,) = _rows(out, "blocklist")
    told = {name: row[name] for name in ("decision", "detail", "source_id", "duplicate_of", "rank", "shard", "caption_raw")}
    blank = {"source_id": row["uid"], "duplicate_of": "", "rank": -1, "shard": "", "caption_raw": ""}
    assert told == {"decision": "dropped", "detail": f"{kind}: {kind}.list"} | blank
    if source == "img2dataset":
        assert row["uid"] == uid_of("img2dataset", f"{URLS[7]}\n{CAPTIONS[7]}")
    assert _telling(out, _work(out)) == []
    assert SECRET not in err
    assert read_manifest(str(out)).samples == 11


def test_the_search_for_secrets_finds_them(tmp_path, build):
    """Without the list the same places hold them: the test above looks where they would be."""
    _, out, _ = build(*_huggingface(tmp_path / "native"))
    places = {name.partition("/")[0].rstrip("0123456789") for name in _telling(out, _work(out))}
    assert {"ledger", "examples", "report.html", "report.json", "measured", "records"} <= places


@pytest.mark.parametrize("source", SOURCES)
def test_a_block_list_goes_before_other_refusals(source, tmp_path, build):
    """A sample that another filter would drop first, with caption and picture in the ledger's examples, is as hidden."""
    other = ["--expression-keep", "caption NOT LIKE 'z%'"]
    code, out, err = build(*SOURCES[source](tmp_path / "native"), *other, *_list(tmp_path, "hosts"))
    assert code == 0, err
    assert len(_rows(out, "blocklist")) == 1
    assert _telling(out, _work(out)) == []


@pytest.mark.parametrize("source", SOURCES)
def test_the_same_command_again_has_nothing_to_do_and_tells_nothing(source, tmp_path, build):
    flags = [*SOURCES[source](tmp_path / "native"), *_list(tmp_path, "sha256")]
    _, out, _ = build(*flags)
    first = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    code, _, err = build(*flags)
    assert code == 0
    assert "nothing to do" in err
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == first
    assert _telling(out, _work(out)) == []


@pytest.mark.parametrize("source", SOURCES)
def test_a_recipe_without_the_list_measures_the_samples_anew(source, tmp_path, build):
    """The work folder of a build with a list gives a build without one the bytes of a fresh work folder, and the other way round."""
    native, block = SOURCES[source](tmp_path / "native"), _list(tmp_path, "urls")
    _, fresh, _ = build(*native, output="fresh")
    build(*native, *block, output="listed")
    code, out, _ = build(*native, "--work", tmp_path / "listed.work", output="out")
    assert code == 0
    assert (out / "manifest.json").read_bytes() == (fresh / "manifest.json").read_bytes()
    assert (out / "00000.tar").read_bytes() == (fresh / "00000.tar").read_bytes()
    code, again, _ = build(*native, *block, "--work", tmp_path / "listed.work", output="again")
    assert code == 0
    assert (again / "manifest.json").read_bytes() == (tmp_path / "listed/manifest.json").read_bytes()
    assert _telling(again, tmp_path / "listed.work") == []


def test_an_entry_that_is_taken_off_the_list_brings_its_sample_back(tmp_path, build):
    native, block = _img2dataset(tmp_path / "native"), _list(tmp_path, "urls")
    build(*native, *block, output="before")
    Path(block[1]).write_text("https://a.org/3.jpg\n")
    code, out, _ = build(*native, *block, "--work", tmp_path / "before.work", output="after")
    assert code == 0
    (row,) = _rows(out, "blocklist")
    assert row["uid"] == uid_of("img2dataset", f"{URLS[3]}\n{CAPTIONS[3]}")
    kept = pq.read_table(out / "00000.parquet").to_pylist()
    assert CAPTIONS[7] in [one["caption"] for one in kept]


@pytest.mark.parametrize("command", ["measure", "decide"])
def test_measuring_and_deciding_alone_tell_nothing(command, tmp_path, capsys):
    flags = [*_huggingface(tmp_path / "native"), *_list(tmp_path, "md5"), "--work", str(tmp_path / "work"), "--engine", "inline"]
    assert cli.main([command, *flags]) == 0
    assert SECRET not in "".join(capsys.readouterr())
    assert _telling(tmp_path / "work") == []


def test_a_build_that_is_refused_tells_nothing(tmp_path, build):
    code, out, _ = build(*_huggingface(tmp_path / "native")[2:], *_list(tmp_path, "md5"), "--samples", "12")
    assert code == 2
    assert _telling(_work(out)) == []


def test_who_opted_out_while_fetching_leaves_no_caption(tmp_path, build):
    """The native list has caption and URL; the pool says why there is no picture."""
    native = _fetched(tmp_path / "native")
    table = pq.read_table(tmp_path / "native/pool/00000.parquet").to_pylist()
    table[7] |= {"status": "failed_to_download", "error_message": "opted out: noai"}
    pq.write_table(
        pa.Table.from_pylist(table, pa.schema([(name, pa.string()) for name in table[0]])), tmp_path / "native/pool/00000.parquet"
    )
    code, out, err = build(*native)
    assert code == 0, err
    (row,) = _rows(out, "failed_to_download")
    assert (row["detail"], row["caption_raw"], row["source_id"]) == ("opted out: noai", "", row["uid"])
    assert _telling(out, _work(out)) == []


def test_no_spilled_database_is_left(tmp_path, build):
    _, out, _ = build(*_img2dataset(tmp_path / "native"), *_list(tmp_path, "urls"))
    assert [path.name for path in _work(out).iterdir() if path.name.startswith("spill-")] == []
    connect("").close()


def test_a_work_folder_in_use_is_swept_by_the_last_who_uses_it(tmp_path, build):
    """Another process that measures there still needs the records."""
    flags = [*_huggingface(tmp_path / "native"), *_list(tmp_path, "md5")]
    work = tmp_path / "out.work"
    work.mkdir()
    script = (
        "import sys\nfrom curate.hidden import swept\nwith swept(None, sys.argv[1]):\n    print('held', flush=True)\n    sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(work)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        code, out, err = build(*flags)
        assert code == 0
        assert "another command is using it" in err
        assert _telling(out) == []
        assert _telling(work) != []
        other.stdin.close()
    build(*flags)
    assert _telling(out, work) == []
