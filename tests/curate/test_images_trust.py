"""Hostile and changed images: whatever lies in a file, a sample is kept whole or refused with a reason, and never crashes a build."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from drawing import encoded, picture
from hypothesis import example, given, settings
from hypothesis import strategies as st
from native import make_pool
from PIL import Image

from curate.images import ImagePolicy, ImageRefusedError, open_image
from curate.measure import MeasureTask, pieces
from curate.recipe import SourceSpec
from shards.jpeg import jpeg_header
from shards.phash import SHORTEST, VERSIONS, scale
from shards.proof import jpeg_pixels, prove
from shards.sample import uid_of

Build = Callable[..., tuple[int, Path, str]]
Captioned = Callable[..., Path]
KEEP = ImagePolicy()
KINDS = tuple(VERSIONS)


def saved(form: str, options: dict[str, Any], convert: str = "RGB") -> bytes:
    """Return a file of a fresh image: Pillow leaves the options of one format's writer on the image for the next."""
    several = {"save_all": True, "append_images": [picture(71, 48, 40), picture(72, 48, 40)]} if options.get("several") else {}
    return encoded(picture(70, 48, 40).convert(convert), form, **{k: v for k, v in options.items() if k != "several"}, **several)


@cache
def files() -> dict[str, bytes]:
    """One small file of each kind that the web holds."""
    exif = Image.Exif()
    exif[0x0112] = 8
    return {
        "baseline": saved("JPEG", {}),
        "progressive": saved("JPEG", {"progressive": True}),
        "restarts": saved("JPEG", {"restart_marker_blocks": 1}),
        "full chroma": saved("JPEG", {"subsampling": 0}),
        "gray": saved("JPEG", {}, "L"),
        "rotated": saved("JPEG", {"exif": exif.tobytes()}),
        "cmyk": saved("JPEG", {}, "CMYK"),
        "mpo": saved("MPO", {"several": True}),
        "png": saved("PNG", {}, "RGBA"),
        "apng": saved("PNG", {"several": True}),
        "gif": saved("GIF", {"several": True}),
        "webp": saved("WEBP", {"several": True}),
        "tiff": saved("TIFF", {"several": True}),
        "bmp": saved("BMP", {}),
    }


def kept_whole(content: bytes, kind: str) -> bool:
    """Open an image; what is kept must decode whole in Pillow, to the size that was measured. False where it is refused."""
    try:
        opened = open_image(content, KEEP, kind)
    except ImageRefusedError as error:
        refused: ImageRefusedError | None = error
    else:
        refused = None
    if refused:
        assert refused.reason in ("undecodable", "unsupported", "too_large")
        assert refused.detail
        return False
    stored = opened.encoded or content
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of odd metadata
        assert prove(stored) == (opened.width, opened.height)
        assert Image.open(io.BytesIO(stored)).mode in ("L", "RGB")
    assert 1 <= opened.frames < 2**31
    assert 0 <= opened.phash < 2**64
    return True


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_is_kept(kind: str) -> None:
    assert all(kept_whole(content, kind) for content in files().values())
    frames = {name: open_image(content, KEEP, kind).frames for name, content in files().items()}
    assert {name: n for name, n in frames.items() if n > 1} == {"mpo": 3, "apng": 3, "gif": 3, "webp": 3, "tiff": 3}


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(files())), st.sampled_from(KINDS), st.floats(0, 1), st.sampled_from([b"", b"\xff\xd9", b"\0" * 40]))
def test_a_truncated_file_is_refused_or_whole(name: str, kind: str, share: float, tail: bytes) -> None:
    content = files()[name]
    kept_whole(content[: int(len(content) * share)] + tail, kind)


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(sorted(files())),
    st.sampled_from(KINDS),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=6),
)
@example("baseline", "scaled", [(0.0, 255)])
def test_flipped_bits_are_refused_or_whole(name: str, kind: str, flips: list[tuple[float, int]]) -> None:
    content = bytearray(files()[name])
    for where, bits in flips:
        content[int(where * len(content))] ^= bits
    kept_whole(bytes(content), kind)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["baseline", "progressive", "restarts", "gray", "mpo"]), st.integers(2, 640), st.binary(min_size=1, max_size=30))
def test_stray_bytes_are_refused_or_whole(name: str, where: int, stray: bytes) -> None:
    content = files()[name]
    kept_whole(content[:where] + stray + content[where:], "scaled")


def disguises(content: bytes) -> dict[str, bytes]:
    """Ways to have libjpeg warn of something harmless first: it tells its first warning alone."""
    scan = content.index(b"\xff\xda")
    return {
        "stray bytes": content[:scan] + b"\0" * 7 + content[scan:],
        "a JFIF of the future": content.replace(b"JFIF\0\1", b"JFIF\0\7"),
        "padding": content[:-2] + b"\0" * 40 + b"\xff\xd9",
        "a tail": content + b"\0junk" * 20,
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 2}, {"subsampling": 0}])
def test_a_harmless_warning_hides_no_missing_data(options: dict[str, object], kind: str) -> None:
    content = encoded(picture(7, 300, 200), **options)
    for what, odd in disguises(content).items():
        assert kept_whole(odd, kind), what
        for percent in range(30, 96, 5):
            assert not kept_whole(odd[: len(content) * percent // 100] + b"\xff\xd9", kind), (what, percent)


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_at_a_restart_marker_is_found(kind: str) -> None:
    content = encoded(picture(7, 300, 200), restart_marker_blocks=4)
    markers = [m.start() for m in re.finditer(rb"\xff[\xd0-\xd7]", content)]
    assert len(markers) > 40
    assert not any(kept_whole(content[:at] + b"\xff\xd9", kind) for at in markers)


def test_a_cut_cmyk_jpeg_closed_with_an_end_marker_is_refused() -> None:
    content = encoded(picture(7, 300, 200).convert("CMYK"))
    assert kept_whole(content, "scaled")
    assert not kept_whole(content[: len(content) // 2] + b"\xff\xd9", "scaled")


def test_a_full_decode_gives_pillows_pixels() -> None:
    for side in ((300, 200), (7, 5), (1, 1), (33, 97)):
        for options in ({}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 1}, {"quality": 30}):
            content = encoded(picture(3, *side), **options)
            assert (jpeg_pixels(content, "RGB") == np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))).all()


def test_the_walked_header_says_what_pillow_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 1
    plain = {"icc_profile": b"x" * 60_000}, {"comment": "a comment"}, {"optimize": True}, {"dpi": (72, 72)}
    for options in ({}, *plain):
        for image in (picture(1, 31, 77), picture(2, 500, 1).convert("L")):
            content = encoded(image, **options)
            header, pillow = jpeg_header(content), Image.open(io.BytesIO(content))
            assert header is not None
            assert ((header.width, header.height), header.gray, header.plain) == (pillow.size, pillow.mode == "L", True)
    others = {name: jpeg_header(files()[name]) for name in ("rotated", "cmyk", "mpo")}
    assert [h.plain for h in others.values() if h] == [False, False, False]
    upright = jpeg_header(encoded(picture(1), exif=exif.tobytes()))
    assert upright is not None
    assert not upright.plain
    assert [jpeg_header(files()[name]) for name in ("png", "gif")] == [None, None]


def test_a_scale_leaves_what_it_promises() -> None:
    for kind, shortest in SHORTEST.items():
        for side in range(1, 3000):
            factor = scale((side, side + 9), shortest)
            assert factor == 1 or side / factor >= shortest, (kind, side)
            assert factor == 8 or side < 2 * factor * shortest


MEMORY = """
import io, resource, sys
sys.path[:0] = sys.argv[1:]
from drawing import encoded, picture
from PIL import Image
from curate.images import ImagePolicy, ImageRefusedError, open_image
good, huge = encoded(picture(1)), encoded(Image.new("L", (9900, 9900)), "PNG")
first = open_image(good, ImagePolicy(), "scaled")
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 64 * 2**20, used + 64 * 2**20))
try:
    open_image(huge, ImagePolicy(), "scaled")
except ImageRefusedError as refused:
    print(refused.reason, "|", refused.detail)
print(open_image(good, ImagePolicy(), "scaled") == first)
"""


def test_an_image_that_does_not_fit_into_memory_is_refused_and_the_next_one_opens() -> None:
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    done = subprocess.run([sys.executable, "-c", MEMORY, *folders], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["too_large | out of memory", "True"], done.stderr


def sources(out: Path) -> dict[str, dict[str, object]]:
    return {r["source_id"]: r for part in sorted((out / "ledger").iterdir()) for r in pq.read_table(part).to_pylist()}


def test_a_file_changed_between_runs_is_measured_again(build: Build, captioned: Captioned, tmp_path: Path) -> None:
    rows = [(f"{i}.jpg", encoded(picture(i)), f"picture {i}") for i in range(5)]
    flags = ("--source", "folder", "--input", captioned(rows), "--samples", "all", "--work", tmp_path / "work")
    assert build(*flags, output="first")[0] == 0
    (tmp_path / "photos" / "3.jpg").write_bytes(encoded(picture(33, 96, 96)))
    (tmp_path / "photos" / "4.jpg").write_bytes(rows[4][1][:600])
    code, again, err = build(*flags, output="second")
    assert code == 0, err
    found = sources(again)
    assert (found["4.jpg"]["decision"], found["4.jpg"]["reason"]) == ("dropped", "undecodable")
    widths = {r["source_id"]: r["width"] for p in again.glob("0*.parquet") for r in pq.read_table(p).to_pylist()}
    assert widths == {"0.jpg": 80, "1.jpg": 80, "2.jpg": 80, "3.jpg": 96}
    code, _, err = build(*flags, output="first")
    assert code == 2
    assert "over other inputs" in err


def test_a_file_changed_between_measuring_and_writing_is_named(build: Build, captioned: Captioned, tmp_path: Path) -> None:
    """Size and time of the file are as they were, so that the measured rows still count, as between the passes of a build."""
    folder = captioned([(f"{i}.jpg", encoded(picture(i)), f"picture {i}") for i in range(5)])
    flags = ("--source", "folder", "--input", folder, "--samples", "all", "--work", tmp_path / "work")
    assert build(*flags, output="first")[0] == 0
    changed, other = folder / "2.jpg", bytearray((folder / "2.jpg").read_bytes())
    other[len(other) // 2] ^= 1
    before = changed.stat()
    changed.write_bytes(other)
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))
    code, out, err = build(*flags, output="second")
    assert code == 1
    assert "2.jpg" in err
    assert "not those that were measured" in err
    assert not (out / "manifest.json").exists()


def test_an_opt_out_stands_in_the_ledger_with_its_header(build: Build, tmp_path: Path) -> None:
    """The pool's status and message, as `curate fetch` writes them for a page that says noai, become reason and detail."""
    pool = make_pool(tmp_path / "pool", {"http://a/1.jpg": encoded(picture(1)), "http://a/2.jpg": None, "http://a/3.jpg": None})
    table = pq.read_table(pool / "00000.parquet")
    rows = table.to_pylist()
    rows[1]["error_message"] = "opted out: X-Robots-Tag: noai"
    rows[2]["error_message"] = "HTTP 404 Not Found"
    pq.write_table(type(table).from_pylist(rows, schema=table.schema), pool / "00000.parquet")
    notes = [{"image_id": str(i), "url": f"http://a/{i}.jpg", "caption": f"picture number {i}", "subreddit": "pics"} for i in (1, 2, 3)]
    (tmp_path / "pics.json").write_text(json.dumps({"info": {}, "annotations": notes}))
    code, out, err = build("--source", "redcaps", "--input", tmp_path / "pics.json", "--images", pool, "--samples", "all")
    assert code == 0, err
    found = sources(out)
    hidden = uid_of("redcaps", "2")  # of who opted out nothing else may be seen
    assert {i: (r["reason"], r["detail"]) for i, r in found.items()} == {
        "1": ("", ""), hidden: ("failed_to_download", "opted out: X-Robots-Tag: noai"), "3": ("failed_to_download", "HTTP 404 Not Found")
    }  # fmt: skip


def test_each_hash_is_measured_apart_and_named_in_the_manifest(build: Build, captioned: Captioned, tmp_path: Path) -> None:
    rows = [(f"{i}.jpg", encoded(picture(i, 500, 400)), f"picture {i}") for i in range(6)]
    flags = ("--source", "folder", "--input", captioned(rows), "--samples", "all", "--work", tmp_path / "work")
    tables = set()
    for kind in KINDS:
        code, out, err = build(*flags, "--hash", kind, output=kind)
        assert code == 0, err
        manifest = json.loads((out / "manifest.json").read_text())
        assert manifest["notes"]["codecs"]["phash"] == VERSIONS[kind]
        tables.add(manifest["table"])
        found = {r["source_id"]: r["phash"] for p in out.glob("0*.parquet") for r in pq.read_table(p).to_pylist()}
        assert found == {name: f"{open_image(content, KEEP, kind).phash:016x}" for name, content, _ in rows}
    assert len(tables) == 3
    assert len(list((tmp_path / "work" / "measured").glob("*.parquet"))) == 3


@given(st.integers(0, 1000), st.integers(1, 600))
def test_a_task_is_cut_without_gap_or_overlap(start: int, rows: int) -> None:
    task = MeasureTask("", 0, start, start + rows, SourceSpec("folder", ""), True, KEEP, "scaled", (), "", 0)
    parts = pieces(task)
    assert (len(parts) == 0) == (rows == 1)
    assert [row for part in parts for row in range(part.start, part.stop)] == ([] if rows == 1 else list(range(start, start + rows)))
    assert all(part.start < part.stop and part.stop - part.start <= -(-rows // 8) for part in parts)


@pytest.mark.parametrize("junk", [b"\x00\x11\x22", b"\xff\xff\xff", b"\xff\xd0", b"\xff\x00"])
@pytest.mark.parametrize("marker", [0xDA, 0xDB, 0xC4, 0xC0])
def test_bytes_between_segments_never_reach_dali(marker: int, junk: bytes) -> None:
    """libjpeg passes over them and DALI's parser refuses them: only fill bytes (FF) are kept, the rest is encoded again."""
    from train.data.decode.dali import Prover

    plain = encoded(picture(1))
    at = plain.index(bytes([0xFF, marker]))
    content = plain[:at] + junk + plain[at:]
    opened = open_image(content, ImagePolicy())
    assert (opened.encoded is None) == (junk == b"\xff\xff\xff")
    assert Prover(1).failing([opened.encoded or content]) == {}


@pytest.mark.parametrize("stated", [0, 1, 9, 99])
def test_an_orientation_that_means_nothing_is_none_and_dali_reads_the_bytes(stated: int) -> None:
    """Copied byte for byte: training sees it upright as well. EXIF that is torn is no reason to refuse a picture."""
    from train.data.decode.dali import Prover

    exif = Image.Exif()
    exif[0x0112] = stated
    whole = exif.tobytes()
    for tags in (whole, whole[:16], b"Exif\0\0" + b"\xff" * 60):
        content = encoded(picture(1), exif=tags)
        assert open_image(content, KEEP).encoded is None
        assert Prover(1).failing([content]) == {}


def test_a_gif_whose_second_frame_is_broken_is_kept() -> None:
    """Counting its frames raised an IndexError, and the first was refused with it (a fuzz found it)."""
    whole = encoded(picture(1), "GIF", save_all=True, append_images=[picture(2), picture(3)], duration=50)
    second = whole.index(b"\x21\xf9\x04", whole.index(b"\x21\xf9\x04") + 1)
    for cut in range(second, min(second + 40, len(whole))):
        opened = open_image(whole[:cut] + b"\x2c" + b"\xff" * 3, KEEP)
        assert (opened.width, opened.height) == (80, 64)
