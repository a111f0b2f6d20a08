"""Miniatures of downstream sets in the layouts that their makers publish, each with the list of what a reader must find.

An image of a miniature is a few bytes that name it: a reader passes bytes on and looks into none.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Rows = list[tuple[str, int]]  # (published name, label)
Truth = dict[str, Rows]  # by split


def put(path: Path, text: str = "") -> None:
    """Write an "image" that holds its own name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((text or path.name).encode())


def lines(path: Path, rows: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n")


def cifar_pixels(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)


def cifar_file(path: Path, content: dict[Any, Any]) -> None:
    """Write a pickle as Python 2 wrote the published ones: protocol 2, keys of bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps({key.encode(): value for key, value in content.items()}, protocol=2))


def flat(pixels: np.ndarray) -> np.ndarray:
    """Return pixels as the published rows: all red, all green, all blue."""
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1))


def cifar10(root: Path) -> Truth:
    from eval.downstream.cifar10 import CLASSES

    folder = root / "cifar-10-batches-py"
    truth: Truth = {"train": [], "test": []}
    for i in range(1, 6):
        labels = [(i + j) % 10 for j in range(4)]
        cifar_file(folder / f"data_batch_{i}", {"data": flat(cifar_pixels(4, i)), "labels": labels, "filenames": [b"x.png"] * 4})
        truth["train"] += [(f"train/{4 * (i - 1) + j:05d}", label) for j, label in enumerate(labels)]
    cifar_file(folder / "test_batch", {"data": flat(cifar_pixels(10, 9)), "labels": list(range(10))})
    truth["test"] = [(f"test/{i:05d}", i) for i in range(10)]
    cifar_file(folder / "batches.meta", {"label_names": [name.encode() for name in CLASSES], "num_vis": 3072})
    corrupted = root / "CIFAR-10-C"
    corrupted.mkdir()
    np.save(corrupted / "fog.npy", cifar_pixels(50, 11))
    np.save(corrupted / "labels.npy", np.tile(np.arange(10, dtype=np.uint8), 5))
    for severity in range(1, 6):
        truth[f"fog-{severity}"] = [(f"fog-{severity}/{i:05d}", i) for i in range(10)]
    return truth


def cifar100(root: Path) -> Truth:
    from eval.downstream.cifar100 import CLASSES

    folder = root / "cifar-100-python"
    for name, n in (("train", 6), ("test", 4)):
        labels = [(17 * j) % 100 for j in range(n)]
        cifar_file(folder / name, {"data": flat(cifar_pixels(n, n)), "fine_labels": labels, "coarse_labels": [0] * n})
    cifar_file(folder / "meta", {"fine_label_names": [name.replace(" ", "_").encode() for name in CLASSES], "coarse_label_names": []})
    return {name: [(f"{name}/{j:05d}", (17 * j) % 100) for j in range(n)] for name, n in (("train", 6), ("test", 4))}


def dtd(root: Path) -> Truth:
    rows = {"train": ("banded/banded_0002.jpg", "zigzagged/zigzagged_0001.jpg"), "val": ("polka-dotted/polka-dotted_0004.jpg",)}
    rows["test"] = ("banded/banded_0005.jpg", "woven/woven_0001.jpg")
    labels = {"banded": 0, "polka-dotted": 30, "woven": 44, "zigzagged": 46}
    for split, names in rows.items():
        lines(root / "dtd" / "labels" / f"{split}1.txt", list(names))
        for name in names:
            put(root / "dtd" / "images" / name)
    return {split: [(name, labels[name.split("/")[0]]) for name in names] for split, names in rows.items()}


def pets(root: Path) -> Truth:
    rows = {
        "train": [("Abyssinian_100", 1, 1, 1), ("american_bulldog_10", 2, 2, 1), ("yorkshire_terrier_9", 37, 2, 25)],
        "test": [("Abyssinian_201", 1, 1, 1), ("Sphynx_2", 34, 1, 12)],
    }
    for split, found in rows.items():
        lines(root / "annotations" / f"{'trainval' if split == 'train' else 'test'}.txt", [" ".join(map(str, row)) for row in found])
        for name, *_ in found:
            put(root / "images" / f"{name}.jpg")
    return {split: [(f"{name}.jpg", label - 1) for name, label, *_ in found] for split, found in rows.items()}


def domainnet_real(root: Path) -> Truth:
    names = ["aircraft_carrier", "airplane", *(f"thing_{i:03d}" for i in range(2, 345))]
    truth: Truth = {}
    for domain, split, shown in (("real", "train", 345), ("real", "test", 3), ("sketch", "test", 2)):
        rows = [(f"{domain}/{names[i]}/{domain}_{i:03d}_000001_{split}.jpg", i) for i in range(shown)]
        lines(root / f"{domain}_{split}.txt", [f"{name} {label}" for name, label in reversed(rows)])
        for name, _ in rows:
            put(root / name)
        truth[split if domain == "real" else domain] = rows
    return truth


def domainnet_clipart(root: Path) -> Truth:
    rows = [(f"clipart/thing_{i:03d}/clipart_{i:03d}_000001.jpg", i) for i in range(345)]
    for split, found in (("train", rows), ("test", rows[:2])):
        lines(root / f"clipart_{split}.txt", [f"{name} {label}" for name, label in found])
    for name, _ in rows:
        put(root / name)
    return {"train": rows, "test": rows[:2]}


def cassava(root: Path) -> Truth:
    from eval.downstream.cassava import CLASSES, RULE

    rows = [(f"{1000015157 + i}.jpg", i % 5) for i in range(40)]
    lines(root / "train.csv", ["image_id,label", *(f"{name},{label}" for name, label in rows)])
    (root / "label_num_to_disease_map.json").write_text(json.dumps({str(i): name for i, name in enumerate(CLASSES)}))
    for name, _ in rows:
        put(root / "train_images" / name)
    return {split: [row for row in rows if RULE.side(row[0]) == split] for split in ("train", "val", "test")}


def cct20(root: Path) -> Truth:
    categories = [{"id": 1, "name": "opossum"}, {"id": 6, "name": "bobcat"}, {"id": 30, "name": "empty"}, {"id": 99, "name": "rodent"}]
    truth: Truth = {}
    names = {"train": "train", "val": "cis_val", "test": "cis_test", "trans_val": "trans_val", "trans_test": "trans_test"}
    for split, file in names.items():
        ids = [f"{file}-{i}" for i in range(5)]
        shown = [[1], [6, 6], [30], [1, 6], [99]]  # two boxes of one kind; no animal; two kinds
        boxes = [{"image_id": id, "category_id": category} for id, found in zip(ids, shown, strict=True) for category in found]
        images = [{"id": id, "file_name": f"{id}.jpg", "location": 3} for id in ids]
        path = root / "eccv_18_annotation_files" / f"{file}_annotations.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"images": images, "annotations": boxes, "categories": categories, "info": {}}))
        for id in ids:
            put(root / "eccv_18_all_images_sm" / f"{id}.jpg")
        truth[split] = [(f"{file}-0.jpg", 0), (f"{file}-1.jpg", 3), (f"{file}-4.jpg", 14)]
    return truth


def aircraft(root: Path) -> Truth:
    data = root / "fgvc-aircraft-2013b" / "data"
    lines(data / "variants.txt", ["707-320", "A340-200", "Boeing 717"])
    rows = {"train": [("1025794", 0), ("0056978", 2)], "val": [("1340192", 1)], "test": [("1514522", 0), ("0747566", 1)]}
    names = ("707-320", "A340-200", "Boeing 717")
    for split, found in rows.items():
        lines(data / f"images_variant_{split}.txt", [f"{number} {names[label]}" for number, label in found])
        for number, _ in found:
            put(data / "images" / f"{number}.jpg")
    return {split: [(f"{number}.jpg", label) for number, label in found] for split, found in rows.items()}


def cars(root: Path) -> Truth:
    from scipy.io import savemat

    (root / "devkit").mkdir(parents=True)
    names = ["AM General Hummer SUV 2000", "Acura RL Sedan 2012", "smart fortwo Convertible 2012"]
    savemat(root / "devkit" / "cars_meta.mat", {"class_names": np.array([names], dtype=object)})
    kind = [(name, object) for name in ("bbox_x1", "class", "fname")]
    rows = {"train": [("00001.jpg", 3), ("00002.jpg", 1)], "test": [("00001.jpg", 2), ("00002.jpg", 2), ("00003.jpg", 1)]}
    for split, found in rows.items():
        annotations = np.array([[(7, label, name) for name, label in found]], dtype=kind)
        file = root / "devkit" / "cars_train_annos.mat" if split == "train" else root / "cars_test_annos_withlabels.mat"
        savemat(file, {"annotations": annotations})
        for name, _ in found:
            put(root / f"cars_{split}" / name, f"{split} {name}")
    return {split: [(f"cars_{split}/{name}", label - 1) for name, label in found] for split, found in rows.items()}


def food101(root: Path) -> Truth:
    folder = root / "food-101"
    lines(folder / "meta" / "classes.txt", ["apple_pie", "baby_back_ribs"])
    lines(folder / "meta" / "labels.txt", ["Apple pie", "Baby back ribs"])
    rows = {"train": ["apple_pie/1005649", "baby_back_ribs/1005293"], "test": ["apple_pie/1011328"]}
    for split, found in rows.items():
        lines(folder / "meta" / f"{split}.txt", found)
        by_class = {name: [row for row in found if row.startswith(name)] for name in ("apple_pie", "baby_back_ribs")}
        (folder / "meta" / f"{split}.json").write_text(json.dumps(by_class))
        for name in found:
            put(folder / "images" / f"{name}.jpg")
    return {split: [(f"{name}.jpg", int(name.startswith("baby"))) for name in found] for split, found in rows.items()}


def flowers102(root: Path) -> Truth:
    from scipy.io import savemat

    labels = [77, 1, 102, 5, 5, 9]
    savemat(root / "imagelabels.mat", {"labels": np.array([labels], dtype=np.uint8)})
    sets = {"trnid": [2, 4], "valid": [1], "tstid": [3, 5, 6]}
    savemat(root / "setid.mat", {name: np.array([numbers], dtype=np.uint16) for name, numbers in sets.items()})
    for number in range(1, 7):
        put(root / "jpg" / f"image_{number:05d}.jpg")
    names = {"train": "trnid", "val": "valid", "test": "tstid"}
    return {split: [(f"image_{n:05d}.jpg", labels[n - 1] - 1) for n in sets[name]] for split, name in names.items()}


def sun397(root: Path) -> Truth:
    folder = root / "SUN397"
    lines(folder / "ClassName.txt", ["/a/abbey", "/b/bow_window/indoor", "/y/youth_hostel"])
    rows = {"train": ["/a/abbey/sun_a1.jpg", "/b/bow_window/indoor/sun_b1.jpg"], "test": ["/y/youth_hostel/sun_c1.jpg"]}
    for split, found in rows.items():
        lines(folder / {"train": "Training_01.txt", "test": "Testing_01.txt"}[split], found)
        for name in found:
            put(folder / name[1:])
    places = {"a": 0, "b": 1, "y": 2}
    return {split: [(name[1:], places[name[1]]) for name in found] for split, found in rows.items()}


def cinic10(root: Path) -> Truth:
    from eval.downstream.cinic10 import CLASSES

    truth: Truth = {}
    for split, folder in (("train", "train"), ("val", "valid"), ("test", "test")):
        truth[split] = []
        for label, name in enumerate(CLASSES):
            for file in (f"cifar10-{split}-{label}.png", f"n0269023{label}_1.png"):
                put(root / folder / name / file)
                truth[split].append((f"{name}/{file}", label))
    truth["test_imagenet"] = [row for row in truth["test"] if "/n0" in row[0]]
    truth["test_cifar10"] = [row for row in truth["test"] if "/cifar10-" in row[0]]
    return truth


def chestx(root: Path) -> Truth:
    rows = [
        ("00000001_000.png", "Cardiomegaly"),
        ("00000001_001.png", "Cardiomegaly|Emphysema"),
        ("00000002_000.png", "No Finding"),
        ("00000003_000.png", "Pneumothorax"),
        ("00000004_000.png", "Atelectasis"),
    ]
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position"
    lines(root / "Data_Entry_2017.csv", [header, *(f"{name},{finding},0,1,58,M,PA" for name, finding in rows)])
    lines(root / "train_val_list.txt", [name for name, _ in rows[:4]])
    lines(root / "test_list.txt", [name for name, _ in rows[4:]])
    for i, (name, _) in enumerate(rows):
        put(root / f"images_{i % 2 + 1:03d}" / "images" / name)
    return {"train": [("00000001_000.png", 1), ("00000003_000.png", 6)], "test": [("00000004_000.png", 0)]}


def isic(root: Path) -> Truth:
    from eval.downstream.isic import RULE

    codes = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
    rows = [(f"ISIC_{24306 + i:07d}", i % 7, f"HAM_{i // 2:07d}") for i in range(40)]
    stem = "ISIC2018_Task3_Training_"
    table = [",".join(["image", *codes])]
    table += [",".join([name, *("1.0" if i == label else "0.0" for i in range(7))]) for name, label, _ in rows]
    lines(root / f"{stem}GroundTruth" / f"{stem}GroundTruth.csv", table)
    lines(root / f"{stem}LesionGroupings.csv", ["image,lesion_id,diagnosis_confirm_type", *(f"{n},{lesion},x" for n, _, lesion in rows)])
    for name, *_ in rows:
        put(root / f"{stem}Input" / f"{name}.jpg")
    splits = ("train", "val", "test")
    return {split: [(f"{name}.jpg", label) for name, label, lesion in rows if RULE.side(lesion) == split] for split in splits}


def clevr_counts(root: Path) -> Truth:
    folder = root / "CLEVR_v1.0"
    truth: Truth = {}
    for split, name in (("train", "train"), ("test", "val")):
        counts = [3, 10, 5]
        scenes = [{"image_filename": f"CLEVR_{name}_{i:06d}.png", "objects": [{}] * n} for i, n in enumerate(counts)]
        path = folder / "scenes" / f"CLEVR_{name}_scenes.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"info": {}, "scenes": scenes}))
        truth[split] = [(f"{name}/CLEVR_{name}_{i:06d}.png", n - 3) for i, n in enumerate(counts)]
        for file, _ in truth[split]:
            put(folder / "images" / file)
    return truth


def pacs(root: Path) -> Truth:
    from eval.downstream.pacs import CLASSES, RULE

    truth: Truth = {"train": [], "val": [], "test": []}
    for domain in ("photo", "art_painting", "cartoon", "sketch"):
        rows = [(f"{domain}/{name}/pic_{i:03d}.jpg", label) for label, name in enumerate(CLASSES) for i in range(4)]
        for name, _ in rows:
            put(root / "PACS" / name)
        if domain != "photo":
            truth[domain] = rows
            continue
        for row in rows:
            truth[RULE.side(row[0])].append(row)
    return truth


def imagenet(root: Path) -> Truth:
    """Two images of each of the 1,000 classes, by their WordNet ids, which torchvision's layout sorts."""
    from eval.downstream.imagenet import wnids

    truth: Truth = {"train": [], "test": []}
    for label, wnid in enumerate(wnids()):
        for split, name in (("train", f"{wnid}_10.JPEG"), ("test", f"ILSVRC2012_val_{label:08d}.JPEG")):
            put(root / ("train" if split == "train" else "val") / wnid / name)
            truth[split].append((f"{wnid}/{name}", label))
    return truth


def by_folders(name: str, inner: str, file: Callable[[str, int], str], n: int) -> Callable[[Path], Truth]:
    """Return the writer of a set that is class folders split by a rule."""

    def write(root: Path) -> Truth:
        from shards.core import registry

        module: Any = registry.get("eval.downstream", name)
        folders = getattr(module, "FOLDERS", module.CLASSES)
        rows = [(f"{folder}/{file(folder, i)}", label) for label, folder in enumerate(folders) for i in range(n)]
        for row, _ in rows:
            put(root / inner / row)
        sides = module.RULE.sides([row for row, _ in rows], [label for _, label in rows])
        return {split: [row for row, side in zip(rows, sides, strict=True) if side == split] for split in module.RULE.splits()}

    return write


MINIATURES: dict[str, Callable[[Path], Truth]] = {
    "aircraft": aircraft,
    "caltech101": by_folders("caltech101", "caltech101/101_ObjectCategories", lambda _, i: f"image_{i + 1:04d}.jpg", 32),
    "caltech101_vtab": by_folders("caltech101_vtab", "101_ObjectCategories", lambda _, i: f"image_{i + 1:04d}.jpg", 31),
    "cars": cars,
    "cassava": cassava,
    "cct20": cct20,
    "chestx": chestx,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "cinic10": cinic10,
    "clevr_counts": clevr_counts,
    "colhist": by_folders("colhist", "Kather_texture_2016_image_tiles_5000", lambda _, i: f"{i:04X}_CRC-Prim-HE-01.tif", 8),
    "domainnet_clipart": domainnet_clipart,
    "domainnet_real": domainnet_real,
    "dtd": dtd,
    "eurosat": by_folders("eurosat", "2750", lambda folder, i: f"{folder}_{i + 1}.jpg", 8),
    "flowers102": flowers102,
    "food101": food101,
    "imagenet": imagenet,
    "isic": isic,
    "pacs": pacs,
    "pets": pets,
    "resisc45": by_folders("resisc45", "NWPU-RESISC45", lambda folder, i: f"{folder}_{i + 1:03d}.jpg", 5),
    "sun397": sun397,
    "ucmerced": by_folders("ucmerced", "UCMerced_LandUse/Images", lambda folder, i: f"{folder}{i:02d}.tif", 5),
}
