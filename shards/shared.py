"""What a build's manifest says of duplicates between its sources: for `verify`, the console of a build, and its page."""

from __future__ import annotations

from shards.manifest import Manifest


def duplicates_between(manifest: Manifest) -> list[str]:
    """Return, of a build of several sources, where duplicates were looked for and, where copies may stand in two sources, how many.

    The counts are of the inputs: `exact` are different files by their bytes, `near` are pairs of near pHashes.
    """
    scope = manifest.notes.get("dedup_scope")
    if len(manifest.sources) < 2 or scope is None:
        return []
    if scope == "all":
        return [f"duplicates were looked for across all {len(manifest.sources)} sources"]
    lines = ["duplicates were looked for within each source alone"]
    for pair, counts in (manifest.notes.get("overlap") or {}).items():
        if not isinstance(counts, dict):  # edited by hand
            continue
        kinds = {"by their bytes": counts.get("exact", 0), "pairs by near pHashes": counts.get("near", 0)}
        if text := ", ".join(f"{count:,} {kind}" for kind, count in kinds.items() if count):
            lines.append(f"pictures that {pair} share: {text}; a copy may stand in both")
    return lines
