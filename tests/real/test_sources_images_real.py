"""Sources whose images or captions are real: counts, fields and bytes held against the files by other means."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.cli import main
from curate.sources import _wit, folder, huggingface, imagenet_captions, imagenet_templates, webdataset, wit
from curate.sources.base import Record
from shards.core.errors import UsageError
from shards.manifest import read_manifest
from shards.tables.values import NULL_WORDS


def records(module: ModuleType, path: Path, **options: Any) -> list[Record]:
    """Return all records of all inputs; each states its layout."""
    chosen = module.Options(**options)
    found = []
    for one in module.inputs(str(path), chosen):
        assert module.layout(one, chosen)
        found += module.read(one, chosen)
    return found


def pointed(record: Record) -> bytes:
    """Return the image of a record."""
    if record.image is None:
        return record.content
    content = Path(record.image.path).read_bytes()[record.image.offset :]
    return content if record.image.size < 0 else content[: record.image.size]


def build(out: Path, *flags: Any) -> list[dict[str, Any]]:
    """Build inline, check the balance, and return the sidecar."""
    assert main(["build-shards", "--engine", "inline", *map(str, flags), "--samples", "all", "--output", str(out)]) == 0
    ledger = [row for part in sorted((out / "ledger").iterdir()) for row in pq.read_table(part).to_pylist()]
    (counts,) = read_manifest(str(out)).sources.values()
    assert counts["inputs"] == len(ledger) == counts["kept"] + sum(counts["dropped"].values())
    assert counts["dropped"] == Counter(r["reason"] for r in ledger if r["decision"] == "dropped")
    return [row for part in sorted(out.glob("*.parquet")) for row in pq.read_table(part).to_pylist()]


def stored(out: Path) -> set[bytes]:
    """Return the images of all shards."""
    found = set()
    for path in sorted(out.glob("*.tar")):
        with tarfile.open(path) as tar:
            found |= {tar.extractfile(m).read() for m in tar if m.name.endswith(".jpg")}  # type: ignore[union-attr]
    return found


def test_wit(realdata: Path) -> None:
    """The csv module reads this sample well: its quotes are closed."""
    path = realdata / "metadata/wit/wit_v1.sample.tsv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    found = records(wit, path, attribution="any")
    assert len(found) == len(rows) == 3
    assert any("\n" in row["context_page_description"] for row in rows)
    for record, row in zip(found, rows, strict=True):
        assert record.source_id == f"{row['page_url']}\n{row['image_url']}"
        assert (record.captions[0], record.captions[2]) == (row["caption_reference_description"], row["caption_alt_text_description"])
        assert row["caption_attribution_description"].endswith(record.captions[1])
        extras = json.loads(record.meta)
        assert all(extras[name] == row[name] for name in ("language", "page_title", "section_title", "mime_type"))
        assert (extras["original_width"], extras["original_height"]) == (int(row["original_width"]), int(row["original_height"]))
        assert str(extras["is_main_image"]).lower() == row["is_main_image"]
    english = records(wit, path, languages=("en",), caption_fields=("reference",))
    assert [r.status for r in english] == ["not_selected", "not_selected", ""]
    assert english[2].captions == ("Downtown Deer Park",)


def synsets(path: Path) -> list[str]:
    """Write LOC_synset_mapping.txt from timm's tables (its own order, WordNet's names); return the ids in order."""
    package = importlib.util.find_spec("timm")
    assert package is not None
    assert package.submodule_search_locations is not None
    info = Path(package.submodule_search_locations[0]) / "data/_info"
    ids = (info / "imagenet_synsets.txt").read_text().split()
    lemmas = dict(line.split("\t") for line in (info / "imagenet_synset_to_lemma.txt").read_text().splitlines())
    path.write_text("".join(f"{id} {lemmas[id]}\n" for id in ids))
    return ids


def photos(realdata: Path) -> dict[str, Path]:
    """Return the ImageNet photos, each under a name as ImageNet gives it."""
    found = sorted((realdata / "classification/imagenet-sample").iterdir())
    return {f"{p.name.partition('_')[0]}_{i}.JPEG": p for i, p in enumerate(found)}


def tars(folder: Path, names: Iterable[tuple[str, Path]]) -> Path:
    """Write one tar per class, and ILSVRC2012_img_train.tar of them all."""
    for name, path in names:
        with tarfile.open(folder / f"{name.partition('_')[0]}.tar", "a") as tar:
            tar.add(path, name)
    with tarfile.open(folder.parent / "ILSVRC2012_img_train.tar", "w") as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, path.name)
    return folder.parent / "ILSVRC2012_img_train.tar"


@pytest.mark.parametrize("packed", [False, True])
def test_imagenet_photos_by_template(realdata: Path, tmp_path: Path, packed: bool) -> None:
    """Numbers as published heads have them: the list that CLIP's authors gave names what the files are called."""
    ids = synsets(tmp_path / "LOC_synset_mapping.txt")
    (tmp_path / "train").mkdir()
    flat = realdata / "classification/imagenet-sample"
    given = tars(tmp_path / "train", photos(realdata).items()) if packed else flat
    flags = ("--source", "imagenet_templates", "--input", given, "--synsets", tmp_path / "LOC_synset_mapping.txt", "--template", "seven")
    rows = build(tmp_path / "out", *flags)
    assert len(rows) == len(list(flat.iterdir()))
    assert all(row["class"] == ids.index(row["imagenet_templates.wnid"]) for row in rows)
    names = json.loads((realdata / "reference/en_classnames.json").read_text())["imagenet1k"]
    jay = next(row for row in rows if row["imagenet_templates.wnid"] == "n01580077")
    assert names[jay["class"]] == jay["imagenet_templates.class_name"] == "jay"
    assert jay["caption"] == jay["imagenet_templates.template"].replace("{}", "jay")
    kept = {row["original_sha256"]: row["sha256"] for row in rows}
    unchanged = {p.read_bytes() for p in flat.iterdir()} & stored(tmp_path / "out")
    assert len(unchanged) == sum(original == now for original, now in kept.items()) > 30


@pytest.mark.parametrize("name", ["caltech101", "dtd", "eurosat", "oxford-pets"])
def test_class_folders_by_template(realdata: Path, name: str) -> None:
    root = realdata / "classification" / name
    found = records(imagenet_templates, root)
    assert Counter(r.class_name for r in found) == Counter(p.parent.name.replace("_", " ") for p in root.rglob("*") if p.is_file())
    assert [json.loads(r.meta)["wnid"] for r in found] == sorted(p.parent.name for p in root.rglob("*") if p.is_file())


def test_published_class_names(realdata: Path) -> None:
    """The pets' list is matched by name, since capitals sort otherwise there; ten names fit three sets, so none is taken."""
    names = realdata / "reference/en_classnames.json"
    pets = records(imagenet_templates, realdata / "classification/oxford-pets", synsets=str(names))
    listed = json.loads(names.read_text())["pets"]
    assert all(listed[r.class_index].lower() == json.loads(r.meta)["wnid"].replace("_", " ").lower() == r.class_name.lower() for r in pets)
    assert len({r.class_index for r in pets}) == 37
    with pytest.raises(UsageError, match=r"(?s)eurosat \(10\).*one list of 10 names"):
        records(imagenet_templates, realdata / "classification/eurosat", synsets=str(names))


def test_imagenet_captions(realdata: Path, tmp_path: Path) -> None:
    """The published records, joined to tars that hold photos under their names."""
    path = realdata / "metadata/imagenet-captions/imagenet_captions.json"
    listed = json.loads(path.read_text())
    (tmp_path / "train").mkdir()
    given = list(photos(realdata).values())
    images = tars(tmp_path / "train", [(record["filename"], given[i]) for i, record in enumerate(listed)])
    found = records(imagenet_captions, path, images=str(images), text_fields=("title", "tags", "description"))
    assert [r.source_id for r in found] == [record["filename"] for record in listed]
    joined = [" ".join(filter(None, (x["title"], " ".join(x["tags"]), x["description"]))) for x in listed]  # as CLIP-beyond-tail joins them
    assert [r.captions for r in found] == [(text,) for text in joined]
    for i, record in enumerate(found):
        assert record.image is not None
        assert images.read_bytes()[record.image.offset :][: record.image.size] == given[i].read_bytes()
    rows = build(tmp_path / "out", "--source", "imagenet_captions", "--input", path, "--images", images, "--no-profanity")
    assert {r["imagenet_captions.wnid"] for r in rows} == {"n03146219"}
    assert stored(tmp_path / "out") <= {p.read_bytes() for p in given}
    missing = records(imagenet_captions, path, images=str(realdata / "classification/imagenet-sample"))
    assert {r.status for r in missing} == {"image_missing"}


def test_packed_tars_and_members(realdata: Path) -> None:
    path = realdata / "metadata/webdataset/sample.tgz"
    with tarfile.open(path) as tar:
        files = {m.name: tar.extractfile(m).read() for m in tar.getmembers() if m.isfile()}  # type: ignore[union-attr]
    found = records(webdataset, path)
    assert {r.source_id: r.content for r in found} == {f"sample.tgz/{n[:-4]}": c for n, c in files.items() if n.endswith(".png")}
    assert all(r.class_index == int(files[r.source_id.partition("/")[2] + ".cls"]) for r in found)
    texts = records(webdataset, realdata / "metadata/webdataset/compressed.tar")
    assert all(r.captions[0].strip() and r.status == "image_missing" for r in texts)


def test_a_data_set_of_hugging_face(realdata: Path, tmp_path: Path) -> None:
    """Flickr8k as `datasets` saves it: the same photos and captions as out of the folder."""
    import datasets

    root = realdata / "pairs/flickr8k"
    items = {r.source_id: r for r in records(folder, root)}
    rows = [
        {"image": {"bytes": (root / name).read_bytes(), "path": name}, "caption": list(r.captions), "name": name}
        for name, r in items.items()
    ]
    made = datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())
    made.save_to_disk(str(tmp_path / "saved"), num_shards=3)
    made.to_parquet(str(tmp_path / "train.parquet"))
    for path in (tmp_path / "saved", tmp_path / "train.parquet"):
        found = records(huggingface, path, id_column="name")
        assert {r.source_id: r.captions for r in found} == {name: r.captions for name, r in items.items()}
        for record in found:
            assert bool(record.content) == (path.suffix == ".parquet")
            assert record.image is None or record.image.path.endswith(".arrow")
            assert pointed(record) == (root / record.source_id).read_bytes()


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("pairs/flickr8k", "csv: captions.txt, images in 'image', captions in 'caption'; {} images"),
        ("pairs/flickr30k", "token: results.token; {} images"),
        ("pairs/coco", "coco: captions.json; {} images"),
        ("pairs/cc-by", "csv: credits.csv, images in 'ImageID', captions in 'Title'; {} images"),
        ("classification/caltech101", "classes: 12 classes, {} images"),
        ("classification/imagenet-sample", "images: {} images"),
    ],
)
def test_folders_state_their_layout(realdata: Path, name: str, layout: str) -> None:
    options = folder.Options()
    (one,) = folder.inputs(str(realdata / name), options)
    count = sum(1 for p in (realdata / name).rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    assert folder.layout(one, options) == layout.format(count)


def test_hostile_captions_come_back(realdata: Path, tmp_path: Path) -> None:
    """The big list of naughty strings as captions, through every container of this kind."""
    listed = json.loads((realdata / "text/naughty_strings.json").read_text("utf-8"))
    texts = [text for text in listed if text.strip() and text.strip().lower() not in NULL_WORDS]
    naughty = [text for text in texts if not text.startswith("\ufeff")]  # a mark at the start of a file is no text
    picture = next((realdata / "classification/imagenet-sample").iterdir()).read_bytes()
    root = tmp_path / "train/n03146219"
    root.mkdir(parents=True)
    names = [f"n03146219_{i}.JPEG" for i in range(len(naughty))]
    for name in names:
        (root / name).write_bytes(picture)

    with (tmp_path / "wit.tsv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(_wit.COLUMNS)
        for i, text in enumerate(naughty):
            cells = {"language": "en", "page_url": f"https://en.wikipedia.org/wiki/{i}", "image_url": f"https://h.example/{i}.jpg"}
            writer.writerow([(cells | {"caption_reference_description": text}).get(name, "") for name in _wit.COLUMNS])
    assert [r.captions for r in records(wit, tmp_path / "wit.tsv", caption_fields=("reference",))] == [(text,) for text in naughty]

    rows = [{"filename": n, "wnid": "n03146219", "title": t, "description": "", "tags": []} for n, t in zip(names, naughty, strict=True)]
    (tmp_path / "captions.json").write_text(json.dumps(rows))
    found = records(imagenet_captions, tmp_path / "captions.json", images=str(tmp_path / "train"))
    assert [(r.captions, r.status) for r in found] == [((text,), "") for text in naughty]

    table = pa.table({"image": [picture] * len(naughty), "caption": naughty})
    pq.write_table(table, tmp_path / "t.parquet")
    assert [r.captions for r in records(huggingface, tmp_path / "t.parquet")] == [(text,) for text in naughty]

    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        for i, text in enumerate(naughty):
            for ext, content in (("jpg", picture), ("txt", text.encode())):
                info = tarfile.TarInfo(f"{i}.{ext}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    assert [r.captions for r in records(webdataset, tmp_path / "t.tar")] == [(text,) for text in naughty]

    for name, text in (("captions.csv", _csv(names, naughty)), ("captions.jsonl", _jsonl(names, naughty))):
        (tmp_path / name).write_bytes(text.encode())
        items = records(folder, tmp_path / name)
        assert {r.source_id: r.captions for r in items} == {f"train/n03146219/{n}": (t,) for n, t in zip(names, naughty, strict=True)}


def _csv(names: list[str], texts: list[str]) -> str:
    out = io.StringIO(newline="")
    csv.writer(out).writerows([("image", "caption"), *zip(names, texts, strict=True)])
    return out.getvalue()


def _jsonl(names: list[str], texts: list[str]) -> str:
    return "".join(json.dumps({"image": n, "caption": t}) + "\n" for n, t in zip(names, texts, strict=True))
