"""What was fetched: which bytes count as a picture, and what `--image-size` makes of turned, wide-gamut, deep, clear and huge ones."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from drawing import encoded, picture
from fetch_server import Server
from PIL import Image, ImageCms

from curate.cli import main
from curate.fetch.pictures import decoded, refusal
from curate.fetch.pool import read_pool
from shards.upright import UndecodableError

SIDE = 48


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.jpg", encoded(picture(1)))
    return file.getvalue()


OTHERS = {
    "gzip data": gzip.compress(encoded(picture(1))),
    "a ZIP archive": zipped(),
    "a PDF": b"%PDF-1.4 " + bytes(100),
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "a video (MP4)": b"\0\0\0\x18ftypmp42" + bytes(100),
    "a video (Matroska, WebM)": b"\x1aE\xdf\xa3" + bytes(100),
    "a video (AVI)": b"RIFF\0\1\0\0AVI " + bytes(100),
    "sound": b"ID3\3" + bytes(100),
    "a HEIC": b"\0\0\0\x18ftypheic" + bytes(100),
    "a JPEG XL": b"\xff\x0a" + bytes(100),
    "a JPEG 2000": encoded(picture(1), "JPEG2000"),
    "an icon": encoded(picture(1, 32, 32), "ICO"),
    "SVG": b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'/>",
    "HTML": b"\xef\xbb\xbf \r\n<!DOCTYPE html><p>gone",
    "HTML or XML": b"<p>gone",
    "JSON": b'{"error": 1}',
    "text": b"Image not available",
}


@pytest.mark.parametrize(("name", "content"), OTHERS.items())
def test_what_is_no_picture_is_named(name: str, content: bytes) -> None:
    assert refusal(content, whole=False) == f"no image but {name}"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF"])
def test_a_picture_of_each_format_is_taken(kind: str) -> None:
    content = encoded(picture(1, SIDE, SIDE), kind)
    assert (refusal(content, whole=False), refusal(content, whole=True)) == ("", "")


def closed(jpeg: bytes) -> bytes:
    """Return a JPEG cut in its middle, with an end mark: Pillow takes it, gray in its lower part."""
    return jpeg[: len(jpeg) // 2] + b"\xff\xd9"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF"])
def test_a_picture_that_is_cut_off_is_known_by_decoding_it(kind: str) -> None:
    content = encoded(picture(1, 300, 200), kind)
    for broken in (content[: len(content) * 2 // 3], *([closed(content)] if kind == "JPEG" else [])):
        assert refusal(broken, whole=True).startswith("no usable image: ")


def test_32_bits_a_channel_are_no_usable_image() -> None:
    content = encoded(Image.fromarray(np.ones((8, 8), np.float32)), "TIFF")
    assert refusal(content, whole=True) == "no usable image: F pixels (32 bits a channel)"


def bomb(width: int, height: int) -> bytes:
    """Return a PNG of one colour that states its size, whose rows are not all there."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(bytes(1 << 20))
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_a_bomb_is_refused_by_its_header() -> None:
    tracemalloc.start()
    with pytest.raises(UndecodableError, match="20000 × 20000 pixels"):
        decoded(bomb(20000, 20000))
    assert refusal(bomb(20000, 20000), whole=False).startswith("no usable image: 20000 × 20000 pixels")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    one = Server()
    yield one
    one.close()


def fetched(server: Server, folder: Path, *flags: str) -> dict[str, tuple[str, str, bytes]]:
    """Fetch the server's files and return status, detail and bytes by name."""
    notes = [{"image_id": name, "url": f"{server.url}/file/{name}", "caption": f"c {name}"} for name in server.files]
    source, pool = folder / "a.json", folder / "pool"
    source.write_text(json.dumps({"info": {}, "annotations": notes}))
    words = ["--source", "redcaps", "--input", str(source), "--output", str(pool), "--workers", "1", "--allow-private-hosts"]
    assert main(["fetch", *words, *flags]) == 0
    return {
        r.source_id: (r.status, r.detail, Path(r.tar).read_bytes()[r.offset : r.offset + r.size] if r.tar else b"")
        for r in read_pool(str(pool))
    }


def halves(width: int = 96, height: int = 64) -> Image.Image:
    """Red to the left and blue to the right."""
    image = Image.new("RGB", (width, height), (230, 20, 20))
    image.paste((20, 20, 230), (width // 2, 0, width, height))
    return image


def turned(number: int) -> bytes:
    """Return `halves` as a camera stores it that was held in one of EXIF's eight ways: upright again, it is `halves`."""
    inverse = {
        2: "FLIP_LEFT_RIGHT",
        3: "ROTATE_180",
        4: "FLIP_TOP_BOTTOM",
        5: "TRANSPOSE",
        6: "ROTATE_90",
        7: "TRANSVERSE",
        8: "ROTATE_270",
    }
    image = halves()
    if number > 1:
        image = image.transpose(Image.Transpose[inverse[number]])
    exif = Image.Exif()
    exif[0x0112] = number
    return encoded(image, "JPEG", exif=exif.tobytes(), quality=95, subsampling=0)


def swapped_profile() -> bytes:
    """Return an ICC profile in which red and blue have changed places: sRGB with two of its tags exchanged."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile.replace(b"rXYZ", b"tmp!").replace(b"bXYZ", b"rXYZ").replace(b"tmp!", b"bXYZ")


@pytest.mark.slow
def test_resized_pictures_are_upright_srgb(server: Server, tmp_path: Path) -> None:
    """EXIF's eight orientations, a profile, 16 bits, alpha, palettes: each as it is seen, at the asked size, as an RGB JPEG."""
    server.files = {f"turn{n}.jpg": turned(n) for n in range(1, 9)}
    server.files |= {f"{kind}": encoded(halves(), kind) for kind in ("GIF", "AVIF", "BMP", "TIFF", "PPM", "PNG", "WEBP")}
    server.files["profile"] = encoded(halves().transpose(Image.Transpose.FLIP_LEFT_RIGHT), "PNG", icc_profile=swapped_profile())
    deep = np.zeros((64, 96), np.uint16)
    deep[:, :48], deep[:, 48:] = 50 << 8, 200 << 8
    server.files["deep"] = encoded(Image.fromarray(deep), "PNG")
    clear = halves().convert("RGBA")
    clear.putalpha(Image.fromarray(np.repeat(np.r_[np.full(48, 255), np.zeros(48)][None], 64, 0).astype(np.uint8)))
    server.files["clear"] = encoded(clear, "PNG")
    found = fetched(server, tmp_path, "--image-size", str(SIDE))
    assert {name: one[:2] for name, one in found.items()} == dict.fromkeys(server.files, ("success", ""))
    for name, (_, _, content) in found.items():
        with Image.open(io.BytesIO(content)) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (48, 32)), name
            pixels = np.asarray(image).astype(int)
        left, right = pixels[4:28, 4:20].mean((0, 1)), pixels[4:28, 28:44].mean((0, 1))
        expected = {"deep": ([50] * 3, [200] * 3), "clear": ([230, 20, 20], [255] * 3)}.get(name, ([230, 20, 20], [20, 20, 230]))
        assert np.abs(left - expected[0]).max() < 12, (name, left)
        assert np.abs(right - expected[1]).max() < 12, (name, right)
    sizes = {
        r["source_id"]: (r["original_width"], r["original_height"]) for r in pq.read_table(tmp_path / "pool" / "fetch.parquet").to_pylist()
    }
    assert set(sizes.values()) == {(96, 64)}


@pytest.mark.slow
@pytest.mark.parametrize("size", [[], ["--image-size", "64"]])
def test_what_no_build_can_use_is_no_success(size: list[str], server: Server, tmp_path: Path) -> None:
    server.files = {name.replace(" ", "_").replace("(", "").replace(")", "").replace(",", ""): content for name, content in OTHERS.items()}
    names = dict(zip(server.files, OTHERS, strict=True))
    server.files |= {"bomb": bomb(20000, 20000), "good": encoded(picture(1, SIDE, SIDE))}
    found = fetched(server, tmp_path, *size)
    assert {name: one[:2] for name, one in found.items()} == {
        **{name: ("failed_to_download", f"no image but {kind}") for name, kind in names.items()},
        "bomb": ("failed_to_download", "no usable image: 20000 × 20000 pixels, more than 100,000,000"),
        "good": ("success", ""),
    }


@pytest.mark.slow
def test_enough_counts_records_with_a_picture_that_a_build_can_use(server: Server, tmp_path: Path) -> None:
    """Every second picture is cut off; each good one has two URLs. 6 of 12 records are usable: 4 are enough after 8, not after 4."""
    good = [encoded(picture(i, 200, 150)) for i in range(12)]
    server.files = {f"{i}": closed(content) if i % 2 else content for i, content in enumerate(good)}
    urls = {i: [f"{server.url}/file/{i}", f"{server.url}/file/{i}?again"] for i in range(12)}
    server.files |= {f"{i}?again": server.files[str(i)] for i in range(12)}
    notes = [{"image_id": f"{i}", "url": urls[i], "caption": "x"} for i in urls]
    (tmp_path / "a.json").write_text(json.dumps({"info": {}, "annotations": notes}))
    words = ["--source", "redcaps", "--input", str(tmp_path / "a.json"), "--output", str(tmp_path / "pool"), "--workers", "1"]
    words += ["--allow-private-hosts", "--samples-per-shard", "2", "--enough", "4"]
    assert main(["fetch", *words]) == 0
    rows = list(read_pool(str(tmp_path / "pool")))
    records = list(dict.fromkeys(row.source_id for row in rows))  # in rank order, a shard for each
    asked = [row.source_id for row in rows if row.status != "image_missing"]
    usable = {row.source_id for row in rows if row.status == "success"}
    assert usable == {name for name in asked if int(name) % 2 == 0}
    assert len(usable) in (4, 5)  # a worker is given its next shard before the last one is counted
    last = [i for i, name in enumerate(records) if int(name) % 2 == 0][3]
    assert last + 1 <= len(set(asked)) <= last + 2
