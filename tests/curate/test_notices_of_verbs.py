"""What `shards compact` and `curate report`, `compare`, `card` and `layer` pass over is a line at their end, and exit code 1 with --strict."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.card.markdown import MAX_LICENCES, MAX_TEXT
from curate.cli import main
from shards.cli import main as shards_main
from shards.clip_bpe import clip_bpe
from shards.manifest import read_manifest
from shards.schema import SIDECAR, arrow_schema
from shards.writer import write_shard

Make = Callable[..., str]
Captured = pytest.CaptureFixture[str]


def ended(command: Callable[[list[str]], int], arguments: list[str], capsys: Captured, *, strict: int) -> list[str]:
    """Run a command without and with --strict; return the last lines of stderr of the first run, all of them lines of notices."""
    assert command(arguments) == 0
    lines = capsys.readouterr().err.splitlines()
    assert command([*arguments, "--strict"]) == strict
    assert ("--strict: exit code 1" in capsys.readouterr().err) == bool(strict)
    return lines


def uids_of(folder: str) -> list[str]:
    return [uid for path in sorted(Path(folder).glob("*.parquet")) for uid in pq.read_table(path)["uid"].to_pylist()]


@pytest.mark.parametrize("verb", ["report", "compare", "card"])
def test_a_whole_build_has_nothing_to_tell(make_shards: Make, verb: str, capsys: Captured) -> None:
    folder = make_shards(12)
    assert main([verb, *([folder, folder] if verb == "compare" else [folder]), "--strict"]) == 0
    assert "--strict" not in capsys.readouterr().err


def test_compact_names_tars_of_others_and_metadata_of_the_old_tars(make_shards: Make, tmp_path: Path, capsys: Captured) -> None:
    build, other, cut = make_shards(12), make_shards(8, "other", seed=1), str(tmp_path / "cut")
    assert main(["card", build]) == 0
    assert shards_main(["compact", build, "--strict"]) == 0
    assert shards_main(["subset", other, "--samples", "3", "--output", cut]) == 0
    manifest, (entry,) = read_manifest(build), read_manifest(cut).shards
    dataclasses.replace(manifest, shards=(*manifest.shards, entry), samples=15).save(build)
    assert shards_main(["remove", build, uids_of(build)[0]]) == 0
    capsys.readouterr()
    assert shards_main(["compact", build, "--strict"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert any(line.startswith("1 tar of another folder still holds samples out of use: ") and line.endswith("other") for line in lines)
    assert any(line.startswith("1 file still names the old tars by their sha256: ") for line in lines)
    assert main(["card", build, "--overwrite"]) == 0
    assert shards_main(["compact", build]) == 0  # the metadata is new, the other folder's tar as it was
    assert "sha256" not in capsys.readouterr().err


def test_layer_tells_of_uids_without_a_sample_and_samples_without_a_row(make_shards: Make, tmp_path: Path, capsys: Captured) -> None:
    build = make_shards(12)
    rows = [*uids_of(build)[:5], "0" * 32, "1" * 32]
    (tmp_path / "scores.csv").write_text("uid,score\n" + "".join(f"{uid},1\n" for uid in rows))
    lines = ended(main, ["layer", "add", build, "scores", str(tmp_path / "scores.csv")], capsys, strict=1)
    assert lines[-2:] == [
        f"2 uids of the file are not in the build: {tmp_path / 'scores.csv'}",
        f"7 samples have no row in the layer: null in the columns of {build}/layers/scores",
    ]
    assert main(["layer", "list", build, "--strict"]) == 0


def write_captions(folder: Path, captions: list[str | None]) -> str:
    """Write a build of these captions, None for none."""
    folder.mkdir()
    blank: dict[str, object] = {"string": "", "int32": 0, "int64": 0, "double": 0.0, "list<string>": []}
    rows = [{n: blank[k] for n, k in SIDECAR} | {"key": f"{i:032x}", "uid": f"{i:032x}", "caption": c} for i, c in enumerate(captions)]
    samples = [(str(row["key"]), {"txt": str(row["caption"]).encode()}) for row in rows]
    entry = write_shard(str(folder), "00000", samples, pa.Table.from_pylist(rows, schema=arrow_schema(SIDECAR)))
    blueprint = read_manifest(str(folder.parent / "build"))
    dataclasses.replace(blueprint, samples=len(rows), bytes=entry.bytes, shards=(entry,), members=("txt",)).save(str(folder))
    return str(folder)


def test_tokens_tell_of_captions_that_are_cut_and_of_those_that_are_none(make_shards: Make, tmp_path: Path, capsys: Captured) -> None:
    make_shards(1)
    captions = ["a dog", "dog " * 75, "dog " * 76, "\u72d7" * 60, "x" * 76, None]
    lengths = [len(clip_bpe().encode(caption)) + 2 for caption in captions if caption is not None]
    folder = write_captions(tmp_path / "texts", captions)
    lines = ended(main, ["layer", "tokens", folder, "clip", "--engine", "inline", "--overwrite"], capsys, strict=1)
    assert f"1 sample has no row in the layer: null in the columns of {folder}/layers/clip" in lines
    count = sum(length > 77 for length in lengths)
    assert 1 < count < len(lengths)
    assert f"{count} captions have more tokens than the layer holds: their ends are left out: 77 tokens each" in lines


def test_compare_tells_of_pictures_that_it_cannot_compare(make_shards: Make, tmp_path: Path, capsys: Captured) -> None:
    broken = lambda i, content: b"no picture" if i < 3 else content
    build, foreign = make_shards(6), make_shards(6, "foreign", recode=broken)
    for path in Path(foreign).glob("*.parquet"):
        path.unlink()
    Path(foreign, "manifest.json").unlink()
    assert shards_main(["index", foreign]) == 0
    capsys.readouterr()
    lines = ended(main, ["compare", build, foreign], capsys, strict=1)
    assert f"3 images without a pHash, compared by their bytes alone: such as those of {foreign}" in lines
    lines = ended(main, ["compare", build, foreign, "--no-look"], capsys, strict=1)
    assert f"6 samples compared without their images: none there, or not opened: such as those of {foreign}" in lines
    assert not any("pHash" in line for line in lines)


def test_card_tells_what_it_shortens_and_leaves_out(make_shards: Make, capsys: Captured) -> None:
    build = make_shards(12)
    for path in sorted(Path(build).glob("*.parquet")):
        table = pq.read_table(path)
        pq.write_table(table.append_column("shape.box", pa.array([{"x": 1}] * len(table))), path)
    manifest = read_manifest(build)
    licences = {"drawn": {f"licence {i:02d}": 1 for i in range(MAX_LICENCES + 4)}}
    dataclasses.replace(manifest, licences=licences).save(build)
    long = "bird " * MAX_TEXT
    lines = ended(main, ["card", build, "--description", long], capsys, strict=1)
    assert "1 column without a data type in Croissant, left out of croissant.json: such as shape.box" in lines
    assert any(line.startswith("4 licences summed up in one line of README.md: ") for line in lines)
    assert any(line.startswith(f"1 text of the card cut to {MAX_TEXT} characters: such as bird bird") for line in lines)
    (cut,) = [line for line in Path(build, "README.md").read_text().splitlines() if line.startswith("bird bird")]
    assert len(cut) == MAX_TEXT + 1


def test_card_tells_of_a_set_whose_tars_are_not_the_set(make_shards: Make, tmp_path: Path, capsys: Captured) -> None:
    cut = str(tmp_path / "cut")
    assert shards_main(["subset", make_shards(12), "--samples", "3", "--output", cut]) == 0
    capsys.readouterr()
    lines = ended(main, ["card", cut], capsys, strict=1)
    assert any(line.startswith("1 set left out of what other readers load: ") for line in lines)


def test_report_tells_of_native_records_and_files_that_it_passes_over(tmp_path: Path, capsys: Captured) -> None:
    text = "a dog\thttps://example.org/1.jpg\n" + "no address\n" * 2 + "caf\u00e9\thttps://example.org/2.jpg\n"
    (tmp_path / "a.tsv").write_bytes(text.encode("cp1252"))
    arguments = ["report", "--source", "cc3m", "--input", str(tmp_path), "--json", "--work", str(tmp_path / "work")]
    lines = ended(main, arguments, capsys, strict=1)  # the second run takes what the first one counted: it tells the same
    assert "2 records left out: bad_record: first in cc3m's a.tsv, record 2" in lines
    assert "1 texts that are no UTF-8, read as cp1252: first in cc3m's a.tsv: 'caf\u00e9\\thttps://example.org/2.jpg'" in lines


def test_report_tells_of_torn_tars_and_of_pictures_that_are_none(make_shards: Make, tmp_path: Path, capsys: Captured) -> None:
    broken = lambda i, content: b"no picture" if i == 0 else content
    build = Path(make_shards(6, recode=broken, per_shard=3))
    web = tmp_path / "web"
    web.mkdir()
    for path in build.glob("*.tar"):
        shutil.copy(path, web)
    torn = web / "00001.tar"
    with tarfile.open(torn) as file:
        start = file.getmembers()[-1].offset
    torn.write_bytes(torn.read_bytes()[: start + 100])
    assert main(["report", str(web), "--output", str(tmp_path / "page.html"), "--engine", "inline", "--strict"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert any(line.startswith("1 tar left out, or used as far as it is whole: 00001.tar: ") for line in lines)
    assert any(line.startswith("1 picture of the page could not be read and is left out: such as one in ") for line in lines)
    assert json.loads((tmp_path / "page.json").read_text())["sources"][0]["samples"] == 5
