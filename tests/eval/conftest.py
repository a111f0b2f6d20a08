"""A labelled toy set in three containers, and a real checkpoint of an untrained tiny model."""

from __future__ import annotations

import io

import numpy as np
import pytest

CLASSES = ("blue_square", "green_square", "red_square")


def picture(seed: int, channel: int, size: tuple[int, int] = (40, 32)) -> bytes:
    """Return a PNG of noise, brighter in one channel."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 120, (size[1], size[0], 3), dtype=np.uint8)
    pixels[..., channel] += 100
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="session")
def images() -> list[tuple[str, int, bytes]]:
    """(id, label, bytes) of 8 images in each of the three classes, none equal."""
    return [(f"{CLASSES[c]}/{i}.png", c, picture(10 * c + i, 2 - c, (36 + i, 44 - i))) for c in range(3) for i in range(8)]


@pytest.fixture(scope="session")
def class_folders(images: list[tuple[str, int, bytes]], tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("toy") / "squares"
    for name, _, content in images:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return str(root)


@pytest.fixture(scope="session")
def foreign_tars(images: list[tuple[str, int, bytes]], tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two tars as webdataset's own writer makes them, in CLIP_benchmark's layout, images in another order."""
    import webdataset

    root = tmp_path_factory.mktemp("wds") / "squares"
    (root / "test").mkdir(parents=True)
    (root / "classnames.txt").write_text("\n".join(CLASSES) + "\n")
    (root / "zeroshot_classification_templates.txt").write_text("a photo of a {c}.\n")
    shuffled = np.random.default_rng(1).permutation(len(images))
    for shard, part in enumerate(np.array_split(shuffled, 2)):
        with webdataset.TarWriter(str(root / "test" / f"{shard}.tar")) as writer:
            for i in part:
                writer.write({"__key__": f"s{i:07d}", "png": images[i][2], "cls": str(images[i][1]).encode()})
    return str(root / "test")


@pytest.fixture(scope="session")
def saved_dataset(images: list[tuple[str, int, bytes]], tmp_path_factory: pytest.TempPathFactory) -> str:
    import datasets

    path = tmp_path_factory.mktemp("hf") / "squares"
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES)), "extra": datasets.Value("string")}
    )
    rows = [{"image": {"bytes": content, "path": None}, "label": label, "extra": name} for name, label, content in reversed(images)]
    datasets.Dataset.from_list(rows, features=features).save_to_disk(str(path))
    return str(path)


@pytest.fixture(scope="session")
def checkpoint_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint of an untrained tiny model, written by train's own code."""
    from tests.train import runs

    folder = tmp_path_factory.mktemp("runs") / "untrained"
    folder.mkdir()
    manifests = [{"digest": "d" * 64, "weight": None, "samples": 10}]
    return runs.untrained_clip(folder, "tiny-vit-32", step=7, samples_seen=70, manifests=manifests)
