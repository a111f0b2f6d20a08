"""The table of results: an append-only JSONL file, one row per number, that several processes may write at once.

A row names the model by the digest of its weights, the training data by the digests of its manifests, the test set by
the digest of its images and labels, and the settings by theirs. It holds no path and no time.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from shards.core import fs
from shards.core.console import warn
from shards.core.errors import RunError, UsageError

VERSION = 1


@dataclass(frozen=True)
class Row:
    """One result. `low` and `high` bound the value at 95%; `interval` says what they cover; `main` marks the data set's main metric."""

    name: str
    data: str
    protocol: str
    metric: str
    main: bool
    value: float
    low: float | None
    high: float | None
    interval: str
    k: int | str | None
    n: int
    n_undecodable: int
    n_classes: int
    runs: tuple[float, ...]
    checkpoint: str
    step: int
    samples_seen: int
    manifests: tuple[dict[str, Any], ...]
    train_config: str
    dataset: str
    classes: str
    config: str
    settings: dict[str, Any] = field(default_factory=dict)
    predictions: tuple[str, ...] = ()  # digests of what `eval.predictions` keeps, one for each of `runs`, or one
    labels: dict[str, Any] = field(default_factory=dict)  # what a study or `--label` says of the model: source, size, draw, …
    undecodable: tuple[tuple[str, str], ...] = ()
    version: int = VERSION


def check(path: str) -> None:
    """Refuse a path that `append` could not write to, before there is anything to append. Nothing is written.

    Raises:
        UsageError: it is not on a local disk, is a folder, or lies where nothing can be written.
    """
    if fs.is_remote(path):
        raise UsageError(f"--results {path}", "a file on a local disk, since it is appended to")
    if os.path.isdir(path):
        raise UsageError(f"--results {path}: a folder", "a file", f"--results {path.rstrip('/')}/results.jsonl")
    if os.path.exists(path):
        if not os.path.isfile(path) or not os.access(path, os.R_OK | os.W_OK):
            raise UsageError(f"--results {path}: no file that can be written", "a file that can be written")
        return
    folder = os.path.dirname(path) or "."
    while folder and not os.path.lexists(folder):
        folder = os.path.dirname(folder) or "."
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"--results {path}: {folder} is no folder that can be written to", "a file that can be written")


def append(path: str, rows: Iterable[Row]) -> None:
    """Append rows in one write, so that the rows of one evaluation stand together. A torn last line is closed first.

    Raises:
        UsageError: the file is not on a local disk, or cannot be opened.
        RunError: the rows could not be written whole.
    """
    if fs.is_remote(path):
        raise UsageError(f"--results {path}", "a file on a local disk, since it is appended to")
    content = "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows).encode()
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    except OSError as error:
        raise UsageError(f"--results {path}: {error.strerror}", "a file that can be written") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            content = b"\n" + content
        if os.write(descriptor, content) != len(content):
            raise RunError(f"{path}: the disk is full; the last line is torn", advice="evaluate again when there is room")
    except OSError as error:
        raise RunError(f"{path}: {error.strerror}") from error
    finally:
        os.close(descriptor)


def read(path: str) -> list[dict[str, Any]]:
    """Return all rows in the order of writing. Lines that are no rows (torn by a crash) are passed over with a warning.

    Raises:
        UsageError: no such file.
    """
    if not fs.exists(path):
        raise UsageError(f"no results at {path!r}", "a file that `evaluate zeroshot` or `evaluate probe` wrote", "--results FILE")
    rows = []
    for number, line in enumerate(fs.read_bytes(path).split(b"\n"), start=1):
        if not line.strip():
            continue
        row = _parse(line)
        if row is None:
            warn(f"{path}: line {number} is no result (torn?) and is passed over")
        else:
            rows.append(row)
    return rows


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and {"data", "protocol", "metric", "value"} <= set(row) else None
