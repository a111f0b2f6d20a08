"""Where the samples of one set went in another: by source, and by what the other's ledger says of those it has not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from curate.compare.facts import texts
from curate.compare.load import Loaded
from curate.report.histograms import share
from curate.report.ledgers import has_ledger, ledger
from shards.manifest import entries
from shards.reader import Shard
from shards.schema import REASONS

if TYPE_CHECKING:
    import pyarrow as pa

EXAMPLES = 6  # of each decision and reason


def moved(con: Any, a: Loaded, b: Loaded, sources: list[str]) -> dict[str, Any]:
    """Return what moved between two sets, by uid.

    Returns:
        `sources`: by source and side (`a`, `b`) its `samples`, those in `both` and those `only` there; `total`: the same for all
        sources; `went`: by side, what became of the latter in the other set, by its ledger if it has one, with examples.
    """
    by_source: dict[str, dict[str, Any]] = {}
    total: dict[str, Any] = {}
    went: dict[str, Any] = {}
    for side, one, other in (("a", a, b), ("b", b, a)):
        rows = con.execute(f"""
            SELECT source, count(*), count(*) FILTER (id IN (SELECT id FROM s{other.at})) FROM s{one.at} GROUP BY source""").fetchall()
        for source, n, both in rows:
            blank = {"a": _counted(0, 0), "b": _counted(0, 0)}
            by_source.setdefault(sources[source], {"name": sources[source], **blank})[side] = _counted(n, both)
        total[side] = _counted(sum(n for _, n, _ in rows), sum(both for *_, both in rows))
        went[side] = _went(con, one, other, total[side]["only"], sources)
    return {"sources": [by_source[name] for name in sorted(by_source)], "total": total, "went": went}


def _counted(n: int, both: int) -> dict[str, Any]:
    return {"samples": n, "both": both, "only": n - both}


def _went(con: Any, one: Loaded, other: Loaded, only: int, sources: list[str]) -> list[dict[str, Any]]:
    """Return the decisions of the other set's ledger on the samples that it has not, most frequent first, with examples."""
    if not only:
        return []
    _told(con, one, other)
    picked = con.execute(f"""
        SELECT decision, reason, source, nth, detail FROM told
        QUALIFY row_number() OVER (PARTITION BY decision, reason ORDER BY id, nth) <= {EXAMPLES} ORDER BY id, nth""").fetchall()
    shown = samples_at(one, [nth for *_, nth, _ in picked])
    examples: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for decision, reason, source, nth, detail in picked:
        examples.setdefault((decision, reason), []).append({"source": sources[source], "detail": detail, **shown[nth]})
    groups = con.execute("SELECT decision, reason, count(*) AS n FROM told GROUP BY ALL ORDER BY n DESC, decision, reason").fetchall()
    return [
        {"decision": d, "reason": r, "why": why(d, r), "count": n, "share": share(n, only), "examples": examples[d, r]}
        for d, r, n in groups
    ]


def _told(con: Any, one: Loaded, other: Loaded) -> None:
    """Make the table `told`: the samples of one set that the other has not, each with what the other's ledger says.

    An id may have several rows: one that was decided by itself, and repetitions of the id, which say nothing.
    """
    assert other.manifest is not None
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE alone AS
        SELECT id, source, nth FROM s{one.at} WHERE id NOT IN (SELECT id FROM s{other.at})""")
    if not has_ledger(other.manifest):
        con.execute("CREATE OR REPLACE TEMP TABLE told AS SELECT *, 'unknown' AS decision, '' AS reason, '' AS detail FROM alone")
        return
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE told AS
        WITH rows AS (SELECT md5_number(uid) AS id, decision, coalesce(reason, '') AS reason, coalesce(detail, '') AS detail
                 FROM {ledger(con, other.manifest)}),
        said AS (SELECT id, arg_min({{'decision': decision, 'reason': reason, 'detail': detail}},
                                    (reason = 'duplicate_id', decision, reason, detail)) AS s
                 FROM rows WHERE id IN (SELECT id FROM alone) GROUP BY id)
        SELECT id, source, nth, CASE WHEN s IS NULL THEN 'unseen' WHEN s.decision = 'kept' THEN 'removed' ELSE s.decision END AS decision,
               CASE WHEN s.decision = 'dropped' THEN s.reason ELSE '' END AS reason, coalesce(s.detail, '') AS detail
        FROM alone LEFT JOIN said USING (id)""")


def why(decision: str, reason: str) -> str:
    """Return a decision in words."""
    words = {
        "unknown": "that set has no ledger",
        "unseen": "not among its inputs",
        "removed": "kept, and taken down since",
        "spare": "survived, but not needed for the samples asked for",
        "holdout": "set aside as its recipe asks",
    }
    return words.get(decision) or REASONS.get(reason, "refused by this filter")


def samples_at(one: Loaded, places: list[int]) -> dict[int, dict[str, Any]]:
    """Return uid, caption and the name of the picture (`pictures.pointers`) of a set's samples, by their place in it."""
    assert one.manifest is not None
    found: dict[int, dict[str, Any]] = {}
    left = sorted(set(places))
    for number, (entry, start) in enumerate(entries(one.manifest)):
        here = [nth for nth in left if start <= nth < start + entry.used]
        if here:
            with Shard(one.manifest, entry) as shard:
                rows = _texts(shard, [nth - start for nth in here])
            for nth, row in zip(here, rows.to_pylist(), strict=True):
                found[nth] = {**row, "picture": f"{one.at}/{number}/{nth - start}"}
    return found


def _texts(shard: Shard, places: list[int]) -> pa.Table:
    import pyarrow as pa

    rows = shard.sidecar(["uid", "caption"])
    if rows.num_columns == 2:
        return rows.take(pa.array(places))
    return pa.Table.from_pylist([texts(shard, i) for i in places])
