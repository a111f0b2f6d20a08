"""Layers of tokens: the ids that open_clip gives each caption, row by row of the tars; they follow cuts and take-downs."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from curate import cli
from curate.tokens import encoded_captions
from shards import cli as shards_cli
from shards import layers
from shards.compact import compact
from shards.core.errors import UsageError
from shards.manifest import read_manifest
from shards.reader import read_samples
from shards.remove import remove
from shards.uids import UidSet, pack


def expected_ids(caption: str) -> list[int]:
    """Return open_clip's ids of a caption, without its padding."""
    from open_clip.tokenizer import SimpleTokenizer

    row = SimpleTokenizer()([caption])[0].tolist()
    return row[: row.index(49407) + 1]


def captions_by_uid(folder: str) -> dict[str, str]:
    return {sample.key: sample.members["txt"].decode() for sample in read_samples(read_manifest(folder), ["txt"])}


def tokens_by_uid(folder: str, layer: str) -> dict[str, Any]:
    return {s.row["uid"]: s.row[f"{layer}.tokens"] for s in read_samples(read_manifest(folder), [], ["uid", f"{layer}.tokens"])}


def test_each_row_has_the_ids_of_its_caption(make_shards, capsys):
    folder = make_shards(20)
    assert cli.main(["layer", "tokens", folder, "clip", "--engine", "inline", "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert (about["samples"], about["without"], about["columns"]) == (20, 0, ["tokens"])
    assert about["tokenizer"]["context_length"] == 77
    expected = {uid: expected_ids(caption) for uid, caption in captions_by_uid(folder).items()}
    assert tokens_by_uid(folder, "clip") == expected
    manifest = read_manifest(folder)
    columns = [layers.tokens_of(manifest, entry, "clip") for entry in manifest.shards]
    assert [column.type.value_type for column in columns] == [pa.uint16()] * 3
    assert [row for column in columns for row in column.to_pylist()] == list(expected.values())


def test_two_processes_write_what_one_writes(make_shards):
    folder = make_shards(20)
    assert cli.main(["layer", "tokens", folder, "one", "--engine", "inline"]) == 0
    assert cli.main(["layer", "tokens", folder, "two", "--workers", "2"]) == 0
    files = [{p.name: p.read_bytes() for p in Path(folder, "layers", name).iterdir()} for name in ("one", "two")]
    assert files[0] == files[1]


def test_odd_captions_and_those_that_are_not_there():
    captions = ["", None, "a dog", "photographer's " * 60, "fish &amp; chips", None]
    rows = encoded_captions(captions).to_pylist()
    assert rows == [None if caption is None else expected_ids(caption) for caption in captions]
    assert max(len(row) for row in rows if row) == 77
    assert encoded_captions([None]).to_pylist() == [None]
    assert encoded_captions([]).type == pa.list_(pa.uint16())


def test_a_foreign_set_has_the_tokens_of_its_members(tmp_path):
    folder = tmp_path / "foreign"
    folder.mkdir()
    with tarfile.open(folder / "00000.tar", "w") as file:
        for name, content in (("a.jpg", b"x"), ("a.txt", b"two dogs"), ("b.jpg", b"y"), ("c.jpg", b"z"), ("c.txt", "naïve".encode())):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    assert shards_cli.main(["index", str(folder), "--engine", "inline"]) == 0
    assert cli.main(["layer", "tokens", str(folder), "clip", "--engine", "inline"]) == 0
    manifest = read_manifest(str(folder))
    rows = layers.tokens_of(manifest, manifest.shards[0], "clip").to_pylist()
    assert rows == [expected_ids("two dogs"), None, expected_ids("naïve")]
    assert layers.read_layers(str(folder))["clip"]["without"] == 1


def test_tokens_follow_subsets_and_take_downs(make_shards, tmp_path):
    folder = make_shards(20)
    uids = list(captions_by_uid(folder))
    remove(folder, UidSet(pack(uids[2:4])))
    assert cli.main(["layer", "tokens", folder, "clip", "--engine", "inline"]) == 0
    manifest = read_manifest(folder)
    whole = layers.tokens_of(manifest, manifest.shards[0], "clip").to_pylist()
    assert [position for position, row in enumerate(whole) if row is None] == [2, 3]
    remove(folder, UidSet(pack(uids[10:12])))
    compact(folder)
    out = str(tmp_path / "subset")
    assert shards_cli.main(["subset", folder, "--samples", "9", "--output", out, "--materialize", "--engine", "inline"]) == 0
    for place in (folder, out):
        assert tokens_by_uid(place, "clip") == {uid: expected_ids(caption) for uid, caption in captions_by_uid(place).items()}


def test_written_again_it_is_there(make_shards, capsys, tmp_path):
    folder = make_shards(10)
    file = tmp_path / "other.csv"
    file.write_text("uid,n\n" + f"{next(iter(captions_by_uid(folder)))},1\n")
    assert cli.main(["layer", "tokens", folder, "clip", "--engine", "inline"]) == 0
    capsys.readouterr()
    assert cli.main(["layer", "tokens", folder, "clip", "--engine", "inline"]) == 0
    assert "nothing to do" in capsys.readouterr().err
    assert cli.main(["layer", "add", folder, "clip", str(file)]) == 2
    assert cli.main(["layer", "add", folder, "clip", str(file), "--overwrite"]) == 0
    assert cli.main(["layer", "tokens", folder, "clip", "--engine", "inline"]) == 2
    assert cli.main(["layer", "tokens", folder, "clip", "--engine", "inline", "--overwrite"]) == 0
    assert len(tokens_by_uid(folder, "clip")) == 10


@pytest.mark.parametrize(
    ("arguments", "reason"), [(["Clip"], "lower-case"), ([], "lower-case"), (["clip", "a.csv"], "for a layer of tokens")]
)
def test_what_is_no_layer_of_tokens_is_exit_2(make_shards, capsys, arguments, reason):
    folder = make_shards(3)
    assert cli.main(["layer", "tokens", folder, *arguments]) == 2
    assert reason in capsys.readouterr().err
    assert not Path(folder, "layers").exists()


def test_a_layer_without_tokens_is_refused(make_shards, tmp_path):
    folder = make_shards(4)
    manifest = read_manifest(folder)
    with pytest.raises(UsageError) as error:
        layers.tokens_of(manifest, manifest.shards[0], "clip")
    assert error.value.allowed == "none has any"
    assert cli.main(["layer", "tokens", folder, "clip", "--engine", "inline"]) == 0
    with pytest.raises(UsageError) as error:
        layers.tokens_of(manifest, manifest.shards[0], "clap")
    assert (error.value.allowed, error.value.advice) == ("clip", "did you mean 'clip'?")


def noise(seed: int) -> bytes:
    """Return a JPEG of coarse noise, no two of them alike."""
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).resize((160, 120)).save(out, "JPEG")
    return out.getvalue()


def test_a_build_lays_its_tokens(captioned, build):
    photos = captioned([(f"{i}.jpg", noise(i), f"a photo of thing number {i}") for i in range(6)])
    flags = ["--source", "folder", "--input", photos, "--samples", "all"]
    code, out, errors = build(*flags, "--tokens", "folder-x")
    assert (code, "lower-case" in errors, out.exists()) == (2, True, False)
    code, out, errors = build(*flags, "--tokens", "profanity")
    assert (code, "no source or filter" in errors, out.exists()) == (2, True, False)
    assert build(*flags)[0] == 0
    assert not Path(out, "layers").exists()
    for said in ("this build is there already", "this layer is there already"):
        code, out, errors = build(*flags, "--tokens", "clip")
        assert (code, said in errors) == (0, True)
        captions = captions_by_uid(str(out))
        assert len(captions) == 6
        assert tokens_by_uid(str(out), "clip") == {uid: expected_ids(caption) for uid, caption in captions.items()}
    code, fresh, _ = build(*flags, "--tokens", "clip", output="fresh")
    assert code == 0
    assert tokens_by_uid(str(fresh), "clip") == tokens_by_uid(str(out), "clip")
