"""Which examples a report shows, against a choice made in plain Python; and their thumbnails, odd bytes included."""

from __future__ import annotations

import io
import os
import random
import signal
import struct
import zlib
from collections import defaultdict
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from PIL import Image
from report_synthetic import SEED, Row, decided, picture

from curate.report.examples import COLUMNS, choose_examples, read_examples, write_examples
from curate.report.thumbnail import SIDE, thumbnail
from shards.core import engine
from shards.sample import rank_key


def many() -> list[Row]:
    draw = random.Random(3)
    rows = [Row(source, f"{i}", f"caption {i}") for source in ("a", "b") for i in range(90)]
    for i in range(400):
        source = draw.choice("ab")
        twin = rows[draw.randrange(30) + (90 if source == "b" else 0)]
        reason = draw.choice(["exact_duplicate", "near_duplicate", "profanity", "duplicate_id"])
        rows.append(Row(source, f"d{i}", "x", "dropped", reason, f"{i}", "" if reason == "profanity" else twin.uid))
    return rows


def chosen(rows: list[Row]) -> list[dict[str, object]]:
    with duckdb.connect() as con:
        con.register("the rows", decided(rows))
        return choose_examples(con, "the rows", "the rows").to_pylist()


def by_rank(rows: list[Row]) -> list[str]:
    return [r.uid for r in sorted(rows, key=lambda r: (rank_key(SEED, r.uid) >> 1, r.uid))]


def test_choice_equals_a_choice_in_python() -> None:
    rows = many()
    picks = chosen(rows)
    parts: dict[object, list[object]] = defaultdict(list)
    for p in picks:
        parts[p["kind"], p["source"] if p["kind"] == "dropped" else "", p["reason"] if p["kind"] == "dropped" else p["group"]].append(
            p["uid"]
        )
    for source in "ab":
        for reason in ("exact_duplicate", "near_duplicate", "profanity", "duplicate_id"):
            own = [r for r in rows if (r.source, r.reason) == (source, reason)]
            assert parts["dropped", source, reason] == by_rank(own)[:12]
    kept = [p["uid"] for p in picks if p["kind"] == "kept"]
    assert kept == by_rank([r for r in rows if r.decision == "kept"])[:50]
    copies = defaultdict(list)
    for r in rows:
        if r.duplicate_of and r.reason != "duplicate_id":
            copies[r.duplicate_of].append(r)
    largest = sorted(copies, key=lambda uid: (-len(copies[uid]), uid))[:20]
    for number, survivor in enumerate(largest):
        assert parts["group", "", number] == [survivor, *by_rank(copies[survivor])][:8]
        assert {p["group_size"] for p in picks if p["group"] == number} == {len(copies[survivor]) + 1}
    assert {p["group"] for p in picks} == {-1, *range(20)}


def test_choice_does_not_depend_on_the_order_of_rows() -> None:
    rows = many()
    shuffled = random.Random(1).sample(rows, len(rows))
    assert chosen(rows) == chosen(shuffled)


def test_written_examples_are_the_same_each_time(tmp_path: Path) -> None:
    image = tmp_path / "photo.jpg"
    image.write_bytes(picture(400, 100))
    rows = [Row("a", "0", "one", image=str(image)), Row("a", "1", "gone", image=str(tmp_path / "no.jpg")), Row("a", "2", "none")]
    with duckdb.connect() as con:
        con.register("decided", decided(rows))
        picks = choose_examples(con, "decided", "decided")
    for name, workers in (("one", 1), ("two", 2)):
        write_examples(str(tmp_path / name), picks, workers=workers)
    file = "examples/examples.parquet"
    assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    written = {r["caption"]: r for r in read_examples(str(tmp_path / "one"))}
    assert list(written["one"]) == [name for name, _ in COLUMNS] + ["thumbnail"]
    with Image.open(io.BytesIO(written["one"]["thumbnail"])) as shown:
        assert (shown.format, shown.size) == ("WEBP", (96, 24))
    assert written["gone"]["thumbnail"] is None
    assert written["none"]["thumbnail"] is None


def test_bytes_are_read_by_range(tmp_path: Path) -> None:
    content = picture(50, 50, "red")
    (tmp_path / "some.tar").write_bytes(b"x" * 700 + content + b"y" * 300)
    picks = pa.Table.from_pylist([{**blank(), "path": str(tmp_path / "some.tar"), "offset": 700, "size": len(content)}])
    write_examples(str(tmp_path), picks)
    assert read_examples(str(tmp_path))[0]["thumbnail"] == thumbnail(content)


def blank() -> dict[str, object]:
    return {name: 0 if kind.startswith("int") else "" for name, kind in COLUMNS}


def test_no_picks_write_an_empty_table(tmp_path: Path) -> None:
    with duckdb.connect() as con:
        con.register("decided", decided([Row("a", "0", "x", "spare")]))
        write_examples(str(tmp_path), choose_examples(con, "decided", "decided"))
    assert read_examples(str(tmp_path)) == []


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)  # type: ignore[arg-type]
    return out.getvalue()


def shown(content: bytes) -> Image.Image:
    made = thumbnail(content)
    assert made is not None
    return Image.open(io.BytesIO(made)).convert("RGB")


def near(found: object, expected: tuple[int, int, int]) -> bool:
    return max(abs(a - b) for a, b in zip(found, expected, strict=True)) <= 12  # type: ignore[call-overload]


def test_upright_by_exif() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert shown(encoded(Image.new("RGB", (200, 100), "red"), "JPEG", exif=exif)).size == (48, 96)


def test_alpha_on_white_first_frame_and_deep_pixels() -> None:
    assert near(shown(encoded(Image.new("RGBA", (9, 9), (0, 0, 0, 0)), "PNG")).getpixel((4, 4)), (255, 255, 255))
    frames = [Image.new("RGB", (9, 9), c) for c in ("red", "blue")]
    assert near(shown(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])).getpixel((4, 4)), (255, 0, 0))
    assert near(shown(encoded(Image.new("I;16", (9, 9), 0x8000), "PNG")).getpixel((4, 4)), (128, 128, 128))
    assert near(shown(encoded(Image.new("CMYK", (9, 9), (0, 255, 255, 0)), "JPEG")).getpixel((4, 4)), (255, 0, 0))


def test_small_pictures_are_not_enlarged() -> None:
    assert shown(picture(7, 5)).size == (7, 5)
    assert max(shown(picture(3000, 20)).size) == SIDE


def bomb(side: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>not found</html>", picture(64, 64)[:300], picture(64, 64, format="PNG")[:60], bomb(60_000), b"%!PS-Adobe-3.0 EPSF-3.0\n"],
    ids=["empty", "html", "half a JPEG", "half a PNG", "bomb", "EPS"],
)
def test_what_does_not_decode_is_no_thumbnail(content: bytes) -> None:
    assert thumbnail(content) is None


def deadly(pointers: list[tuple[str, int, int]]) -> list[bytes | None]:
    """Stand in for a decoder that crashes on one file."""
    if any("crash" in path for path, _, _ in pointers):
        os.kill(os.getpid(), signal.SIGKILL)
    return [b"fine" for _ in pointers]


def test_a_crash_costs_one_thumbnail() -> None:
    from curate.report.examples import split

    batch = [(f"{i}", 0, 1) for i in range(5)] + [("crash", 0, 1)]
    outcomes = list(engine.map_unordered(deadly, [batch], split=split))
    lost = [o.spec for o in outcomes if isinstance(o, engine.Lost)]
    assert lost == [[("crash", 0, 1)]]
    assert sorted(p for o in outcomes if isinstance(o, engine.Done) for p in o.spec) == sorted(batch[:5])
