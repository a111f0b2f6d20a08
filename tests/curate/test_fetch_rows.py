"""The rows of a fetch before and after: normalised in rank order, accounted for to the last, read back by range."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fetch_server import photo

from curate.cli import main
from curate.fetch.config import FetchConfig
from curate.fetch.normalise import normalise
from curate.fetch.pool import PoolRow, pool_table, read_pool
from curate.fetch.rows import account, kind_of
from curate.fetch.run import fetch
from shards.core.errors import TornFileError, UsageError
from shards.tar import TarWriter

NASTY = ['a, "quoted" caption', "line\nfeed", "tab\there", "'single'; DROP TABLE", "ünïcode 🙂", " spaces ", "\\Nine", "NULLs", ""]


def redcaps(path: Path, items: list[tuple[str, object, str]]) -> str:
    """Write native RedCaps metadata of (image_id, url or urls, caption)."""
    path.write_text(json.dumps({"info": {}, "annotations": [{"image_id": i, "url": u, "caption": c} for i, u, c in items]}))
    return str(path)


def config(source: str, output: Path, **options: object) -> FetchConfig:
    return FetchConfig(source="redcaps", input=(source,), output=str(output), **options)  # type: ignore[arg-type]


def rank(seed: int, name: str, source_id: str) -> bytes:
    """The order of a row, from CONTRACT's words alone."""
    uid = hashlib.sha256(f"{name}\0{source_id}".encode()).hexdigest()[:32]
    return hashlib.sha256(f"{seed}:{uid}".encode()).digest()[:8]


def normalised(folder: Path) -> list[dict[str, object]]:
    return [row for path in sorted(folder.glob("0*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_rows_come_in_rank_order_in_whole_shards(tmp_path: Path) -> None:
    source = redcaps(tmp_path / "a.json", [(f"id{i}", f"http://h/{i}", f"c{i}") for i in range(25)])
    found = normalise(config(source, tmp_path, seed=7, name="mine", samples_per_shard=10), str(tmp_path / "n"))
    assert (found.records, found.without_url, found.urls, found.shards) == (25, 0, 25, 3)
    rows = normalised(tmp_path / "n")
    assert [r["source_id"] for r in rows] == sorted((f"id{i}" for i in range(25)), key=lambda i: rank(7, "mine", i))
    assert [r["row"] for r in rows] == list(range(25))
    assert [pq.read_metadata(p).num_rows for p in sorted((tmp_path / "n").glob("*.parquet"))] == [10, 10, 5]


def test_odd_text_survives(tmp_path: Path) -> None:
    items = [(f"id{i}", f'http://h/{i}?a=1,2&q="x"\'\t\n/', text) for i, text in enumerate(NASTY)]
    normalise(config(redcaps(tmp_path / "a.json", items), tmp_path), str(tmp_path / "n"))
    rows = normalised(tmp_path / "n")
    assert {(r["source_id"], r["url"], r["caption"]) for r in rows} == set(items)


def test_each_url_of_a_record_is_a_row_and_a_repeated_one_goes_once(tmp_path: Path) -> None:
    items = [("a", ["http://h/1", "http://h/2", "http://h/1"], "x"), ("a", "http://h/1", "x"), ("b", "http://h/1", "y"), ("c", "", "z")]
    found = normalise(config(redcaps(tmp_path / "a.json", items), tmp_path), str(tmp_path / "n"))
    assert (found.records, found.without_url, found.urls) == (4, 1, 3)
    rows = {(r["source_id"], r["url"], r["url_index"]) for r in normalised(tmp_path / "n")}
    assert rows == {("a", "http://h/1", 0), ("a", "http://h/2", 1), ("b", "http://h/1", 0)}


def test_the_fingerprint_follows_the_rows_alone(tmp_path: Path) -> None:
    items = [(f"id{i}", f"http://h/{i}", f"c{i}") for i in range(5)]

    def fingerprint(name: str, rows: list[tuple[str, object, str]], **options: object) -> str:
        return normalise(config(redcaps(tmp_path / name, rows), tmp_path, **options), str(tmp_path / "n" / name)).fingerprint

    first = fingerprint("a.json", items)
    assert fingerprint("b.json", items[::-1]) == first
    assert fingerprint("c.json", [*items[:4], ("id4", "http://h/4", "c5")]) != first
    assert fingerprint("d.json", items, limit=4) != first


def test_a_source_without_urls_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown source 'redcap'"):
        fetch(FetchConfig(source="redcap", input=("x",), output=str(tmp_path / "p")))
    with pytest.raises(UsageError, match="none with a URL"):
        fetch(config(redcaps(tmp_path / "a.json", [("a", "", "x")]), tmp_path / "p"))
    with pytest.raises(UsageError, match="no file"):
        fetch(config(str(tmp_path / "none*.json"), tmp_path / "q"))
    with pytest.raises(UsageError, match="not empty"):
        fetch(config(str(tmp_path / "a.json"), tmp_path))
    assert not (tmp_path / "p").exists()
    assert not (tmp_path / "q").exists()


@pytest.mark.parametrize(
    ("flag", "value"),
    [("--timeout", "0"), ("--timeout", "nan"), ("--max-bytes", "0"), ("--threads", "0"), ("--per-host", "0"), ("--retries", "-1"),
     ("--longest-wait", "inf"), ("--enough", "0"), ("--image-size", "-1"), ("--contact", "a (b)"), ("--contact", "a;b"), ("--contact", "ü"),
     ("--contact", "a\r\nX: y"), ("--blocklist-hosts", "absent.txt"), ("--blocklist-urls", "absent.txt"), ("--removed", "absent.txt")],
)  # fmt: skip
def test_a_flag_that_makes_no_sense_is_refused_before_anything(
    flag: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = redcaps(tmp_path / "a.json", [("a", "http://h/1", "x")])
    assert main(["fetch", "--source", "redcaps", "--input", source, "--output", str(tmp_path / "p"), flag, value]) == 2
    said = capsys.readouterr().err
    assert flag.strip("-").replace("-", "_") in said.replace("-", "_") or value in said
    assert not (tmp_path / "p").exists()


def test_blanks_around_urls_go(tmp_path: Path) -> None:
    items = [("a", " http://h/1 ", "x"), ("b", ["\thttp://h/2\n", "http://h/2", "  "], "y")]
    found = normalise(config(redcaps(tmp_path / "a.json", items), tmp_path), str(tmp_path / "n"))
    assert (found.records, found.urls) == (2, 2)
    assert {row["url"] for row in normalised(tmp_path / "n")} == {"http://h/1", "http://h/2"}


def test_blanks_around_the_urls_of_a_plain_pool_go(tmp_path: Path) -> None:
    plain_pool(tmp_path / "p", ["success", "failed_to_download"])
    table = pq.read_table(tmp_path / "p" / "00000.parquet")
    urls = pa.array([f" {url}\n" for url in table["url"].to_pylist()])
    pq.write_table(table.set_column(table.column_names.index("url"), "url", urls), tmp_path / "p" / "00000.parquet")
    assert [row.url for row in read_pool(str(tmp_path / "p"))] == ["http://h/1", "http://h/0"]


@pytest.mark.parametrize(
    ("detail", "kind"),
    [("HTTP 404 Not Found", "HTTP 404"), ("HTTP 429 Too Many Requests, to be asked again after 9 s", "HTTP 429"), ("timed out after 2 s", "timed out"),
     ("larger than 200000 bytes", "larger than 200000 bytes"), ("opted out: X-Robots-Tag: noai", "opted out: X-Robots-Tag"), ("cut off: 3 bytes missing after 1", "cut off"),
     ("no image but a PDF", "no image but a PDF"), ("no usable image: 9 × 9 pixels", "no usable image"), ("empty body", "empty body"),
     ("ConnectionRefusedError: [Errno 111] Connection refused", "ConnectionRefusedError"), ("blocked: hosts.txt", "blocked"),
     ("no address: a.example cannot be resolved: x", "no address"), ("more than 10 redirects", "more than 10 redirects"), ("worker killed by SIGKILL", "worker killed by SIGKILL")],
)  # fmt: skip
def test_details_are_counted_by_kind(detail: str, kind: str) -> None:
    assert kind_of(detail) == kind


def plain_pool(folder: Path, statuses: list[str], *, in_tar: int | None = None) -> list[bytes]:
    """Write one shard as img2dataset does, rows in another order than keys; return the pictures of the successes by key."""
    folder.mkdir(exist_ok=True)
    pictures = [photo(i, ("JPEG", "PNG", "WEBP")[i % 3]) for i in range(len(statuses))]
    with (folder / "00000.tar").open("wb") as file:
        writer = TarWriter(file)
        for i in [i for i, status in enumerate(statuses) if status == "success"][:in_tar]:
            writer.add(f"{i:06d}.{('jpg', 'png', 'webp')[i % 3]}", pictures[i])
            writer.add(f"{i:06d}.json", b"{}")
            writer.add(f"{i:06d}.txt", b"caption")
        writer.close()
    rows = [
        {"url": f"http://h/{i}", "caption": f"c{i}", "key": f"{i:06d}", "status": s, "error_message": None if s == "success" else "why",
         "width": None, "height": None, "original_width": None, "original_height": None, "sha256": "00"}
        for i, s in enumerate(statuses)
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows[::-1]), folder / "00000.parquet")
    return pictures


def test_a_plain_img2dataset_folder_is_read(tmp_path: Path) -> None:
    statuses = ["success", "failed_to_download", "success", "success", "failed_to_resize"]
    pictures = plain_pool(tmp_path / "p", statuses)
    rows = list(read_pool(str(tmp_path / "p")))[::-1]
    assert [r.status for r in rows] == statuses
    assert [(r.source_id, r.url, r.url_index, r.caption) for r in rows] == [("", f"http://h/{i}", 0, f"c{i}") for i in range(5)]
    content = (tmp_path / "p" / "00000.tar").read_bytes()
    for row, picture in zip(rows, pictures, strict=True):
        assert content[row.offset : row.offset + row.size] == (picture if row.status == "success" else b"")
        assert row.tar == (str(tmp_path / "p" / "00000.tar") if row.status == "success" else "")
        assert row.detail == ("" if row.status == "success" else "why")
    assert pool_table(str(tmp_path / "p")).to_pylist() == [r._asdict() for r in rows[::-1]]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.9])
def test_rows_behind_the_cut_of_a_torn_tar_say_so(share: float, tmp_path: Path) -> None:
    plain_pool(tmp_path / "p", ["success"] * 20 + ["failed_to_download"])
    path = tmp_path / "p" / "00000.tar"
    whole = {r.url: r for r in read_pool(str(tmp_path / "p"))}
    cut = int(path.stat().st_size * share)
    path.write_bytes(path.read_bytes()[:cut])
    for row in read_pool(str(tmp_path / "p")):
        before = whole[row.url]
        fits = before.offset + before.size <= cut
        assert row == before if fits else (row.status, row.tar, row.size) == ("torn_input", "", 0)


def test_an_unreadable_table_or_a_folder_that_is_no_pool_is_an_error(tmp_path: Path) -> None:
    plain_pool(tmp_path / "p", ["success"])
    (tmp_path / "p" / "00000.parquet").write_bytes(b"PAR1 cut")
    with pytest.raises(TornFileError, match=r"00000\.parquet: cannot be read"):
        list(read_pool(str(tmp_path / "p")))
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(UsageError, match="no pool"):
            list(read_pool(str(path)))


def test_rows_that_img2dataset_left_out_are_lost(tmp_path: Path) -> None:
    """Five rows went in; img2dataset wrote three, and of these one image never reached the tar."""
    statuses = ["success", "failed_to_download", "success"]
    plain_pool(tmp_path, statuses, in_tar=1)
    rows = [{"source_id": f"s{i}", "url": f"http://h/{i}", "url_index": 0, "caption": f"c{i}", "row": 40 + i} for i in range(5)]
    table = account(0, rows, str(tmp_path), samples_per_shard=10, source_name="s")
    assert table["status"].to_pylist() == ["success", "failed_to_download", "lost", "lost", "lost"]
    assert table["row"].to_pylist() == [40, 41, 42, 43, 44]
    assert table["detail"].to_pylist()[3] == "img2dataset left no row"
    content = (tmp_path / "00000.tar").read_bytes()
    row = table.to_pylist()[0]
    assert content[row["offset"] : row["offset"] + row["size"]] == photo(0)
    assert set(PoolRow._fields) - {"meta"} <= set(table.column_names)  # a fetch keeps no further columns


def test_native_tsv_quoting_is_no_quoting(tmp_path: Path) -> None:
    """A caption with a lone quote swallows no lines, as a CSV reader would let it."""
    path = tmp_path / "cc12m.tsv"
    path.write_text("".join(f'http://h/{i}\t"open quote, {i}\n' for i in range(50)))
    assert len(list(csv.reader(path.read_text().splitlines(keepends=True), delimiter="\t"))) < 50
    found = normalise(FetchConfig(source="cc12m", input=(str(path),), output=str(tmp_path)), str(tmp_path / "n"))
    assert found.urls == 50
