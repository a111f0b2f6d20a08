"""How a fetch treats a host: a few connections at a time over all workers, pauses where it asks for them, an end where it refuses.

Workers share one file. A connection is a lock on one byte of it, which the system takes back when a worker dies; pauses
stand at its beginning.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import random
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from curate.fetch.wire import NoImage

REFUSALS = 10  # in a row, after which a host is left alone
_PAUSES = 1 << 16  # places for pauses; two hosts at one place pause together, which does no harm
_MOST_SLOTS = 1 << 16
_BUSY = (errno.EACCES, errno.EAGAIN)
_POLL = 0.05  # seconds between looks for a connection that another process may have given back
_LOOK = 1.0  # the same where all are ours, so that giving one back is announced; a pause or an end is not


@dataclass
class _Host:
    """The connections to a host that this process holds, and how many threads hold or want one."""

    given_back: threading.Condition
    held: set[int] = field(default_factory=set)
    users: int = 0


class Hosts:
    """The connections that this process has to hosts, counted together with those of the processes that share its file."""

    def __init__(self, per_host: int, path: str = "") -> None:
        """Open the shared file; without a path, nothing is shared."""
        self.per_host = min(per_host, _MOST_SLOTS)
        # A lock of fcntl's is given back when its process closes any descriptor of the file: this one stays open.
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644) if path else -1
        self._lock = threading.Lock()
        self._hosts: dict[str, _Host] = {}  # those in use alone: a collection has millions
        self._pauses: dict[str, float] = {}
        self._refusals = Counter[str]()

    @contextlib.contextmanager
    def connection(self, host: str) -> Iterator[None]:
        """Wait for a connection to a host, and hold it for the block.

        Raises:
            NoImage: the host has refused too often; nothing more is asked of it.
        """
        with self._lock:
            known = self._hosts.setdefault(host, _Host(threading.Condition(self._lock)))
            known.users += 1
        slot = -1
        try:
            slot = self._wait(host, known)
            yield
        finally:
            with self._lock:
                if slot >= 0:
                    self._give_back(host, known, slot)
                known.users -= 1
                if not known.users:
                    del self._hosts[host]

    def pause(self, host: str, seconds: float) -> None:
        """Open no connection to a host, from any process, for some seconds."""
        until = time.monotonic() + seconds
        self._pauses[host] = max(until, self._pauses.get(host, 0.0))
        if self._file >= 0 and until > self._shared_pause(host):
            os.pwrite(self._file, struct.pack("d", until), _place(host) % _PAUSES * 8)

    def refused(self, host: str) -> None:
        """Count an answer that asked us to come later."""
        self._refusals[host] += 1

    def answered(self, host: str) -> None:
        """Note an answer of another kind: a host is left alone for refusals in a row."""
        if self._refusals[host] < REFUSALS:
            self._refusals.pop(host, None)

    def _wait(self, host: str, known: _Host) -> int:
        while True:
            self._refuse_closed(host)
            seconds = max(self._pauses.get(host, 0.0), self._shared_pause(host)) - time.monotonic()
            if seconds > 0:
                # All that wait would come at the same moment without the second summand.
                time.sleep(seconds + random.uniform(0, min(seconds / 4, 1.0)))
                continue
            with self._lock:
                slot = self._take(host, known.held)
                if slot >= 0:
                    return slot
                ours = len(known.held) >= self.per_host
                known.given_back.wait(_LOOK if ours else _POLL * random.uniform(1, 2))

    def _refuse_closed(self, host: str) -> None:
        if self._refusals[host] >= REFUSALS:
            raise NoImage(f"not asked: the host refused {REFUSALS} requests in a row: {host}")

    def _take(self, host: str, held: set[int]) -> int:
        """Return the number of a free connection, now taken, or -1."""
        for slot in range(self.per_host):
            if slot not in held and self._lock_slot(host, slot):
                held.add(slot)
                return slot
        return -1

    def _lock_slot(self, host: str, slot: int) -> bool:
        if self._file < 0:
            return True
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _place(host) * _MOST_SLOTS + slot)
        except OSError as error:
            return error.errno not in _BUSY  # a disk without locks: each process counts alone
        return True

    def _give_back(self, host: str, known: _Host, slot: int) -> None:
        if self._file >= 0:
            with contextlib.suppress(OSError):
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _place(host) * _MOST_SLOTS + slot)
        known.held.discard(slot)
        known.given_back.notify()

    def _shared_pause(self, host: str) -> float:
        if self._file < 0:
            return 0.0
        content = os.pread(self._file, 8, _place(host) % _PAUSES * 8)
        return float(struct.unpack("d", content)[0]) if len(content) == 8 else 0.0


def _place(host: str) -> int:
    """Return a number of 40 bits for a host: 2**40 hosts with 2**16 connections each fit into a file's offsets."""
    return int.from_bytes(hashlib.blake2b(host.encode(), digest_size=5).digest(), "big")
