"""Real images in the published layouts: named sets, packing, pairs."""

from __future__ import annotations

import json
import pickle
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval import packed
from eval.cli import main
from eval.data import open_examples
from eval.datasets.paired import open_paired
from shards.cli import main as shards
from shards.core import registry


def test_eurosat_as_it_is(realdata: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All ten folders are there, so the named reader takes them; a part of the set has another checksum, and that is told."""
    folder = realdata / "classification" / "eurosat"
    assert main(["pack", "eurosat", "--input", str(folder), "--output", str(tmp_path / "eurosat")]) == 0
    assert "split list is not that of the whole published set" in capsys.readouterr().err
    module = registry.get("eval.downstream", "eurosat")
    files = sorted(f"{file.parent.name}/{file.name}" for file in folder.rglob("*.jpg"))
    found = {id: split for split, path in packed.splits_of(str(tmp_path / "eurosat")).items() for id in open_examples(path).ids}
    assert found == {id: module.RULE.side(id) for id in files}
    for split, path in packed.splits_of(str(tmp_path / "eurosat")).items():
        assert shards(["verify", path, "--engine", "inline"]) == 0
        examples = open_examples(path)
        for i, id in enumerate(examples.ids):
            assert module.FOLDERS[examples.labels[i]] == id.split("/")[0]
            assert examples.read(i) == (folder / id).read_bytes(), split


def test_pacs_and_its_shifted_twins(realdata: Path, tmp_path: Path) -> None:
    folder = realdata / "classification" / "pacs"
    assert main(["pack", "pacs", "--input", str(folder), "--output", str(tmp_path / "pacs")]) == 0
    dataset = packed.read(str(tmp_path / "pacs"))
    assert {name: dataset.split(name).samples for name in dataset.splits if dataset.split(name).shift} == {
        "art_painting": 12, "cartoon": 12, "sketch": 12,
    }  # fmt: skip
    assert sum(dataset.split(name).samples for name in dataset.splits) == 48
    shifted = packed.shifts_of(str(tmp_path / "pacs"))
    assert {Path(path).name for path in shifted} == {"art_painting", "cartoon", "sketch"}
    photos = open_examples(str(tmp_path / "pacs" / "train"))
    for path in shifted:
        twin = open_examples(path)
        assert twin.class_digest == photos.class_digest
        assert Counter(twin.classes[label] for label in twin.labels) == {"dog": 4, "guitar": 4, "house": 4}
        assert not np.isin(twin.hashes, photos.hashes).any()


def test_cifar_as_pickles_of_its_real_images(realdata: Path, tmp_path: Path) -> None:
    """The published pickles, made of the real images: the packed PNG has the decoded pixels, labels by the files' folders."""
    module = registry.get("eval.downstream", "cifar10")
    raw = tmp_path / "cifar-10-batches-py"
    raw.mkdir()
    files = {split: sorted((realdata / "classification" / "cifar10" / split).rglob("*.jpg")) for split in ("train", "test")}
    pixels = {split: np.stack([np.asarray(Image.open(file).convert("RGB")) for file in found]) for split, found in files.items()}
    labels = {split: [module.CLASSES.index(file.parent.name) for file in found] for split, found in files.items()}
    batches = np.array_split(np.arange(len(files["train"])), 5)
    parts = {f"data_batch_{i}": (pixels["train"][b], np.array(labels["train"])[b].tolist()) for i, b in enumerate(batches, 1)}
    parts["test_batch"] = (pixels["test"], labels["test"])
    for name, (images, numbers) in parts.items():
        content = {b"data": images.transpose(0, 3, 1, 2).reshape(len(images), -1), b"labels": numbers}
        (raw / name).write_bytes(pickle.dumps(content, protocol=2))
    (raw / "batches.meta").write_bytes(pickle.dumps({b"label_names": [name.encode() for name in module.CLASSES]}, protocol=2))
    assert main(["pack", "cifar10", "--input", str(tmp_path), "--output", str(tmp_path / "out")]) == 0
    for split in ("train", "test"):
        examples = open_examples(str(tmp_path / "out" / split))
        assert len(examples) == len(files[split])
        for i, id in enumerate(examples.ids):
            number = int(id.rpartition("/")[2])
            with Image.open(_opened(examples.read(i))) as image:
                assert np.array_equal(np.asarray(image), pixels[split][number])
            assert examples.labels[i] == labels[split][number]


def _opened(content: bytes) -> object:
    import io

    return io.BytesIO(content)


def test_dtd_and_pets_in_their_own_layouts(realdata: Path, tmp_path: Path) -> None:
    source = realdata / "classification" / "dtd"
    (tmp_path / "dtd" / "labels").mkdir(parents=True)
    shutil.copytree(source, tmp_path / "dtd" / "images")
    names = sorted(f"{file.parent.name}/{file.name}" for file in source.rglob("*.jpg"))
    for i, split in enumerate(("train", "val", "test")):
        (tmp_path / "dtd" / "labels" / f"{split}1.txt").write_text("\n".join(names[i::3]) + "\n")
    dtd = registry.get("eval.downstream", "dtd")
    for i, split in enumerate(("train", "val", "test")):
        examples = dtd.load(str(tmp_path), split)
        assert list(examples.ids) == names[i::3]
        assert all(dtd.CLASSES[label] == id.split("/")[0] for id, label in zip(examples.ids, examples.labels, strict=True))
    pets = registry.get("eval.downstream", "pets")
    (tmp_path / "images").mkdir()
    (tmp_path / "annotations").mkdir()
    lines = []
    for file in sorted((realdata / "classification" / "oxford-pets").rglob("*.jpg")):
        shutil.copy(file, tmp_path / "images" / file.name)
        breed = file.stem.rpartition("_")[0].replace("_", " ").casefold()
        lines.append(f"{file.stem} {[name.casefold() for name in pets.CLASSES].index(breed) + 1} 1 1")
    for split in ("trainval", "test"):
        (tmp_path / "annotations" / f"{split}.txt").write_text("\n".join(lines))
    assert len(pets.load(str(tmp_path), "test")) == len(lines) == 74
    assert set(pets.load(str(tmp_path), "test").labels.tolist()) == set(range(37))


@pytest.mark.parametrize(("name", "file"), [("flickr8k", "captions.txt"), ("flickr30k", "results.token"), ("coco", "captions.json")])
def test_real_pairs(name: str, file: str, realdata: Path) -> None:
    folder = realdata / "pairs" / name
    paired = open_paired(str(folder / file), images="images")
    assert len(paired) >= 50
    assert all(texts for texts in paired.captions)
    counts = Counter(len(texts) for texts in paired.captions)
    assert counts.most_common(1)[0][0] == (5 if name != "flickr30k" else counts.most_common(1)[0][0])
    files = {path.name: path.read_bytes() for path in (folder / "images").iterdir()}
    for i in range(0, len(paired), 9):
        assert paired.read(i) == files[paired.ids[i].rpartition("/")[2]]
    if name == "coco":
        content = json.loads((folder / file).read_text())
        said: dict[str, list[str]] = {image["file_name"]: [] for image in content["images"]}
        names = {image["id"]: image["file_name"] for image in content["images"]}
        for annotation in content["annotations"]:
            said[names[annotation["image_id"]]].append(annotation["caption"].strip())
        for id, texts in zip(paired.ids, paired.captions, strict=True):
            assert [text.strip() for text in texts] == said[id.rpartition("/")[2]]
