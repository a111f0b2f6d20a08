"""Tombstones: samples taken down from the tars of a folder, before their bytes are gone.

`tombstones.json` lies beside the tars, {tar name: [[position in the tar, uid, source], …]}. Whoever reads a manifest
over these tars, the build's own or a subset's elsewhere, no longer sees those samples: writing that one file is the
take-down. `shards compact` rewrites the tars and ends it.
"""

from __future__ import annotations

import json

from shards.core import fs
from shards.core.errors import RunError

NAME = "tombstones.json"
Stone = tuple[int, str, str]


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
    except (ValueError, TypeError, AttributeError) as error:
        raise RunError(f"{path}: {error}", "{tar: [[position, uid, source], …]}", "shards remove writes it") from error


def write(folder: str, stones: dict[str, list[Stone]]) -> None:
    """Write the tombstones of a folder's tars; without any, there is no file."""
    path = fs.join(folder, NAME)
    lines = [f"{json.dumps(name)}: {json.dumps(sorted(rows), ensure_ascii=False)}" for name, rows in sorted(stones.items()) if rows]
    if lines:
        fs.write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")
    else:
        fs.remove(path)
