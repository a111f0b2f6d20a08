"""Tombstones: samples taken down from the tars of a folder, before and after their bytes are gone.

`tombstones.json` lies beside the tars, {tar name: [[position in the tar, uid, source], …]}. Whoever reads a manifest
over these tars, the build's own or a subset's elsewhere, no longer sees those samples: writing that one file is the
take-down. `shards compact` rewrites the tars; `compacted.json` then says what each of them was before, so that subsets made
over the old ones still find their samples.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from shards.core import fs
from shards.core.config import dump, load, option
from shards.core.errors import RunError, UsageError

NAME, COMPACTED = "tombstones.json", "compacted.json"
Stone = tuple[int, str, str]


@dataclass(frozen=True)
class Rewritten:
    """A tar that was rewritten: its sha256 then, the rising positions that went with their sources, and what it is now.

    `samples` is 0 where no sample was left; then there is no tar any more.
    """

    tar: str = option()
    was: str = option()
    gone: tuple[int, ...] = option()
    sources: tuple[str, ...] = option()
    samples: int = option()
    bytes: int = option(0)
    sha256: str = option("")
    index_sha256: str = option("")
    sidecar_sha256: str = option("")


def read(folder: str) -> dict[str, list[Stone]]:
    """Return the tombstones of a folder's tars: {tar name: [(position, uid, source)]}.

    Raises:
        RunError: the file is not ours; nothing may be read then, since it could hide a take-down.
    """
    path = fs.join(folder, NAME)
    if not fs.exists(path):
        return {}
    try:
        return {
            name: [(int(at), str(uid), str(source)) for at, uid, source in rows] for name, rows in json.loads(fs.read_text(path)).items()
        }
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise RunError(f"{path}: {error}", "{tar: [[position, uid, source], …]}", "shards remove writes it") from error


def count(folders: Iterable[str]) -> int:
    """Return how many samples of these folders' tars were taken down and still have their bytes there."""
    return sum(len(rows) for folder in folders for rows in read(folder).values())


def write(folder: str, stones: dict[str, list[Stone]]) -> None:
    """Write the tombstones of a folder's tars; without any, there is no file."""
    path = fs.join(folder, NAME)
    lines = [f"{json.dumps(name)}: {json.dumps(sorted(rows), ensure_ascii=False)}" for name, rows in sorted(stones.items()) if rows]
    if lines:
        fs.write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")
    else:
        fs.remove(path)


def read_rewritten(folder: str) -> list[Rewritten]:
    """Return what became of the tars of a folder, in the order in which it happened.

    Raises:
        RunError: the file is not ours; samples that were taken down would come back.
    """
    path = fs.join(folder, COMPACTED)
    if not fs.exists(path):
        return []
    try:
        rows = json.loads(fs.read_text(path))
        return [load(Rewritten, row, COMPACTED) for row in rows]
    except (ValueError, TypeError, RecursionError, UsageError) as error:
        raise RunError(f"{path}: {error}", "[{tar, was, gone, …}, …]", "shards compact writes it") from error


def write_rewritten(folder: str, rows: list[Rewritten]) -> None:
    """Write what became of the tars of a folder."""
    lines = ",\n".join(json.dumps(dump(row), ensure_ascii=False) for row in rows)
    fs.write_text(fs.join(folder, COMPACTED), f"[\n{lines}\n]\n")
