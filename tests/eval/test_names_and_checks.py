"""What an evaluation checks before an image is opened, and what it tells at its end."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from eval import metrics
from eval.cli import main
from eval.data import open_examples
from eval.datasets import base, folder
from eval.features import Encoder
from eval.splits import kind_of
from eval.statistics.proportions import wilson
from shards.core.errors import TornFileError, UsageError
from train.models.load import load_checkpoint

Images = list[tuple[str, int, bytes]]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of image files that are read."""
    paths: list[str] = []

    def read(path: str) -> bytes:
        paths.append(path)
        return base.read_file(path)

    monkeypatch.setattr(folder, "read_file", read)
    return paths


def class_set(root: Path, images: Images, names: tuple[str, ...]) -> str:
    """Write the images of the first classes into folders of these names."""
    for id, label, content in images:
        if label < len(names):
            path = root / names[label] / id.rpartition("/")[2]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return str(root)


LATE = {
    "a template without a place": (["zeroshot", "--templates", "{folder}/label.txt"], "has no place for the class name"),
    "templates that are not there": (["zeroshot", "--templates", "{folder}/none.txt"], "no file at"),
    "templates in code": (["zeroshot", "--templates", "{folder}/code.txt"], "line 1 is code"),
    "names that do not fit": (["zeroshot", "--classnames", "{folder}/few.txt"], "2 class names for 3 classes"),
    "results in a folder": (["zeroshot", "--results", "{folder}"], "a folder"),
    "results below a file": (["zeroshot", "--results", "{folder}/few.txt/r.jsonl"], "is no folder"),
    "a cache that is a file": (["zeroshot", "--cache", "{folder}/few.txt"], "--cache"),
    "no checkpoint": (["zeroshot", "--checkpoint", "{folder}/none.pt"], "no checkpoint at"),
    "no shots": (["probe", "--k", "0"], "--k 0"),
    "too many shots": (["probe", "--k", "1000"], "class 'blue_square' has 4 training images"),
    "too many shots of a training set": (["probe", "--k", "9", "--train", "{data}"], "class 'blue_square' has 8 training images"),
    "other classes in training": (["probe", "--train", "{folder}/other"], "not in both"),
    "a device": (["probe", "--device", "abacus"], "--device abacus"),
}


@pytest.mark.parametrize("case", LATE)
def test_what_is_cheap_to_check_is_said_before_an_image_is_opened(
    case: str,
    class_folders: str,
    images: Images,
    checkpoint_file: str,
    tmp_path: Path,
    opened: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "label.txt").write_text("a photo of a {label}.\n")
    (tmp_path / "code.txt").write_text("lambda c: f'a photo of a {c.upper()}.'\n")
    (tmp_path / "few.txt").write_text("a\nb\n")
    class_set(tmp_path / "other", images, ("a", "b", "c"))
    flags, message = LATE[case]
    given = [flag.format(folder=tmp_path, data=class_folders) for flag in flags]
    own = [] if "--checkpoint" in given else ["--checkpoint", checkpoint_file]
    results = [] if "--results" in given else ["--results", str(tmp_path / "r.jsonl")]
    assert main([*given, *own, *results, "--data", class_folders]) == 2
    assert message in capsys.readouterr().err
    assert opened == []
    assert not (tmp_path / "r.jsonl").exists()


def test_data_without_names_is_refused_before_the_model_is_loaded(
    images: Images, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import webdataset

    (tmp_path / "no.pt").write_bytes(b"no checkpoint")
    with webdataset.TarWriter(str(tmp_path / "a.tar")) as writer:
        for i, (_, label, content) in enumerate(images):
            writer.write({"__key__": f"s{i}", "png": content, "cls": str(label).encode()})
    assert main(["zeroshot", "--checkpoint", str(tmp_path / "no.pt"), "--data", str(tmp_path / "a.tar")]) == 2
    assert "does not name its 3 classes" in capsys.readouterr().err


def evaluated(tmp_path: Path, checkpoint_file: str, *flags: str) -> int:
    return main([*flags, "--checkpoint", checkpoint_file, "--results", str(tmp_path / "r.jsonl"), "--device", "cpu"])


def test_numbered_folders_get_the_names_of_their_numbers(images: Images, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for i in range(12):
        (data / str(i)).mkdir(parents=True)
        (data / str(i) / "x.png").write_bytes(images[i][2])
    names = tmp_path / "names.txt"
    names.write_text("".join(f"name{i}\n" for i in range(12)))
    found = open_examples(str(data), classnames=str(names))
    assert {found.classes[label]: id for label, id in zip(found.labels, found.ids, strict=True)} == {
        f"name{i}": f"{i}/x.png" for i in range(12)
    }


def test_a_file_of_the_same_names_in_another_order_renames_nothing(class_folders: str, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("red square\nblue square\ngreen square\n")
    found, plain = open_examples(class_folders, classnames=str(names)), open_examples(class_folders)
    assert found.classes == ("blue square", "green square", "red square")
    assert found.labels.tolist() == plain.labels.tolist()


def test_names_in_another_letter_case_are_told(class_folders: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = open_examples(class_folders).classes
    (tmp_path / "names.txt").write_text("".join(f"{name.upper()}\n" for name in known))
    assert open_examples(class_folders, classnames=str(tmp_path / "names.txt")).classes == tuple(name.upper() for name in known)
    said = capsys.readouterr().err
    assert f"{len(known)} names differ from the data's own in letter case alone, such as {known[0]} = {known[0].upper()}" in said


def test_the_first_prompts_are_said_and_ids_are_warned_of(
    images: Images, checkpoint_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = class_set(tmp_path / "data", images, ("n01440764", "n01443537", "shark"))
    assert evaluated(tmp_path, checkpoint_file, "zeroshot", "--data", data) == 0
    said = capsys.readouterr().err
    assert "prompts: 3 classes × 1 template: 'a photo of a n01440764.', 'a photo of a n01443537.', 'a photo of a shark.'" in said
    assert "2 of 3 class names look like ids or numbers" in said


def test_linked_class_folders_count_and_hidden_pictures_are_told(
    images: Images, checkpoint_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Path(class_set(tmp_path / "data", images, ("a", "b")))
    class_set(tmp_path / "elsewhere", [i for i in images if i[1] == 2], ("-", "-", "c"))
    (data / "c").symlink_to(tmp_path / "elsewhere" / "c")
    (data / "a" / "loop").symlink_to(data)
    for hidden in ("a/._0.png", "a/@eaDir/0.png/SYNOPHOTO_THUMB_XL.jpg", "__MACOSX/a/._0.png", "b/.ipynb_checkpoints/0.png", "a/Thumbs.db"):
        (data / hidden).parent.mkdir(parents=True, exist_ok=True)
        (data / hidden).write_bytes(b"none")
    found = open_examples(str(data))
    assert (found.classes, len(found)) == (("a", "b", "c"), 24)
    assert evaluated(tmp_path, checkpoint_file, "zeroshot", "--data", str(data), "--strict") == 1
    assert "4 hidden pictures and thumbnails passed over: such as __MACOSX/a/._0.png" in capsys.readouterr().err


def test_splits_in_one_folder_are_refused_with_the_way_to_choose(images: Images, tmp_path: Path) -> None:
    for root, splits in (
        ("coco", ("train2017", "val2017")),
        ("intel", ("seg_train/seg_train", "seg_test/seg_test")),
        ("deep", ("x/trn", "x/dev")),
    ):
        for split in splits:
            class_set(tmp_path / root / split, images, ("a", "b", "c"))
    for root, first in (("coco", "val2017"), ("intel", "seg_test"), ("deep", "x/dev")):
        with pytest.raises(UsageError, match="holds the splits") as error:
            open_examples(str(tmp_path / root))
        assert error.value.advice == f"--data {tmp_path / root}/{first}"
        assert len(open_examples(f"{tmp_path / root}/{first}")) == 24
    class_set(tmp_path / "flat", images, ("train2017", "val2017"))
    with pytest.raises(UsageError, match="no class folders in them"):
        open_examples(str(tmp_path / "flat"))
    class_set(tmp_path / "vehicles", images, ("train", "bus", "car"))
    assert open_examples(str(tmp_path / "vehicles")).classes == ("bus", "car", "train")


def test_words_of_splits() -> None:
    names = ("train2017", "val_256", "ILSVRC2012_img_test", "dev", "training_set", "trainers", "contest", "test_train")
    assert [kind_of(name) for name in names] == ["train", "val", "test", "val", "train", "", "", ""]


def test_folders_that_share_classes_are_told(images: Images, tmp_path: Path) -> None:
    for part in ("day", "night"):
        class_set(tmp_path / "data" / part, images, ("a", "b", "c"))
    found = open_examples(str(tmp_path / "data"))
    assert (len(found), found.told) == (48, ((2, "[folder|folders] of class folders taken together", "day, night"),))


@pytest.mark.parametrize("protocol", ["zeroshot", "probe"])
def test_one_class_alone_is_refused(
    protocol: str, images: Images, checkpoint_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = class_set(tmp_path / "data", images, ("alone",))
    assert evaluated(tmp_path, checkpoint_file, protocol, "--data", data) == 2
    assert "one class alone, 'alone': every answer is right" in capsys.readouterr().err


def test_a_picture_in_two_classes_is_counted(
    images: Images, checkpoint_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Path(class_set(tmp_path / "data", images, ("a", "b", "c")))
    for i in range(8):
        shutil.copy(data / "a" / f"{i}.png", data / "b" / f"copy{i}.png")
    found = open_examples(str(data))
    pairs = {(found.ids[i], found.ids[j]) for i, j in found.in_several_classes()}
    assert pairs == {(f"a/{i}.png", f"b/copy{i}.png") for i in range(8)}
    train, test = found.halves()
    both = len(set(found.hashes[train].tolist()) & set(found.hashes[test].tolist()))
    assert both > 0
    assert evaluated(tmp_path, checkpoint_file, "probe", "--data", str(data), "--k", "1", "--json") == 0
    printed = capsys.readouterr()
    assert "8 pictures stand in several classes, byte for byte: such as a/0.png and b/copy0.png" in printed.err
    also = "1 test image is a training image" if both == 1 else f"{both} test images are training images"
    assert f"{also} too, byte for byte" in printed.err
    assert json.loads(printed.out)[0]["settings"]["overlap"] == both


def test_draws_of_the_same_images_fall_back_to_the_interval_over_test_images(
    class_folders: str, checkpoint_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluated(tmp_path, checkpoint_file, "probe", "--data", class_folders, "--k", "4", "--json") == 0
    acc1, per_class = json.loads(capsys.readouterr().out)
    assert acc1["interval"] == "wilson over test images (all 5 draws are the same images)"
    assert (acc1["low"], acc1["high"]) == pytest.approx(wilson(round(acc1["value"] * 12), 12))
    assert acc1["runs"] == [acc1["value"]] * 5
    assert per_class["low"] < per_class["high"]
    assert per_class["interval"].endswith("(all 5 draws are the same images)")


@pytest.mark.parametrize("right", [0, 10])
def test_no_interval_vanishes_where_classes_are_all_right_or_all_wrong(right: int) -> None:
    from scipy import stats

    labels = np.repeat([0, 1], 10)
    score = metrics.mean_per_class(np.repeat([right == 10] * 2, 10), labels)
    draws = stats.beta(right + 0.5, 10 - right + 0.5).rvs(size=(20_000, 2), random_state=1).mean(axis=1)
    low, high = np.quantile(draws, [0.025, 0.975])
    assert (score.low, score.high) == pytest.approx((min(low, right / 10), max(high, right / 10)), abs=0.01)
    assert score.high > score.low


def test_classes_without_an_image_are_told(
    images: Images, checkpoint_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import webdataset

    names = tmp_path / "names.txt"
    names.write_text("nothing\nblue\ngreen\nred\n")
    with webdataset.TarWriter(str(tmp_path / "a.tar")) as writer:
        for i, (_, label, content) in enumerate(images):
            writer.write({"__key__": f"s{i}", "png": content, "cls": str(label + 1).encode()})
    flags = ("zeroshot", "--data", str(tmp_path / "a.tar"), "--classnames", str(names))
    assert evaluated(tmp_path, checkpoint_file, *flags) == 0
    said = capsys.readouterr().err
    assert "1 of 4 classes has no test image in a.tar: such as nothing; no image has label 0: do the labels count from 1?" in said
    assert evaluated(tmp_path, checkpoint_file, *flags, "--strict") == 1


@pytest.mark.parametrize("label", [b"9" * 20, b"--5", b"30000000", b"5.0"])
def test_a_label_that_is_none_names_its_sample(label: bytes, images: Images, tmp_path: Path) -> None:
    import webdataset

    with webdataset.TarWriter(str(tmp_path / "a.tar")) as writer:
        writer.write({"__key__": "seven", "png": images[0][2], "cls": label})
    with pytest.raises(UsageError, match=r"a\.tar: sample seven has b'.+' as \.cls"):
        open_examples(str(tmp_path / "a.tar"))


def test_more_classes_than_images_need_names(images: Images, tmp_path: Path) -> None:
    import webdataset

    with webdataset.TarWriter(str(tmp_path / "a.tar")) as writer:
        writer.write({"__key__": "seven", "png": images[0][2], "cls": b"300"})
        writer.write({"__key__": "eight", "png": images[1][2], "cls": b"0"})
    with pytest.raises(UsageError, match="seven has label 300, of 2 images"):
        open_examples(str(tmp_path / "a.tar"))
    (tmp_path / "classnames.txt").write_text("".join(f"name{i}\n" for i in range(301)))
    assert len(open_examples(str(tmp_path / "a.tar")).classes) == 301


def test_a_torn_cache_is_made_anew(class_folders: str, checkpoint_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoder = Encoder(load_checkpoint(checkpoint_file), cache=str(tmp_path / "cache"))
    first = encoder.encode(open_examples(class_folders))
    (file,) = (tmp_path / "cache").iterdir()
    whole = file.read_bytes()
    for torn in (whole[:-100], whole[: len(whole) // 2], b"", whole[:3000] + b"\0" * 200 + whole[3200:]):
        file.write_bytes(torn)
        again = encoder.encode(open_examples(class_folders))
        assert np.array_equal(again.features, first.features)
        assert "a torn cache, made anew" in capsys.readouterr().err
        with np.load(file, allow_pickle=False) as stored:
            assert stored["features"].shape == first.features.shape


def rows_of(images: Images) -> list[dict[str, object]]:
    return [{"image": {"bytes": content, "path": None}, "label": id.partition("/")[0], "other": 1} for id, _, content in images]


def test_parquet_and_labels_as_text_are_read_as_class_folders_are(images: Images, class_folders: str, tmp_path: Path) -> None:
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string"), "other": datasets.Value("int64")})
    texts = datasets.Dataset.from_list(rows_of(images), features=features)
    numbers = texts.class_encode_column("label")
    texts.save_to_disk(str(tmp_path / "texts"))
    (tmp_path / "hub" / "data").mkdir(parents=True)
    numbers.select(range(10)).to_parquet(str(tmp_path / "hub/data/test-00000-of-00002.parquet"))
    numbers.select(range(10, 24)).to_parquet(str(tmp_path / "hub/data/test-00001-of-00002.parquet"))
    texts.to_parquet(str(tmp_path / "one.parquet"))
    expected = open_examples(class_folders)
    for path in ("texts", "hub", "hub/data/test-*.parquet", "one.parquet"):
        found = open_examples(str(tmp_path / path))
        assert (found.classes, found.named, len(found)) == (expected.classes, True, 24)
        assert found.digest == expected.digest
    numbers.to_parquet(str(tmp_path / "hub/data/train-00000-of-00001.parquet"))
    with pytest.raises(UsageError, match="holds the splits data/test, data/train") as error:
        open_examples(str(tmp_path / "hub"))
    assert error.value.advice == f"--data '{tmp_path}/hub/data/test*.parquet'"


def test_numbers_without_names_and_foreign_parquet(images: Images, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"jpg": [content for _, _, content in images], "cls": [label for _, label, _ in images]})
    pq.write_table(table, tmp_path / "a.parquet")
    found = open_examples(str(tmp_path / "a.parquet"))
    assert (found.named, found.classes, found.read(5)) == (False, ("0", "1", "2"), images[5][2])
    for values, message in (([-7] * 24, "row 0 has label -7"), ([10**12] * 24, "row 0 has label"), ([None] * 24, "has label -1")):
        pq.write_table(table.set_column(1, "cls", pa.array(values, pa.int64())), tmp_path / "b.parquet")
        with pytest.raises(UsageError, match=message):
            open_examples(str(tmp_path / "b.parquet"))
    pq.write_table(table.rename_columns(["jpg", "odd"]), tmp_path / "c.parquet")
    with pytest.raises(UsageError, match="ClassLabel columns: none") as error:
        open_examples(str(tmp_path / "c.parquet"))
    assert "jpg (image), odd (number)" in error.value.allowed
    assert error.value.advice == "--label-column odd"
    assert len(open_examples(str(tmp_path / "c.parquet"), columns=base.Columns(label="odd"))) == 24


def test_torn_tables_are_named(saved_dataset: str, images: Images, tmp_path: Path) -> None:
    shutil.copytree(saved_dataset, tmp_path / "cut")
    arrow = next((tmp_path / "cut").glob("data-*.arrow"))
    whole = arrow.read_bytes()
    for torn in (whole[:-3000], whole[:-3], whole[:100], b""):
        arrow.write_bytes(torn)
        with pytest.raises(TornFileError, match=r"data-00000-of-00001\.arrow: cut off, or no table"):
            open_examples(str(tmp_path / "cut"))
    arrow.unlink()
    with pytest.raises(TornFileError, match="cut"):
        open_examples(str(tmp_path / "cut"))
    (tmp_path / "torn.parquet").write_bytes(b"PAR1" + whole[:500])
    with pytest.raises(TornFileError, match=r"torn\.parquet: cut off, or no table"):
        open_examples(str(tmp_path / "torn.parquet"))


def test_a_pipe_among_images_is_not_waited_for(images: Images, tmp_path: Path) -> None:
    import os

    data = class_set(tmp_path / "data", images, ("a", "b"))
    os.mkfifo(f"{data}/a/pipe.jpg")
    found = open_examples(data)
    assert len(found.hashes) == 17


def test_weights_of_others_are_pointed_to_model(class_folders: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Once a file that `train export` wrote was refused with advice to use a flag that `evaluate` does not have."""
    import torch

    torch.save({"state_dict": {"a": torch.zeros(1)}}, tmp_path / "clip.pt")
    for checkpoint in (tmp_path / "clip.pt", tmp_path):
        assert main(["zeroshot", "--checkpoint", str(checkpoint), "--data", class_folders, "--results", str(tmp_path / "r.jsonl")]) == 2
        said = capsys.readouterr().err
        assert "--model with the name of their architecture" in said
        assert "--from" not in said
