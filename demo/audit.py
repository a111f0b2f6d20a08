"""What was planted in the toy web against what the ledger says of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from shards.core.console import table
from shards.sample import uid_of

# A defect's fate: the ledger's reasons that count as finding it, or `in` for one that is mended or harmless and stays in.
IN = "kept or spare"
FATES: dict[str, tuple[str, ...]] = {
    "dead": ("failed_to_download",),
    "html_body": ("failed_to_download",),
    "noai": ("failed_to_download",),
    "truncated": ("undecodable",),
    "no_caption": ("caption_missing",),
    "file_name": ("caption_length",),
    "tiny": ("image_size",),
    "banner": ("aspect_ratio",),
    "profanity": ("profanity",),
    "placeholder": ("placeholder",),
    "exact_copy": ("exact_duplicate",),
    "recoded_copy": ("near_duplicate", "exact_duplicate"),
    "resized_copy": ("near_duplicate", "exact_duplicate"),
    "viral_copy": ("near_duplicate", "exact_duplicate"),
    "mojibake": (IN,),
    "html_caption": (IN,),
    "cmyk": (IN,),
    "animated": (IN,),
    "rotated": (IN,),
    "redirect": (IN,),
}
DEBRIS = ("Ã", "â€", "<b>", "&amp;", "<br")


def audit(out: Path, plan: dict[str, Any]) -> list[dict[str, Any]]:
    """Return for each defect how many were planted, how many of them met their fate, and what that is.

    Of a picture and its n copies n must go, whichever stays. A caption counts as mended if no debris is left in it.
    """
    fates = _ledger(out / "shards/curated/ledger")
    captions = _captions(out / "shards/curated")
    groups = Counter((r["source"], r["of"]) for r in plan["records"] if r["of"])
    planted, found = Counter[str](), Counter[str]()
    gone: dict[tuple[str, str], int] = defaultdict(int)
    kinds: dict[tuple[str, str], str] = {}
    for record in plan["records"]:
        defect, at = record["defect"], (record["source"], record["source_id"])
        planted[defect] += 1
        group = (record["source"], record["of"]) if record["of"] else at
        if group in groups:
            kinds[group] = defect or kinds.get(group, "")
            gone[group] += fates[uid_of(*at)] in FATES["viral_copy"]
        elif defect:
            found[defect] += fates[uid_of(*at)] in FATES[defect] and not any(d in captions.get(at, "") for d in DEBRIS)
    for group, kind in kinds.items():
        found[kind] += min(gone[group], groups[group])
    return [{"defect": d, "planted": planted[d], "found": found[d], "fate": " or ".join(f)} for d, f in FATES.items()]


def as_table(rows: Iterable[dict[str, Any]]) -> str:
    """Return the audit as an aligned table."""
    return table(("defect", "planted", "found", "as"), [(r["defect"], r["planted"], r["found"], r["fate"]) for r in rows])


def _ledger(folder: Path) -> dict[str, str]:
    """Return each input sample's reason, or IN, by uid: who opted out has no other name there."""
    import pyarrow.parquet as pq

    rows = pq.read_table(folder, columns=["uid", "decision", "reason"]).to_pylist()
    return {row["uid"]: row["reason"] if row["decision"] == "dropped" else IN for row in rows}


def _captions(folder: Path) -> dict[tuple[str, str], str]:
    """Return the caption of each sample in the shards."""
    import pyarrow.parquet as pq

    tables = [pq.read_table(p, columns=["source", "source_id", "caption"]) for p in sorted(folder.glob("*.parquet"))]
    return {(r["source"], r["source_id"]): r["caption"] for t in tables for r in t.to_pylist()}
