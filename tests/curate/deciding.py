"""Small measured tables made by hand, and the order of decisions once more in plain Python: the twin of curate/decide."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.images import GRAY
from curate.measure import Part, columns_of
from curate.recipe import Recipe
from curate.table import measured_schema
from shards.phash import LOW_INFORMATION
from shards.sample import rank_key, uid_of

Row = dict[str, Any]
BLANK: dict[str, Any] = {"string": "", "int32": 0, "int64": 0, "uint64": 0, "double": 0.0, "bool": False, "list<string>": []}


def row(source: str, name: str, caption: str = "words", *, child: int | None = None, **values: Any) -> Row:
    """Return a measured row; `child` makes it one of several captions of an image. An image is a number, its bytes and hash follow."""
    image = values.pop("image", None)
    source_id = name if child is None else f"{name}#{child}"
    made = {
        "uid": uid_of(source, source_id), "image_id": uid_of(source, name), "source": source, "source_id": source_id, "input": "a.tsv",
        "caption": caption, "caption_raw": caption, "captions": [caption] if caption else [], "class_index": -1,
        "original_width": 100, "original_height": 80, "width": 100, "height": 80,
    }  # fmt: skip
    if image is not None:
        digest = hashlib.sha256(str(image).encode())
        made |= {"original_sha256": digest.hexdigest(), "phash": int.from_bytes(digest.digest()[:8]), "information": 50.0}
    return made | values


def write_parts(folder: Path, recipe: Recipe, rows: list[Row], sizes: Iterable[int] = ()) -> list[Part]:
    """Write measured rows as parts of the given sizes, the rest in one more; `row` counts up."""
    folder.mkdir(parents=True, exist_ok=True)
    schema = measured_schema(columns_of(recipe))
    blank = {f.name: None if "." in f.name else BLANK[_kind(f.type)] for f in schema}
    full = [blank | {"row": i} | r for i, r in enumerate(rows)]
    parts, at = [], 0
    for size in [*sizes, len(rows)]:
        if piece := full[at : at + size]:
            path = folder / f"{at:06d}.parquet"
            pq.write_table(pa.Table.from_pylist(piece, schema=schema), path)
            parts.append(Part((len(parts), 0), str(path), f"{at}", len(piece)))
        at += size
    return parts


def _kind(kind: pa.DataType) -> str:
    return {"float": "double", "double": "double", "list<item: string>": "list<string>", "list<element: string>": "list<string>"}.get(
        str(kind), str(kind)
    )


def outcome(decided: Any) -> list[Row]:
    """Return what was decided about each row, in table order."""
    return decided.con.sql("""
        SELECT decision::VARCHAR AS decision, reason::VARCHAR AS reason, d.detail,
               coalesce(replace(duplicate_of::VARCHAR, '-', ''), '') AS duplicate_of, rank,
               coalesce(g.captions, m.captions) AS captions
        FROM decided d JOIN measured m USING (place) LEFT JOIN merged g USING (place) ORDER BY place
    """).to_arrow_table().to_pylist()  # fmt: skip


class Twin:
    """The contract's order of decisions, row by row. `refuse` is the filters' part: (row) -> (reason, detail)."""

    def __init__(self, recipe: Recipe, rows: list[Row], refuse: Any) -> None:
        self.recipe, self.rows, self.n = recipe, rows, range(len(rows))
        self.reason, self.detail = [""] * len(rows), [""] * len(rows)
        self.winner: list[int | None] = [None] * len(rows)
        self.captions = [list(r["captions"]) for r in rows]
        self.held = [False] * len(rows)
        self.rank = [-1] * len(rows)
        self.refuse(refuse)
        if recipe.dedup.exact:
            self.equal(lambda r: r["original_sha256"], "exact_duplicate", "same bytes")
        if recipe.dedup.near:
            popular = self.placeholders(recipe.dedup.placeholder_min)
            self.near(recipe.dedup.near.radius)
            self.merge(popular)
        if recipe.dedup.captions:
            self.equal(lambda r: said(r["caption"]), "duplicate_caption", "same caption")
        self.order()

    def alive(self) -> list[int]:
        return [i for i in self.n if not self.reason[i]]

    def scope(self, i: int) -> str:
        return "" if self.recipe.dedup.scope == "all" else self.rows[i]["source"]

    def preference(self, i: int) -> tuple[int, int, str]:
        r = self.rows[i]
        first = {"rank": 0, "resolution": -r["original_width"] * r["original_height"], "caption": -len(r["caption"])}
        return first[self.recipe.dedup.prefer], rank_key(self.recipe.seed, r["uid"]), r["uid"]

    def near_preference(self, i: int) -> tuple[int, bool, int, str]:
        """Of copies preferred alike a coloured one comes first."""
        first, *rest = self.preference(i)
        return first, self.rows[i].get("colour", 0.0) < GRAY, *rest

    def low(self, i: int) -> bool:
        return bool(self.rows[i]["information"] < LOW_INFORMATION)

    def refuse(self, refuse: Any) -> None:
        seen: dict[str, int] = {}
        for i, r in enumerate(self.rows):
            first = seen.setdefault(r["uid"], i)
            if first != i:
                self.reason[i], self.detail[i] = "duplicate_id", f"id already seen at {self.rows[first]['input']}:{first}"
            elif r.get("status"):
                self.reason[i], self.detail[i] = r["status"], r.get("detail", "")
            elif not r["caption"]:
                self.reason[i], self.detail[i] = "caption_missing", "empty after cleaning" if r["caption_raw"] else "no caption"
            else:
                self.reason[i], self.detail[i] = refuse(r)

    def drop(self, losers: dict[int, tuple[int | None, str]], reason: str) -> None:
        for i, (winner, detail) in losers.items():
            self.reason[i], self.winner[i], self.detail[i] = reason, winner, detail
        for i in self.n:
            w = self.winner[i]
            if w is not None and w in losers:
                self.winner[i] = self.winner[w]
                if self.winner[w] is None:
                    self.reason[i], self.detail[i] = reason, losers[w][1]
                else:
                    link = "from" if self.detail[i].endswith("differ") else "as"
                    self.detail[i] += f" {link} {self.rows[w]['uid']}, itself {reason}: {losers[w][1]}"

    def equal(self, key: Any, reason: str, detail: str) -> None:
        groups = defaultdict(list)
        for i in self.alive():
            if key(self.rows[i]):
                groups[self.scope(i), key(self.rows[i])].append(i)
        losers: dict[int, tuple[int | None, str]] = {}
        for members in groups.values():
            best = min(members, key=self.preference)
            losers |= {i: (best, detail) for i in members if self.rows[i]["image_id"] != self.rows[best]["image_id"]}
        self.drop(losers, reason)

    def placeholders(self, least: int) -> dict[tuple[str, int], bool]:
        groups = defaultdict(list)
        for i in self.n:
            if self.reason[i] in ("", "exact_duplicate"):
                groups[self.scope(i), self.rows[i]["phash"]].append(i)
        popular, losers = {}, {}
        for key, members in groups.items():
            ids, texts = {self.rows[i]["image_id"] for i in members}, {self.rows[i]["caption"] for i in members}
            if len(ids) >= least and len(texts) >= least:
                popular[key] = any(map(self.low, members))
                losers |= {i: (None, f"{len(ids)} ids under one picture") for i in members if popular[key]}
        self.drop(losers, "placeholder")
        return popular

    def near(self, radius: int) -> None:
        groups = defaultdict(list)
        for i in self.alive():
            if not self.low(i):
                groups[self.scope(i), self.rows[i]["image_id"]].append(i)

        def best(image: tuple[str, str]) -> tuple[Any, ...]:
            return image[0], *(min(p[k] for p in map(self.near_preference, groups[image])) for k in range(4))

        kept: list[tuple[tuple[str, str], int]] = []
        losers: dict[int, tuple[int | None, str]] = {}
        for image in sorted(groups, key=best):
            phash = self.rows[min(groups[image])]["phash"]
            found = [(k, h) for k, h in kept if k[0] == image[0] and (h ^ phash).bit_count() <= radius]
            if not found:
                kept.append((image, phash))
                continue
            (winner, other) = found[0]
            stays = min(groups[winner], key=lambda i: self.rows[i]["uid"])
            losers |= {
                i: (stays, f"{(other ^ phash).bit_count()} of 64 bits differ")
                for i in self.alive() if (self.scope(i), self.rows[i]["image_id"]) == image
            }  # fmt: skip
        self.drop(losers, "near_duplicate")

    def merge(self, popular: dict[tuple[str, int], bool]) -> None:
        gathered = defaultdict(set)
        for i in self.n:
            survivor = self.winner[i] if self.reason[i] else i
            if survivor is not None and popular.get((self.scope(i), self.rows[i]["phash"])) is False:
                gathered[survivor] |= {*self.rows[i]["captions"], *self.rows[survivor]["captions"]}
        for i, texts in gathered.items():
            self.captions[i] = sorted(texts)

    def order(self) -> None:
        recipe = self.recipe
        for i in self.alive():
            draw = int.from_bytes(hashlib.sha256(f"holdout:{self.rows[i]['image_id']}".encode()).digest()[:8], "big")
            self.held[i] = draw / 2**64 < recipe.holdout
        quotas = {s.name: s.samples for s in recipe.sources if s.samples}
        left = sorted(
            (i for i in self.alive() if not self.held[i]), key=lambda i: (rank_key(recipe.seed, self.rows[i]["uid"]), self.rows[i]["uid"])
        )
        balance = recipe.balance
        if balance:
            left = in_turn(left, lambda i: (self.rows[i]["source"] if balance.scope == "source" else "", self.rows[i]["class_index"]))
        if quotas:
            nth: dict[str, int] = defaultdict(int)
            share = {}
            for i in left:
                nth[self.rows[i]["source"]] += 1
                share[i] = (nth[self.rows[i]["source"]] - 0.5) / quotas[self.rows[i]["source"]]
            left.sort(key=lambda i: (share[i], self.rows[i]["uid"]))
        for position, i in enumerate(left):
            self.rank[i] = position

    def outcome(self) -> list[Row]:
        limit = self.recipe.samples if isinstance(self.recipe.samples, int) else len(self.rows)
        found = []
        for i in self.n:
            decision = "dropped" if self.reason[i] else "holdout" if self.held[i] else "kept" if self.rank[i] < limit else "spare"
            winner = self.winner[i]
            found.append({
                "decision": decision, "reason": self.reason[i], "detail": self.detail[i],
                "duplicate_of": "" if winner is None else self.rows[winner]["uid"], "rank": self.rank[i], "captions": self.captions[i],
            })  # fmt: skip
        return found


def in_turn(items: list[int], group: Any) -> list[int]:
    """Deal items out group by group: all firsts of their groups, then all seconds …; within a turn the order stays."""
    count: dict[Any, int] = defaultdict(int)
    turns = []
    for place, i in enumerate(items):
        count[group(i)] += 1
        turns.append((count[group(i)], place, i))
    return [i for _, _, i in sorted(turns)]


def said(caption: str) -> str:
    """Return what equal captions share, by a rule of its own: letters, digits and marks, lower-case, in NFKC."""
    text = unicodedata.normalize("NFKC", caption).casefold()
    words, word = [], ""
    for c in text + " ":
        if c.isalnum() or unicodedata.category(c) in ("Mn", "Mc", "Me"):
            word += c
        elif word:
            words.append(word)
            word = ""
    return " ".join(words) or caption
