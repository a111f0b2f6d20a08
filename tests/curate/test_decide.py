"""Deciding: the whole order of decisions against its twin in plain Python, and each rule by itself."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deciding import Row, Twin, outcome, row, write_parts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curate.decide import Decided, Steps, decide, placeholders, removed_by_class
from curate.decide.drop import fold
from curate.decide.parts import MERGED
from curate.listing import connect
from curate.recipe import Balance, Dedup, Near, Recipe, SourceSpec
from shards.core.errors import UsageError
from shards.sample import rank_key, uid_of

Decide = Callable[..., Decided]
FILTERS = ({"name": "caption_length", "min_words": 1, "max_words": 3}, {"name": "image_size", "min_side": 60})


def sources(*names: str, **fields: Any) -> tuple[SourceSpec, ...]:
    return tuple(SourceSpec("folder", name, name, **fields) for name in names)


@pytest.fixture
def run(tmp_path: Path) -> Decide:
    """Return a function that decides about rows of the sources a and b."""
    number = itertools.count()

    def decided(rows: list[Row], steps: Steps | None = None, sizes: tuple[int, ...] = (), **changes: Any) -> Decided:
        recipe = Recipe(**{"sources": sources("a", "b"), "samples": "all", "filters": (), **changes})
        folder = tmp_path / str(next(number))
        return decide(recipe, write_parts(folder / "measured", recipe, rows, sizes), str(folder), 1, steps or Steps())

    return decided


def by_id(decided: Decided) -> dict[str, Row]:
    ids = decided.con.sql("SELECT source_id FROM measured ORDER BY place").fetchall()
    return {name: found for (name,), found in zip(ids, outcome(decided), strict=True)}


# Tables in which everything collides: few ids, few pictures that lie near one another, captions that differ by a comma.
CAPTIONS = ["a dog", "A dog!", "Ａ ＤＯＧ", "two cats", "one two three four", "", "!!!", "???", "größe", "GRÖSSE"]
PHASHES = [0, 1, 0b11, 0b111111, 0b11111111, 2**63]


@st.composite
def tables(draw: st.DrawFn) -> list[Row]:
    rows = []
    for _ in range(draw(st.integers(1, 24))):
        image = draw(st.integers(0, 7))
        status = draw(st.sampled_from(["", "", "", "", "", "undecodable"]))
        child = draw(st.none() | st.integers(0, 1))
        made = row(
            draw(st.sampled_from("ab")), draw(st.sampled_from([f"id{k}" for k in range(40)])), draw(st.sampled_from(CAPTIONS)), child=child,
            status=status, detail="cut off" if status else "", class_index=draw(st.integers(0, 2)), input=draw(st.sampled_from(["x", "y"])),
        )  # fmt: skip
        made["caption_raw"] = made["caption"] or draw(st.sampled_from(["", "<br>"]))
        if not status:  # what the picture is follows from its number
            side = 50 + 20 * (image % 4)
            made |= {
                "original_sha256": hashlib.sha256(bytes([image])).hexdigest(), "phash": PHASHES[image % len(PHASHES)], "information": 1.0 if image in (4, 5) else 50.0,
                "colour": 0.0 if image % 3 else 30.0,
                "original_width": side, "width": side, "original_height": 100, "height": 100,
            }  # fmt: skip
        rows.append(made)
    return rows


RECIPES = st.builds(
    Recipe,
    sources=st.sampled_from([sources("a", "b", captions="each"), tuple(SourceSpec("folder", n, n, "", "each", samples=q) for n, q in (("a", 2), ("b", 1)))]),
    samples=st.sampled_from(["all", 1, 3]),
    seed=st.integers(0, 3),
    filters=st.sampled_from([(), FILTERS]),
    dedup=st.builds(
        Dedup,
        exact=st.booleans(), near=st.none() | st.builds(Near, st.integers(0, 4)), captions=st.booleans(),
        prefer=st.sampled_from(["rank", "resolution", "caption"]), scope=st.sampled_from(["source", "all"]), placeholder_min=st.integers(2, 3),
    ),
    balance=st.none() | st.builds(Balance, st.just("class"), st.just(""), st.sampled_from(["source", "all"])),
    holdout=st.sampled_from([0.0, 0.3]),
)  # fmt: skip


def refused(recipe: Recipe, r: Row) -> tuple[str, str]:
    """The two filters of FILTERS."""
    words = len(r["caption"].split())
    if recipe.filters and not 1 <= words <= 3:
        return "caption_length", f"{words} words, {len(r['caption'])} characters"
    if recipe.filters and min(r["width"], r["height"]) < 60:
        return "image_size", f"{r['width']} × {r['height']} px"
    return "", ""


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tables(), RECIPES, st.lists(st.integers(1, 9), max_size=3))
def test_decisions_are_those_of_the_twin(tmp_path: Path, rows: list[Row], recipe: Recipe, sizes: list[int]) -> None:
    rows = [
        r | {"caption_length.words": len(r["caption"].split()), "caption_length.chars": len(r["caption"])} if recipe.filters else r
        for r in rows
    ]
    twin = Twin(recipe, rows, lambda r: refused(recipe, r))
    survivors = Counter(rows[i]["source"] for i, rank in enumerate(twin.rank) if rank >= 0)
    wanted = {s.name: s.samples or 0 for s in recipe.sources}
    parts = write_parts(tmp_path / "measured", recipe, rows, sizes)
    enough = survivors.total() >= (recipe.samples if isinstance(recipe.samples, int) else 1)
    if enough and all(survivors[name] >= quota for name, quota in wanted.items()):
        found = decide(recipe, parts, str(tmp_path), 1)
        expected = twin.outcome()
        for got, want, r in zip(outcome(found), expected, rows, strict=True):
            assert got == want, (r["source_id"], got, want)
        assert found.kept == sum(e["decision"] == "kept" for e in expected)
        for name, counted in found.sources.items():
            own = [e for e, r in zip(expected, rows, strict=True) if r["source"] == name]
            assert counted["inputs"] == len(own)
            assert counted["dropped"] == Counter(e["reason"] for e in own if e["reason"])
        found.con.close()
    else:
        with pytest.raises(UsageError, match="survive"):
            decide(recipe, parts, str(tmp_path), 1)


def test_a_copy_goes_with_the_test_image_that_its_winner_shows(run: Decide) -> None:
    """Images of test sets have no survivor to name, nor have their exact copies; near ones go as such."""
    rows = [row("a", str(i), f"caption {i}", image=0) for i in range(3)] + [row("a", "other", image=1)]

    def shown(con: Any) -> pa.Table:
        found = con.execute("SELECT image::VARCHAR FROM alive JOIN measured USING (place) WHERE source_id <> 'other'").fetchall()
        assert len(found) == 1  # its copies have gone already
        return pa.table({"image_id": [found[0][0]], "winner": pa.array([None], pa.string()), "detail": ["cifar10: test/7.png"]})

    found = by_id(run(rows, Steps(test_images=shown)))
    for i in range(3):
        assert (found[str(i)]["reason"], found[str(i)]["detail"], found[str(i)]["duplicate_of"]) == (
            "near_test_image",
            "cifar10: test/7.png",
            "",
        )
    assert found["other"]["decision"] == "kept"


def test_duplicates_by_meaning_name_a_survivor_and_take_their_copies_along(run: Decide) -> None:
    rows = [row("a", str(i), f"caption {i}", image=i // 2) for i in range(6)]
    uids = {r["uid"]: r["source_id"] for r in rows}

    def meaning(con: Any) -> pa.Table:
        alive = [uid.replace("-", "") for (uid,) in con.execute("SELECT uid::VARCHAR FROM alive ORDER BY rank_key, uid").fetchall()]
        return pa.table({"image_id": alive[1:2], "scope": ["a"], "winner": alive[:1], "detail": ["cosine 0.99"]})

    decided = run(rows, Steps(semantic=meaning), dedup=Dedup(scope="source"))
    found = outcome(decided)
    (loser,) = [r for r in found if r["reason"] == "semantic_duplicate"]
    assert loser["detail"] == "cosine 0.99"
    named = Counter(r["duplicate_of"] for r in found if r["duplicate_of"])
    assert named[loser["duplicate_of"]] == 3  # its own copy, the loser, the loser's copy
    assert {r["decision"] for r, uid in zip(found, uids, strict=True) if uid in named} == {"kept"}
    assert decided.sources["a"]["dropped"] == {"exact_duplicate": 3, "semantic_duplicate": 1}


def test_an_order_of_ones_own_replaces_the_ranks_but_not_the_quotas(run: Decide) -> None:
    rows = [row(s, f"{i}", image=f"{s}{i}") for s in "ab" for i in range(6)]
    key = {r["uid"]: float(-int(r["source_id"])) for r in rows if r["source_id"] != "3"}  # one without a key stands last
    quotas = tuple(SourceSpec("folder", n, n, samples=q) for n, q in (("a", 4), ("b", 2)))
    order = Steps(order=lambda con: pa.table({"uid": list(key), "key": list(key.values())}))
    found = outcome(run(rows, order, sources=quotas, samples=6))
    for source in "ab":
        own = [(f["rank"], r["source_id"]) for f, r in zip(found, rows, strict=True) if r["source"] == source]
        assert [name for _, name in sorted(own)] == ["5", "4", "2", "1", "0", "3"]
    in_order = [r["source"] for _, r in sorted(zip([f["rank"] for f in found], rows, strict=True), key=lambda p: p[0])]
    assert Counter(in_order[:6]) == {"a": 4, "b": 2}


def test_every_prefix_is_balanced_by_class(run: Decide) -> None:
    sizes = {0: 30, 1: 12, 2: 5}
    rows = [row("a", f"{k}-{i}", image=f"{k}{i}", class_index=k) for k, n in sizes.items() for i in range(n)]
    found = outcome(run(rows, sources=sources("a"), balance=Balance("class")))
    classes = [r["class_index"] for _, r in sorted(zip([f["rank"] for f in found], rows, strict=True), key=lambda p: p[0])]
    for end in range(1, len(classes) + 1):
        counts = Counter(classes[:end])
        full = max(counts.values())
        assert all(full - 1 <= counts[k] <= full or counts[k] == sizes[k] for k in sizes)
    with pytest.raises(UsageError, match="1 survivors have no class"):
        run([*rows, row("a", "none", image="x")], sources=sources("a"), balance=Balance("class"))


def test_a_sample_never_changes_side(run: Decide) -> None:
    """Other sources, filters, sizes and seeds: who is held out stays so, and who is not is never held out."""
    a = [row("a", f"{i}", "two words" if i % 3 else "one", image=f"a{i}") | {"caption_length.words": 1 + bool(i % 3)} for i in range(200)]
    b = [row("b", f"{i}", "two words", image=f"b{i}") | {"caption_length.words": 2} for i in range(50)]
    short = ({"name": "caption_length", "min_words": 2},)
    held = []
    for rows, changes in (
        (a, {}), (a + b, {}), (b + a[::-1], {"samples": 20}), (a, {"samples": 3, "seed": 9}), (a, {"filters": short}), (a[:80], {}),
    ):  # fmt: skip
        found = by_id_of(run(rows, holdout=0.2, **changes), "a")
        held.append(
            (
                {i for i, f in found.items() if f["decision"] == "holdout"},
                {i for i, f in found.items() if f["decision"] in ("kept", "spare")},
            )
        )
    assert 20 < len(held[0][0]) < 60
    for (out, inside), (others_out, others_inside) in itertools.combinations(held, 2):
        assert not out & others_inside
        assert not others_out & inside


def by_id_of(decided: Decided, source: str) -> dict[str, Row]:
    rows = decided.con.sql("SELECT source, source_id FROM measured ORDER BY place").fetchall()
    return {name: f for (s, name), f in zip(rows, outcome(decided), strict=True) if s == source}


def test_sources_with_columns_of_their_own_and_one_without_rows(tmp_path: Path) -> None:
    """A column that only one source has is NULL for the others, in conditions and in what is planned."""
    from curate.plan import members_of, plan

    condition = ({"name": "expression", "keep": '"redcaps.score" IS NULL OR "redcaps.score" > 5'},)
    specs = (SourceSpec("folder", "a", "a"), SourceSpec("redcaps", "r", "r"), SourceSpec("wit", "w", "empty"))
    recipe = Recipe(specs, samples="all", filters=condition)
    plain = write_parts(tmp_path / "a", dataclasses.replace(recipe, sources=specs[:1]), [row("a", "0", image=0), row("a", "1", image=1)])
    scored = [row("r", f"{i}", image=f"r{i}") | {"redcaps.score": score} for i, score in enumerate((3, 9, None))]
    own = write_parts(tmp_path / "r", dataclasses.replace(recipe, sources=specs[1:2]), scored)
    decided = decide(recipe, [*plain, *own], str(tmp_path), 1)
    assert {name: (s["inputs"], s["kept"]) for name, s in decided.sources.items()} == {"a": (2, 2), "r": (3, 2), "empty": (0, 0)}
    tasks = plan(recipe, decided, str(tmp_path), str(tmp_path / "out"), members_of(recipe, decided))
    import pyarrow.parquet as pq

    planned = {r["source"] + r["source_id"]: r for r in pq.read_table(tasks[0].plan).to_pylist()}
    assert planned["r1"]["redcaps.score"] == 9
    assert planned["r2"]["redcaps.score"] is planned["a0"]["redcaps.score"] is None
    assert any(name.startswith("wit.") for name in planned["a0"])


def test_no_rows_at_all_is_too_few(run: Decide) -> None:
    with pytest.raises(UsageError, match="0 of 0 inputs survive"):
        run([])


def test_small_parts_are_merged_once_and_give_the_same(run: Decide, tmp_path: Path) -> None:
    rows = [row("a", f"{i}", f"caption {i % 7}", image=i % 500) for i in range(2 * MERGED + 40)]
    one = run(rows, sources=sources("a"))
    recipe = Recipe(sources("a"), samples="all", filters=())
    parts = write_parts(tmp_path / "many", recipe, rows, [1] * len(rows))
    for _ in range(2):
        many = decide(recipe, parts, str(tmp_path / "work"), 1)
        assert outcome(many) == outcome(one)
        stamps = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "work" / "merged").iterdir()}
        assert len(stamps) == 2
    places = many.con.execute("SELECT place, row FROM measured ORDER BY place").fetchall()
    assert places == [(i << 32, i) for i in range(len(rows))]
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "work" / "merged").iterdir()} == stamps


@pytest.mark.parametrize("scope", ["source", "all"])
def test_what_sources_share_is_counted_whatever_the_scope(run: Decide, scope: str) -> None:
    rows = [row("a", f"{i}", image=i) for i in range(6)] + [row("b", f"{i}", image=i) for i in range(4, 9)]
    rows += [row("b", "near", image=0) | {"original_sha256": "f" * 64, "phash": rows[0]["phash"] ^ 3}]
    rows += [row("b", "refused", "", image=1)]
    decided = run(rows, dedup=Dedup(scope=scope))
    assert decided.overlap == {"a + b": {"exact": 2, "near": 3}}
    assert (decided.sources["a"]["kept"] + decided.sources["b"]["kept"]) == (9 if scope == "all" else 12)


def test_removed_by_class_counts_what_is_labelled(run: Decide) -> None:
    rows = [row(s, f"{i}", "" if i < 2 else "words", image=i, class_name=f"class {i % 2}") for s in "ab" for i in (0, 1, 2, 2)]
    rows += [row("a", "unlabelled", "", image=9)]
    rows = [
        r | {"source_id": f"{k}", "uid": uid_of(r["source"], f"{k}"), "image_id": uid_of(r["source"], f"{k}")} for k, r in enumerate(rows)
    ]
    found = {(r["reason"], r["source"], r["class"]): r["count"] for r in removed_by_class(run(rows, dedup=Dedup(scope="source")).con)}
    assert found == {
        **{("caption_missing", s, f"class {k}"): 1 for s in "ab" for k in (0, 1)},
        **{("exact_duplicate", s, "class 0"): 1 for s in "ab"},
    }


def test_placeholders_are_told_by_their_hash(run: Decide) -> None:
    removed = {"phash": 0xABC, "information": 2.0}
    rows = [row("a", f"{i}", f"caption {i}", image=i, **removed) for i in range(4)]
    rows += [row("b", f"{i}", f"words {i}", image=i, phash=7, information=2.0) for i in range(3)]
    rows += [row("b", f"x{i}", f"photo {i}", image=i) for i in range(3)]
    found = placeholders(run(rows, dedup=Dedup(placeholder_min=3, scope="source")).con)
    assert found == [
        {"source": "a", "phash": "0000000000000abc", "samples": 4},
        {"source": "b", "phash": "0000000000000007", "samples": 3},
    ]


def test_equal_captions_are_told_by_their_words() -> None:
    assert fold("Ａ  ＤＯＧ, (running)!") == fold("a dog running")
    assert fold("größe") == fold("GRÖSSE")
    assert fold("हिन्दी") != fold("हनद")  # marks are letters' parts
    assert fold("!!!") != fold("???")


def test_the_rank_is_the_hash_of_seed_and_uid(run: Decide) -> None:
    rows = [row("a", f"{i}", image=i) for i in range(50)]
    found = outcome(run(rows, sources=sources("a"), seed=7))
    order = sorted(range(50), key=lambda i: (rank_key(7, rows[i]["uid"]), rows[i]["uid"]))
    assert [found[i]["rank"] for i in order] == list(range(50))


def test_a_database_spills_into_a_folder_of_its_own_and_old_ones_are_swept(tmp_path: Path) -> None:
    for name, age in (("spill-left", 2 * 86_400), ("spill-busy", 60)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    con = connect(str(tmp_path), 1)
    con.execute("SET memory_limit = '60MB'")
    con.execute("CREATE TABLE wide AS SELECT md5(i::VARCHAR) AS m FROM range(3_000_000) t(i)")
    spilt = {p.name for p in tmp_path.iterdir()}
    assert len(spilt) == 2
    assert "spill-busy" in spilt
    con.close()
    assert [p.name for p in tmp_path.iterdir()] == ["spill-busy"]
