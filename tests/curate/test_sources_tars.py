"""webdataset: packed tars and packed members, hostile names, samples that lie apart or come twice; img2dataset's other outputs."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from native import jpeg, ledger, make_pool, make_tar, peak_memory, pointed, records, sidecar

from curate.sources import img2dataset, webdataset
from curate.sources.base import Record
from shards.core.errors import TornFileError, UsageError

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SAMPLES = [(f"{i}.{ext}", content) for i in range(5) for ext, content in (("jpg", jpeg(i)), ("txt", b"photo %d" % i))]


def pack(path: Path, kind: str) -> Path:
    """Pack a tar as its publisher would; the tar itself goes."""
    packed = path.with_name(path.name + {"gzip": ".gz", "bzip2": ".bz2", "xz": ".xz", "zstd": ".zst"}[kind])
    content = path.read_bytes()
    if kind == "zstd":
        with pa.CompressedOutputStream(str(packed), "zstd") as out:
            out.write(content)
    else:
        with tarfile.open(path) as source, tarfile.open(packed, f"w:{packed.suffix[1:]}") as out_tar:  # type: ignore[call-overload]
            for member in source:
                out_tar.addfile(member, source.extractfile(member))
    path.unlink()
    return packed


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz", "zstd"])
def test_packed_tars_are_read(tmp_path: Path, kind: str) -> None:
    plain = records(webdataset, make_tar(tmp_path / "plain" / "a.tar", SAMPLES))
    packed = pack(make_tar(tmp_path / "packed" / "a.tar", SAMPLES), kind)
    found = records(webdataset, tmp_path / "packed")
    assert [(pointed(r), r.captions, r.row) for r in found] == [(pointed(r), r.captions, r.row) for r in plain]
    assert [r.source_id for r in found] == [f"{packed.name}/{i}" for i in range(5)]
    options = webdataset.Options()
    (one,) = webdataset.inputs(str(tmp_path / "packed"), options)
    assert webdataset.layout(one, options) == f"{kind} tar of samples with jpg, txt"


def test_tgz_by_name(tmp_path: Path) -> None:
    pack(make_tar(tmp_path / "a.tar", SAMPLES), "gzip").rename(tmp_path / "a.tgz")
    assert len(records(webdataset, tmp_path)) == 5
    (tmp_path / "b.tgz").write_bytes(gzip.compress(b"<html>" * 200))
    with pytest.raises(UsageError, match=r"b\.tgz: no tar"):
        records(webdataset, tmp_path)


@QUICK
@given(st.data())
def test_a_torn_packed_tar_gives_its_whole_samples(tmp_path: Path, data: st.DataObject) -> None:
    whole = make_tar(tmp_path / "a.tar", SAMPLES).read_bytes()
    with tarfile.open(tmp_path / "a.tar") as source:
        ends = [m.offset_data + m.size for m in source.getmembers()]
    cut = data.draw(st.integers(1, ends[-1] - 1))
    (tmp_path / "cut.tgz").write_bytes(gzip.compress(whole[:cut], 1))
    options = webdataset.Options()
    found: list[Record] = []
    with pytest.raises(TornFileError, match="cut off or damaged"):
        found.extend(r for one in webdataset.inputs(str(tmp_path / "cut.tgz"), options) for r in webdataset.read(one, options))
    # A sample is whole with both its members; a first one alone tells nobody so.
    assert len(found) <= sum(end <= cut for end in ends[1::2])
    assert len(found) >= sum(end <= cut for end in ends[1::2]) - 1
    assert all(pointed(r) == jpeg(i) for i, r in enumerate(found))


@pytest.mark.slow
def test_memory_of_a_packed_tar_is_that_of_a_sample(tmp_path: Path) -> None:
    def peak(n: int) -> int:
        members = [(f"{i}.{ext}", bytes([i % 251]) * 20_000) for i in range(n) for ext in ("jpg", "txt")] + [(".hidden", b"x")]
        return peak_memory(webdataset, pack(make_tar(tmp_path / f"{n}.tar", members), "gzip"), n)

    assert peak(400) < 1.3 * peak(100) + 50_000


def test_packed_members(tmp_path: Path) -> None:
    torn = gzip.compress(jpeg(1))[:-20]
    bomb = gzip.compress(bytes(40 * 2**20))
    members = [
        ("0.jpg.gz", gzip.compress(jpeg(0))), ("0.txt.gz", gzip.compress("ein Bär".encode())),
        ("1.jpg.gz", torn), ("1.txt", b"torn"), ("2.jpg", jpeg(2)), ("2.txt.gz", bomb), ("3.txt.gz", gzip.compress(b"no image")),
    ]  # fmt: skip
    found = records(webdataset, make_tar(tmp_path / "a.tar", members))
    assert [(r.captions, r.status) for r in found] == [
        (("ein Bär",), ""),
        (("torn",), "undecodable"),
        ((), ""),
        (("no image",), "image_missing"),
    ]
    assert pointed(found[0]) == jpeg(0)
    assert "does not unpack" in found[1].detail


HOSTILE = ["../../etc/passwd.jpg", "/etc/passwd.jpg", "a/../../b.jpg", ".//etc/x.jpg"]


@pytest.mark.parametrize("packed", [False, True])
def test_names_that_lead_out_are_rows(tmp_path: Path, packed: bool) -> None:
    path = make_tar(tmp_path / "a.tar", [*SAMPLES[:2], *((n, b"x") for n in HOSTILE), *SAMPLES[2:4]])
    found = records(webdataset, pack(path, "gzip") if packed else path)
    assert [r.status for r in found] == ["", *["bad_record"] * 4, ""]
    assert all("leads out of the archive" in r.detail and r.image is None and not r.content for r in found[1:5])


def test_keys_with_spaces_dots_and_any_bytes(tmp_path: Path) -> None:
    """Keys that break webdataset or DALI are only ids here: our own keys are uids."""
    names = ["a b", "ümlaut", "new\nline", "tab\t", "'quote\"", "%2F", "x" * 150, "\udce9"]
    members = [(f"{n}.{ext}", c) for i, n in enumerate(names) for ext, c in (("jpg", jpeg(i)), ("txt", b"t"))]
    found = records(webdataset, make_tar(tmp_path / "a.tar", members))
    assert [pointed(r) for r in found] == [jpeg(i) for i in range(len(names))]
    assert len({r.source_id for r in found}) == len(names)
    assert [r.source_id.encode() for r in found][-1] == b"a.tar/\\xe9"
    dotted = records(webdataset, make_tar(tmp_path / "dots.tar", [("x.input.jpg", jpeg(0)), ("x.txt", b"t")]))
    assert [(pointed(r), r.captions) for r in dotted] == [(jpeg(0), ("t",))]


def test_samples_that_lie_apart_are_refused_by_name(tmp_path: Path) -> None:
    names = ["a.jpg", "b.jpg", "a.txt", "b.txt"]
    path = make_tar(tmp_path / "a.tar", [(n, b"x") for n in names])
    with pytest.raises(UsageError, match=r"a\.jpg and a\.txt are apart") as refused:
        webdataset.inputs(str(path), webdataset.Options())
    assert refused.value.advice == "tar --sort=name"
    mac = [n for i in range(3) for n in (f"__MACOSX/._{i}.jpg", f"{i}.jpg", f"._{i}.txt", f"{i}.txt", "README", ".DS_Store")]
    assert len(records(webdataset, make_tar(tmp_path / "mac.tar", [(n, b"x") for n in mac]))) == 3


def test_a_build_of_packed_and_plain_tars(tmp_path: Path, build: Callable[..., tuple[int, Path, str]]) -> None:
    """Repeated keys, hostile names and missing images are rows; kept are the same bytes from either tar."""
    make_tar(tmp_path / "in/0.tar", [*SAMPLES[:4], *SAMPLES[:2], ("../9.jpg", jpeg(9)), ("8.txt", b"no image")])
    pack(make_tar(tmp_path / "in/1.tar", SAMPLES[4:]), "zstd")
    code, out, talk = build("--source", "webdataset", "--input", tmp_path / "in", "--samples", "all")
    assert code == 0, talk
    reasons = sorted((r["input"], r["row"], r["reason"]) for r in ledger(out))
    assert [r for _, _, r in reasons] == ["", "", "duplicate_id", "bad_record", "image_missing", "", "", ""]
    assert sorted(r["caption"] for r in sidecar(out)) == [f"photo {i}" for i in range(5)]
    with tarfile.open(out / "00000.tar") as shard:
        stored = {shard.extractfile(m).read() for m in shard if m.name.endswith(".jpg")}  # type: ignore[union-attr]
    assert stored == {jpeg(i) for i in range(5)}


def test_torn_inputs_on_request(tmp_path: Path, build: Callable[..., tuple[int, Path, str]]) -> None:
    path = make_tar(tmp_path / "a.tar", SAMPLES)
    path.write_bytes(path.read_bytes()[:9000])
    code, _, talk = build("--source", "webdataset", "--input", path, "--samples", "all")
    assert code == 1
    assert "cut off" in talk
    assert "--bad-files skip" in talk
    code, out, talk = build("--source", "webdataset", "--input", path, "--samples", "all", "--bad-files", "skip", output="skipped")
    assert code == 0, talk
    assert [r["reason"] for r in ledger(out)].count("torn_input") == 1


def test_img2datasets_other_outputs_are_refused_with_the_source_that_reads_them(tmp_path: Path) -> None:
    options = img2dataset.Options()
    inside = tmp_path / "inside"
    inside.mkdir()
    pq.write_table(pa.table({"key": ["0"], "status": ["success"], "jpg": [jpeg(0)]}), inside / "00000.parquet")
    with pytest.raises(UsageError, match="output_format=parquet") as refused:
        img2dataset.inputs(str(inside), options)
    assert refused.value.advice == "--source huggingface"
    make_tar(tmp_path / "tars/0.tar", SAMPLES)
    with pytest.raises(UsageError, match="no tables") as refused:
        img2dataset.inputs(str(tmp_path / "tars"), options)
    assert refused.value.advice == "--source webdataset"


def test_a_pool_states_its_layout(tmp_path: Path, build: Callable[..., tuple[int, Path, str]]) -> None:
    pool = make_pool(tmp_path / "pool", {f"http://h.example/{i}": jpeg(i) if i else None for i in range(3)})
    options = img2dataset.Options()
    (one,) = img2dataset.inputs(str(pool), options)
    assert img2dataset.layout(one, options) == "img2dataset's webdataset output: 1 table with each URL's status"
    rows = pq.read_table(pool / "00000.parquet").to_pylist()
    pq.write_table(pa.Table.from_pylist([r | {"caption": "a photo"} for r in rows]), pool / "00000.parquet")
    code, out, talk = build("--source", "img2dataset", "--input", pool, "--samples", "all", output="captioned")
    assert code == 0, talk
    assert sorted(r["reason"] for r in ledger(out)) == ["", "", "failed_to_download"]


def test_json_captions_are_chosen_in_order(tmp_path: Path) -> None:
    extras = [{"text": "t", "title": "x"}, {"captions": ["a", "b"], "caption": "c"}, {"captions": "no list", "title": ["p", "q"]}]
    members = [(f"{i}.{ext}", c) for i, e in enumerate(extras) for ext, c in (("jpg", b"x"), ("json", json.dumps(e).encode()))]
    assert [r.captions for r in records(webdataset, make_tar(tmp_path / "a.tar", members))] == [("t",), ("a", "b"), ("p", "q")]


def test_no_pickle_is_loaded(tmp_path: Path) -> None:
    """A member that webdataset or Ray would unpickle is a file name to us."""
    members = [
        ("0.jpg", jpeg(0)),
        ("0.txt", b"t"),
        ("0.pyd", b"cos\nsystem\n(S'false'\ntR."),
        ("0.pickle", b"\x80\x04."),
        ("0.pth", io.BytesIO().read()),
    ]
    (found,) = records(webdataset, make_tar(tmp_path / "a.tar", members))
    assert (found.captions, found.status, found.meta) == (("t",), "", "")


NEGATIVE = [
    (f"s{i}.{ext}", content) for i in range(3) for ext, content in (("jpg", jpeg(i)), ("negative.txt", b"ugly"), ("prompt.txt", b"a cat"))
]


def test_several_texts_of_which_none_is_the_caption_by_its_name_are_refused(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a.tar", NEGATIVE)
    with pytest.raises(UsageError, match=r"s0 has 2 texts, negative\.txt, prompt\.txt, and no KEY\.txt"):
        webdataset.inputs(str(path), webdataset.Options())
    packed = pack(make_tar(tmp_path / "b.tar", NEGATIVE), "gzip")
    with pytest.raises(UsageError, match="has 2 texts"):
        webdataset.inputs(str(packed), webdataset.Options())


def test_a_plain_text_or_a_single_one_is_the_caption_and_a_late_ambiguity_is_a_row(tmp_path: Path) -> None:
    plain = [
        (f"{i}.{ext}", content) for i in range(25) for ext, content in (("jpg", jpeg(i)), ("negative.txt", b"ugly"), ("txt", b"a cat"))
    ]
    single = [("x.jpg", jpeg(1)), ("x.prompt.txt", b"a dog")]
    found = records(webdataset, make_tar(tmp_path / "a.tar", [*plain, *single, *NEGATIVE[:3]]))
    assert [r.captions for r in found] == [("a cat",)] * 25 + [("a dog",), ()]
    assert (found[-1].status, found[-1].detail) == ("bad_record", "several texts, none of them KEY.txt: negative.txt, prompt.txt")
