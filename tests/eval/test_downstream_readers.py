"""Every downstream set on a miniature of its published layout: names, labels, splits and bytes; torchvision's readers agree."""

from __future__ import annotations

import io
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from published_sets import MINIATURES, cifar_pixels, lines

from eval.data import open_examples
from eval.downstream.base import Rule, checksum
from eval.png import png_of
from shards.core import registry
from shards.core.errors import TornFileError, UsageError

PACKAGE = "eval.downstream"


def module_of(name: str) -> Any:
    return registry.get(PACKAGE, name)


def test_every_set_has_a_miniature() -> None:
    assert set(registry.names(PACKAGE)) == set(MINIATURES)


@pytest.mark.parametrize("name", sorted(MINIATURES))
def test_a_reader_finds_what_the_makers_publish(name: str, tmp_path: Path) -> None:
    truth = MINIATURES[name](tmp_path)
    module = module_of(name)
    assert set(module.splits(str(tmp_path))) == set(truth)
    for split, rows in truth.items():
        examples = module.load(str(tmp_path), split)
        assert sorted(zip(examples.ids, examples.labels.tolist(), strict=True)) == sorted(rows)
        assert examples.metric == module.METRIC
        assert examples.templates == tuple(module.TEMPLATES)
        if module.CLASSES:
            assert examples.classes == tuple(module.CLASSES)
        if "cifar1" not in name:
            assert all(examples.read(i).decode().endswith(examples.ids[i].rpartition("/")[2]) for i in range(min(5, len(examples))))


@pytest.mark.parametrize("name", sorted(MINIATURES))
def test_sets_say_what_they_measure_and_their_prompts_are_prompts(name: str) -> None:
    from shards.classes.templates import check_template

    module = module_of(name)
    summary = registry.summary(PACKAGE, name)
    assert 30 < len(summary) <= 150
    assert summary.endswith(".")
    assert module.METRIC in ("acc1", "mean_per_class")
    for template in module.TEMPLATES:
        check_template(template, name)
    assert len(set(module.CLASSES)) == len(module.CLASSES) or name == "imagenet"
    assert module.LAYOUT


def test_names_and_templates_are_the_published_ones() -> None:
    """Counts as CLIP_benchmark has them, and a few labels that are known by heart."""
    counts = {"cifar10": 18, "cifar100": 18, "imagenet": 80, "food101": 1, "sun397": 2, "cars": 8, "aircraft": 2, "dtd": 8, "pets": 1}
    counts |= {"caltech101": 34, "flowers102": 1, "eurosat": 3, "clevr_counts": 1, "resisc45": 4}
    assert {name: len(module_of(name).TEMPLATES) for name in counts} == counts
    known = {"cifar100": {0: "apple", 39: "keyboard", 99: "worm"}, "imagenet": {0: "tench", 151: "Chihuahua", 999: "toilet paper"}}
    known |= {"flowers102": {0: "pink primrose", 101: "blackberry lily"}, "caltech101": {0: "off-center face", 1: "centered face"}}
    for name, labels in known.items():
        assert {label: module_of(name).CLASSES[label] for label in labels} == labels


PEERS = {
    "dtd": ("DTD", "dtd", {"train": "train", "val": "val", "test": "test"}),
    "aircraft": ("FGVCAircraft", "", {"train": "train", "val": "val", "test": "test"}),
    "food101": ("Food101", "", {"train": "train", "test": "test"}),
    "pets": ("OxfordIIITPet", "oxford-iiit-pet", {"train": "trainval", "test": "test"}),
    "cars": ("StanfordCars", "stanford_cars", {"train": "train", "test": "test"}),
    "clevr_counts": ("CLEVRClassification", "clevr", {"train": "train", "test": "val"}),
}


@pytest.mark.parametrize("name", sorted(PEERS))
def test_torchvision_reads_the_same(name: str, tmp_path: Path) -> None:
    """Torchvision's reader of the same files gives each image the same label, and the classes the same names."""
    import torchvision

    peer_name, inner, splits = PEERS[name]
    MINIATURES[name](tmp_path / inner)
    for ours, theirs in splits.items():
        kind = {"annotation_level": "variant"} if name == "aircraft" else {}
        peer = getattr(torchvision.datasets, peer_name)(str(tmp_path), split=theirs, **kind)
        files = next(getattr(peer, key) for key in ("_image_files", "_images", "_samples") if hasattr(peer, key))
        if name == "cars":
            pairs = {(Path(file).name, label) for file, label in files}
        else:
            pairs = {(Path(file).name, label) for file, label in zip(files, peer._labels, strict=True)}
        if name == "clevr_counts":
            pairs = {(file, count - 3) for file, count in pairs}
        examples = module_of(name).load(str(tmp_path / inner), ours)
        found = {(id.rpartition("/")[2], label) for id, label in zip(examples.ids, examples.labels.tolist(), strict=True)}
        if name == "dtd":  # torchvision numbers the classes that its list has; ours are the set's 47
            pairs, found = {(Path(file).parts[-2], Path(file).name) for file in files}, {tuple(id.split("/")) for id in examples.ids}
        assert found == pairs
        if name in ("aircraft", "cars"):
            assert list(examples.classes) == list(peer.classes)


def test_cifar_pixels_survive_as_png(tmp_path: Path) -> None:
    MINIATURES["cifar10"](tmp_path)
    module = module_of("cifar10")
    for split, expected in (("test", cifar_pixels(10, 9)), ("fog-2", cifar_pixels(50, 11)[10:20])):
        examples = module.load(str(tmp_path), split)
        found = [np.asarray(Image.open(io.BytesIO(examples.read(i)))) for i in range(10)]
        assert np.array_equal(np.stack(found), expected)
    train = module.load(str(tmp_path / "cifar-10-batches-py"), "train")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(train.read(7)))), cifar_pixels(4, 2)[3])


@pytest.mark.parametrize("shape", [(1, 1, 3), (32, 32, 3), (200, 150, 3)])
def test_a_stored_png_is_a_png(shape: tuple[int, int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    content = png_of(pixels)
    image = Image.open(io.BytesIO(content))
    image.load()
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image), pixels)
    assert len(content) < pixels.size + pixels.shape[0] + 200


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        import os

        return os.system, ("echo ran",)


def test_pickles_run_nothing_and_torn_ones_are_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    MINIATURES["cifar100"](tmp_path)
    file = tmp_path / "cifar-100-python" / "test"
    whole = file.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"junk", pickle.dumps([1, 2]), pickle.dumps({b"data": Evil()}, protocol=2)):
        file.write_bytes(content)
        with pytest.raises(TornFileError, match=r"cifar-100-python/test: (no pickle|holds list|no 'data')"):
            module_of("cifar100").load(str(tmp_path), "test")
    assert "ran" not in capfd.readouterr().out
    file.write_bytes(pickle.dumps({b"data": np.zeros((2, 3000), np.uint8), b"fine_labels": [1, 2]}, protocol=2))
    with pytest.raises(TornFileError, match=r"data uint8 \(2, 3000\)"):
        module_of("cifar100").load(str(tmp_path), "test")


def test_a_label_outside_is_refused(tmp_path: Path) -> None:
    MINIATURES["cifar100"](tmp_path)
    file = tmp_path / "cifar-100-python" / "test"
    file.write_bytes(pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"fine_labels": [1, 100]}, protocol=2))
    with pytest.raises(UsageError, match="has label 100") as error:
        module_of("cifar100").load(str(tmp_path), "test")
    assert error.value.allowed == "0 … 99"
    MINIATURES["clevr_counts"](tmp_path)
    scenes = tmp_path / "CLEVR_v1.0" / "scenes" / "CLEVR_val_scenes.json"
    scenes.write_text('{"scenes": [{"image_filename": "CLEVR_val_000000.png", "objects": [{}, {}]}]}')
    with pytest.raises(UsageError, match="has label -1"):
        module_of("clevr_counts").load(str(tmp_path), "test")


def test_missing_files_and_unknown_splits_are_named(tmp_path: Path) -> None:
    MINIATURES["flowers102"](tmp_path)
    module = module_of("flowers102")
    with pytest.raises(UsageError, match="no split 'tset'") as error:
        module.load(str(tmp_path), "tset")
    assert error.value.allowed == "train, val, test"
    assert "'test'" in error.value.advice
    (tmp_path / "setid.mat").unlink()
    (tmp_path / "102flowers.tgz").touch()
    with pytest.raises(UsageError, match=r"no setid\.mat") as error:
        module.splits(str(tmp_path))
    assert "imagelabels.mat" in error.value.allowed
    assert error.value.advice == "unpack 102flowers.tgz there"
    with pytest.raises(UsageError, match="no folder at"):
        module.splits(str(tmp_path / "nowhere"))


def test_images_that_were_not_unpacked_are_told_before_anything_is_read(tmp_path: Path) -> None:
    MINIATURES["pets"](tmp_path)
    (tmp_path / "images" / "Abyssinian_201.jpg").unlink()
    with pytest.raises(UsageError, match=r"Abyssinian_201\.jpg is not there"):
        module_of("pets").load(str(tmp_path), "test")


@pytest.mark.parametrize("name", ["cars", "flowers102"])
def test_torn_matlab_files_are_named(name: str, tmp_path: Path) -> None:
    MINIATURES[name](tmp_path)
    file = tmp_path / ("devkit/cars_meta.mat" if name == "cars" else "imagelabels.mat")
    whole = file.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"x" * 300):
        file.write_bytes(content)
        with pytest.raises(TornFileError, match=file.name):
            module_of(name).load(str(tmp_path), "train")


def test_torn_lists_are_named(tmp_path: Path) -> None:
    MINIATURES["dtd"](tmp_path)
    listed = tmp_path / "dtd" / "labels" / "test1.txt"
    lines(listed, ["banded/banded_0005.jpg", "wov"])
    with pytest.raises(TornFileError, match=r"test1\.txt: line 2 is 'wov'"):
        module_of("dtd").load(str(tmp_path), "test")
    lines(listed, ["striated/striated_0005.jpg"])
    with pytest.raises(UsageError, match="'striated' is no class"):
        module_of("dtd").load(str(tmp_path), "test")
    MINIATURES["cct20"](tmp_path)
    listed = tmp_path / "eccv_18_annotation_files" / "cis_test_annotations.json"
    whole = listed.read_text()
    listed.write_text(whole[:-40])
    with pytest.raises(TornFileError, match="not JSON"):
        module_of("cct20").load(str(tmp_path), "test")
    listed.write_text(whole.replace("bobcat", "yeti"))
    with pytest.raises(UsageError, match="'yeti' is no class"):
        module_of("cct20").load(str(tmp_path), "test")


def test_classes_in_another_order_are_refused(tmp_path: Path) -> None:
    """The second of the published flaws: a head whose classes stand in another order than the labels."""
    from eval.downstream.cifar10 import CLASSES

    MINIATURES["cifar10"](tmp_path)
    meta = tmp_path / "cifar-10-batches-py" / "batches.meta"
    swapped = [CLASSES[1], CLASSES[0], *CLASSES[2:]]
    meta.write_bytes(pickle.dumps({b"label_names": [name.encode() for name in swapped]}, protocol=2))
    with pytest.raises(UsageError, match="label 0 is 'automobile'"):
        module_of("cifar10").load(str(tmp_path), "test")
    MINIATURES["pets"](tmp_path)
    lines(tmp_path / "annotations" / "test.txt", ["Abyssinian_201 2 1 1"])
    with pytest.raises(UsageError, match="label 1 is 'Abyssinian'"):
        module_of("pets").load(str(tmp_path), "test")


def test_class_folders_that_are_missing_or_strange_are_named(tmp_path: Path) -> None:
    import shutil

    MINIATURES["eurosat"](tmp_path)
    (tmp_path / "2750" / "Ocean").mkdir()
    with pytest.raises(UsageError, match="'Ocean' is no class"):
        module_of("eurosat").load(str(tmp_path), "test")
    (tmp_path / "2750" / "Ocean").rmdir()
    shutil.rmtree(tmp_path / "2750" / "River")
    with pytest.raises(UsageError, match="1 of 10 class folders are not there: River"):
        module_of("eurosat").load(str(tmp_path), "test")


def test_what_has_no_one_label_is_told(tmp_path: Path) -> None:
    MINIATURES["cct20"](tmp_path)
    told = module_of("cct20").load(str(tmp_path), "trans_test").told
    assert [(count, what) for count, what, _ in told] == [
        (1, "[image|images] of trans_test without an animal passed over"),
        (1, "[image|images] of trans_test with several kinds of animals passed over"),
    ]


def test_flat_validation_images_of_imagenet_are_solved_by_kaggles_table(tmp_path: Path) -> None:
    from eval.downstream.imagenet import wnids

    folder = tmp_path / "ILSVRC" / "Data" / "CLS-LOC"
    (folder / "val").mkdir(parents=True)
    for i in range(3):
        (folder / "val" / f"ILSVRC2012_val_{i:08d}.JPEG").write_bytes(b"%d" % i)
    truth = ["ImageId,PredictionString", *(f"ILSVRC2012_val_{i:08d},{wnids()[i * 300]} 1 2 3 4 " for i in range(3))]
    lines(tmp_path / "LOC_val_solution.csv", truth)
    examples = module_of("imagenet").load(str(tmp_path), "test")
    assert examples.labels.tolist() == [0, 300, 600]
    assert examples.read(2) == b"2"
    assert examples.repeated == ("missile", "sunglasses")


def test_the_rule_is_what_it_says() -> None:
    """Shares within three standard deviations, no image moved by another's absence, shots exact, sides by a naive twin."""
    import hashlib

    rule = Rule("eurosat", val=0.1, test=0.2)
    ids = [f"River/River_{i}.jpg" for i in range(1, 2501)]
    sides = rule.sides(ids, [0] * len(ids))
    counts = Counter(sides)
    for side, share in (("test", 0.2), ("val", 0.1), ("train", 0.7)):
        assert abs(counts[side] - 2500 * share) < 3 * (2500 * share * (1 - share)) ** 0.5
    assert rule.sides(ids[100:], [0] * 2400) == sides[100:]
    x = int(hashlib.sha256(b"eurosat:River/River_7.jpg").hexdigest()[:16], 16) / 2**64
    assert rule.place(ids[6]) == x
    shots = Rule("caltech101", shots=30).sides(ids[:90], [i % 2 for i in range(90)])
    assert Counter(zip(shots, [i % 2 for i in range(90)], strict=True)) == {
        ("train", 0): 30, ("train", 1): 30, ("test", 0): 15, ("test", 1): 15,
    }  # fmt: skip


def test_checksums_are_over_all_published_names() -> None:
    """The names of these sets are known without the data: numbers that run on within each class."""
    eurosat, ucmerced, resisc45 = (module_of(name) for name in ("eurosat", "ucmerced", "resisc45"))
    sizes = dict(zip(eurosat.FOLDERS, (3000, 3000, 3000, 2500, 2500, 2000, 2500, 3000, 2500, 3000), strict=True))
    names = {
        eurosat: [[f"{f}/{f}_{i}.jpg" for i in range(1, n + 1)] for f, n in sizes.items()],
        ucmerced: [[f"{f}/{f}{i:02d}.tif" for i in range(100)] for f in ucmerced.FOLDERS],
        resisc45: [[f"{f}/{f}_{i:03d}.jpg" for i in range(1, 701)] for f in resisc45.FOLDERS],
    }
    for module, classes in names.items():
        rows = [(id, label, module.RULE.side(id)) for label, ids in enumerate(classes) for id in ids]
        assert checksum(reversed(rows)) == module.CHECKSUM


def test_lesions_do_not_part(tmp_path: Path) -> None:
    """The two images of a lesion fall on one side."""
    truth = MINIATURES["isic"](tmp_path)
    lesion = {f"ISIC_{24306 + i:07d}.jpg": i // 2 for i in range(40)}
    sides: dict[int, set[str]] = {}
    for split in truth:
        for id in module_of("isic").load(str(tmp_path), split).ids:
            sides.setdefault(lesion[id], set()).add(split)
    assert all(len(found) == 1 for found in sides.values())
    assert len(sides) == 20


def test_published_files_open_without_being_packed(tmp_path: Path) -> None:
    MINIATURES["cifar100"](tmp_path)
    test, train = open_examples(f"cifar100:{tmp_path}"), open_examples(f"cifar100:{tmp_path}@train")
    assert (len(test), len(train)) == (4, 6)
    assert test.class_digest == train.class_digest
    with pytest.raises(UsageError, match="no split 'val'"):
        open_examples(f"cifar100:{tmp_path}@val")
