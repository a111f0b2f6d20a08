"""`curate fetch` from native metadata to pool, against a loopback server whose log is the oracle."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
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
from shards.sample import uid_of

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
    "empty": ("/body/empty", "empty body"),
    "html": ("/body/html", "no image but HTML"),
    "cut": ("/length/1000/10", "cut off: 990 bytes missing after 10"),
    "endless": ("/endless", "larger than 200000 bytes"),
    "drip": ("/drip-body", "timed out after 2 s"),
    "silent": ("/silent", "timed out after 2 s"),
    "later": ("/img/9.jpg", "HTTP 404 Not Found"),
}
SECRET = {"opted out": ("/robots/noai", "opted out: X-Robots-Tag: noai")}
ELSEWHERE = {
    "ftp": ("ftp://127.0.0.1/a.jpg", "refused: ftp, only http and https are fetched"),
    "file": ("file:///etc/passwd", "refused: file, only http and https are fetched"),
}
NASTY = "a, \"quoted\"\nand\ttabbed 'caption' ünï 🙂"


@pytest.fixture(scope="module")
def everything(server: Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """One fetch of every kind of URL: the metadata, the pool, and what was printed."""
    folder = tmp_path_factory.mktemp("fetch")
    items: list[tuple[str, Any, str]] = [(i, server.url + path, NASTY + i) for i, (path, _) in (GOOD | BAD | SECRET).items()]
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
    rows = {(r.source_id or r.uid, r.url_index): r for r in read_pool(str(pool))}
    assert len(rows) == len(GOOD) + len(BAD) + len(ELSEWHERE) + 3
    secret = rows.pop((uid_of("redcaps", "opted out"), 0))
    assert (secret.status, secret.detail) == ("failed_to_download", "opted out: X-Robots-Tag: noai")
    assert (secret.source_id, secret.url, secret.caption) == ("", "", "")
    for name, (_, picture) in GOOD.items():
        assert (rows[name, 0].status, content(rows[name, 0])) == ("success", picture)
    for name, (_, why) in (BAD | ELSEWHERE).items():
        assert (rows[name, 0].status, rows[name, 0].detail) == ("failed_to_download", why)
    assert [rows["two urls", i].status for i in (0, 1)] == ["failed_to_download", "success"]
    assert content(rows["two urls", 1]) == photo(5)
    assert all(r.caption == NASTY + r.source_id for r in rows.values() if r.source_id not in ("two urls",))
    assert json.loads(printed)["statuses"] == Counter(r.status for r in (*rows.values(), secret))
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
    failing = {path for path, _ in BAD.values()} | {"/status/410"}
    assert Counter(server.log[asked:]) == dict.fromkeys(failing, 1)
    after = {(r.source_id, r.url_index): r for r in read_pool(str(pool))}
    changed = {k for k in before if before[k] != after[k]}
    assert before.keys() == after.keys()
    assert changed == {("later", 0)}
    assert content(after["later", 0]) == photo(9)


def test_killed_and_resumed_every_row_is_there_once(own_server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """SIGKILL in the middle: no process stays, what was fetched is not asked for again, the result is as if nothing had been."""
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
    kept = len(unfinished(pool))
    own_server.delay, asked = 0.0, len(own_server.log)
    assert main(arguments(source, pool, *more)) == 0
    assert len(own_server.log) - asked == 60 - done - kept
    assert f"{kept} of the images were there from a run that was interrupted" in capsys.readouterr().err if kept else True
    assert pictures(pool) == {f"id{i}": photo(i) for i in range(60)}
    assert Counter(r.source_id for r in read_pool(str(pool))) == {f"id{i}": 1 for i in range(60)}


def unfinished(pool: Path) -> set[str]:
    """Return the pictures that stand whole, with their JSON, in the tars of a run that was cut short; the last may be cut off."""
    found: set[str] = set()
    for path in (pool / "_fetch").glob("*/**/*.tar"):
        with contextlib.suppress(tarfile.ReadError, EOFError), tarfile.open(path) as file:
            for member in file:
                if member.name.endswith(".json") and member.offset_data + member.size <= path.stat().st_size:
                    found.add(member.name)
    return found


def wait_for(condition: Any, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


@pytest.mark.parametrize(("number", "code", "size"), [(signal.SIGINT, 130, []), (signal.SIGTERM, 143, ["--image-size", "24"])])
def test_interrupted_it_keeps_what_it_has_fetched_and_goes_on(
    number: signal.Signals, code: int, size: list[str], own_server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the middle of its only shard. No process stays, no second fetch gets in meanwhile, and the same command asks for the rest."""
    own_server.delay = 0.2
    source = metadata(tmp_path / "a.json", [(f"id{i}", f"{own_server.url}/img/{i}.jpg", f"c{i}") for i in range(60)])
    words = arguments(source, tmp_path / "pool", "--threads", "4", *size)
    process = subprocess.Popen(CURATE + words, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: len(own_server.log) > 20)
    children = psutil.Process(process.pid).children(recursive=True)
    assert main(words) == 2
    assert "another process is writing here" in capsys.readouterr().err
    sent = time.monotonic()
    process.send_signal(number)
    errors = process.communicate(timeout=20)[1]
    assert process.returncode == code
    assert "interrupted; the same command goes on" in errors
    assert time.monotonic() - sent < 6
    wait_for(lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children), 10)
    assert not list((tmp_path / "pool").glob("*.tar"))
    kept = len(unfinished(tmp_path / "pool"))
    assert kept >= 10
    own_server.delay, asked = 0.0, len(own_server.log)
    assert main(words) == 0
    assert len(own_server.log) - asked == 60 - kept
    assert f"{kept} of the images were there from a run that was interrupted" in capsys.readouterr().err
    whole = tmp_path / "whole"
    assert main(arguments(source, whole, *size)) == 0
    assert pictures(tmp_path / "pool") == pictures(whole)
    columns = ["source_id", "url", "status", "width", "original_width", "sha256", "uid"]
    assert table(tmp_path / "pool", columns) == table(whole, columns)
    assert sorted(p.name for p in (tmp_path / "pool").rglob("*.tar")) == ["00000.tar"]


def table(pool: Path, columns: list[str]) -> list[dict[str, Any]]:
    return list(pq.read_table(pool / "fetch.parquet", columns=columns).to_pylist())


def test_a_killed_worker_is_replaced_and_what_it_had_fetched_is_kept(own_server: Server, tmp_path: Path) -> None:
    own_server.delay = 0.3
    source = metadata(tmp_path / "a.json", [(f"id{i}", f"{own_server.url}/img/{i}.jpg", f"c{i}") for i in range(30)])
    pool = tmp_path / "pool"
    process = subprocess.Popen(CURATE + arguments(source, pool, "--threads", "2"), stderr=subprocess.PIPE, text=True)
    wait_for(lambda: len(own_server.log) > 12)
    for child in psutil.Process(process.pid).children():
        for worker in child.children():  # workers are forked off a server
            os.kill(worker.pid, signal.SIGKILL)
    own_server.delay = 0.0
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 0, errors
    assert pictures(pool) == {f"id{i}": photo(i) for i in range(30)}
    assert len(own_server.log) <= 30 + 4  # those under way when it died, and one in the writer's buffer


def test_a_worker_killed_twice_loses_its_shard_until_the_next_run(own_server: Server, tmp_path: Path) -> None:
    own_server.delay = 0.3
    source = metadata(tmp_path / "a.json", [(f"id{i}", f"{own_server.url}/img/{i}.jpg", f"c{i}") for i in range(20)])
    pool = tmp_path / "pool"
    more = ["--samples-per-shard", "10", "--threads", "2"]
    process = subprocess.Popen(CURATE + arguments(source, pool, *more), stderr=subprocess.PIPE, text=True)
    for _ in range(2):
        asked = len(own_server.log)
        wait_for(lambda asked=asked: len(own_server.log) > asked)
        for child in psutil.Process(process.pid).children():
            for worker in child.children():
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


def test_a_tar_of_an_interrupted_run_that_holds_something_else_is_not_believed(own_server: Server, tmp_path: Path) -> None:
    """A machine that went down leaves zeros where a file's last blocks were."""
    source = metadata(tmp_path / "a.json", [(f"id{i}", f"{own_server.url}/img/{i}.jpg", f"c{i}") for i in range(6)])
    assert main(arguments(source, tmp_path / "pool")) == 0
    row = next(read_pool(str(tmp_path / "pool")))
    content = bytearray(Path(row.tar).read_bytes())
    content[row.offset + 20 : row.offset + row.size] = bytes(row.size - 20)
    again = tmp_path / "again"
    (again / "_fetch" / "unfinished").mkdir(parents=True)
    (again / "_fetch" / "unfinished" / "00000-0.tar").write_bytes(content)
    asked = len(own_server.log)
    assert main(arguments(source, again)) == 0
    assert len(own_server.log) - asked == 1
    assert pictures(again) == {f"id{i}": photo(i) for i in range(6)}


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


def test_nothing_fetched_at_all_is_an_error_with_its_reasons(
    own_server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    urls = [*[f"{own_server.url}/status/404/{i}" for i in range(3)], f"{own_server.url}/body/html", f"{own_server.url}/robots/noai"]
    own_server.dead = {f"/status/404/{i}" for i in range(3)}
    source = metadata(tmp_path / "a.json", [(f"id{i}", url, "x") for i, url in enumerate(urls)])
    assert main(arguments(source, tmp_path / "pool")) == 1
    said = capsys.readouterr().err
    assert "none of 5 URLs gave an image: 3 × HTTP 404, 1 × " in said
    assert "1 × no image but HTML" in said
    assert "1 × opted out: X-Robots-Tag" in said
    assert len(list(read_pool(str(tmp_path / "pool")))) == 5
    assert main(arguments(source, tmp_path / "pool")) == 1  # there is nothing more to ask for, and still no image


def test_each_kind_of_failure_is_one_line_and_strict_exits_1(
    own_server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own_server.dead = {"/img/1.jpg", "/img/2.jpg"}
    items: list[tuple[str, Any, str]] = [(f"id{i}", f"{own_server.url}/img/{i}.jpg", "x") for i in range(4)]
    items += [("empty", own_server.url + "/body/empty", "x"), ("none", "", "x")]
    source, pool = metadata(tmp_path / "a.json", items), tmp_path / "pool"
    assert main(arguments(source, pool)) == 0
    lines = capsys.readouterr().err.splitlines()
    where = f"see `detail` in {pool}/fetch.parquet"
    expected = [
        f"2 URLs gave no image: HTTP 404: {where}",
        f"1 URL gave no image: empty body: {where}",
        f"1 record has no URL: {source}",
    ]
    assert [line for line in lines if line in expected] == expected
    assert main(arguments(source, pool, "--strict")) == 1
    own_server.dead = set()
    good = metadata(tmp_path / "good.json", items[:4])
    assert main(arguments(good, tmp_path / "good", "--strict")) == 0


def test_nothing_stays_in_the_temporary_folder(own_server: Server, tmp_path: Path) -> None:
    """wandb, which img2dataset imports, leaves two folders there; a fetch that is killed can take none away."""
    own_server.delay = 0.1
    source = metadata(tmp_path / "a.json", [(f"id{i}", f"{own_server.url}/img/{i}.jpg", "x") for i in range(20)])
    (tmp_path / "tmp").mkdir()
    words = CURATE + arguments(source, tmp_path / "pool", "--threads", "2")
    for ended in (signal.SIGTERM, None):
        process = subprocess.Popen(words, env=os.environ | {"TMPDIR": str(tmp_path / "tmp")}, stderr=subprocess.DEVNULL)
        asked = len(own_server.log)
        # The second fetch has nothing to ask for where the first one's threads were quick.
        wait_for(lambda asked=asked, process=process: len(own_server.log) > asked or process.poll() is not None)
        if ended:
            process.send_signal(ended)
        process.wait(60)
        assert list((tmp_path / "tmp").iterdir()) == []


def test_one_host_gets_few_connections_from_all_workers_together(own_server: Server, tmp_path: Path) -> None:
    own_server.delay = 0.03
    source = metadata(tmp_path / "a.json", [(f"id{i}", f"{own_server.url}/img/{i}.jpg", "x") for i in range(60)])
    more = ["--workers", "2", "--threads", "32", "--samples-per-shard", "20", "--per-host", "3", "--contact", "me@example.org"]
    assert main(arguments(source, tmp_path / "pool", *more)) == 0
    assert own_server.most_open == 3
    assert {headers["User-Agent"] for headers in own_server.headers} == {"Mozilla/5.0 (compatible; provender; +me@example.org)"}


def test_a_refused_loopback_names_both_flags_that_fetch_it_after_all(
    own_server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "u.tsv").write_text("".join(f"words {i}\t{own_server.url}/img/{i}.jpg\n" for i in range(2)))
    command = ["fetch", "--source", "cc3m", "--input", str(tmp_path / "u.tsv"), "--output", str(tmp_path / "pool"), "--workers", "1"]
    assert main(command) == 1
    said = capsys.readouterr().err
    assert "none of 2 URLs gave an image: 2 × no public address" in said
    assert "--allow-private-hosts --retry-failed" in said
    assert own_server.log == []
    assert main([*command, "--allow-private-hosts", "--retry-failed"]) == 0
    assert sorted(own_server.log) == ["/img/0.jpg", "/img/1.jpg"]
