"""imagenet_templates: the same photos out of trees and tars, classes numbered and named, templates drawn by uid."""

from __future__ import annotations

import collections
import gzip
import hashlib
import importlib
import importlib.util
import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagenet_sets as sets
import pytest
from drawing import encoded, picture
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from imagenet_sets import FORMS, MAP, NUMBERS, PHOTOS, VAL, form
from native import jpeg, ledger, make_tar, pointed, records, sidecar

from curate.captions import template
from curate.sources import _imagenet, _synsets, imagenet_templates
from shards.core.errors import TornFileError, UsageError
from shards.manifest import read_manifest
from shards.sample import uid_of


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_photos(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = records(imagenet_templates, form(name, tmp_path / "imagenet"))
    assert {r.source_id: pointed(r) for r in found} == PHOTOS
    assert all(r.class_index == NUMBERS[r.source_id.partition("_")[0]] for r in found)
    assert {r.class_name for r in found} == {"tench", "crane", "cuirass"}
    assert all(json.loads(r.meta)["wnid"] == r.source_id.partition("_")[0] for r in found)
    assert "1 class names stand for several classes" in capsys.readouterr().err
    if "tar" in name:
        assert all(r.image and r.image.path.endswith(".tar") for r in found)  # nothing is unpacked


@pytest.mark.parametrize("packed", [False, True])
def test_validation_images_have_the_solutions_classes(tmp_path: Path, packed: bool) -> None:
    root = sets.kaggle(tmp_path / "k")
    if packed:
        val = root / "ILSVRC/Data/CLS-LOC/val"
        make_tar(root / "ILSVRC2012_img_val.tar", [(p.name, p.read_bytes()) for p in sorted(val.iterdir())])
        found = records(imagenet_templates, root / "ILSVRC2012_img_val.tar")
    else:
        found = records(imagenet_templates, root, split="val")
        assert found == records(imagenet_templates, root / "ILSVRC/Data/CLS-LOC/val")
    assert {r.source_id: r.class_index for r in found} == {name: NUMBERS[wnid] for name, wnid in VAL.items()}
    assert [pointed(r) for r in found] == [jpeg(20 + i) for i in range(len(VAL))]
    (root / "LOC_val_solution.csv").unlink()
    with pytest.raises(UsageError, match=r"LOC_val_solution\.csv, which is not there"):
        records(imagenet_templates, root, split="val")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ImageId,Label\na,n01440764\n", "its columns are ImageId, Label"),
        ("ImageId,PredictionString\nILSVRC2012_val_00000001,65\n", "row 2: no class in '65'"),
    ],
)
def test_a_solution_of_another_kind_is_refused(tmp_path: Path, text: str, says: str) -> None:
    root = sets.kaggle(tmp_path / "k")
    (root / "other.csv").write_text(text)
    with pytest.raises(UsageError, match=says):
        records(imagenet_templates, root, split="val", labels=str(root / "other.csv"))


def test_names_are_the_first_or_all(tmp_path: Path) -> None:
    folder = form("tree", tmp_path)
    assert {r.class_name for r in records(imagenet_templates, folder, synonyms="all")} == set(MAP.values())


@pytest.mark.parametrize("kind", ["class index", "list", "lists", "lines", "python", "by folder", "columns"])
def test_other_ways_to_name_classes(tmp_path: Path, kind: str) -> None:
    names = ["Tench", "a bird, tall", "a_machine", "armour"]
    text = {
        "class index": json.dumps({str(i): [wnid, n] for i, (wnid, n) in enumerate(zip(MAP, names, strict=True))}),
        "list": json.dumps(names),
        "lists": json.dumps({"pets": ["cat"], "imagenet": names}),
        "lines": "\n".join(names) + "\n",
        "python": f"classes = {names}",
        "by folder": json.dumps(dict(zip(MAP, names, strict=True))),
        "columns": "".join(f"{wnid}\t{name}\n" for wnid, name in zip(MAP, ["Tench", "bird", "a_machine", "armour"], strict=True)),
    }[kind]
    file = tmp_path / ("names.txt" if kind in ("lines", "python", "columns") else "names.json")
    file.write_text(text)
    names = [name.replace("a bird, tall", "bird") for name in names] if kind == "columns" else names
    names = [name.replace("a bird, tall", "a bird") for name in names] if kind == "by folder" else names  # the rest are synonyms
    found = records(imagenet_templates, sets.tree(tmp_path / "train"), synsets=str(file))
    assert [r.class_name for r in found][::2] == [n.replace("_", " ") if kind == "class index" else n for n in names]
    assert [r.class_index for r in found] == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ('["a", "b"]', "2 names for 4 classes"),
        ('{"a": ["b"]}', r"1 lists: a \(1\)\n.*one list of 4 names"),
        ("{", "entry 1 is no name"),
        ("n01440764 tench\nnothing\n", "an id before 'n01440764 tench', and none before 'nothing'"),
        ("n01440764 tench\nn01440764 tench\n", "the key 'n01440764' stands 2 times"),
        ("n00000001 entity\n", "none of its classes is there"),
    ],
)
def test_a_map_of_another_kind_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "map").write_text(text)
    with pytest.raises(UsageError, match=says):
        records(imagenet_templates, sets.tree(tmp_path / "train"), synsets=str(tmp_path / "map"))


def test_ids_without_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no LOC_synset_mapping.txt"):
        records(imagenet_templates, sets.tree(tmp_path / "train"))
    with pytest.raises(UsageError, match="no synset map at"):
        records(imagenet_templates, tmp_path / "train", synsets="nowhere.txt")


def test_the_order_of_ilsvrcs_classes_is_held_against_its_hash(tmp_path: Path) -> None:
    """timm ships the ids of the 1,000 classes in the order of published heads."""
    package = importlib.util.find_spec("timm")
    assert package is not None
    assert package.submodule_search_locations is not None
    ids = (Path(package.submodule_search_locations[0]) / "data/_info/imagenet_synsets.txt").read_text().split()
    assert hashlib.sha256("\n".join(ids).encode()).hexdigest() == _synsets.ILSVRC2012
    lines = [f"{id} name {i}\n" for i, id in enumerate(ids)]
    (tmp_path / "map.txt").write_text("".join(lines))
    assert _synsets.load(str(tmp_path / "map.txt"), list).digest == _synsets.ILSVRC2012
    options = imagenet_templates.Options(synsets=str(tmp_path / "map.txt"))
    (one, *_) = imagenet_templates.inputs(str(sets.tree(tmp_path / "train")), options)
    assert "1,000 classes ordered by map.txt, digest 385e02404994 (ILSVRC 2012)" in imagenet_templates.layout(one, options)
    (tmp_path / "map.txt").write_text("".join([lines[1], lines[0], *lines[2:]]))
    with pytest.raises(UsageError, match="in another order"):
        _synsets.load(str(tmp_path / "map.txt"), list)


def test_plain_class_folders_need_no_map(tmp_path: Path) -> None:
    for name in ("dog/1.jpg", "maine_coon/2.jpg", "dog/3.jpg", "maine_coon/.hidden.jpg", "maine_coon/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = records(imagenet_templates, tmp_path)
    assert [(r.source_id, r.class_index, r.class_name) for r in found] == [
        ("dog/1.jpg", 0, "dog"),
        ("dog/3.jpg", 0, "dog"),
        ("maine_coon/2.jpg", 1, "maine coon"),
    ]


def test_a_list_in_another_order_is_matched_by_name(tmp_path: Path) -> None:
    """Sorted folders put capitals first, published lists often do not: by place, classes would be swapped silently."""
    for name in ("Maine_Coon/1.jpg", "american_bulldog/2.jpg", "Bengal/3.jpg"):
        (tmp_path / "set" / name).parent.mkdir(parents=True)
        (tmp_path / "set" / name).write_bytes(b"x")
    path = tmp_path / "names.json"
    path.write_text('["American Bulldog", "Bengal", "Maine Coon"]')
    found = records(imagenet_templates, tmp_path / "set", synsets=str(path))
    assert {(r.source_id, r.class_index, r.class_name) for r in found} == {
        ("american_bulldog/2.jpg", 0, "American Bulldog"), ("Bengal/3.jpg", 1, "Bengal"), ("Maine_Coon/1.jpg", 2, "Maine Coon"),
    }  # fmt: skip
    path.write_text('["bulldog", "Bengal", "Maine Coon"]')
    with pytest.raises(UsageError, match="name 2 is 'Bengal', the folder 'Bengal' is number 1"):
        records(imagenet_templates, tmp_path / "set", synsets=str(path))


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("bus/1.jpg", "train/2.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert [r.class_name for r in records(imagenet_templates, tmp_path)] == ["bus", "train"]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: (p / "a.txt").write_text("x"), "no classes of images"),
        (lambda p: sets.tree(p / "val"), "no split 'train'"),
        (lambda p: (p / "a.tar").write_bytes(b"<html>" * 200), "no tar"),
        (lambda p: (p / "a.tar").write_bytes(gzip.compress(bytes(range(256)) * 9)), "gzipped tar"),
    ],
)
def test_other_inputs_are_refused(tmp_path: Path, make: Callable[[Path], Any], says: str) -> None:
    make(tmp_path)
    with pytest.raises(UsageError, match=says):
        imagenet_templates.inputs(str(tmp_path), imagenet_templates.Options())


def test_hostile_names_and_foreign_classes_are_rows(tmp_path: Path) -> None:
    sets.synset_map(tmp_path)
    members = [
        ("../../n01440764_1.JPEG", b"a"), ("/etc/n01440764_2.JPEG", b"b"), ("n01440764_3.JPEG", b"c"), ("notes.txt", b"d"),
        ("n99999999/n99999999_4.JPEG", b"e"), ("._n01440764_3.JPEG", b"f"),
    ]  # fmt: skip
    found = records(imagenet_templates, make_tar(tmp_path / "n01440764.tar", members))
    assert [r.status for r in found] == ["bad_record", "bad_record", "", "bad_record"]
    assert [r.image for r in found if r.status] == [None] * 3
    assert "leads out of the archive" in found[0].detail
    assert "'n99999999' is not among the 4 classes" in found[3].detail
    assert pointed(found[2]) == b"c"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_torn_tar_of_tars_gives_its_whole_photos(tmp_path: Path, data: st.DataObject) -> None:
    path = sets.train_tar(tmp_path, tmp_path / "scratch")
    whole = path.read_bytes()
    places = {p.name: p.image for p in _imagenet.pictures(str(path), {})}
    assert {n: whole[p.offset : p.offset + p.size] for n, p in places.items()} == PHOTOS
    scratch = {wnid: (tmp_path / "scratch" / f"{wnid}.tar").stat().st_size for wnid in MAP}
    ends = dict(zip(MAP, itertools.accumulate(512 + -(-size // 512) * 512 for size in scratch.values()), strict=True))
    cut = data.draw(st.integers(512, max(ends.values())))
    path.write_bytes(whole[:cut])
    found = []
    with pytest.raises(TornFileError, match="cut off"):
        found.extend(p.name for p in _imagenet.pictures(str(path), {}))
    assert set(found) <= {n for n, p in places.items() if p.offset + p.size <= cut}
    # Class tars that are whole are read whole.
    assert set(found) >= {n for n in PHOTOS if ends[n.partition("_")[0]] <= cut}


@pytest.mark.slow
def test_template_sets_are_those_of_open_clip() -> None:
    """The oracle is open_clip's package itself, imported whole."""
    metadata = importlib.import_module("open_clip.zero_shot_metadata")
    assert template.named("eighty") == tuple(t("{}") for t in metadata.OPENAI_IMAGENET_TEMPLATES)
    assert template.named("seven") == tuple(t("{}") for t in metadata.SIMPLE_IMAGENET_TEMPLATES)


def test_template_sets_come_without_torch() -> None:
    code = "import sys; from curate.captions import template; print(template.named('seven')[0], 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "itap of a {}. False\n"
    assert {"a bad photo of a {}.", "a photo of the small {}.", "a tattoo of the {}."} <= set(template.named("eighty"))
    assert [len(template.load((name,))) for name in ("one", "seven", "eighty")] == [1, 7, 80]
    assert template.load(("one", "the {c}")) == ("a photo of a {}.", "the {c}")
    with pytest.raises(UsageError, match="no template 'nine'"):
        template.load(("nine",))


def test_templates_are_drawn_evenly() -> None:
    """Chi-square of 8,000 draws among 80: 79 degrees of freedom, below its 99.9% quantile of 123.6."""
    eighty = template.load(("eighty",))
    counts = collections.Counter(template.choose(eighty, uid_of("s", str(i))) for i in range(8000))
    assert set(counts) == set(eighty)
    assert sum((n - 100) ** 2 / 100 for n in counts.values()) < 123.6


def test_a_build_of_templates(tmp_path: Path, build: Callable[..., tuple[int, Path, str]]) -> None:
    root = sets.kaggle(tmp_path / "k")
    (root / "ILSVRC/Data/CLS-LOC/train/n01440764/n01440764_999.JPEG").write_bytes(b"no image")
    flags = ("--source", "imagenet_templates", "--input", root, "--samples", "all")
    code, out, talk = build(*flags)
    assert code == 0, talk
    assert collections.Counter(r["reason"] for r in ledger(out)) == {"": 8, "undecodable": 1}
    eighty = template.named("eighty")
    rows = sidecar(out)
    for row in rows:
        wnid = row["source_id"].partition("_")[0]
        chosen = eighty[int(hashlib.sha256(f"template:{row['uid']}".encode()).hexdigest()[:16], 16) % 80]
        assert row["imagenet_templates.template"] == chosen
        assert row["caption"] == chosen.replace("{}", MAP[wnid].partition(",")[0])
        assert (row["imagenet_templates.wnid"], row["class"]) == (wnid, NUMBERS[wnid])
    assert read_manifest(str(out)).classes == ("tench", "crane", "crane", "cuirass")
    # The draw hangs on the uid alone: half of the photos get what they got among all.
    for name in ("n01440764", "n03126707"):
        for path in (root / "ILSVRC/Data/CLS-LOC/train" / name).iterdir():
            path.unlink()
    code, fewer, talk = build(*flags, output="fewer")
    assert code == 0, talk
    drawn = {r["uid"]: r["caption"] for r in rows}
    assert all(drawn[r["uid"]] == r["caption"] for r in sidecar(fewer))
    code, one, _ = build(
        "--source", "imagenet_templates", "--input", root, "--samples", 2, "--template", "one", "--synonyms", "all", output="one"
    )
    assert {r["caption"] for r in sidecar(one)} <= {f"a photo of a {names}." for names in MAP.values()}


def test_imagenets_own_oddities_are_encoded_again(tmp_path: Path, build: Callable[..., tuple[int, Path, str]]) -> None:
    """ILSVRC has 22 CMYK pictures, and a PNG that is called n02105855_2933.JPEG."""
    folder = sets.tree(tmp_path / "train") / "n01440764"
    sets.synset_map(tmp_path)
    (folder / "n01440764_1.JPEG").write_bytes(encoded(picture(31), "PNG"))
    (folder / "n01440764_2.JPEG").write_bytes(encoded(picture(32).convert("CMYK")))
    code, out, talk = build("--source", "imagenet_templates", "--input", tmp_path, "--samples", "all")
    assert code == 0, talk
    assert {r["reason"] for r in ledger(out)} == {""}
    found = {r["source_id"]: r for r in sidecar(out)}
    assert len(found) == len(PHOTOS) + 2
    assert found["n01440764_1.JPEG"]["original_format"] == "PNG"
    changed = {name for name, r in found.items() if r["sha256"] != r["original_sha256"]}
    assert changed == {"n01440764_1.JPEG", "n01440764_2.JPEG"}


@pytest.mark.parametrize("shape", ["folders", "tars"])
def test_classes_that_are_numbers_are_numbered_as_numbers(tmp_path: Path, shape: str) -> None:
    """As `shards.classes` and `evaluate` do it: as text, 10 would be class 1."""
    from shards.classes.match import sorted_classes

    names = [str(number) for number in (0, 1, 2, 10, 11, 100)]
    for name in names:
        if shape == "folders":
            (tmp_path / name).mkdir()
            (tmp_path / name / "a.jpg").write_bytes(b"picture")
        else:
            make_tar(tmp_path / f"{name}.tar", [("a.jpg", b"picture")])
    found = {record.class_name: record.class_index for record in records(imagenet_templates, tmp_path)}
    assert found == {name: number for number, name in enumerate(names)}
    assert tuple(names) == sorted_classes(names)
