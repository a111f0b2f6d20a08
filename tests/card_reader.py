"""Write a set's card and Croissant metadata, and read them as their users do: through the hub's library, CommonMark, `datasets` and
`mlcroissant`, this in a process of its own with its own cache of unpacked tars.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from curate.cli import main

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


def card(folder: Path | str, *flags: str) -> tuple[str, dict[str, Any]]:
    """Run `curate card`; returns the card's text and the Croissant metadata."""
    assert main(["card", str(folder), *flags]) == 0
    return (Path(folder) / "README.md").read_text(), json.loads((Path(folder) / "croissant.json").read_text())


def front(folder: Path | str) -> dict[str, Any]:
    """Return the card's metadata as the hub's library reads it."""
    from huggingface_hub import DatasetCard

    return DatasetCard.load(Path(folder) / "README.md").data.to_dict()


def tables(text: str) -> list[list[list[str]]]:
    """Return the tables of a card as a CommonMark library finds them: rows of cells, as text."""
    from markdown_it import MarkdownIt

    found: list[list[list[str]]] = []
    inside = False
    for token in MarkdownIt("commonmark").enable("table").parse(text.split("\n---\n", 1)[1]):
        inside = token.type == "table_open" or (inside and token.type != "table_close")
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type == "inline" and inside:
            found[-1][-1].append("".join(c.content for c in token.children or []))
    return found


def table(text: str, *header: str) -> list[list[str]]:
    """Return the rows of the one table whose header begins so."""
    (rows,) = [t for t in tables(text) if tuple(t[0][: len(header)]) == header]
    return rows[1:]


def sidecar(folder: Path | str) -> list[dict[str, Any]]:
    """Return a set's sidecar rows."""
    return [row for path in sorted(Path(folder).glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def load(folder: Path | str, cache: Path) -> Any:
    """Load a folder as a user of Hugging Face `datasets` does."""
    import datasets

    return datasets.load_dataset(str(folder), split="train", cache_dir=str(cache))


def rendered(text: str) -> str:
    """Return a card as HTML, as GitHub or a hub makes it."""
    from markdown_it import MarkdownIt

    return str(MarkdownIt("commonmark").enable("table").render(text.split("\n---\n", 1)[1]))
