"""The real captions and labelled texts that the text benchmarks share."""

from __future__ import annotations

import csv
import gzip
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REAL = Path(os.environ.get("PROVENDER_REALDATA") or ROOT.parent / "shared" / "realdata")


def captions() -> list[str]:
    """Return the real captions: Flickr30k, COCO, RedCaps, CC3M, alt-texts of the web."""
    with gzip.open(REAL / "captions/captions.tsv.gz", "rt", encoding="utf-8", newline="\n") as file:
        return [row["caption"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]


def labelled() -> list[tuple[str, str]]:
    """Return (label, text) of the labelled texts."""
    with (REAL / "text/labelled_offensive.csv").open(encoding="utf-8", newline="") as file:
        return [(row["label"], row["text"]) for row in csv.DictReader(file)]
