"""Properties of tars: whatever keys, captions and sizes come, what is written is read, by us and by tarfile, or refused whole."""

from __future__ import annotations

import io
import itertools
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards import tar
from shards.core.errors import TornFileError, UsageError
from shards.manifest import Manifest
from shards.reader import read_samples
from shards.sample import KEY_RULE
from shards.writer import write_shard

SIZES = st.sampled_from([0, 1, 2, 511, 512, 513, 1023, 1024, 1025, 4000])
CONTENT = st.binary(max_size=40) | SIZES.map(lambda n: b"\xff" * n)
GOOD = st.text(alphabet="abcXYZ019_-", min_size=1, max_size=90)
# Names as they come: slashes, dots, blanks, controls, other scripts, things that mean something to a shell or a tar.
HOSTILE = st.text(alphabet="aZ0._-/\\ \t\n\0'\"*?~$%ü日\u202e\ud7ff", max_size=12) | st.sampled_from(
    ["..", "../x", "/etc/passwd", "a/../../b", ".hidden", "a.", "-rf", "CON", "a" * 91, "ustar", "././@LongLink", "{0..9}", "%00"]
)
CAPTIONS = st.text(max_size=60) | st.sampled_from(
    ["", "\0", "null", "NA", '"unclosed', "<b>&amp;</b>", "\ufeffbom", "a\tb\r\nc", "😀" * 300]
)


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(GOOD, CONTENT, CAPTIONS), min_size=1, max_size=6, unique_by=lambda s: s[0]))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, samples: list[tuple[str, bytes, str]]) -> None:
    out = tmp_path_factory.mktemp("w")
    table = pa.table({"key": [k for k, _, _ in samples], "caption": [c for _, _, c in samples]})
    entry = write_shard(str(out), "00000", [(k, {"jpg": b, "txt": c.encode()}) for k, b, c in samples], table)
    names = [(f"{k}.{ext}", content) for k, b, c in samples for ext, content in (("jpg", b), ("txt", c.encode()))]
    with tarfile.open(out / "00000.tar") as file:
        assert [(m.name, file.extractfile(m).read()) for m in file] == names  # type: ignore[union-attr]
    whole = (out / "00000.tar").read_bytes()
    members = list(tar.walk(io.BytesIO(whole)))
    assert [(m.name, whole[m.offset : m.offset + m.size]) for m in members] == names
    assert tar.parse_index((out / "00000.idx").read_text()) == list(tar.samples(members))
    assert len(whole) == entry.bytes == tar.tar_size(len(c) for _, c in names)
    manifest = Manifest(samples=len(samples), bytes=entry.bytes, shards=(entry,), folder=str(out))
    read = [(s.key, s.members["jpg"], s.members["txt"].decode(), s.row["caption"]) for s in read_samples(manifest, None, ["caption"])]
    assert read == [(k, b, c, c) for k, b, c in samples]


@settings(deadline=None, max_examples=200)
@given(GOOD | HOSTILE)
def test_a_key_is_read_by_all_or_nothing_is_written(tmp_path_factory: pytest.TempPathFactory, key: str) -> None:
    out = tmp_path_factory.mktemp("k")
    table = pa.table({"key": [key]})
    if KEY_RULE.fullmatch(key):
        write_shard(str(out), "00000", [(key, {"jpg": b"x"})], table)
        with tarfile.open(out / "00000.tar") as file:
            assert file.getnames() == [f"{key}.jpg"]
        assert pq.read_table(out / "00000.parquet")["key"].to_pylist() == [key]
    else:
        with pytest.raises(UsageError, match="key"):
            write_shard(str(out), "00000", [(key, {"jpg": b"x"})], table)
        assert list(Path(out).iterdir()) == []


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.tuples(HOSTILE.filter(lambda n: n and "\0" not in n and not n.endswith("/")), CONTENT), max_size=4),
    st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_foreign_members_are_read_as_tarfile_reads_them_and_those_that_lead_out_refuse_the_tar(
    members: list[tuple[str, bytes]], form: int
) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as file:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    whole = out.getvalue()
    with tarfile.open(fileobj=io.BytesIO(whole)) as file:
        theirs = [(m.name, file.extractfile(m).read()) for m in file if m.isreg()]  # type: ignore[union-attr]
    bad = next((i for i, (name, _) in enumerate(theirs) if name.removeprefix("./").startswith("/") or ".." in name.split("/")), None)
    walked = tar.walk(io.BytesIO(whole))
    ours = [(m.name, whole[m.offset : m.offset + m.size]) for m in itertools.islice(walked, len(theirs) if bad is None else bad)]
    if bad is not None:
        with pytest.raises(UsageError, match="leads out"):
            next(walked)
    assert next(walked, None) is None
    assert [(n.removeprefix("./"), c) for n, c in theirs[:bad]] == ours


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=1500), st.lists(st.tuples(st.integers(0, 2500), st.integers(0, 255)), min_size=1, max_size=4))
def test_no_bytes_do_more_than_be_refused(content: bytes, changes: list[tuple[int, int]]) -> None:
    """Members with some bytes changed at random, headers' sums left wrong or right as they fall."""
    out = io.BytesIO()
    writer = tar.TarWriter(out)
    writer.add("a.jpg", content)
    writer.add("a.txt", b"caption")
    writer.close()
    whole = bytearray(out.getvalue())
    for at, value in changes:
        whole[at % len(whole)] = value
    try:
        for member in tar.walk(io.BytesIO(bytes(whole))):
            assert member.offset + member.size <= len(whole)
    except (TornFileError, UsageError):
        pass


@given(st.text(alphabet="v1.2 0937\njpgtx-é\0", max_size=60))
def test_no_text_is_an_index_by_accident(text: str) -> None:
    try:
        groups = tar.parse_index(text)
    except TornFileError:
        return
    head = text.splitlines()[0]
    assert head in (f"v1.2 {len(groups)}", f"v1.1 {len(groups)}")
