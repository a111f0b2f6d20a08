"""Builds, end to end: what is kept, what is dropped and why, and that the counts add up."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from drawing import encoded, picture
from PIL import Image, ImageDraw

from shards.manifest import read_manifest
from shards.reader import read_samples
from shards.sample import rank_key, uid_of

Build = Callable[..., tuple[int, Path, str]]
Captioned = Callable[..., Path]


def rows(n: int, start: int = 0) -> list[tuple[str, bytes | None, str]]:
    return [(f"{i}.jpg", encoded(picture(i)), f"picture number {i}") for i in range(start, start + n)]


def ledger(out: Path) -> list[dict[str, Any]]:
    return [row for part in sorted((out / "ledger").iterdir()) for row in pq.read_table(part).to_pylist()]


def balanced(out: Path) -> dict[str, Any]:
    """Return the manifest's sources after checking them against ledger and sidecars."""
    manifest = read_manifest(str(out))
    found = ledger(out)
    assert [r["uid"] for r in found] == sorted(r["uid"] for r in found)
    for name, s in manifest.sources.items():
        own = [r for r in found if r["source"] == name]
        assert s["inputs"] == len(own) == s["kept"] + s["holdout"] + s["spare"] + sum(s["dropped"].values())
        assert s["dropped"] == Counter(r["reason"] for r in own if r["decision"] == "dropped")
        assert [s[d] for d in ("kept", "holdout", "spare")] == [sum(r["decision"] == d for r in own) for d in ("kept", "holdout", "spare")]
    kept = [s.key for s in read_samples(manifest)]
    assert len(kept) == manifest.samples == len(set(kept))
    assert set(kept) == {r["uid"] for r in found if r["decision"] == "kept"}
    for r in found:
        if r["duplicate_of"]:
            (winner,) = [w for w in found if w["uid"] == r["duplicate_of"]]
            assert winner["decision"] in ("kept", "spare", "holdout")
    return manifest.sources


def reasons(out: Path) -> dict[str, str]:
    return {r["source_id"]: r["reason"] for r in ledger(out)}


def test_samples_go_in_as_they_are_and_in_rank_order(build: Build, captioned: Captioned) -> None:
    folder = captioned(rows(30))
    code, out, _ = build("--source", "folder", "--input", folder, "--samples", "all", "--samples-per-shard", 8, "--seed", 3)
    assert code == 0
    assert balanced(out)["folder"]["kept"] == 30
    manifest = read_manifest(str(out))
    assert [e.samples for e in manifest.shards] == [8, 8, 8, 6]
    uids = {uid_of("folder", f"{i}.jpg"): i for i in range(30)}
    read = list(read_samples(manifest, columns=["rank", "sha256"]))
    assert [s.key for s in read] == sorted(uids, key=lambda u: (rank_key(3, u), u))
    assert [s.row["rank"] for s in read] == list(range(30))
    for sample in read:
        i = uids[sample.key]
        assert sample.members == {"jpg": (folder / f"{i}.jpg").read_bytes(), "txt": f"picture number {i}".encode()}


def test_a_smaller_build_is_a_prefix_byte_for_byte(build: Build, captioned: Captioned) -> None:
    folder = captioned(rows(30))
    flags = ["--source", "folder", "--input", folder, "--samples-per-shard", 8]
    _, large, _ = build(*flags, "--samples", 28, output="large")
    code, small, _ = build(*flags, "--samples", 20, output="small")
    assert code == 0
    assert balanced(small)["folder"] | {"kept": 0, "spare": 0} == balanced(large)["folder"] | {"kept": 0, "spare": 0}
    assert balanced(small)["folder"]["spare"] == 10
    for name in ("00000.tar", "00000.idx", "00000.parquet", "00001.tar"):
        assert (small / name).read_bytes() == (large / name).read_bytes()
    assert [s.key for s in read_samples(read_manifest(str(small)))] == [s.key for s in read_samples(read_manifest(str(large)))][:20]


def test_every_defect_has_its_reason(build: Build, captioned: Captioned) -> None:
    jpeg = encoded(picture(100))
    folder = captioned([
        *rows(6),
        ("copy.jpg", jpeg, "a copy"), ("copy2.jpg", jpeg, "another copy"),
        ("again.jpg", encoded(picture(101), quality=95), "one"), ("again2.jpg", encoded(picture(101).resize((160, 128)), quality=60), "two"),
        ("cut.jpg", jpeg[:-200], "cut off"), ("html.jpg", b"<html>404</html>", "not found"), ("gone.jpg", None, "gone"),
        ("blank.jpg", encoded(picture(102)), "   "), ("rude.jpg", encoded(picture(103)), "what a bitch!"),
        ("small.jpg", encoded(picture(104, 16, 16)), "small"), ("long.jpg", encoded(picture(105, 300, 40)), "long"),
        ("0.jpg", None, "the same id again"),
    ])  # fmt: skip
    flags = ["--image-size-min-side", 24, "--aspect-ratio-max", 3]
    code, out, err = build("--source", "folder", "--input", folder, "--samples", "all", *flags)
    assert code == 0, err
    balanced(out)
    found = reasons(out)
    expected = {
        "cut.jpg": "undecodable", "html.jpg": "undecodable", "gone.jpg": "image_missing", "blank.jpg": "caption_missing",
        "rude.jpg": "profanity", "small.jpg": "image_size", "long.jpg": "aspect_ratio",
    }  # fmt: skip
    assert {k: v for k, v in found.items() if k in expected} == expected
    assert sorted([found["copy.jpg"], found["copy2.jpg"]]) == ["", "exact_duplicate"]
    assert sorted([found["again.jpg"], found["again2.jpg"]]) == ["", "near_duplicate"]
    assert all(found[f"{i}.jpg"] == "" for i in range(1, 6))


def banner(quality: int) -> bytes:
    image = Image.new("RGB", (160, 80), (222, 222, 222))
    ImageDraw.Draw(image).text((20, 30), "image not available", fill=(90, 90, 90))
    return encoded(image, quality=quality)


def test_placeholders_go_with_all_their_copies(build: Build, captioned: Captioned) -> None:
    served = [(f"dead{i}.jpg", banner(90), f"a caption of its own {i}") for i in range(25)]
    once = [
        ("low.jpg", encoded(Image.new("RGB", (64, 64), "navy")), "a navy square"),
        ("low2.jpg", encoded(Image.new("RGB", (64, 64), "red")), "red"),
    ]
    code, out, _ = build("--source", "folder", "--input", captioned([*rows(5), *served, *once]), "--samples", "all")
    assert code == 0
    assert balanced(out)["folder"]["dropped"] == {"placeholder": 25}


def test_a_popular_photo_is_no_placeholder_and_keeps_all_its_captions(build: Build, captioned: Captioned) -> None:
    photo = encoded(picture(50))
    code, out, _ = build(
        "--source", "folder", "--input", captioned([*rows(3), *((f"pop{i}.jpg", photo, f"words {i}") for i in range(22))]), "--samples", "all"
    )  # fmt: skip
    assert code == 0
    assert balanced(out)["folder"]["dropped"] == {"exact_duplicate": 21}
    (row,) = [
        s.row for s in read_samples(read_manifest(str(out)), columns=["source_id", "captions"]) if str(s.row["source_id"]).startswith("pop")
    ]
    assert set(row["captions"]) == {f"words {i}" for i in range(22)}  # type: ignore[call-overload]


def test_asking_for_too_many_says_how_many_there_are_and_why(build: Build, captioned: Captioned) -> None:
    folder = captioned([*rows(6), ("x.jpg", encoded(picture(0)), "a copy"), ("y.jpg", b"", "broken")])
    code, out, err = build("--source", "folder", "--input", folder, "--samples", 10)
    assert code == 2
    assert "6 of 8 inputs survive" in err
    assert "exact_duplicate 1" in err
    assert "undecodable 1" in err
    assert not out.exists()


def test_quotas_interleave_and_another_source_changes_nothing(build: Build, captioned: Captioned, tmp_path: Path) -> None:
    first, second = captioned(rows(12), "one"), captioned(rows(12, 100), "two")
    recipe = tmp_path / "recipe.yaml"

    def run(sources: list[dict[str, Any]], output: str) -> list[str]:
        recipe.write_text(json.dumps({"sources": sources, "seed": 5}))
        code, out, err = build("--config", recipe, output=output)
        assert code == 0, err
        balanced(out)
        return [str(s.row["source"]) + "/" + s.key for s in read_samples(read_manifest(str(out)), columns=["source"])]

    a = {"name": "a", "reader": "folder", "input": str(first), "samples": 9}
    b = {"name": "b", "reader": "folder", "input": str(second), "samples": 3}
    alone, both = run([a], "alone"), run([a, b], "both")
    assert [k for k in both if k.startswith("a/")] == alone
    for end in range(1, 13):
        share = sum(k.startswith("b/") for k in both[:end])
        assert abs(share - end * 3 / 12) <= 1
    code, _, err = build("--config", recipe, "--samples", 13, output="more")
    assert code == 2
    assert "sum of the quotas, 12" in err


def test_a_quota_that_a_source_cannot_meet_names_it(build: Build, captioned: Captioned, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    sources = [
        {"name": n, "reader": "folder", "input": str(captioned(rows(4, s), n)), "samples": q} for n, s, q in (("a", 0, 3), ("b", 50, 5))
    ]
    recipe.write_text(json.dumps({"sources": sources}))
    code, _, err = build("--config", recipe)
    assert code == 2
    assert "asked for 5 samples of b; 4 of 4 inputs of b survive" in err
    assert "allowed: at most 4 of b" in err


def test_holdout_is_by_uid_and_no_sample_changes_sides(build: Build, captioned: Captioned) -> None:
    _, few, _ = build(
        "--source", "folder", "--input", captioned(rows(20), "f"), "--name", "x", "--samples", "all", "--holdout", 0.3, output="few"
    )
    _, many, _ = build(
        "--source", "folder", "--input", captioned(rows(40), "m"), "--name", "x", "--samples", "all", "--holdout", 0.3, output="many"
    )
    assert 0 < balanced(few)["x"]["holdout"] < 20
    side = {r["source_id"]: r["decision"] for r in ledger(many)}
    assert all(side[r["source_id"]] == r["decision"] for r in ledger(few))


def test_captions_each_makes_one_sample_per_caption(build: Build, tmp_path: Path) -> None:
    for i in range(4):
        (tmp_path / f"{i}.jpg").write_bytes(encoded(picture(i)))
    lines = [f"{i}.jpg#{k}\tcaption {k} of {i}" for i in range(4) for k in range(3)]
    (tmp_path / "results.token").write_text("\n".join(lines) + "\n")
    code, out, _ = build("--source", "folder", "--input", tmp_path, "--samples", "all", "--captions", "each", output="o/each")
    assert code == 0
    assert balanced(out)["folder"]["kept"] == 12
    code, out, _ = build("--source", "folder", "--input", tmp_path / "0.jpg", "--samples", "all", output="o/none")
    assert code == 2


def test_class_folders_with_a_template_get_cls_and_classes(build: Build, tmp_path: Path) -> None:
    for i, name in enumerate(("maine_coon", "beagle", "beagle")):
        (tmp_path / "set" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name / f"{i}.jpg").write_bytes(encoded(picture(i)))
    code, out, err = build("--source", "folder", "--input", tmp_path / "set", "--template", "a photo of a {}", "--samples", "all")
    assert code == 0, err
    manifest = read_manifest(str(out))
    assert manifest.classes == ("beagle", "maine_coon")
    members = {s.members["txt"].decode(): s.members["cls"] for s in read_samples(manifest)}
    assert members == {"a photo of a beagle": b"0", "a photo of a maine coon": b"1"}


def test_the_json_member_has_no_nulls(build: Build, captioned: Captioned) -> None:
    _, out, _ = build("--source", "folder", "--input", captioned(rows(3)), "--samples", "all", "--json-member")
    for sample in read_samples(read_manifest(str(out))):
        values = json.loads(sample.members["json"])
        assert None not in values.values()
        assert values["uid"] == sample.key
        assert values["class"] == -1


def test_a_byte_cap_is_kept_before_writing(build: Build, captioned: Captioned) -> None:
    cap = 12_000
    code, out, _ = build("--source", "folder", "--input", captioned(rows(20)), "--samples", "all", "--bytes-per-shard", cap)
    assert code == 0
    sizes = [(out / e.path).stat().st_size for e in read_manifest(str(out)).shards]
    assert len(sizes) > 2
    assert max(sizes) <= cap
    assert min(sizes[:-1]) > cap / 2


def test_a_size_policy_shrinks(build: Build, captioned: Captioned) -> None:
    _, out, _ = build("--source", "folder", "--input", captioned(rows(3)), "--samples", "all", "--image-max-side", 40)
    for sample in read_samples(read_manifest(str(out)), columns=["width", "height", "original_width"]):
        assert Image.open(io.BytesIO(sample.members["jpg"])).size == (sample.row["width"], sample.row["height"]) == (40, 32)
        assert sample.row["original_width"] == 80


def test_limit_reads_the_first_records_only(build: Build, captioned: Captioned) -> None:
    _, out, _ = build("--source", "folder", "--input", captioned(rows(9)), "--samples", "all", "--limit", 4)
    assert balanced(out)["folder"]["inputs"] == 4


def test_why_answers_by_uid_and_by_id(build: Build, captioned: Captioned, capsys: pytest.CaptureFixture[str]) -> None:
    from curate.cli import main

    _, out, _ = build("--source", "folder", "--input", captioned([*rows(3), ("bad.jpg", b"x", "broken")]), "--samples", 2)
    assert main(["why", str(out), "bad.jpg", uid_of("folder", "0.jpg")]) == 0
    said = capsys.readouterr().out
    assert "dropped: undecodable" in said
    assert "0.jpg" in said
    assert main(["why", str(out), "nobody.jpg"]) == 1


def test_a_filter_can_be_left_out_or_set_by_flags(build: Build, captioned: Captioned) -> None:
    folder = captioned([*rows(2), ("rude.jpg", encoded(picture(9)), "what a bitch!")])
    flags = ["--source", "folder", "--input", folder, "--samples", "all", "--no-profanity"]
    _, out, _ = build(*flags, output="all")
    assert balanced(out)["folder"]["kept"] == 3
    _, out, _ = build(*flags, "--caption-length-max-chars", 14, output="short")
    assert reasons(out) == {"0.jpg": "caption_length", "1.jpg": "caption_length", "rude.jpg": ""}
    recipe = (out / "recipe.yaml").read_text()
    assert "profanity" not in recipe
    assert "max_chars: 14" in recipe


def test_the_report_shows_every_large_duplicate_group_survivor_first(build: Build, captioned: Captioned) -> None:
    rng = range(6)
    copies = [(f"{i}-{k}.jpg", encoded(picture(i), quality=90 - k), f"copy {k} of {i}") for i in rng for k in range(4)]
    code, out, _ = build("--source", "folder", "--input", captioned(copies), "--samples", "all")
    assert code == 0
    shown = [r for r in pq.read_table(out / "examples" / "examples.parquet").to_pylist() if r["kind"] == "group"]
    firsts = {r["uid"] for r in shown if r["position"] == 0}
    assert firsts == {r["duplicate_of"] for r in ledger(out) if r["duplicate_of"]}
    assert len(firsts) == 6
    assert (out / "report.html").read_text().count('class="group"') == 6
    assert len(shown) == 24
