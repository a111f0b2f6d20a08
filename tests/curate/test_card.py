"""The dataset card and the Croissant metadata, read by the libraries that their users have."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from card_reader import card, front, issues, load, records, rendered, sidecar, table, tables
from drawing import encoded, picture
from report_synthetic import Row, write_build

from curate.card.croissant import CONTEXT
from curate.card.markdown import escaped, size_category
from curate.cli import main
from shards.cli import main as shards_main
from shards.manifest import read_manifest

Make = Callable[..., str]
ALL = (
    "--license",
    "cc-by-4.0",
    "--url",
    "https://example.org/set",
    "--creator",
    "The makers",
    "--date",
    "2026-11-25",
    "--citation",
    "@misc{x}",
)
HOSTILE = [
    "a|b",
    "# no\n---\n# heading",
    "<script>alert(1)</script>",
    "[click](javascript:alert(1)) ![x](http://example.org/y.png)",
    "`code` ``` ~~~ $x$",
    "x\u202e\x00\x1b[31m'\"\\",
    "- {a: b} &amp; *bold* __b__ <!-- no -->",
]
RECIPE = """\
seed: 7
sources:
- {name: redcaps, reader: redcaps, input: /home/someone/annotations, captions: first}
- {name: cc3m, reader: cc3m, input: /srv/cc3m, captions: first}
filters:
- {name: profanity, list: [/home/someone/words.txt]}
- {name: language, allowed: [en, de], unsure: keep}
dedup: {exact: true, near: {radius: 4, hash: reference}, prefer: rank, scope: source}
image: keep
clean: true
"""


@pytest.fixture
def two_sources(tmp_path: Path) -> Path:
    """Return a build of two sources in which every decision occurs."""
    rows = [Row("redcaps", f"k{i}", f"a dog number {i}") for i in range(40)] + [
        Row("cc3m", f"k{i}", f"a cat number {i}") for i in range(25)
    ]
    rows += [Row("redcaps", f"d{i}", "a copy", "dropped", "near_duplicate", "distance 2", rows[0].uid) for i in range(3)]
    rows += [Row("cc3m", f"p{i}", "rude", "dropped", "profanity") for i in range(2)]
    rows += [Row("cc3m", f"f{i}", "", "dropped", "failed_to_download") for i in range(11)]
    rows += [Row("redcaps", "h", "held out", "holdout"), *(Row("redcaps", f"x{i}", "spare", "spare") for i in range(7))]
    write_build(tmp_path / "two", rows, RECIPE, per_shard=20)
    return tmp_path / "two"


def test_croissant_has_no_errors_and_the_warnings_that_we_know(make_shards: Make) -> None:
    """What no flag gave is recommended by the standard, and nothing else is."""
    folder = Path(make_shards(20))
    card(folder)
    errors, warnings = issues(folder / "croissant.json")
    assert errors == []
    assert [re.findall(r"(\w+)\"", w)[0] for w in warnings] == ["citeAs", "datePublished", "license"]
    card(folder, *ALL, "--overwrite")
    assert issues(folder / "croissant.json") == ([], [])


def test_the_library_finds_what_was_done_and_what_is_not_known(two_sources: Path) -> None:
    import mlcroissant

    _, croissant = card(two_sources)
    found = mlcroissant.Dataset(two_sources / "croissant.json").metadata
    assert found.data_limitations == croissant["rai:dataLimitations"]
    assert found.data_preprocessing_protocol == croissant["rai:dataPreprocessingProtocol"]
    assert len(found.data_limitations) >= 4
    assert "Filter profanity (list words.txt): Drop samples with a profane word in any caption." in found.data_preprocessing_protocol


def test_the_context_is_the_librarys_own() -> None:
    from mlcroissant._src.core.context import Context, CroissantVersion
    from mlcroissant._src.core.rdf import make_context

    assert make_context(Context(conforms_to=CroissantVersion.V_1_0)) == CONTEXT


def test_records_are_the_sidecars_rows_and_the_tars_images(make_shards: Make, tmp_path: Path) -> None:
    """Through mlcroissant, every column of every sample, whatever other parquet files lie in folders."""
    folder = Path(make_shards(20, captions=2))
    for other in ("ledger", "stats"):
        (folder / other).mkdir()
        (folder / other / "00000.parquet").write_bytes((folder / "00000.parquet").read_bytes())
    card(folder)
    found = {r["uid"]: r for r in records(folder / "croissant.json", "samples", tmp_path / "cache")}
    rows = {row["uid"]: row for row in sidecar(folder)}
    assert len(found) == len(rows) == 20
    for uid, row in rows.items():
        assert found[uid] == {k: v for k, v in row.items() if k != "key"} | {"image": row["sha256"]}


def test_every_file_is_named_with_its_digest(make_shards: Make) -> None:
    folder = Path(make_shards(20))
    _, croissant = card(folder)
    files = [f for f in croissant["distribution"] if f["@type"] == "cr:FileObject"]
    assert {f["contentUrl"] for f in files} == {"00000.tar", "00001.tar", "00002.tar", "manifest.json"}
    for file in files:
        content = (folder / file["contentUrl"]).read_bytes()
        assert (file["sha256"], file["contentSize"]) == (hashlib.sha256(content).hexdigest(), f"{len(content)} B")
    assert croissant["version"] == f"1.0.0+{read_manifest(str(folder)).digest[:16]}"


def test_datasets_loads_the_folder_by_its_card_and_checks_the_count(make_shards: Make, tmp_path: Path) -> None:
    folder = Path(make_shards(20))
    card(folder)
    loaded = load(folder, tmp_path / "cache")
    assert {s["__key__"]: s["txt"] for s in loaded.select_columns(["__key__", "txt"])} == {r["key"]: r["caption"] for r in sidecar(folder)}
    (folder / "00002.tar").unlink()
    with pytest.raises(Exception, match="expected"):
        load(folder, tmp_path / "other")


def test_the_front_matter_is_what_the_hub_takes(two_sources: Path) -> None:
    card(two_sources, "--name", "Dogs: and cats", "--license", "https://example.org/terms")
    assert front(two_sources) == {
        "pretty_name": "Dogs: and cats",
        "license": "other",
        "license_name": "stated-at-the-link",
        "license_link": "https://example.org/terms",
        "language": ["en", "de"],
        "task_categories": ["image-to-text", "text-to-image", "zero-shot-image-classification"],
        "size_categories": ["n<1K"],
        "tags": ["webdataset", "provender"],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "*.tar"}]}],
        "dataset_info": {"splits": [{"name": "train", "num_examples": 65}]},
    }


def test_size_categories_are_the_hubs() -> None:
    sizes = [1, 999, 1000, 9999, 10**4, 10**5, 10**6, 2_700_000, 10**7, 10**8, 10**9, 10**10, 10**11, 10**12]
    said = ["n<1K", "n<1K", "1K<n<10K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "1M<n<10M", "10M<n<100M", "100M<n<1B"]
    assert [size_category(n) for n in sizes] == [*said, "1B<n<10B", "10B<n<100B", "100B<n<1T", "n>1T"]


def test_the_numbers_are_the_ledgers(two_sources: Path) -> None:
    text, _ = card(two_sources)
    ledger = [row for part in sorted((two_sources / "ledger").iterdir()) for row in pq.read_table(part).to_pylist()]
    rows = {row[0]: [int(cell) for cell in row[2:]] for row in table(text, "source", "reader")}
    for source in ("redcaps", "cc3m"):
        own = [r["decision"] for r in ledger if r["source"] == source]
        assert rows[source] == [len(own), *(own.count(d) for d in ("kept", "holdout", "spare", "dropped"))]
    drops = {(row[0], row[1]): (int(row[3]), row[4]) for row in table(text, "source", "reason")}
    assert drops == {
        ("redcaps", "near_duplicate"): (3, "5.9%"),
        ("cc3m", "failed_to_download"): (11, "28.9%"),
        ("cc3m", "profanity"): (2, "5.3%"),
    }
    assert "RedCaps: the official annotation files" in text
    assert "11 of 89 inputs (12.4%) gave no image" in text
    assert "Captions in other languages than en, de were dropped" in text


@pytest.mark.slow
def test_the_python_of_the_card_runs(make_shards: Make, tmp_path: Path) -> None:
    folder = make_shards(20)
    text, _ = card(folder)
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        last = re.findall(r"^(\w+) = ", block, re.MULTILINE)[-1]
        code = block.replace("FOLDER_OR_HUB_ID", folder) + f"\nprint(sum(1 for _ in {last}))"
        environment = {**os.environ, "HF_HOME": str(tmp_path / "hub"), "PYTHONPATH": ""}
        done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
        assert done.stdout == "20\n", done.stderr


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """Return a build in which sources, reasons, licences, filters and test sets have hostile names."""
    rows = [Row(name, f"k{i}", f"caption {i}") for name in HOSTILE for i in range(3)]
    rows += [Row(name, "d", "x", "dropped", name) for name in HOSTILE]
    folder = tmp_path / "hostile"
    recipe = {"filters": [{"name": n, "keep": n} for n in HOSTILE], "sources": [{"name": n, "reader": n, "captions": n} for n in HOSTILE]}
    write_build(folder, rows, json.dumps(recipe))
    values = json.loads((folder / "manifest.json").read_text())
    values["licences"] = {name: {name: 1} for name in HOSTILE}
    values["builder"] = HOSTILE[2]
    values["parents"] = [{"manifest": name, "samples": 3, "where": name} for name in HOSTILE]
    for name, source in values["sources"].items():
        source |= {"reader": name, "layout": name}
    shares = {"as it is": dict.fromkeys(HOSTILE, 0.5)}
    values["notes"] = {
        "excluded": {
            "radius": 4, "views": 23, "embedding": None,
            "sets": [
                {"name": n, "digest": n, "images": 1, "unreadable": 0, "low_information": 0, "near_test_image": 0, "planted": 1, "recall": shares}
                for n in HOSTILE
            ],
        }
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(values))
    return folder


def test_hostile_names_break_neither_card_nor_metadata(hostile: Path, tmp_path: Path) -> None:
    flags = [flag for name in ("name", "description", "creator", "contact", "license") for flag in (f"--{name}", HOSTILE[4] + HOSTILE[1])]
    text, _ = card(hostile, *flags, "--citation", "```\n# heading\n" + HOSTILE[2])
    page = rendered(text)
    assert not re.search(r"<(script|a|img|em|strong)\b(?! href=\"http)", page)
    headings = [
        "How to load it",
        "Where it comes from",
        "What was done to it",
        "What was dropped",
        "Test sets kept out",
        "Limits and biases",
    ]
    headings += ["Licences", "Files", "Columns of the parquet files", "How to build it again", "Removal", "Citation"]
    assert re.findall(r"<h[2-6]>(.*?)</h", page) == headings
    assert page.count("<h1>") == 1
    assert all(len({len(row) for row in rows}) == 1 for rows in tables(text))
    plain = {" ".join(re.sub(r"[\x00-\x1f\u202e]", " ", name).split()) for name in HOSTILE}
    said = {re.sub(r"\\u202e", "", row[0]) for row in table(text, "source", "reader")}
    assert len(said) == len(plain) == len(HOSTILE)
    assert issues(hostile / "croissant.json")[0] == []
    assert front(hostile)["pretty_name"] == "`code` ``` ~~~ $x$# no --- # heading"
    assert len(load(hostile, tmp_path / "cache")) == 21
    assert len(records(hostile / "croissant.json", "samples", tmp_path / "croissant")) == 21


@pytest.mark.parametrize(
    "text", [*HOSTILE, "http://example.org/a_b*c", "javascript:alert(1)", 'http://x" onclick=alert(1)', "1. x", "a" * 999]
)
def test_escaped_text_means_itself(text: str) -> None:
    """A CommonMark library reads back what was written: one cell, no markup, a link only where a web address stands."""
    (rows,) = tables(f"---\n---\n\n| a | b |\n|---|---|\n| {escaped(text)} | end |\n")
    assert rows[1][1] == "end"
    plain = " ".join("".join(" " if ord(c) < 32 else c for c in text if c != "\u202e").split())
    assert rows[1][0] == (plain if len(plain) <= 400 else plain[:400] + "…")


def test_a_subset_says_what_its_readers_must_know_and_how_to_publish_it(make_shards: Make, tmp_path: Path) -> None:
    parent, part, own = make_shards(20), str(tmp_path / "part"), str(tmp_path / "own")
    assert shards_main(["subset", parent, "--window", "3:13", "--output", part]) == 0
    text, croissant = card(part)
    assert "configs" not in front(part)
    assert "dataset_info" not in front(part)
    assert "recordSet" not in croissant
    assert issues(Path(part) / "croissant.json")[0] == []
    assert "10 image–text pairs" in text
    assert "samples 3 up to 13 of them" in text
    (command,) = [line for line in text.splitlines() if line.startswith("shards subset")]
    assert shards_main([*command.replace("FOLDER", part).replace("NEW", own).split()[1:], "--engine", "inline"]) == 0
    card(own)
    wanted = {r["uid"]: r["caption"] for r in sidecar(parent) if 3 <= r["rank"] < 13}
    assert {s["__key__"]: s["txt"] for s in load(own, tmp_path / "cache")} == wanted
    found = records(Path(own) / "croissant.json", "samples", tmp_path / "croissant")
    assert {r["uid"]: r["caption"] for r in found} == wanted


@pytest.mark.slow
def test_a_take_down_counts_at_once_and_is_whole_after_compacting(
    captioned: Callable[..., Path], build: Callable[..., tuple[int, Path, str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = captioned((f"{i}.jpg", encoded(picture(i)), f"a drawing of number {i}") for i in range(12))
    _, out, _ = build("--source", "folder", "--input", photos, "--samples", "all")
    gone = sidecar(out)[3]
    (tmp_path / "uids.txt").write_text(gone["uid"] + "\n")
    assert shards_main(["remove", str(out), "--uids", str(tmp_path / "uids.txt")]) == 0
    text, croissant = card(out)
    assert "shards compact FOLDER" in capsys.readouterr().err
    assert "Samples that were taken down and are still in the tars: 1." in text
    assert "configs" not in front(out)
    assert "recordSet" not in croissant
    assert [row[1:4] for row in table(text, "source", "reason")] == [["removed", "taken down on request, or a copy of such a picture", "1"]]
    assert shards_main(["compact", str(out), "--engine", "inline"]) == 0
    text, _ = card(out, "--overwrite")
    assert "still in the tars" not in text
    assert "has the digest above" not in text
    assert "11 image–text pairs" in text
    found = records(out / "croissant.json", "samples", tmp_path / "croissant")
    assert {r["uid"] for r in found} == {r["uid"] for r in sidecar(out)}
    assert gone["uid"] not in {r["uid"] for r in found}
    assert len(load(out, tmp_path / "cache")) == 11


def test_foreign_tars_have_a_card_too(make_shards: Make, tmp_path: Path) -> None:
    made, foreign = Path(make_shards(20)), tmp_path / "foreign"
    (foreign / "sub folder").mkdir(parents=True)
    for number in range(3):
        (foreign / "sub folder" / f"x {number}.tar").write_bytes((made / f"{number:05d}.tar").read_bytes())
    assert shards_main(["index", str(foreign), "--engine", "inline"]) == 0
    text, _ = card(foreign)
    assert "their sources, filters and licences are not known here" in text
    assert issues(foreign / "croissant.json")[0] == []
    rows = {r["key"]: r for r in sidecar(made)}
    images = records(foreign / "croissant.json", "images", tmp_path / "croissant")
    captions = records(foreign / "croissant.json", "captions", tmp_path / "croissant")
    assert {r["key"]: r["image"] for r in images} == {k: r["sha256"] for k, r in rows.items()}
    assert {r["key"]: r["caption"] for r in captions} == {k: r["caption"] for k, r in rows.items()}
    assert {s["__key__"]: s["txt"] for s in load(foreign, tmp_path / "cache")} == {k: r["caption"] for k, r in rows.items()}


def test_classes_are_told(make_shards: Make, tmp_path: Path) -> None:
    folder = Path(make_shards(20, classes=True))
    text, _ = card(folder)
    assert front(folder)["task_categories"][-1] == "image-classification"
    assert "| classes | 4 |" in text
    found = records(folder / "croissant.json", "samples", tmp_path / "croissant")
    assert sorted((r["uid"], r["class"]) for r in found) == sorted((r["uid"], r["class"]) for r in sidecar(folder))


def test_a_merged_set_has_the_sums(make_shards: Make, tmp_path: Path) -> None:
    one, two, both = make_shards(20), make_shards(12, "two", seed=1, source="second"), str(tmp_path / "both")
    assert shards_main(["merge", one, two, "--output", both]) == 0
    text, croissant = card(both)
    assert [row[2:] for row in table(text, "source", "reader")] == [["20", "20", "0", "0", "0"], ["12", "12", "0", "0", "0"]]
    assert len([f for f in croissant["distribution"] if f["contentUrl"].endswith(".tar")]) == 5
    assert issues(Path(both) / "croissant.json")[0] == []


def test_equal_builds_give_equal_bytes_and_no_path(
    captioned: Callable[..., Path], build: Callable[..., tuple[int, Path, str]], tmp_path: Path
) -> None:
    photos = captioned((f"{i}.jpg", encoded(picture(i)), f"a drawing of number {i}") for i in range(12))
    outs = [build("--source", "folder", "--input", photos, "--samples", "8", output=name)[1] for name in ("one", "two")]
    texts = [(card(out, *ALL)[0], (out / "croissant.json").read_text()) for out in outs]
    assert texts[0] == texts[1]
    assert not any(str(tmp_path) in text for text in texts[0])
    assert "# folder-8\n" in texts[0][0]
    assert "curate build-shards --config recipe.yaml --output again" in texts[0][0]
    _, again, _ = build("--config", outs[0] / "recipe.yaml", output="again")
    digest = read_manifest(str(again)).digest
    assert f"| manifest | `{digest}` |" in texts[0][0]


def test_what_stands_there_is_not_lost(make_shards: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(make_shards(20))
    (folder / "README.md").write_text("mine")
    assert main(["card", str(folder)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (folder / "README.md").read_text() == "mine"
    assert not (folder / "croissant.json").exists()
    assert main(["card", str(folder), "--output", str(tmp_path / "else")]) == 0
    elsewhere = [(tmp_path / "else" / name).read_text() for name in ("README.md", "croissant.json")]
    card(folder, "--overwrite")
    card(folder)  # the same again is no other
    assert [(folder / name).read_text() for name in ("README.md", "croissant.json")] == elsewhere


@pytest.mark.parametrize(
    ("flags", "said"), [(("--date", "today"), "YYYY-MM-DD"), (("--url", "example.org"), "https://"), ((), "no manifest")]
)
def test_refusals_say_what_is_allowed(make_shards: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: Any, said: str) -> None:
    folder = make_shards(8) if flags else str(tmp_path)
    assert main(["card", folder, *flags]) == 2
    assert said in capsys.readouterr().err


def test_a_thousand_shards_stay_small_and_valid(make_shards: Make) -> None:
    folder = Path(make_shards(8))
    values = json.loads((folder / "manifest.json").read_text())
    values["shards"] = [{**values["shards"][0], "path": f"{i:05d}.tar"} for i in range(1000)]
    (folder / "manifest.json").write_text(json.dumps(values | {"samples": 8000}))
    text, _ = card(folder)
    assert (folder / "croissant.json").stat().st_size < 500_000
    assert issues(folder / "croissant.json")[0] == []
    assert "'{00000..00999}.tar'" in text


@pytest.mark.parametrize(("scope", "said"), [("source", ["12 by their bytes, 1,234 by pairs of near-equal pHashes"]), ("all", [])])
def test_shared_images_are_a_limit_where_copies_may_stand_in_both(two_sources: Path, scope: str, said: list[str]) -> None:
    values = json.loads((two_sources / "manifest.json").read_text())
    overlap = {"redcaps + cc3m": {"exact": 12, "near": 1234}, "redcaps + sbu": {"exact": 0, "near": 0}}
    values["notes"] = {"dedup_scope": scope, "overlap": overlap}
    (two_sources / "manifest.json").write_text(json.dumps(values))
    _, croissant = card(two_sources)
    found = [re.findall(r"share: (.*?)\.", limit) for limit in croissant["rai:dataLimitations"] if "share" in limit]
    assert found == [said] * len(said)
