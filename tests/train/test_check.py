"""`train check`: what it refuses is what the loader replaces, kind by kind, and for the loader's reason."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import tarfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pictures import encoded, exif, photo
from PIL import Image

from shards import cli as shards_cli
from shards.core.errors import UsageError
from shards.manifest import read_manifest
from train import cli
from train.commands import check as command
from train.commands.check import CheckConfig, check
from train.data.batch import Needs
from train.data.loader import Loader

MakeShards = Callable[..., str]
BY = {"cpu": "(plain JPEGs by libjpeg-turbo, all else by Pillow)", "dali": "(plain JPEGs by DALI, all else by Pillow)"}


def broken_tables(data: bytes) -> bytes:
    """Return a JPEG with impossible Huffman tables: its header is fine, so that only a decode can tell."""
    start = data.index(b"\xff\xc4")
    return data[: start + 5] + b"\xff" * 16 + data[start + 21 :]


def kinds() -> dict[str, tuple[str, bytes]]:
    """Return {name: (extension, bytes)} of files that can be used, and of those that cannot (their names begin with `bad`)."""
    image = photo(120, 90)
    gray16 = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    alpha = np.dstack([np.asarray(image), np.full((90, 120), 128, np.uint8)])
    jpeg = encoded(image, quality=90)
    png = encoded(image, "PNG")
    return {
        "plain": ("jpg", jpeg),
        "gray": ("jpg", encoded(image.convert("L"))),
        "progressive": ("jpg", encoded(image, progressive=True)),
        "alpha": ("png", encoded(Image.fromarray(alpha), "PNG")),
        "cmyk": ("jpg", encoded(image.convert("CMYK"))),
        "gif": ("jpg", encoded(image, "GIF")),
        "webp": ("webp", encoded(image, "WEBP")),
        "sixteen": ("png", encoded(gray16, "PNG")),
        "rotated": ("jpg", encoded(image, exif=exif(6))),
        "bad_cut": ("jpg", jpeg[: len(jpeg) // 2]),
        "bad_cut_end": ("jpg", jpeg[:-40]),
        "bad_cut_rotated": ("jpg", encoded(image, exif=exif(6))[:-400]),
        "bad_cut_png": ("png", png[: len(png) // 2]),
        "bad_html": ("jpg", b"<html>gone</html>"),
        "bad_empty": ("jpg", b""),
        "bad_tables": ("jpg", broken_tables(jpeg)),
        "bad_nothing": ("txt", b"words alone"),
    }


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a foreign set with one sample of each kind."""
    folder = tmp_path_factory.mktemp("sets") / "odd"
    folder.mkdir()
    with tarfile.open(folder / "00000.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for key, (extension, content) in kinds().items():
            info = tarfile.TarInfo(f"{key}.{extension}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    assert shards_cli.main(["index", str(folder)]) == 0
    return str(folder)


def told(folder: str, engine: Any, capsys: pytest.CaptureFixture[str], code: int = 1) -> dict[str, str]:
    """Return {key: why} of a check."""
    assert check(CheckConfig(manifest=folder, engine=engine, workers=1, json=True)) == code
    result = json.loads(capsys.readouterr().out)
    assert result["engine"] == engine
    return {row["key"]: row["why"] for row in result["undecodable"]}


@pytest.mark.parametrize("engine", ["cpu", "dali"])
def test_what_is_refused_is_what_the_loader_replaces_for_its_reasons(odd: str, engine: str, capsys: pytest.CaptureFixture[str]) -> None:
    whys = told(odd, engine, capsys)
    assert set(whys) == {key for key in kinds() if key.startswith("bad")}
    assert whys["bad_nothing"] == "no image member"
    assert whys["bad_cut"].startswith("JPEG cut off")
    assert whys["bad_tables"].startswith("DALI") == (engine == "dali")
    loader = Loader([(read_manifest(odd), None)], batch_size=1, image_size=224, seed=0, needs=Needs(), engine=engine)
    with contextlib.closing(loader.batches()) as batches:
        for _ in itertools.islice(batches, len(kinds())):
            pass
    assert {bad.uid: bad.why for bad in loader.bad.values()} == whys


def test_the_default_is_dali_and_the_last_line_says_by_what(make_shards: MakeShards, capsys: pytest.CaptureFixture[str]) -> None:
    fine = make_shards(20)
    for flags, decoder in (([], "dali"), (["--engine", "cpu"], "cpu")):
        assert cli.main(["check", "--manifest", fine, "--workers", "1", *flags]) == 0
        assert capsys.readouterr().out == f"20 of 20 images decode {BY[decoder]}\n"


def test_rows_name_shard_key_and_reason(make_shards: MakeShards, capsys: pytest.CaptureFixture[str]) -> None:
    build = make_shards(40, recode=lambda i, jpeg: jpeg[: len(jpeg) // 2] if i in (3, 30) else jpeg)
    assert check(CheckConfig(manifest=build, engine="cpu", workers=1)) == 1
    *rows, last = capsys.readouterr().out.splitlines()
    assert last == f"38 of 40 images decode {BY['cpu']}"
    assert sum("JPEG cut off" in row and ".tar" in row for row in rows) == 2


def test_where_dali_cannot_be_imported_the_cpu_checks(
    make_shards: MakeShards, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(name: str) -> Any:
        raise ImportError(f"no {name}")

    build = make_shards(8)
    monkeypatch.setattr(command.importlib, "import_module", refuse)
    assert command._engine(None) == "cpu"
    with pytest.raises(UsageError, match=r"--engine dali: no nvidia\.dali"):
        check(CheckConfig(manifest=build, engine="dali"))


def test_a_limit_is_honoured(odd: str) -> None:
    first_bad = next(number for number, key in enumerate(kinds()) if key.startswith("bad"))
    assert check(CheckConfig(manifest=odd, engine="cpu", workers=1, limit=first_bad)) == 0
