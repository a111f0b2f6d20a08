"""Every check of `shards verify` is made to fail by a real corruption, and passes without it."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import signal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shards import cli, tar
from shards.manifest import Manifest, ShardEntry, read_manifest
from shards.proof import prove
from shards.verify import Part, halves, verify
from shards.writer import write_shard


def _problems(folder: str, **options: bool) -> list[str]:
    return [str(p) for p in verify(read_manifest(folder, removed=True), engine="inline", **options)]


def _edit(path: Path, position: int, content: bytes) -> None:
    whole = bytearray(path.read_bytes())
    whole[position : position + len(content)] = content
    path.write_bytes(whole)


def _agree(folder: str, **changes: object) -> None:
    """Make the manifest agree with the first shard's files as they now are, so that only deeper checks can object."""
    manifest, stem = read_manifest(folder, removed=True), Path(folder) / "00000"
    digests = [hashlib.sha256(stem.with_suffix(s).read_bytes()).hexdigest() for s in (".tar", ".idx", ".parquet")]
    stated = dict(zip(("sha256", "index_sha256", "sidecar_sha256"), digests, strict=True))
    entry = dataclasses.replace(manifest.shards[0], bytes=stem.with_suffix(".tar").stat().st_size, **stated, **changes)
    shards = (entry, *manifest.shards[1:])
    dataclasses.replace(manifest, shards=shards, bytes=sum(e.bytes for e in shards), samples=sum(e.used for e in shards)).save(folder)


def _tar(names: list[tuple[str, bytes]]) -> tuple[bytes, str]:
    """Return a tar of these members, and its index."""
    out = io.BytesIO()
    writer = tar.TarWriter(out)
    members = [tar.Member(name, writer.add(name, content), len(content)) for name, content in names]
    writer.close()
    return out.getvalue(), tar.format_index(list(tar.samples(members)))


def _members(folder: str) -> list[tuple[str, bytes]]:
    content = (Path(folder) / "00000.tar").read_bytes()
    return [(m.name, content[m.offset : m.offset + m.size]) for m in tar.walk(io.BytesIO(content))]


def _rewrite(folder: str, members: list[tuple[str, bytes]], **changes: object) -> None:
    content, index = _tar(members)
    (Path(folder) / "00000.tar").write_bytes(content)
    (Path(folder) / "00000.idx").write_text(index)
    _agree(folder, **changes)


def _residecar(folder: str, change) -> None:
    path = Path(folder) / "00000.parquet"
    pq.write_table(change(pq.read_table(path)), path)
    _agree(folder)


def test_a_whole_build_is_fine_and_the_command_says_so(make_shards, capsys):
    folder = make_shards(12, classes=True)
    assert _problems(folder) == []
    assert cli.main(["verify", folder, "--workers", "1"]) == 0
    assert capsys.readouterr().out.startswith("fine: 12 samples in 2 shards")


def test_problems_are_exit_1_and_rows_of_json(make_shards, capsys):
    folder = make_shards(4)
    _edit(Path(folder, "00000.tar"), 700, b"\0\1\2")
    assert cli.main(["verify", folder, "--json", "--engine", "inline"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["samples"] == 4
    assert {"where", "found", "expected", "advice"} == set(report["problems"][0])


@pytest.mark.parametrize("suffix", [".tar", ".idx", ".parquet"])
def test_a_file_that_changed_or_went_is_named(make_shards, suffix):
    folder = make_shards(4)
    path = Path(folder, "00000").with_suffix(suffix)
    _edit(path, path.stat().st_size // 2, b"\xff")
    assert any(f"00000{suffix}: sha256" in p for p in _problems(folder, decode=False))
    path.unlink()
    assert any(f"00000{suffix}: absent" in p for p in _problems(folder, decode=False))


def test_a_tar_that_grew_or_was_cut(make_shards):
    folder = make_shards(4)
    path = Path(folder, "00000.tar")
    whole = path.read_bytes()
    path.write_bytes(whole + bytes(512))
    assert any(f"{len(whole) + 512} bytes; expected {len(whole)}" in p for p in _problems(folder, decode=False))
    path.write_bytes(whole[:4000])
    assert any("cut off" in p for p in _problems(folder))


def test_totals_and_balance(make_shards):
    folder = make_shards(4)
    manifest = read_manifest(folder, removed=True)
    dataclasses.replace(manifest, samples=5, bytes=1).save(folder)
    assert [p.split(";")[0] for p in _problems(folder, decode=False)] == ["manifest.json: 5 samples", "manifest.json: 1 bytes"]
    source = {"inputs": 9, "kept": 4, "holdout": 1, "spare": 1, "dropped": {"undecodable": 1, "near_duplicate": 1}}
    dataclasses.replace(manifest, sources={"x": source}).save(folder)
    assert _problems(folder, decode=False) == ["manifest.json: source x: 9 inputs; expected 8, what became of them"]


def test_sizes_json(make_shards):
    folder = make_shards(4)
    for text in ('{"00000.tar": 5}', "{"):
        Path(folder, "sizes.json").write_text(text)
        assert [p.split(":")[0] for p in _problems(folder, decode=False)] == ["sizes.json"]
    Path(folder, "sizes.json").unlink()
    assert _problems(folder, decode=False)[0].startswith("sizes.json: absent")


def test_strays(make_shards):
    folder = make_shards(4)
    Path(folder, "00007.tar").touch()
    Path(folder, ".00008.tar.tmp-12").touch()
    assert [p.split(":")[0] for p in _problems(folder, decode=False)] == [".00008.tar.tmp-12", "00007.tar"]


def test_an_index_that_differs_from_a_walk(make_shards):
    folder = make_shards(4)
    path = Path(folder, "00000.idx")
    path.write_text(path.read_text().replace("jpg 512 ", "jpg 1024 "))
    _agree(folder)
    problems = _problems(folder)
    assert len(problems) == 1
    assert "00000.idx, line 2" in problems[0]


def test_counts_and_windows(make_shards):
    folder = make_shards(4)
    _agree(folder, samples=5)
    assert any("4 samples; expected 5" in p for p in _problems(folder))
    _agree(folder, samples=4, use=(2, 9))
    assert any("use [2, 9]; expected rising half-open ranges inside [0, 4)" in p for p in _problems(folder))


def test_members_that_differ(make_shards):
    folder = make_shards(4)
    _rewrite(folder, _members(folder)[:-1])
    assert any("members ['jpg']; expected ['jpg', 'txt']" in p for p in _problems(folder, decode=False))
    _rewrite(folder, [m for m in _members(folder) for _ in range(2)])
    assert any("members ['jpg', 'jpg', 'txt', 'txt']" in p for p in _problems(folder, decode=False))


def test_members_that_are_not_adjacent(make_shards):
    folder = make_shards(4)
    members = _members(folder)
    _rewrite(folder, [*members[::2], *members[1::2]], samples=8)
    assert any("comes twice, with other samples between" in p for p in _problems(folder, decode=False))


@pytest.mark.parametrize("name", ["d/k.jpg", "a b.jpg", "k.JPG"])
def test_keys_and_endings_that_some_reader_cannot_take(make_shards, name):
    folder = make_shards(2)
    _rewrite(folder, [(name, b""), *_members(folder)[1:]])
    assert any("that some readers cannot take" in p for p in _problems(folder, decode=False))


def test_a_key_in_two_shards(make_shards):
    folder = make_shards(12)
    key = read_manifest(folder).path_of(read_manifest(folder).shards[1])
    with open(key, "rb") as file:
        other = next(tar.walk(file)).key
    members = _members(folder)
    _rewrite(folder, [(f"{other}.jpg", members[0][1]), (f"{other}.txt", members[1][1]), *members[2:]])
    assert [p for p in _problems(folder, decode=False) if "each key once" in p] == [
        f"{folder}/00001.tar: {other}: stands in {folder}/00000.tar too; expected each key once in the set"
    ]


def test_sidecar_rows_and_their_order(make_shards):
    folder = make_shards(4)
    _residecar(folder, lambda t: t.take([1, 0, 2, 3]))
    assert any("00000.parquet, row 0: key" in p for p in _problems(folder))
    _residecar(folder, lambda t: t.slice(0, 3))
    assert any("3 rows; expected 4" in p for p in _problems(folder))


@pytest.mark.parametrize(("column", "value"), [("width", 57), ("height", 1), ("bytes", 3), ("sha256", "ab"), ("caption", "other")])
def test_sidecar_values_are_held_against_the_sample(make_shards, column, value):
    folder = make_shards(4)

    def change(table: pa.Table) -> pa.Table:
        values = [value, *table[column].to_pylist()[1:]]
        return table.set_column(table.column_names.index(column), column, pa.array(values, table.schema.field(column).type))

    _residecar(folder, change)
    problems = _problems(folder)
    assert len(problems) == 1
    assert repr(value) in problems[0] or f"expected {value}" in problems[0]


def test_an_image_that_does_not_decode_to_its_last_row(make_shards):
    """Cut in the middle, and closed with an end marker, which Pillow alone would let pass."""

    def cut(i: int, jpeg: bytes) -> bytes:
        return jpeg[: len(jpeg) * 2 // 3] + b"\xff\xd9" if i == 2 else jpeg[:400] if i == 3 else b"" if i == 4 else jpeg

    problems = _problems(make_shards(6, recode=cut))
    assert len(problems) == 3
    assert all("an image that decodes to its last row" in p for p in problems)
    assert _problems(make_shards(6, "b", recode=cut), decode=False) == []


def test_prove_takes_what_is_whole_and_gives_its_size(make_shards):
    from PIL import Image

    for kind, mode in (("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "RGBA"), ("WEBP", "RGB"), ("GIF", "P"), ("TIFF", "I;16")):
        out = io.BytesIO()
        Image.new(mode, (40, 30), 7 if mode in ("L", "P", "I;16") else None).save(out, kind)
        assert prove(out.getvalue()) == (40, 30)
        with pytest.raises(ValueError):
            prove(out.getvalue()[: len(out.getvalue()) // 2])
    with pytest.raises(ValueError, match="no image of a known format"):
        prove(b"<html>")


def kill_on_black(part: Part) -> list[object]:
    """As check_images, but dies on a sample whose caption says black: what a crashing decoder would do."""
    from shards.reader import Shard

    with Shard(part.manifest, part.entry) as shard:
        if any(b"black" in shard.read(i, "txt") for i in range(part.start, part.stop)):
            os.kill(os.getpid(), signal.SIGKILL)
    return []


@pytest.mark.slow
def test_a_crashing_decoder_is_bisected_down_to_its_sample(make_shards):
    from shards.core.engine import Lost, map_unordered
    from shards.reader import read_samples

    manifest = read_manifest(make_shards(8))
    black = [i for i, s in enumerate(read_samples(manifest)) if b"black" in s.members["txt"]]
    assert black
    lost = [o.spec for o in map_unordered(kill_on_black, [Part(manifest, 0, 8)], split=halves) if isinstance(o, Lost)]
    assert sorted(p.start for p in lost) == black
    assert all(p.stop == p.start + 1 for p in lost)


def test_a_foreign_set_needs_no_sidecar_and_no_index(tmp_path, make_shards):
    entry = write_shard(str(tmp_path), "00000", [("a", {"png": b"x"})], pa.table({"key": ["a"]}))
    (tmp_path / "00000.idx").unlink()
    shard = ShardEntry(entry.path, 1, entry.bytes, entry.sha256)
    Manifest(1, entry.bytes, (shard,)).save(str(tmp_path))
    assert _problems(str(tmp_path), decode=False) == []
