"""Folders, tars and saved Hugging Face data sets: the same images give the same features, wherever they lie."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from eval.data import open_examples, sniff
from eval.features import Encoder, shaped
from shards.core.errors import UsageError
from shards.manifest import Manifest
from shards.writer import write_shard
from train.models.load import load_checkpoint

Images = list[tuple[str, int, bytes]]


@pytest.fixture(scope="session")
def encoder(checkpoint_file: str) -> Encoder:
    return Encoder(load_checkpoint(checkpoint_file), batch_size=5, workers=2)


def own_build(images: Images, folder: Path, use: tuple[int, int] | None = None) -> str:
    """Write a labelled build of ours with one shard."""
    folder.mkdir()
    samples = [(f"{i:032x}", {"jpg": content, "cls": b"%d" % label}) for i, (_, label, content) in enumerate(images)]
    sidecar = pa.table({"key": [key for key, _ in samples]})
    entry = write_shard(str(folder), "00000", samples, sidecar)
    if use:
        entry = type(entry)(**{**entry.__dict__, "use": use})
    Manifest(samples=entry.used, bytes=entry.bytes, shards=(entry,), classes=("blue_square", "green_square", "red_square")).save(
        str(folder)
    )
    return str(folder)


def test_kinds_are_told_apart(class_folders: str, foreign_tars: str, saved_dataset: str, images: Images, tmp_path: Path) -> None:
    ours = own_build(images, tmp_path / "ours")
    assert [sniff(p) for p in (class_folders, foreign_tars, saved_dataset, ours)] == ["folder", "webdataset", "huggingface", "webdataset"]
    assert sniff(f"{foreign_tars}/{{0..1}}.tar") == sniff(f"{ours}/manifest.json") == "webdataset"


def test_the_same_images_give_the_same_features(
    class_folders: str, foreign_tars: str, saved_dataset: str, images: Images, tmp_path: Path, encoder: Encoder
) -> None:
    ours = own_build(images, tmp_path / "ours")
    found = []
    for path in (class_folders, foreign_tars, saved_dataset, ours):
        encoded = encoder.encode(open_examples(path))
        order = np.argsort(encoded.examples.hashes)
        found.append((encoded.digest, encoded.examples.class_digest, encoded.features[order], encoded.examples.labels[order]))
        assert encoded.features.shape == (24, encoded.features.shape[1])
        assert np.linalg.norm(encoded.features, axis=1) == pytest.approx(1, abs=1e-5)
    for other in found[1:]:
        assert other[:2] == found[0][:2]
        assert np.array_equal(other[2], found[0][2])
        assert np.array_equal(other[3], found[0][3])


def test_a_window_of_a_build_is_honoured(images: Images, tmp_path: Path) -> None:
    view = open_examples(own_build(images, tmp_path / "ours", use=(5, 17)))
    assert [view.read(i) for i in range(len(view))] == [content for _, _, content in images[5:17]]


def test_features_are_what_a_plain_loop_gives(class_folders: str, encoder: Encoder) -> None:
    import torch
    from torchvision.transforms import v2

    loaded = encoder.loaded
    size = loaded.image_size
    peer = v2.Compose(
        [v2.Resize(size, v2.InterpolationMode.BICUBIC), v2.CenterCrop(size), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
    )
    encoded = encoder.encode(open_examples(class_folders))
    for i in range(0, 24, 5):
        image = peer(Image.open(io.BytesIO(encoded.examples.read(i))).convert("RGB"))
        image = (image - torch.tensor(loaded.mean)[:, None, None]) / torch.tensor(loaded.std)[:, None, None]
        with torch.inference_mode():
            alone = torch.nn.functional.normalize(loaded.model.encode_image(image[None]), dim=-1)[0].numpy()
        assert encoded.features[i] == pytest.approx(alone, abs=2e-3)  # pixels differ by 0.2 levels of 255
        assert encoded.features[i] @ alone > 0.9999


@pytest.mark.parametrize("shape", [(64, 64), (100, 57), (57, 101), (33, 200), (40, 40), (641, 480)])
def test_transform_is_open_clips(shape: tuple[int, int]) -> None:
    from open_clip.transform import PreprocessCfg, image_transform_v2

    coarse = np.random.default_rng(0).integers(0, 256, (shape[1] // 8 + 1, shape[0] // 8 + 1, 3), dtype=np.uint8)
    photo = Image.fromarray(coarse).resize(shape, Image.Resampling.BICUBIC)
    cfg = PreprocessCfg(size=48, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    peer = np.round(image_transform_v2(cfg, is_train=False)(photo).numpy() * 255).transpose(1, 2, 0)
    # Pillow rounds between its two passes; ours does not, and reads as far beyond the crop's edge as Pillow does.
    difference = np.abs(shaped(png(photo), 48) - peer)
    assert difference.mean() < 0.25
    assert difference.max() <= 2


@pytest.mark.parametrize("shape", [(500, 375), (180, 700)])
def test_a_jpeg_decoded_smaller_is_within_half_a_level(shape: tuple[int, int]) -> None:
    from open_clip.transform import PreprocessCfg, image_transform_v2

    coarse = np.random.default_rng(1).integers(0, 256, (shape[1] // 15, shape[0] // 15, 3), dtype=np.uint8)
    content = png(Image.fromarray(coarse).resize(shape, Image.Resampling.BICUBIC), "JPEG", quality=92)
    cfg = PreprocessCfg(size=11, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    peer = np.round(image_transform_v2(cfg, is_train=False)(Image.open(io.BytesIO(content))).numpy() * 255).transpose(1, 2, 0)
    assert np.abs(shaped(content, 11) - peer).mean() < 0.5


def png(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def test_odd_images_come_upright_and_in_rgb() -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert shaped(png(clear), 4)[0, 0].tolist() == [255, 255, 255]
    deep = Image.fromarray(np.full((4, 4), 256 * 200, np.uint16))
    assert shaped(png(deep), 4)[0, 0].tolist() == [200, 200, 200]
    exif = Image.Exif()
    exif[0x0112] = 6  # the stored left column is the upper row
    halves = Image.new("L", (8, 4))
    halves.paste(250, (4, 0, 8, 4))
    upright = shaped(png(halves, "JPEG", exif=exif, quality=100), 4)
    assert upright[0].max() < 30 < 220 < upright[-1].min()
    assert shaped(png(Image.new("L", (4, 4), 7)), 4)[0, 0].tolist() == [7, 7, 7]


def test_undecodable_images_are_listed_not_lost(
    class_folders: str, tmp_path: Path, encoder: Encoder, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "broken"
    shutil.copytree(class_folders, root)
    (root / "red_square" / "3.png").write_bytes((root / "red_square" / "3.png").read_bytes()[:300])
    (root / "blue_square" / "note.jpg").write_bytes(b"no image")
    (root / "green_square" / "gone.jpg").symlink_to(root / "nowhere")
    encoded = encoder.encode(open_examples(str(root)))
    assert {name for name, _ in encoded.undecodable} == {"red_square/3.png", "blue_square/note.jpg", "green_square/gone.jpg"}
    assert all(why for _, why in encoded.undecodable)
    assert len(encoded.examples) == len(encoded.features) == 23
    assert "3 of 26 images do not decode; numbers are over the other 23" in capsys.readouterr().err
    whole = encoder.encode(open_examples(class_folders))
    kept = dict(zip(whole.examples.hashes, whole.features, strict=True))
    assert all(np.allclose(kept[h], f, atol=1e-5) for h, f in zip(encoded.examples.hashes, encoded.features, strict=True))


def test_a_set_without_a_decodable_image_is_refused(tmp_path: Path, encoder: Encoder) -> None:
    (tmp_path / "set" / "a").mkdir(parents=True)
    (tmp_path / "set" / "a" / "x.jpg").write_bytes(b"x")
    with pytest.raises(UsageError, match="none of the 1 images decodes"):
        encoder.encode(open_examples(str(tmp_path / "set")))


def test_the_cache_gives_the_same_and_is_used(class_folders: str, foreign_tars: str, tmp_path: Path, encoder: Encoder) -> None:
    cached = Encoder(encoder.loaded, batch_size=5, workers=2, cache=str(tmp_path / "cache"))
    first = cached.encode(open_examples(class_folders))
    (file,) = (tmp_path / "cache").iterdir()
    stamp = file.stat().st_mtime_ns
    second = cached.encode(open_examples(foreign_tars))  # another order, the same images
    assert file.stat().st_mtime_ns == stamp
    assert list((tmp_path / "cache").iterdir()) == [file]
    by_hash = dict(zip(first.examples.hashes, first.features, strict=True))
    assert all(np.array_equal(by_hash[h], f) for h, f in zip(second.examples.hashes, second.features, strict=True))


def test_paths_that_hold_no_labelled_set(class_folders: str, foreign_tars: str, saved_dataset: str, tmp_path: Path) -> None:
    import datasets

    with pytest.raises(UsageError, match="no data at"):
        open_examples(str(tmp_path / "nothing"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="fits no kind of labelled set"):
        open_examples(str(tmp_path / "empty"))
    shutil.copytree(class_folders, tmp_path / "both" / "train")
    shutil.copytree(class_folders, tmp_path / "both" / "test")
    with pytest.raises(UsageError, match="holds the splits test, train") as error:
        open_examples(str(tmp_path / "both"))
    assert error.value.advice.endswith("both/test")
    shutil.copytree(Path(foreign_tars).parent, tmp_path / "tars")
    (tmp_path / "tars" / "train").mkdir()
    with pytest.raises(UsageError, match="holds the splits test, train"):
        open_examples(str(tmp_path / "tars"))
    datasets.DatasetDict({"test": datasets.load_from_disk(saved_dataset)}).save_to_disk(str(tmp_path / "dict"))
    with pytest.raises(UsageError, match="DatasetDict with the splits test"):
        open_examples(str(tmp_path / "dict"))
    assert len(open_examples(str(tmp_path / "dict" / "test"))) == 24
    with pytest.raises(UsageError, match="unknown dataset 'foldr'"):
        open_examples(class_folders, "foldr")


def test_tars_without_labels_or_names(images: Images, tmp_path: Path) -> None:
    import webdataset

    for name, member in (("bare", {}), ("words", {"cls": b"cat"}), ("negative", {"cls": b"-1"})):
        with webdataset.TarWriter(str(tmp_path / f"{name}.tar")) as writer:
            writer.write({"__key__": "a", "png": images[0][2], **member})
    with pytest.raises(UsageError, match=r"sample a has \.png"):
        open_examples(str(tmp_path / "bare.tar"))
    with pytest.raises(UsageError, match=r"b'cat' as \.cls"):
        open_examples(str(tmp_path / "words.tar"))
    with pytest.raises(UsageError, match="a has label -1"):
        open_examples(str(tmp_path / "negative.tar"))


def test_columns_of_a_saved_dataset(saved_dataset: str, tmp_path: Path) -> None:
    import datasets

    rows = datasets.load_from_disk(saved_dataset)
    rows.add_column("coarse", [0] * 24).cast_column("coarse", datasets.ClassLabel(names=["square"])).save_to_disk(str(tmp_path / "two"))
    with pytest.raises(UsageError, match="ClassLabel columns: label, coarse"):
        open_examples(str(tmp_path / "two"))
    from eval.datasets.base import Columns

    assert open_examples(str(tmp_path / "two"), columns=Columns(label="coarse")).classes == ("square",)
    rows.remove_columns("label").save_to_disk(str(tmp_path / "none"))
    with pytest.raises(UsageError, match="ClassLabel columns: none"):
        open_examples(str(tmp_path / "none"))
    assert json.loads((tmp_path / "two" / "state.json").read_text())
