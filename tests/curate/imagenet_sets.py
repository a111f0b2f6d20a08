"""A small ImageNet for tests, in every form people have it: the same 8 drawn photos of 4 classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from native import jpeg, make_tar

# Lines of LOC_synset_mapping.txt as Kaggle has them; the two cranes share a first name.
MAP = {
    "n01440764": "tench, Tinca tinca",
    "n02012849": "crane",
    "n03126707": "crane",
    "n03146219": "cuirass",
}
NUMBERS = {wnid: i for i, wnid in enumerate(MAP)}
PHOTOS = {f"{wnid}_{100 + i}.JPEG": jpeg(2 * NUMBERS[wnid] + i) for wnid in MAP for i in range(2)}
VAL = {f"ILSVRC2012_val_{i + 1:08d}.JPEG": wnid for i, wnid in enumerate(reversed(MAP))}


def synset_map(folder: Path, name: str = "LOC_synset_mapping.txt") -> Path:
    """Write the map of classes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(f"{wnid} {names}\n" for wnid, names in MAP.items()))
    return folder / name


def tree(folder: Path) -> Path:
    """Write class folders."""
    for name, content in PHOTOS.items():
        path = folder / name.partition("_")[0] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def class_tars(folder: Path) -> Path:
    """Write `<wnid>.tar` for each class."""
    for wnid in MAP:
        make_tar(folder / f"{wnid}.tar", [(n, c) for n, c in PHOTOS.items() if n.startswith(wnid)])
    return folder


def train_tar(folder: Path, scratch: Path) -> Path:
    """Write ILSVRC2012_img_train.tar: the tar of the class tars."""
    class_tars(scratch)
    return make_tar(folder / "ILSVRC2012_img_train.tar", [(f"{wnid}.tar", (scratch / f"{wnid}.tar").read_bytes()) for wnid in MAP])


def solution(folder: Path) -> Path:
    """Write LOC_val_solution.csv, boxes and all."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [f"{name.partition('.')[0]},{wnid} 1 2 30 40 {wnid} 5 6 7 8" for name, wnid in VAL.items()]
    (folder / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *reversed(rows)]) + "\n")
    return folder / "LOC_val_solution.csv"


def kaggle(folder: Path) -> Path:
    """Write Kaggle's download: the map and the solution on top, images far below."""
    inner = folder / "ILSVRC/Data/CLS-LOC"
    tree(inner / "train")
    (inner / "val").mkdir()
    for i, name in enumerate(VAL):
        (inner / "val" / name).write_bytes(jpeg(20 + i))
    synset_map(folder)
    solution(folder)
    return folder


def captions(folder: Path, records: list[Any]) -> Path:
    """Write imagenet_captions.json."""
    path = folder / "imagenet_captions.json"
    path.write_text(json.dumps(records))
    return path


def caption(name: str, **given: Any) -> dict[str, Any]:
    """Return one record of ImageNet-Captions."""
    wnid = name.partition("_")[0]
    return {"filename": name, "wnid": wnid, "title": f"Title {name}", "description": "A day out", "tags": ["one", "two"]} | given


FORMS = ("tree", "class tars", "tar of tars", "kaggle", "tar of folders", "flat")


def form(name: str, folder: Path) -> Path:
    """Write the photos in one form, its map where people have it; returns the input."""
    if name == "kaggle":
        return kaggle(folder)
    synset_map(folder)
    if name == "tree":
        return tree(folder / "train").parent
    if name == "class tars":
        return class_tars(folder / "train")
    if name == "tar of tars":
        return train_tar(folder, folder.parent / "scratch")
    if name == "tar of folders":
        return make_tar(folder / "train.tar", [(f"train/{n.partition('_')[0]}/{n}", c) for n, c in PHOTOS.items()])
    for photo, content in PHOTOS.items():
        (folder / photo).write_bytes(content)
    return folder
