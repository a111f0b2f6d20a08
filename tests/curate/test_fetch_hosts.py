"""How hosts are treated: connections at a time over threads and processes, pauses they ask for, second tries, and an end of asking."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fetch_server import Server, photo

from curate.fetch.hosts import REFUSALS, Hosts
from curate.fetch.web import Limits, download

LOCAL = Limits(timeout=10, allow_private_hosts=True)


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    yield one
    one.close()


def gaps(server: Server) -> list[float]:
    return [later - earlier for earlier, later in zip(server.times, server.times[1:], strict=False)]


def test_a_host_gets_few_connections_at_a_time(server: Server) -> None:
    server.delay = 0.02
    hosts = Hosts(3)
    with ThreadPoolExecutor(24) as threads:
        urls = [f"{server.url}/img/{i}.jpg" for i in range(24)]
        found = list(threads.map(lambda url: download(url, LOCAL, hosts), urls))
    assert found == [(photo(i), "") for i in range(24)]
    assert server.most_open == 3
    assert hosts._hosts == {}  # nothing is remembered of hosts that nobody asks


def test_redirects_count_as_connections_and_never_wait_for_themselves(server: Server) -> None:
    hosts = Hosts(1)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: download(server.url + "/hops/4", LOCAL, hosts), range(8)))
    assert found == [(photo(0), "")] * 8
    assert server.most_open == 1


def test_waiting_for_ones_turn_is_no_time_of_the_server(server: Server) -> None:
    server.delay = 0.2
    hasty = Limits(timeout=0.5, allow_private_hosts=True)
    hosts = Hosts(1)
    with ThreadPoolExecutor(5) as threads:
        assert list(threads.map(lambda _: download(server.url + "/img/1.jpg", hasty, hosts), range(5))) == [(photo(1), "")] * 5


IN_ANOTHER_PROCESS = """
import sys
from concurrent.futures import ThreadPoolExecutor
from curate.fetch.hosts import Hosts
from curate.fetch.web import Limits, download
hosts, limits = Hosts(2, sys.argv[1]), Limits(timeout=10, allow_private_hosts=True)
with ThreadPoolExecutor(8) as threads:
    print(sum(bool(found) for found, _ in threads.map(lambda url: download(url, limits, hosts), [sys.argv[2]] * 8)))
"""


def test_processes_share_the_connections_to_a_host(server: Server, tmp_path: Path) -> None:
    server.delay = 0.05
    command = [sys.executable, "-c", IN_ANOTHER_PROCESS, str(tmp_path / "hosts"), server.url + "/img/1.jpg"]
    crew = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [worker.communicate(timeout=60)[0].strip() for worker in crew] == ["8"] * 3
    assert server.most_open == 2


def test_a_process_that_dies_gives_its_connections_back(tmp_path: Path) -> None:
    script = "import sys, time\nfrom curate.fetch.hosts import Hosts\nwith Hosts(1, sys.argv[1]).connection('h'): print('held', flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "hosts")], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    holder.stdout.readline()
    hosts = Hosts(1, str(tmp_path / "hosts"))
    with ThreadPoolExecutor(1) as threads:
        taken = threads.submit(lambda: hosts.connection("h").__enter__())
        time.sleep(0.2)
        assert not taken.done()
        with hosts.connection("another"):
            pass
        holder.kill()
        holder.communicate()
        taken.result(5)


@pytest.mark.parametrize(("code", "after"), [(429, "1"), (503, "1"), (429, "date+2"), (502, "1")])
def test_retry_after_is_waited_for_and_the_picture_comes(code: int, after: str, server: Server) -> None:
    assert download(f"{server.url}/busy/{code}/1/{after}/7", LOCAL) == (photo(7), "")
    assert len(server.log) == 2
    assert gaps(server)[0] >= 1.0


def test_a_pause_holds_off_all_requests_to_the_host_from_all_processes(server: Server, tmp_path: Path) -> None:
    ours, theirs = (Hosts(4, str(tmp_path / "hosts")) for _ in range(2))
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(download, f"{server.url}/busy/429/1/1/7", LOCAL, ours)
        while not server.log:
            time.sleep(0.01)
        time.sleep(0.1)
        assert download(server.url + "/img/1.jpg", LOCAL, theirs) == (photo(1), "")
        assert first.result() == (photo(7), "")
    assert min(gaps(server)[0], server.times[-1] - server.times[0]) >= 1.0


def test_a_longer_wait_than_allowed_is_not_waited_for(server: Server) -> None:
    started = time.monotonic()
    limits = Limits(timeout=10, allow_private_hosts=True, longest_wait=0.2)
    why = "HTTP 429 Too Many Requests, to be asked again after 86400 s"
    assert download(f"{server.url}/busy/429/9/86400/1", limits) == (None, why)
    assert len(server.log) == 1
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("after", ["none", "soon", "-5", "1e3", ""])
def test_without_a_readable_retry_after_a_bounded_while_is_waited(after: str, server: Server) -> None:
    limits = Limits(timeout=10, allow_private_hosts=True, longest_wait=0.1)
    server.raw["busy"] = f"HTTP/1.1 503 Service Unavailable\r\nRetry-After: {after}\r\nContent-Length: 0\r\n\r\n".encode()
    assert download(server.url + "/raw/busy", limits) == (None, "HTTP 503 Service Unavailable")
    assert len(server.log) == 3
    assert min(gaps(server)) >= 0.1


def test_resets_are_tried_again_after_a_random_while(server: Server) -> None:
    assert download(server.url + "/reset/2/7", LOCAL) == (photo(7), "")
    assert len(server.log) == 3
    assert 0.5 <= gaps(server)[0] <= 1.9
    assert 1.0 <= gaps(server)[1] <= 3.4
    content, why = download(server.url + "/reset/9/7", Limits(timeout=10, allow_private_hosts=True, retries=0))
    assert content is None
    assert "reset" in why
    assert len(server.log) == 4


def test_other_failures_are_asked_for_once(server: Server) -> None:
    for path in ("/status/404", "/status/500", "/body/empty", "/length/1000/10", "/coded/gzip"):
        assert download(server.url + path, LOCAL)[0] is None
    assert len(server.log) == 5


def test_a_host_that_only_refuses_is_left_alone(server: Server) -> None:
    hosts, limits = Hosts(4), Limits(timeout=10, allow_private_hosts=True, retries=0, longest_wait=0.01)
    for i in range(REFUSALS - 1):
        download(f"{server.url}/busy/429/9/0/{i}", limits, hosts)
    assert download(server.url + "/img/1.jpg", limits, hosts) == (photo(1), "")  # not in a row: it counts anew
    for i in range(REFUSALS):
        download(f"{server.url}/busy/503/9/0/{i}", limits, hosts)
    asked = len(server.log)
    why = f"not asked: the host refused {REFUSALS} requests in a row: 127.0.0.1"
    assert download(server.url + "/img/1.jpg", limits, hosts) == (None, why)
    assert len(server.log) == asked


def test_the_user_agent_names_whom_to_write_to(server: Server) -> None:
    for contact in ("", "https://example.org/crawl", "me@example.org"):
        download(server.url + "/img/1.jpg", Limits(timeout=10, allow_private_hosts=True, contact=contact))
    assert [headers["User-Agent"] for headers in server.headers] == [
        "Mozilla/5.0 (compatible; provender)",
        "Mozilla/5.0 (compatible; provender; +https://example.org/crawl)",
        "Mozilla/5.0 (compatible; provender; +me@example.org)",
    ]
