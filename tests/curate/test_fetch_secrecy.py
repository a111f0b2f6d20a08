"""Who opted out, what is blocked, and what was taken down: a pool, its logs and its table hold uid and reason, nothing else."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fetch_server import Server, photo
from native import ledger
from test_fetch import CURATE

from curate.cli import main
from curate.fetch.pool import read_pool
from curate.fetch.secrecy import Lists, read_lists
from shards.core.errors import UsageError

SECRETS = ("sesame", "Sesame")  # stands in every URL and caption that may leave nothing


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    yield one
    one.close()


def uid(url: str, text: str) -> str:
    return hashlib.sha256(f"laion\0{url}\n{text}".encode()).hexdigest()[:32]


def test_lists_are_of_urls_of_hosts_and_of_uids(tmp_path: Path) -> None:
    (tmp_path / "h.txt").write_text("# hosts\nBad.Example.  why\n\n.worse.example\n")
    (tmp_path / "u.txt").write_text("http://good.example/a.jpg\n")
    (tmp_path / "r.txt").write_text("ab" * 16 + "\n")
    barred = read_lists(Lists(*(str(tmp_path / name) for name in ("u.txt", "h.txt", "r.txt"))))
    for url in ("http://bad.example/x", "https://img.BAD.example:8080/x", " http://a.b.worse.example./x"):
        assert barred.why("", url) == "blocked: h.txt"
    for url in ("http://notbad.example/x", "http://example/x", "http://good.example/b.jpg", "no url", "http://[::1"):
        assert barred.why("", url) == ""
    assert barred.why("", " http://good.example/a.jpg ") == "blocked: u.txt"
    assert barred.why("ab" * 16, "http://good.example/b.jpg") == "taken down: r.txt"
    with pytest.raises(UsageError, match="no file"):
        read_lists(Lists(urls=str(tmp_path / "absent.txt")))


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Return every file under a folder by name; of parquet files, whose pages are compressed, all values as well."""
    found = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for name in [name for name in found if name.endswith(".parquet")]:
        found[name] += json.dumps(pq.read_table(name).to_pydict(), default=str).encode()
    return found


@pytest.mark.slow
def test_every_byte_of_a_pool_is_silent_of_them(server: Server, tmp_path: Path, build: Callable[..., tuple[int, Path, str]]) -> None:
    """Six that may leave nothing among three that may: by header, by URL, by host (also behind a redirect), by uid."""
    server.raw["sesame"] = b"HTTP/1.1 302 Found\r\nLocation: http://x.blocked.example/sesame\r\nContent-Length: 0\r\n\r\n"
    hidden = {
        f"{server.url}/robots/noai?sesame": "opted out: X-Robots-Tag: noai",
        f"{server.url}/robots/none?sesame": "opted out: X-Robots-Tag: none",
        f"{server.url}/img/1.jpg?sesame": "blocked: urls.txt",
        "http://a.blocked.example/sesame.jpg": "blocked: hosts.txt",
        f"{server.url}/raw/sesame": "blocked: hosts.txt",
        f"{server.url}/img/2.jpg?sesame": "taken down: removed.txt",
    }
    # The server takes the query for a part of the header's value: a second word that means nothing.
    server.do_robots_ = server.do_robots  # type: ignore[attr-defined]
    server.do_robots = lambda to, value: server.do_robots_(to, value.partition("?")[0])  # type: ignore[attr-defined,method-assign]
    rows = [(url, f"Sesame number {i}") for i, url in enumerate(hidden)]
    shown = [(f"{server.url}/img/{i}.jpg", f"photo {i}") for i in (3, 4)] + [(f"{server.url}/status/404", "gone")]
    (tmp_path / "urls.txt").write_text(f"{server.url}/img/1.jpg?sesame\n")
    (tmp_path / "hosts.txt").write_text("blocked.example\n")
    (tmp_path / "removed.txt").write_text(uid(*rows[5]) + "\n")
    part = tmp_path / "part.parquet"
    pq.write_table(pa.table({"URL": [u for u, _ in rows + shown], "TEXT": [t for _, t in rows + shown]}), part)
    words = ["fetch", "--source", "laion", "--input", str(part), "--output", str(tmp_path / "pool"), "--workers", "1"]
    words += ["--allow-private-hosts", "--blocklist-urls", str(tmp_path / "urls.txt"), "--blocklist-hosts", str(tmp_path / "hosts.txt")]
    done = subprocess.run([*CURATE, *words, "--removed", str(tmp_path / "removed.txt")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sorted(path for path in server.log if "sesame" in path) == ["/raw/sesame", "/robots/noai?sesame", "/robots/none?sesame"]

    found = {row.uid: row for row in read_pool(str(tmp_path / "pool"))}
    for (url, text), why in zip(rows, hidden.values(), strict=True):
        row = found.pop(uid(url, text))
        assert row == row._replace(source_id="", url="", caption="", status="failed_to_download", detail=why, tar="")
    assert {(row.url, row.caption) for row in found.values()} == set(shown)
    everything = bytes_of(tmp_path / "pool") | {"console": (done.stdout + done.stderr).encode()}
    assert {name for name, content in everything.items() for word in SECRETS if word.encode() in content} == set()
    assert any(b"photo 3" in content for content in everything.values())  # the search sees what is there

    asked = len(server.log)  # none of them is asked for again, not even on request
    assert main([*words, "--retry-failed"]) == 0
    assert server.log[asked:] == ["/status/404"]
    assert {name for name, content in bytes_of(tmp_path / "pool").items() for word in SECRETS if word.encode() in content} == set()

    flags = ("--samples", "all", "--no-near", "--no-profanity")
    code, out, err = build("--source", "laion", "--input", part, "--images", tmp_path / "pool", *flags)
    assert code == 0, err
    reasons = {row["uid"]: (row["reason"], row["detail"]) for row in ledger(out)}
    assert {u: reasons[u] for u in (uid(*row) for row in rows)} == {
        uid(*row): ("failed_to_download", why) for row, why in zip(rows, hidden.values(), strict=True)
    }
    assert sorted(reasons[uid(*row)] for row in shown) == [("", ""), ("", ""), ("failed_to_download", "HTTP 404 Not Found")]
    code, out, err = build("--source", "img2dataset", "--input", tmp_path / "pool", *flags, output="direct")
    assert code == 0, err
    assert {row["uid"] for row in ledger(out)} >= {uid(*row) for row in rows}
    assert photo(3) in b"".join(path.read_bytes() for path in out.glob("*.tar"))


@pytest.mark.slow
def test_what_is_listed_after_it_was_fetched_goes_out_of_the_pool(server: Server, tmp_path: Path) -> None:
    """Tars stay readable, by webdataset too, and the pictures beside the gap stay where they were; twice is as good as once."""
    rows = [
        (f"{server.url}/img/{i}.jpg?{'sesame' if i in (2, 5) else 'x'}", f"{'Sesame' if i in (2, 5) else 'photo'} {i}") for i in range(8)
    ]
    part = tmp_path / "part.parquet"
    pq.write_table(pa.table({"URL": [u for u, _ in rows], "TEXT": [t for _, t in rows]}), part)
    words = ["fetch", "--source", "laion", "--input", str(part), "--output", str(tmp_path / "pool"), "--workers", "1"]
    words += ["--allow-private-hosts", "--samples-per-shard", "6"]
    assert main([*words, "--enough", "3"]) == 0  # the second shard waits
    assert any(b"esame" in content for content in bytes_of(tmp_path / "pool").values())
    (tmp_path / "urls.txt").write_text(f"{rows[2][0]}\n")
    (tmp_path / "removed.txt").write_text(uid(*rows[5]) + "\n")
    listed = [*words, "--blocklist-urls", str(tmp_path / "urls.txt"), "--removed", str(tmp_path / "removed.txt")]
    before = {row.url: row for row in read_pool(str(tmp_path / "pool"))}
    for more in (["--enough", "3"], ["--enough", "3"], []):
        assert main([*listed, *more]) == 0
        everything = bytes_of(tmp_path / "pool")
        assert {name for name, content in everything.items() for word in SECRETS if word.encode() in content} == set()
        assert [name for name, content in everything.items() if photo(2) in content or photo(5) in content] == []
    after = {row.uid: row for row in read_pool(str(tmp_path / "pool"))}
    assert {row.detail for row in (after[uid(*rows[i])] for i in (2, 5))} == {"blocked: urls.txt", "taken down: removed.txt"}
    for i in (0, 1, 3, 4, 6, 7):
        row = after[uid(*rows[i])]
        assert row.status == "success"
        assert before[rows[i][0]].status == "image_missing" or row == before[rows[i][0]]
        assert Path(row.tar).read_bytes()[row.offset : row.offset + row.size] == photo(i)
    tars = [str(path) for path in sorted((tmp_path / "pool").glob("*.tar"))]
    script = "import sys, webdataset; print(*sorted(s['txt'].decode() for s in webdataset.WebDataset(sys.argv[1:], shardshuffle=False)), sep=';')"
    done = subprocess.run([sys.executable, "-c", script, *tars], check=True, capture_output=True, text=True)  # it leaves its files open
    assert done.stdout.strip() == ";".join(f"photo {i}" for i in (0, 1, 3, 4, 6, 7))


@pytest.mark.slow
def test_a_lone_url_of_a_record_that_opted_out_leaves_the_others(server: Server, tmp_path: Path) -> None:
    notes = [{"image_id": "a", "url": [f"{server.url}/robots/noai", f"{server.url}/img/1.jpg"], "caption": "x"}]
    (tmp_path / "a.json").write_text(json.dumps({"info": {}, "annotations": notes}))
    words = ["--source", "redcaps", "--input", str(tmp_path / "a.json"), "--output", str(tmp_path / "pool"), "--workers", "1"]
    assert main(["fetch", *words, "--allow-private-hosts"]) == 0
    assert [(row.source_id, row.status) for row in read_pool(str(tmp_path / "pool"))] == [("", "failed_to_download"), ("a", "success")]


def test_help_names_the_lists() -> None:
    done = subprocess.run([*CURATE, "fetch", "--help"], check=True, capture_output=True, text=True)
    for flag in ("--blocklist-hosts FILE", "--blocklist-urls FILE", "--removed FILE", "--contact URL|MAIL", "--per-host N", "--strict"):
        assert flag in done.stdout, flag
    assert sys.executable in CURATE
