"""Read a croissant.json as its users do, in a process of its own: `mlcroissant` with its own cache of unpacked tars."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

_SCRIPT = """
import hashlib, json, sys
import mlcroissant

def plain(value):
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, list):
        return [plain(v) for v in value]
    if hasattr(value, "fp"):  # a picture that Pillow has not decoded yet
        return hashlib.sha256(value.fp.getvalue()).hexdigest()
    return value.item() if hasattr(value, "item") else value

for record in mlcroissant.Dataset(sys.argv[1]).records(sys.argv[2]):
    print(json.dumps({k.partition("/")[2]: plain(v) for k, v in record.items()}))
"""


def records(path: Path, record_set: str, cache: Path) -> list[dict[str, Any]]:
    """Return a record set's records, texts decoded, and of an image the sha256 of its bytes."""
    command = [sys.executable, "-c", _SCRIPT, str(path), record_set]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "CROISSANT_CACHE": str(cache)})
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def issues(path: Path) -> tuple[list[str], list[str]]:
    """Return the library's errors and warnings about a croissant.json, each as its last word."""
    import mlcroissant

    found = mlcroissant.Dataset(path).metadata.ctx.issues
    return sorted(str(e) for e in found.errors), sorted(str(w) for w in found.warnings)
