"""Real photos and captions into shards; counts are held against counts taken from the files by other means."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from curate.cli import main
from shards.manifest import Manifest, read_manifest
from shards.reader import read_samples


def build(out: Path, *flags: Any) -> tuple[Manifest, list[dict[str, Any]]]:
    """Build, check the balance, and return the manifest and the ledger."""
    assert main(["build-shards", *map(str, flags), "--samples", "all", "--output", str(out)]) == 0
    manifest = read_manifest(str(out))
    ledger = [row for part in sorted((out / "ledger").iterdir()) for row in pq.read_table(part).to_pylist()]
    for name, s in manifest.sources.items():
        own = [r for r in ledger if r["source"] == name]
        assert s["inputs"] == len(own) == s["kept"] + s["holdout"] + s["spare"] + sum(s["dropped"].values())
        assert s["dropped"] == Counter(r["reason"] for r in own if r["decision"] == "dropped")
    return manifest, ledger


def images_and_captions(folder: Path) -> tuple[set[str], int]:
    """Return the images that a pairs folder names, read with the plainest means, and how many captions it has."""
    if folder.name == "coco":
        content = json.loads((folder / "captions.json").read_text())
        return {i["file_name"] for i in content["images"]}, len(content["annotations"])
    if folder.name == "flickr30k":
        lines = (folder / "results.token").read_text().splitlines()
        return {line.split("#")[0] for line in lines}, len(lines)
    name = "captions.txt" if folder.name == "flickr8k" else "credits.csv"
    with (folder / name).open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    return {row[0] for row in rows}, len(rows)


@pytest.mark.parametrize("name", ["flickr8k", "flickr30k", "coco", "cc-by"])
def test_the_pairs_build_as_they_are(realdata: Path, tmp_path: Path, name: str) -> None:
    folder = realdata / "pairs" / name
    flags = ["--images", folder / "images"] if name == "coco" else []
    listed, captions = images_and_captions(folder)
    images = {name for name in listed if list((folder / "images").glob(f"{Path(name).stem}.*"))}
    manifest, ledger = build(tmp_path / "out", "--source", "folder", "--input", folder, *flags, "--no-profanity", "--no-near", "--no-exact")
    assert len(ledger) == len(listed)
    assert manifest.samples == len(images)
    assert manifest.sources["folder"]["dropped"] == ({"image_missing": len(listed - images)} if listed - images else {})
    found = list(read_samples(manifest, columns=["source_id", "captions"]))
    assert sum(len(s.row["captions"]) for s in found) <= captions  # type: ignore[arg-type]
    for sample in found[:20]:
        original = folder / str(sample.row["source_id"])
        assert sample.members["jpg"] == original.read_bytes()


def brute_force_pairs(hashes: dict[str, int], radius: int) -> set[tuple[str, str]]:
    names = sorted(hashes)
    return {(a, b) for i, a in enumerate(names) for b in names[i + 1 :] if (hashes[a] ^ hashes[b]).bit_count() <= radius}


def joined_pairs(hashes: dict[str, int], radius: int) -> set[tuple[str, str]]:
    """Return the pairs that our join finds, equal hashes opened up again."""
    import numpy as np

    from curate.dedup import pairs_within

    groups: dict[int, list[str]] = {}
    for name in sorted(hashes):
        groups.setdefault(hashes[name], []).append(name)
    distinct = list(groups)
    left, right = pairs_within(np.array(distinct, np.uint64), radius)
    found = {(a, b) for names in groups.values() for i, a in enumerate(names) for b in names[i + 1 :]}
    for i, j in zip(left.tolist(), right.tolist(), strict=True):
        found |= {(min(a, b), max(a, b)) for a in groups[distinct[i]] for b in groups[distinct[j]]}
    return found


def hashes_of(files: dict[str, Path]) -> dict[str, int]:
    """Return our hashes, after checking them against imagededup's, bit for bit."""
    from imagededup.methods import PHash

    from curate.images import ImagePolicy, open_image

    reference = PHash(verbose=False)
    found = {name: open_image(path.read_bytes(), ImagePolicy(), "reference").phash for name, path in files.items()}
    assert {name: f"{value:016x}" for name, value in found.items()} == {n: reference.encode_image(image_file=p) for n, p in files.items()}
    return found


def test_caltech_copies_are_all_found_and_nothing_else(realdata: Path) -> None:
    folder = realdata / "neardup" / "caltech_rand_resize"
    with (folder / "groups.csv").open(newline="") as file:
        group = {row["file"]: row["group"] for row in csv.DictReader(file)}
    names = sorted(group)
    expected = {(a, b) for i, a in enumerate(names) for b in names[i + 1 :] if group[a] == group[b]}
    assert len(expected) == 56
    found = hashes_of({name: folder / name for name in names})
    assert joined_pairs(found, 4) == brute_force_pairs(found, 4) == expected


def test_cifar_pairs_are_those_of_imagededup(realdata: Path) -> None:
    folder = realdata / "neardup" / "cifar10"
    with (folder / "pairs.csv").open(newline="") as file:
        judged = {tuple(sorted((row["test_file"], row["train_file"]))): row["judgment"] for row in csv.DictReader(file)}
    assert sum(j == "1" for j in judged.values()) == 54
    found = hashes_of({name: folder / name for name in sorted({name for pair in judged for name in pair})})
    pairs = joined_pairs(found, 4)
    assert pairs == brute_force_pairs(found, 4)
    assert len(pairs) == 20
    assert sum(judged.get(p) == "1" for p in pairs) == 14


def test_the_unrotated_bridges_are_one_group(realdata: Path, tmp_path: Path) -> None:
    folder = realdata / "neardup" / "pdq_bridge"
    files = {str(p.relative_to(folder)): p for p in sorted(folder.rglob("*.jpg"))}
    found = hashes_of(files)
    unrotated = sorted(name for name in files if "/" not in name)
    assert len(unrotated) == 5
    within = brute_force_pairs({n: found[n] for n in unrotated}, 4)
    assert joined_pairs(found, 4) == brute_force_pairs(found, 4)
    assert all((a, b) in within for i, a in enumerate(unrotated) for b in unrotated[i + 1 :])
    assert not any("/" in a or "/" in b for a, b in joined_pairs(found, 4))


DECODERS = {
    "Pillow": "from PIL import Image; import sys\nfor p in sys.argv[1:]: Image.open(p).convert('RGB').load()",
    "torchvision": (
        "import sys, torch, torchvision\nfor p in sys.argv[1:]:\n"
        "    torchvision.io.decode_image(torchvision.io.read_file(p), torchvision.io.ImageReadMode.RGB)"
    ),
    "DALI": (
        "import sys\nfrom nvidia.dali import fn, pipeline_def, types\n"
        "@pipeline_def(batch_size=1, num_threads=1, device_id=None)\ndef pipe(files):\n"
        "    data, _ = fn.readers.file(files=files)\n    return fn.decoders.image(data, output_type=types.RGB)\n"
        "p = pipe(files=sys.argv[1:]); p.build()\nfor _ in sys.argv[1:]: p.run()"
    ),
}


@pytest.mark.slow
def test_every_odd_image_is_kept_or_dropped_with_a_reason_and_what_is_kept_decodes_everywhere(realdata: Path, tmp_path: Path) -> None:
    import subprocess
    import sys

    folder = tmp_path / "odd"
    folder.mkdir()
    with (realdata / "odd-images" / "expected.csv").open(newline="") as file:
        expected = {row["file"]: row for row in csv.DictReader(file)}
    lines = ["image\tcaption"]
    for name in expected:
        (folder / name).write_bytes((realdata / "odd-images" / name).read_bytes())
        lines.append(f"{name}\tan odd picture")
    (folder / "captions.tsv").write_text("\n".join(lines) + "\n")
    manifest, ledger = build(tmp_path / "out", "--source", "folder", "--input", folder, "--no-near", "--no-exact")
    decided = {r["source_id"]: r for r in ledger}
    assert set(decided) == set(expected)
    assert all(r["decision"] == "kept" or r["reason"] for r in ledger)
    assert not any(r["reason"] == "worker_killed" for r in ledger)
    for name, row in expected.items():
        if row["pillow_result"] == "decodes":
            assert decided[name]["reason"] in ("", "too_large", "unsupported", "undecodable"), name
        elif "load fails" in row["pillow_result"] or "open fails" in row["pillow_result"]:
            assert decided[name]["decision"] == "dropped", name
    assert manifest.samples > 20
    kept = []
    for sample in read_samples(manifest):
        kept.append(tmp_path / f"{sample.key}.jpg")
        kept[-1].write_bytes(sample.members["jpg"])
    for decoder, code in DECODERS.items():
        one = subprocess.run([sys.executable, "-c", code, *map(str, kept)], check=False, capture_output=True, text=True)
        assert one.returncode == 0, f"{decoder}: {one.stderr[-500:]}"
