"""The README.md of a set before `curate card` writes one: by it `datasets.load_dataset` reads the tars, and nothing else there.

Without it `datasets` takes the kind of file that a folder has most of: sidecars, ledger and examples, which are parquet.
"""

from __future__ import annotations

from shards.core import fs
from shards.manifest import Manifest

CARD = "README.md"
ALL_TARS = "*.tar"  # of a set's own folder
FIRST_CARD = f"""---
configs:
- config_name: default
  data_files:
  - {{split: train, path: '{ALL_TARS}'}}
tags: [webdataset, provender]
---

A set of image–text shards; manifest.json says what is in it. `curate card` writes its dataset card in place of this file.

The lines above let `datasets.load_dataset` read the tars, and nothing else in this folder. The tars hold a sample that was taken
down with `shards remove` until `shards compact` has rewritten them.
"""


def write_first_card(manifest: Manifest, folder: str) -> None:
    """Write the README.md of a set whose tars lie in `folder` and hold the set alone, unless there is one: it is the same for all.

    Of a set that uses tars of other folders, or parts of tars, a reader of tars would take something else for the set.
    """
    path = fs.join(folder, CARD)
    is_whole = all(entry.own and entry.use is None for entry in manifest.shards)
    if is_whole and manifest.shards and not fs.exists(path):
        fs.write_text(path, FIRST_CARD)


def remove_first_card(folder: str) -> None:
    """Remove the README.md of a set that is replaced, unless somebody has written another one."""
    path = fs.join(folder, CARD)
    if fs.exists(path) and fs.read_bytes(path) == FIRST_CARD.encode():
        fs.remove(path)
