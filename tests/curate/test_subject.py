"""What a report is about: builds, subsets, foreign tars and native metadata, counted against plain readings of them."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from native import make_tar
from PIL import Image

from curate.cli import main
from curate.report import native, stats
from curate.report.draw import BY_HASH, BY_RANK, BY_UID
from curate.report.pictures import pointers
from curate.report.subject import Subject, most_repeated, open_subject, read_set
from curate.report.wordcount import tokens
from shards.core import notices
from shards.core.errors import UsageError
from shards.manifest import read_manifest
from shards.sample import rank_key

MakeShards = Callable[..., str]


def encoded(size: tuple[int, int], form: str = "JPEG") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, "teal").save(out, form)
    return out.getvalue()


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """Two tars in two folders: captions in .txt, in .json, in neither; formats; images that are broken, or missing."""
    long_head = bytearray(encoded((30, 20)))
    long_head[2:2] = b"\xff\xe1\xff\xff" + bytes(0xFFFD) + b"\xff\xe1\xff\xff" + bytes(0xFFFD)  # the size lies behind 128 kB of EXIF
    make_tar(
        tmp_path / "web" / "a" / "0.tar",
        {
            "one.jpg": encoded((20, 10)), "one.txt": b"A Dog, a dog\n",
            "two.png": encoded((7, 9), "PNG"), "two.json": json.dumps({"caption": "a Dog a dog"}).encode(),
            "three.webp": encoded((8, 8), "WEBP"), "three.txt": b"caf\xe9", "three.json": b"[" * 100_000,
        }.items(),
    )  # fmt: skip
    make_tar(
        tmp_path / "web" / "b" / "1.tar",
        {
            "four.jpg": b"\xff\xd8\xff no picture", "four.json": b"no JSON",
            "five.jpg": encoded((40, 40))[:700], "five.json": json.dumps({"caption": 5}).encode(),
            "six.jpg": bytes(long_head), "six.txt": b"IMG_1234.jpg",
            "seven.txt": b"no picture at all",
            "eight.jpg": b"", "eight.txt": b"",
        }.items(),
    )  # fmt: skip
    return tmp_path / "web"


CAPTIONS = {
    "one": "A Dog, a dog", "two": "a Dog a dog", "three": "café", "four": None, "five": None, "six": "IMG_1234.jpg",
    "seven": "no picture at all", "eight": "",
}  # fmt: skip


def kind(subject: Subject, name: str, column: str = "value", source: str | None = None) -> dict[Any, int]:
    query = f"SELECT {column}, sum(count)::BIGINT FROM others WHERE kind = $kind AND ($source IS NULL OR source = $source) GROUP BY 1"
    return dict(subject.con.execute(query, {"kind": name, "source": source}).fetchall())


def test_foreign_tars_are_counted_from_captions_and_heads_of_images(foreign: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(foreign.rglob("*"))
    with open_subject([str(foreign)], engine="inline") as subject:
        assert subject.sources == ("web",)
        assert kind(subject, "samples", "'n'") == {"n": 8}
        assert kind(subject, "width") == {20: 1, 7: 1, 8: 1, 30: 1, 40: 1}
        assert kind(subject, "height") == {10: 1, 9: 1, 8: 1, 20: 1, 40: 1}
        assert kind(subject, "format", "text") == {"JPEG": 3, "PNG": 1, "WEBP": 1, "unreadable": 2}
        assert sum(kind(subject, "bytes").values()) == 7
        words = Counter(word for caption in CAPTIONS.values() if caption for word in tokens(caption))
        assert dict(subject.con.sql("SELECT word, count FROM words").fetchall()) == words
        assert kind(subject, "readability", "text") == {"words": 3, "single_word": 1, "file_name": 1, "no_letters": 1}
        assert stats.duplicates(subject.con, "web") == {"captions": 6, "distinct": 5, "duplicates": 1, "standard_error": 0.0}
        assert most_repeated(subject, "web", 5) == [{"caption": "A Dog, a dog", "count": 2}]
        rows = subject.sample.to_pylist()
        assert {row["uid"]: row["caption"] for row in rows} == CAPTIONS
        assert subject.drawn == {"most": 5_000, "rows": 8, "order": BY_HASH}
        names = {row["uid"]: row["at"] for row in rows}
        found = pointers(subject.manifests, names.values())
        for key, content in (("one", encoded((20, 10))), ("two", encoded((7, 9), "PNG"))):
            path, offset, size = found[names[key]]
            assert Path(path).read_bytes()[offset : offset + size] == content
        assert names["seven"] not in found
    assert sorted(foreign.rglob("*")) == before
    assert "--work DIR" in capsys.readouterr().err


def test_what_was_counted_of_foreign_tars_is_kept_in_a_work_folder(foreign: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    with open_subject([str(foreign)], engine="inline", work=str(work)):
        kept = {path: path.stat().st_mtime_ns for path in (work / "statistics").iterdir()}
    assert len(kept) == 2
    with open_subject([str(foreign)], engine="inline", work=str(work)) as subject:
        assert kind(subject, "samples", "'n'") == {"n": 8}
    assert {path: path.stat().st_mtime_ns for path in (work / "statistics").iterdir()} == kept
    make_tar(foreign / "b" / "1.tar", {"nine.txt": b"other words"}.items())
    with open_subject([str(foreign)], engine="inline", work=str(work)) as subject:
        assert kind(subject, "samples", "'n'") == {"n": 4}


def test_an_indexed_foreign_folder_keeps_its_statistics_beside_its_tars(tmp_path: Path, foreign: Path) -> None:
    from shards.index import index

    flat = tmp_path / "flat"
    flat.mkdir()
    for path in foreign.rglob("*.tar"):
        path.rename(flat / path.name)
    manifest = index(str(flat), engine="inline")
    with open_subject([str(flat)], engine="inline") as subject:
        assert kind(subject, "samples", "'n'") == {"n": 8}
    assert sorted(path.name for path in (flat / "stats").iterdir()) == ["0.parquet", "1.parquet"]
    assert stats.read_statistics(str(flat / "stats" / "0.parquet"), manifest.shards[0].sha256) is not None


def test_a_torn_tar_is_left_out_and_named(foreign: Path) -> None:
    notices.clear()
    tar = foreign / "b" / "1.tar"
    tar.write_bytes(tar.read_bytes()[:500])  # inside the first header
    with open_subject([str(foreign)], engine="inline") as subject:
        assert kind(subject, "samples", "'n'") == {"n": 3}
        assert list(subject.manifests[0].notes["bad_files"]) == ["b/1.tar"]
    (line,) = notices.lines()
    assert line.startswith("1 tar left out, or used as far as it is whole: b/1.tar: ")
    notices.clear()


def test_a_folder_without_tars_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no \.tar"):
        read_set(str(tmp_path), engine="inline")


def test_sources_of_one_name_in_two_sets_are_told_apart(make_shards: MakeShards) -> None:
    a, b = make_shards(12, "x/build", source="redcaps"), make_shards(20, "y/build", source="redcaps", seed=1)
    c = make_shards(5, "other", source="cc3m", seed=2)
    with open_subject([a, read_manifest(b), c], engine="inline") as subject:
        assert subject.sources == ("x/build/redcaps", "y/build/redcaps", "cc3m")
        assert subject.labels == ({"redcaps": subject.sources[0]}, {"redcaps": subject.sources[1]}, {"cc3m": "cc3m"})
        assert [kind(subject, "samples", "'n'", source)["n"] for source in subject.sources] == [12, 20, 5]
        assert dict(Counter(subject.sample["source"].to_pylist())) == dict(zip(subject.sources, (12, 20, 5), strict=True))
        row = subject.sample.filter(pc.equal(subject.sample["source"], subject.sources[1])).to_pylist()[9]
        assert row["at"].startswith("1/1/")
        (place,) = pointers(subject.manifests, [row["at"]]).values()
        assert place[0].startswith(b)


def test_the_sample_is_the_first_ranks_of_each_source_from_few_shards(make_shards: MakeShards, monkeypatch: pytest.MonkeyPatch) -> None:
    from curate.report import draw

    opened: list[str] = []
    real = draw.Shard
    monkeypatch.setattr(draw, "Shard", lambda manifest, entry: opened.append(entry.path) or real(manifest, entry))
    manifest = read_manifest(make_shards(40, per_shard=8))
    with open_subject([manifest], engine="inline", most=12) as subject:
        uids = subject.sample["uid"].to_pylist()
        assert subject.drawn == {"most": 12, "rows": 12, "order": BY_RANK}
        assert subject.sample["at"].to_pylist() == [f"0/{i // 8}/{i % 8}" for i in range(12)]
    everything = [row for e in manifest.shards for row in pq.read_table(manifest.path_of(e, ".parquet")).to_pylist()]
    assert uids == [row["uid"] for row in sorted(everything, key=lambda row: rank_key(0, row["uid"]))[:12]]
    assert opened == ["00000.tar", "00001.tar"]


def test_labels_are_all_different(make_shards: MakeShards, foreign: Path) -> None:
    """A source that is called as the folder of one without a name, and as what a number makes of another."""
    folders = [make_shards(4, f"{i}", source=source, seed=i) for i, source in enumerate(("web", "web (2)", "it's"))]
    with open_subject([*folders, str(foreign)], engine="inline") as subject:
        assert len(set(subject.sources)) == 4
        assert subject.sources == ("web (1)", "web (2) (1)", "it's", "web (2) (2)")
        assert [kind(subject, "samples", "'n'", source)["n"] for source in subject.sources] == [4, 4, 4, 8]


def test_a_rare_source_is_drawn_from_as_many_shards_as_it_takes(make_shards: MakeShards, tmp_path: Path) -> None:
    manifest = read_manifest(make_shards(40, per_shard=8))
    rare = {3, 20, 38}
    for number, entry in enumerate(manifest.shards):
        path = manifest.path_of(entry, ".parquet")
        rows = pq.read_table(path)
        names = ["rare" if 8 * number + i in rare else "drawn" for i in range(rows.num_rows)]
        pq.write_table(rows.set_column(rows.column_names.index("source"), "source", pa.array(names)), path)
    with open_subject([manifest], engine="inline", most=2) as subject:
        rows = subject.sample.to_pylist()
    assert [row["at"] for row in rows if row["source"] == "rare"] == ["0/0/3", "0/2/4"]
    assert [row["at"] for row in rows if row["source"] == "drawn"] == ["0/0/0", "0/0/1"]


def test_builds_that_were_merged_are_drawn_by_their_sizes(make_shards: MakeShards, tmp_path: Path) -> None:
    from shards import cli

    large, small = make_shards(60, "large", per_shard=4), make_shards(20, "small", per_shard=4, seed=1)
    assert cli.main(["merge", large, small, "--output", str(tmp_path / "both")]) == 0
    with open_subject([str(tmp_path / "both")], engine="inline", most=32) as subject:
        folders = Counter(Path(place[0]).parent.name for place in pointers(subject.manifests, subject.sample["at"].to_pylist()).values())
    assert folders == {"large": 24, "small": 8}


def test_heads_that_lie_and_bombs_are_numbers_like_others(tmp_path: Path) -> None:
    import struct
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 200_000, 200_000, 8, 2, 0, 0, 0)) + chunk(b"IDAT", b"")
    members = {"bomb.png": bomb, "liar.jpg": encoded((3, 4), "GIF"), "cut.webp": encoded((9, 9), "WEBP")[:20], "text.png": b"<svg/>"}
    make_tar(tmp_path / "web" / "0.tar", members.items())
    with open_subject([str(tmp_path / "web")], engine="inline") as subject:
        assert kind(subject, "format", "text") == {"PNG": 1, "GIF": 1, "unreadable": 2}
        assert kind(subject, "width") == {200_000: 1, 3: 1}


def test_lists_of_ones_own_are_counted_too(make_shards: MakeShards, tmp_path: Path) -> None:
    path = tmp_path / "shapes.txt"
    path.write_text("circle, disk\nsquare\ntriangle\n")
    manifest = read_manifest(make_shards(20, source="drawn"))
    captions = [row["caption"] for e in manifest.shards for row in pq.read_table(manifest.path_of(e, ".parquet")).to_pylist()]
    with open_subject([manifest], engine="inline", concepts=[str(path)]) as subject:
        found = {name: n for name, n in kind(subject, "concept", "text").items() if name.startswith("shapes\t")}
        assert subject.concepts[-1].name == "shapes"
    assert found == {f"shapes\t{name}": n for name in ("circle", "square") if (n := sum(name in caption for caption in captions))}
    assert sum(found.values()) > 5


def test_native_metadata_is_what_its_reader_gives_cleaned(tmp_path: Path) -> None:
    from curate.captions.clean import clean

    raw = [f"a   dog &amp; number {i % 7} <b>here</b>" for i in range(300)] + ["<br>"]
    lines = [f"https://example.org/{i}.jpg\t{caption}" for i, caption in enumerate(raw)]
    for number in range(3):
        (tmp_path / f"{number}.tsv").write_text("\n".join(lines[number::3]) + "\n")
    source = native.source_of("cc12m", str(tmp_path / "*.tsv"), {})
    cleaned = [clean(caption) for caption in raw]
    work = tmp_path / "work"
    with open_subject([], engine="inline", sources=[source], work=str(work), most=50) as subject:
        assert subject.sources == ("cc12m",)
        assert kind(subject, "samples", "'n'") == {"n": 301}
        words = Counter(word for caption in cleaned for word in tokens(caption))
        assert dict(subject.con.sql("SELECT word, count FROM words").fetchall()) == words
        assert sum(kind(subject, "words").values()) == 300
        assert subject.drawn == {"most": 50, "rows": 50, "order": BY_UID}
        uids = subject.sample["uid"].to_pylist()
        assert uids == sorted(uids, key=lambda uid: rank_key(0, uid))
        assert set(subject.sample["caption"].to_pylist()) <= set(cleaned) - {""}
        assert subject.sample["at"].null_count == 50
    kept = {path: path.stat().st_mtime_ns for path in (work / "statistics").iterdir()}
    with open_subject([], engine="inline", sources=[source], work=str(work), most=50) as subject:
        assert subject.sample["uid"].to_pylist() == uids
    assert {path: path.stat().st_mtime_ns for path in (work / "statistics").iterdir()} == kept
    with open_subject([], engine="inline", sources=[source], limit=10) as subject:
        assert kind(subject, "samples", "'n'") == {"n": 10}


def test_native_metadata_beside_a_build_with_ones_own_concepts(make_shards: MakeShards, tmp_path: Path) -> None:
    (tmp_path / "dogs.txt").write_text("dog\n")
    (tmp_path / "one.tsv").write_text("https://example.org/1.jpg\ttwo dogs and a dog\n")
    source = native.source_of("cc12m", str(tmp_path / "one.tsv"), {})
    with open_subject([make_shards(12)], engine="inline", sources=[source], concepts=[str(tmp_path / "dogs.txt")]) as subject:
        assert subject.sources == ("drawn", "cc12m")
        assert kind(subject, "concept", "text", "cc12m")["dogs\tdog"] == 2
        assert len(subject.manifests) == len(subject.labels) == 1
        assert subject.drawn == {"most": 5_000, "rows": 13, "order": f"drawn: {BY_RANK}; cc12m: {BY_UID}"}


@pytest.mark.parametrize(("reader", "input"), [("nonsense", "x"), ("cc12m", "")])
def test_a_source_that_cannot_be_read_is_refused(reader: str, input: str) -> None:
    with pytest.raises(UsageError):
        native.source_of(reader, input, {})


def test_a_source_takes_its_own_options_alone() -> None:
    with pytest.raises(UsageError, match="no option of the source"):
        native.source_of("cc12m", "x", {"caption-column": "x"})


def test_metadata_without_a_usable_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / "none.tsv").write_text("")
    source = native.source_of("cc12m", str(tmp_path / "none.tsv"), {})
    with pytest.raises(UsageError, match="no record"), open_subject([], engine="inline", sources=[source]):
        pass


def test_all_sources_of_a_recipe_are_read_as_the_recipe_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Native metadata needs no images; a source's own name and caption rule count; what is kept aside is not mixed up."""
    for name, text in (("one.tsv", "a red fox\thttp://x/1\n"), ("two.tsv", "a grey owl\thttp://x/2\nowls at night\thttp://x/3\n")):
        (tmp_path / name).write_text(text)
    recipe = tmp_path / "recipe.yaml"
    sources = [f"{{name: {name}, reader: cc3m, input: {tmp_path}/{name}.tsv}}" for name in ("one", "two")]
    recipe.write_text(f"sources: [{', '.join(sources)}]\nsamples: 10\n")
    flags = ["report", "--config", str(recipe), "--work", str(tmp_path / "work"), "--engine", "inline", "--json"]
    for _ in range(2):
        assert main(flags) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["sources"] == [{"name": "one", "samples": 1}, {"name": "two", "samples": 2}]
        assert found["vocabulary"]["sources"]["two"]["tokens"] == 6
        assert found["ledger"] == {}
    recipe.write_text("sources: []\n")
    assert main(flags) == 2
    assert "sources missing" in capsys.readouterr().err
