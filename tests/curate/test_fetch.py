"""`curate fetch` from native metadata to pool, against a loopback server whose log is the oracle."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
from fetch_server import Server, photo
from PIL import Image

from curate.cli import main
from curate.fetch.pool import PoolRow, pool_table, read_pool

pytestmark = pytest.mark.slow  # a worker takes seconds to import img2dataset

CURATE = [sys.executable, "-c", "import sys; from curate.cli import main; sys.exit(main())"]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    one = Server()
    yield one
    one.close()


@pytest.fixture
def own_server() -> Iterator[Server]:
    one = Server()
    yield one
    one.close()


def metadata(path: Path, items: list[tuple[str, Any, str]]) -> Path:
    """Write native RedCaps metadata of (image_id, url or urls, caption)."""
    path.write_text(json.dumps({"info": {}, "annotations": [{"image_id": i, "url": u, "caption": c} for i, u, c in items]}))
    return path


def arguments(source: Path, pool: Path, *more: str) -> list[str]:
    flags = {"--source": "redcaps", "--input": source, "--output": pool, "--workers": 1, "--threads": 8, "--timeout": 10}
    return ["fetch", *(str(word) for pair in flags.items() for word in pair), "--allow-private-hosts", *more]


def content(row: PoolRow) -> bytes:
    with open(row.tar, "rb") as file:
        file.seek(row.offset)
        return file.read(row.size)


def pictures(pool: Path) -> dict[str, bytes]:
    return {row.source_id: content(row) for row in read_pool(str(pool)) if row.status == "success"}


GOOD = {
    "plain": ("/img/1.jpg", photo(1)),
    "png": ("/img/2.png", photo(2, "PNG")),
    "webp": ("/img/3.webp", photo(3, "WEBP")),
    "redirected": ("/hops/3", photo(0)),
    "comma, \"quoted\"": ("/img/4.jpg?a=1,2&b=\"x\"", photo(4)),
    "other bot": ("/robots/otherbot: noai", photo(0)),
}  # fmt: skip
BAD = {
    "missing": ("/status/404", "HTTP 404 Not Found"),
    "broken": ("/status/500", "HTTP 500 Internal Server Error"),
    "opted out": ("/robots/noai", "opted out: X-Robots-Tag: noai"),
    "empty": ("/body/empty", "empty body"),
    "html": ("/body/html", "no image but text: "),
    "cut": ("/length/1000/10", "cut off: 990 bytes missing after 10"),
    "endless": ("/endless", "larger than 200000 bytes"),
    "drip": ("/drip-body", "timed out after 2 s"),
    "silent": ("/silent", "timed out after 2 s"),
    "later": ("/img/9.jpg", "HTTP 404 Not Found"),
}
ELSEWHERE = {
    "ftp": ("ftp://127.0.0.1/a.jpg", "refused: ftp, only http and https are fetched"),
    "file": ("file:///etc/passwd", "refused: file, only http and https are fetched"),
}
NASTY = "a, \"quoted\"\nand\ttabbed 'caption' ünï 🙂"


@pytest.fixture(scope="module")
def everything(server: Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """One fetch of every kind of URL: the metadata, the pool, and what was printed."""
    folder = tmp_path_factory.mktemp("fetch")
    items: list[tuple[str, Any, str]] = [(i, server.url + path, NASTY + i) for i, (path, _) in (GOOD | BAD).items()]
    items += [(i, url, NASTY + i) for i, (url, _) in ELSEWHERE.items()]
    items += [("two urls", [server.url + "/status/410", server.url + "/img/5.jpg"], "t"), ("no url", "", "n")]
    source, pool = metadata(folder / "a.json", items), folder / "pool"
    server.dead = {"/img/9.jpg"}
    more = ["--timeout", "2", "--max-bytes", "200000", "--samples-per-shard", "7", "--json"]
    done = subprocess.run(CURATE + arguments(source, pool, *more), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return source, pool, done.stdout


@pytest.fixture(scope="module")
def more_flags() -> list[str]:
    return ["--timeout", "2", "--max-bytes", "200000", "--samples-per-shard", "7"]


def test_every_url_is_a_row_with_its_status(everything: tuple[Path, Path, str], server: Server) -> None:
    _, pool, printed = everything
    rows = {(r.source_id, r.url_index): r for r in read_pool(str(pool))}
    assert len(rows) == len(GOOD) + len(BAD) + len(ELSEWHERE) + 2
    for name, (_, picture) in GOOD.items():
        assert (rows[name, 0].status, content(rows[name, 0])) == ("success", picture)
    for name, (_, why) in (BAD | ELSEWHERE).items():
        assert (rows[name, 0].status, rows[name, 0].detail) == ("failed_to_download", why)
    assert [rows["two urls", i].status for i in (0, 1)] == ["failed_to_download", "success"]
    assert content(rows["two urls", 1]) == photo(5)
    assert all(r.caption == NASTY + r.source_id for r in rows.values() if r.source_id not in ("two urls",))
    assert json.loads(printed)["statuses"] == Counter(r.status for r in rows.values())
    assert json.loads(printed)["without_url"] == 1
    table = pool_table(str(pool))
    assert [tuple(r.values()) for r in table.to_pylist()] == [tuple(r) for r in read_pool(str(pool))]


def test_the_table_and_img2datasets_own_files_say_the_same(everything: tuple[Path, Path, str]) -> None:
    _, pool, _ = everything
    own = {(r["source_id"], r["url_index"]): r for p in pool.glob("0*.parquet") for r in pq.read_table(p).to_pylist()}
    table = {(r["source_id"], r["url_index"]): r for r in pq.read_table(pool / "fetch.parquet").to_pylist()}
    assert own.keys() == table.keys()
    assert {k: (r["status"], r["key"], r["sha256"]) for k, r in own.items()} == {
        k: (r["status"], r["key"], r["sha256"]) for k, r in table.items()
    }
    (pool / "fetch.parquet").rename(pool / "aside")
    plain = {(r.source_id, r.url_index): (r.status, r.tar, r.offset, r.size) for r in read_pool(str(pool))}
    (pool / "aside").rename(pool / "fetch.parquet")
    assert plain == {(r.source_id, r.url_index): (r.status, r.tar, r.offset, r.size) for r in read_pool(str(pool))}


def test_a_changed_input_or_setting_is_refused(
    everything: tuple[Path, Path, str], more_flags: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    source, pool, _ = everything
    before = snapshot(pool)
    values = json.loads(source.read_text())
    values["annotations"][0]["caption"] += "!"
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps(values))
    assert main(arguments(changed, pool, *more_flags)) == 2
    assert "the input has changed" in capsys.readouterr().err
    assert main(arguments(source, pool, *more_flags, "--seed", "1")) == 2
    assert "seed was 0 and is now 1" in capsys.readouterr().err
    assert snapshot(pool) == before


def snapshot(pool: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in pool.rglob("*") if path.is_file()}


def test_the_same_again_asks_for_nothing(everything: tuple[Path, Path, str], more_flags: list[str], server: Server) -> None:
    source, pool, _ = everything
    before = len(server.log), (pool / "fetch.parquet").read_bytes()
    assert main(arguments(source, pool, *more_flags)) == 0
    assert (len(server.log), (pool / "fetch.parquet").read_bytes()) == before


def test_retry_asks_only_for_what_failed(everything: tuple[Path, Path, str], more_flags: list[str], server: Server) -> None:
    """The picture that was dead comes, the others stay as they were; who opted out is left alone."""
    source, pool, _ = everything
    before = {(r.source_id, r.url_index): r for r in read_pool(str(pool))}
    server.dead, asked = set(), len(server.log)
    assert main(arguments(source, pool, *more_flags, "--retry-failed")) == 0
    failing = {path for name, (path, _) in BAD.items() if name != "opted out"} | {"/status/410"}
    assert Counter(server.log[asked:]) == dict.fromkeys(failing, 1)
    after = {(r.source_id, r.url_index): r for r in read_pool(str(pool))}
    changed = {k for k in before if before[k] != after[k]}
    assert before.keys() == after.keys()
    assert changed == {("later", 0)}
    assert content(after["later", 0]) == photo(9)


def test_killed_and_resumed_every_row_is_there_once(own_server: Server, tmp_path: Path) -> None:
    """SIGKILL in the middle: no process stays, finished shards are not asked again, the result is as if nothing had been."""
    own_server.delay = 0.2
    source = metadata(tmp_path / "a.json", [(f"id{i}", f"{own_server.url}/img/{i}.jpg", f"c{i}") for i in range(60)])
    pool = tmp_path / "pool"
    more = ["--samples-per-shard", "12", "--threads", "4"]
    process = subprocess.Popen(CURATE + arguments(source, pool, *more), stderr=subprocess.DEVNULL)
    wait_for(lambda: len(list(pool.glob("*_stats.json"))) >= 2)
    children = psutil.Process(process.pid).children(recursive=True)
    time.sleep(0.3)
    process.kill()
    process.wait()
    wait_for(lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children))
    done = sum(pq.read_metadata(p).num_rows for p in pool.glob("0*.parquet"))
    assert 24 <= done < 60
    assert {p.stem for p in pool.glob("*.tar")} == {p.name[:5] for p in pool.glob("*_stats.json")}
    own_server.delay, asked = 0.0, len(own_server.log)
    assert main(arguments(source, pool, *more)) == 0
    assert len(own_server.log) - asked == 60 - done
    assert pictures(pool) == {f"id{i}": photo(i) for i in range(60)}
    assert Counter(r.source_id for r in read_pool(str(pool))) == {f"id{i}": 1 for i in range(60)}


def wait_for(condition: Any, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_interrupted_it_leaves_no_process_and_exits_130(own_server: Server, tmp_path: Path) -> None:
    source = metadata(tmp_path / "a.json", [("a", own_server.url + "/silent", "x")])
    process = subprocess.Popen(CURATE + arguments(source, tmp_path / "pool", "--timeout", "60"), stderr=subprocess.DEVNULL)
    wait_for(lambda: own_server.log)
    children = psutil.Process(process.pid).children(recursive=True)
    assert main(arguments(source, tmp_path / "pool", "--timeout", "60")) == 2  # another fetch works on this pool
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    wait_for(lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children), 10)
    assert not list((tmp_path / "pool").glob("*.tar"))


def test_a_killed_worker_loses_its_shard_until_the_next_run(own_server: Server, tmp_path: Path) -> None:
    own_server.delay = 0.3
    source = metadata(tmp_path / "a.json", [(f"id{i}", f"{own_server.url}/img/{i}.jpg", f"c{i}") for i in range(20)])
    pool = tmp_path / "pool"
    more = ["--samples-per-shard", "10", "--threads", "2"]
    process = subprocess.Popen(CURATE + arguments(source, pool, *more), stderr=subprocess.PIPE, text=True)
    wait_for(lambda: own_server.log)
    for child in psutil.Process(process.pid).children():
        for worker in child.children():  # workers are forked off a server
            os.kill(worker.pid, signal.SIGKILL)
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 0, errors
    assert "killed by SIGKILL" in errors
    rows = list(read_pool(str(pool)))
    assert Counter(r.status for r in rows) == {"lost": 10, "success": 10}
    assert {r.detail for r in rows if r.status == "lost"} == {"worker killed by SIGKILL"}
    own_server.delay = 0.0
    assert main(arguments(source, pool, *more)) == 0
    assert pictures(pool) == {f"id{i}": photo(i) for i in range(20)}


def test_enough_stops_early_and_sizes_are_img2datasets(own_server: Server, tmp_path: Path) -> None:
    items: list[tuple[str, Any, str]] = [(f"id{i}", f"{own_server.url}/img/{i}.jpg", f"c{i}") for i in range(40)]
    source, pool = metadata(tmp_path / "a.json", items), tmp_path / "pool"
    more = ["--samples-per-shard", "10", "--enough", "15", "--image-size", "16"]
    assert main(arguments(source, pool, *more)) == 0
    rows = list(read_pool(str(pool)))
    assert [r.status for r in rows] == ["success"] * 20 + ["image_missing"] * 20  # rank order, whole shards
    assert len(own_server.log) == 20
    with Image.open(io.BytesIO(content(rows[0]))) as image:
        assert max(image.size) == 16
    known = {r["source_id"]: r for r in pq.read_table(pool / "fetch.parquet").to_pylist()}
    number = int(rows[0].source_id[2:])
    assert (known[rows[0].source_id]["original_width"], known[rows[0].source_id]["width"]) == (40 + number % 50, 16)
