"""The report against counts taken from the same rows by other means, and against hostile captions."""

from __future__ import annotations

import base64
import collections
import hashlib
import html.parser
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from report_synthetic import Row, picture, write_build

from curate.cli import main
from curate.report.build import write_report
from curate.report.page import MAX_BYTES, fit, named, percent, render
from curate.report.sections.ledger import in_order
from shards.core.errors import RunError
from shards.manifest import read_manifest

RECIPE = """\
seed: 7
sources:
- {name: redcaps, reader: redcaps, input: /home/someone/annotations, captions: first}
- {name: folder, reader: folder, input: /srv/photos}
filters:
- {name: profanity, list: /home/someone/words.txt}
- {name: caption_length, min_words: 2}
"""
HOSTILE = [
    "<script>alert(1)</script>",
    "</style><img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "' onmouseover='alert(1)",
    "javascript:alert(1)",
    "{{ 7 * 7 }} {% raw %}",
    "&lt;b&gt; &amp; \x00\x07\x1b[31m",
    "\u202eright to left\u202c",
    "</title></bdi></details><iframe src=//example.org>",
    "漢字 سلام 😀 naïve",
    "z" * 5000,
]


def rows() -> list[Row]:
    """Two sources in which every decision, three reasons, groups of 4 and 2, and all hostile captions occur."""
    kept = [Row("redcaps", f"k{i}", f"a dog and the {'cat ' * (i % 9)}number {i}") for i in range(160)]
    kept += [Row("folder", f"k{i}", caption) for i, caption in enumerate(HOSTILE)]
    drops = [Row("redcaps", f"d{i}", f"copy {i}", "dropped", "near_duplicate", "distance 2", kept[5].uid) for i in range(3)]
    drops += [Row("redcaps", "e0", "copy", "dropped", "exact_duplicate", "", kept[9].uid)]
    drops += [Row("redcaps", "k0", "the same id again", "dropped", "duplicate_id", "", kept[0].uid)]
    drops += [Row("folder", f"s{i}", caption, "dropped", "caption_length", caption) for i, caption in enumerate(HOSTILE)]
    drops += [Row("folder", f"p{i}", "rude", "dropped", "profanity", "“rude”") for i in range(5)]
    return [*kept, *drops, Row("redcaps", "h", "held out", "holdout"), *(Row("redcaps", f"x{i}", "spare", "spare") for i in range(7))]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report") / "out"
    image = out.parent / "photo.jpg"
    image.write_bytes(picture(300, 200))
    write_build(out, [r if i % 3 else Row(**{**vars(r), "image": str(image)}) for i, r in enumerate(rows())], RECIPE)
    write_report(str(out))
    return out


def numbers(out: Path) -> dict[str, Any]:
    return json.loads((out / "report.json").read_text())


def ledger(out: Path) -> dict[str, Any]:
    (only,) = numbers(out)["ledger"]["sets"]
    return only


class Page(html.parser.HTMLParser):
    """A page as a browser's parser sees it: elements, their attributes, and the numbers in each waterfall step."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: collections.Counter[str] = collections.Counter()
        self.attributes: list[tuple[str, str]] = []
        self.values: list[str] = []
        self.steps: dict[tuple[str, str], list[float]] = {}
        self.text, self._source, self._step = "", "", ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {k: v or "" for k, v in attrs}
        self.tags[tag] += 1
        self.attributes += list(named.items())
        self._source = named.get("data-source", self._source)
        self._step = named.get("data-step", "" if tag == "h3" else self._step)
        if tag == "data":
            self.values.append(named["value"])
            if self._step:
                self.steps.setdefault((self._source, self._step), []).append(float(named["value"]))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def page(build: Path) -> Page:
    return Page((build / "report.html").read_text())


def test_waterfall_equals_an_independent_count(build: Path, page: Page) -> None:
    for source in ledger(build)["sources"]:
        own = [r for r in rows() if r.source == source["name"]]
        counted = collections.Counter(r.reason or r.decision for r in own)
        assert source["inputs"] == len(own) == sum(counted.values())
        found = {d["reason"]: d["count"] for d in source["dropped"]}
        found |= {d: source[d]["count"] for d in ("kept", "holdout", "spare") if source[d]["count"]}
        assert found == dict(counted)
        for step, n in {**found, "inputs": len(own)}.items():
            count, share = page.steps[source["name"], step][:2]
            assert (count, share) == (n, pytest.approx(n / len(own)))
        left = len(own)
        for d in source["dropped"]:
            left -= d["count"]
            assert d["left"] == left


def test_every_number_on_the_page_is_in_the_json(build: Path, page: Page) -> None:
    report = numbers(build)
    known: set[float] = set()

    def walk(value: Any) -> None:
        if isinstance(value, dict | list):
            for inner in value.values() if isinstance(value, dict) else value:
                walk(inner)
        elif isinstance(value, int | float):
            known.add(float(value))

    walk(report)
    assert len(page.values) > 50
    shares = {round(k, 6) for k in known}
    assert not [v for v in page.values if round(float(v), 6) not in shares and float(v) != 1.0]


def test_duplicate_groups(build: Path, page: Page) -> None:
    survivors = {r.source_id: r.uid for r in rows() if r.source == "redcaps" and r.decision == "kept"}
    found = ledger(build)["duplicates"]
    assert (found["groups"], found["copies"]) == (2, 4)
    assert [(g["survivor"], g["size"], len(g["examples"])) for g in found["largest"]] == [(survivors["k5"], 4, 4), (survivors["k9"], 2, 2)]
    assert found["largest"][0]["examples"][0]["uid"] == survivors["k5"]
    assert [v for k, v in page.attributes if k == "data-survivor"] == [survivors["k5"], survivors["k9"]]


def test_hostile_captions_stay_text(build: Path, page: Page) -> None:
    tags = set(page.tags)
    assert not tags & {"iframe", "object", "embed", "link", "base", "form"}
    assert page.tags["style"] == 1
    assert page.tags["script"] == 1 + sum(k == "data-rows" for k, _ in page.attributes)
    assert not [k for k, _ in page.attributes if k.startswith("on") or k == "style"]
    assert all(v.startswith("#") for k, v in page.attributes if k == "href")
    assert all(v.startswith("data:image/webp;base64,") for k, v in page.attributes if k in ("src", "srcset"))
    policy = next(v for k, v in page.attributes if k == "content" and "default-src" in v)
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    for caption in HOSTILE[:6]:
        assert caption in page.text
    assert "\x00" not in page.text
    assert "␀" in page.text
    assert "z" * 401 not in page.text


@pytest.mark.parametrize("element", ["style", "script"])
def test_style_sheet_and_script_have_the_hash_that_the_policy_allows(build: Path, element: str) -> None:
    text = (build / "report.html").read_text()
    found = re.search(rf"<{element}>(.*?)</{element}>", text, re.DOTALL)
    assert found is not None
    assert f"{element}-src 'sha256-{base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()}'" in text


def test_no_path_of_this_machine(build: Path) -> None:
    for name in ("report.html", "report.json"):
        text = (build / name).read_text()
        assert "/home/" not in text
        assert "/srv/" not in text
        assert str(build.parent) not in text
        assert "words.txt" in text


def test_equal_builds_have_equal_reports(build: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(build, copy)
    for name in ("report.html", "report.json"):
        (copy / name).unlink()
    write_report(str(copy))
    for name in ("report.html", "report.json"):
        assert (copy / name).read_bytes() == (build / name).read_bytes()


def test_missing_examples_are_said(tmp_path: Path) -> None:
    write_build(tmp_path / "out", rows(), examples=False)
    write_report(str(tmp_path / "out"))
    assert "No examples were kept with this build." in (tmp_path / "out" / "report.html").read_text()
    assert not any(d["examples"] for s in ledger(tmp_path / "out")["sources"] for d in s["dropped"])


def test_an_empty_build_has_a_report(tmp_path: Path) -> None:
    write_build(tmp_path / "out", [Row("folder", "a", "", "dropped", "caption_missing")])
    write_report(str(tmp_path / "out"))
    assert [s["samples"] for s in numbers(tmp_path / "out")["sources"]] == [0]


def noise(side: int, seed: int) -> bytes:
    """Return a WebP that is hard to pack."""
    import numpy as np
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)).save(out, "WEBP", quality=70)
    return out.getvalue()


def test_pictures_shrink_before_they_go_and_the_page_says_so(build: Path) -> None:
    report = numbers(build)
    pictures = {name: noise(96, i) for i, (_, name) in enumerate(named(report))}
    assert len(pictures) > 20
    wanted = sorted(named(report))
    whole = sum(len(base64.b64encode(pictures[name])) + 23 for _, name in wanted)
    shown, said = fit(iter(wanted), pictures, whole)
    assert (set(shown), said) == (set(pictures), "")
    shown, said = fit(iter(wanted), pictures, whole // 2)
    assert set(shown) == set(pictures)
    assert "64 pixels" in said
    shown, said = fit(iter(wanted), pictures, whole // 40)
    assert 0 < len(shown) < len(pictures)
    assert said.startswith(f"{len(shown)} of {len(pictures)} pictures are shown")
    assert {name for place, name in wanted if place == 0} >= set(shown)
    assert sum(len(shown.get(name, "")) for _, name in wanted) <= whole // 40


def test_the_page_is_bounded(build: Path) -> None:
    report, content = numbers(build), noise(96, 1)
    row = {"source": "redcaps", "uid": "f" * 32, "caption": "c" * 900, "caption_raw": "r" * 900, "detail": ""}
    examples = [[{**row, "picture": f"example/0/{100 * reason + i}"} for i in range(12)] for reason in range(100)]
    report["ledger"]["sets"][0]["sources"][0]["dropped"] = [
        {"reason": f"reason{i}", "why": "", "count": 1, "share": 0.1, "left": 1, "examples": rows} for i, rows in enumerate(examples)
    ]
    page = render(report, {entry["picture"]: content for rows in examples for entry in rows})
    assert 0.5 * MAX_BYTES < len(page.encode()) < MAX_BYTES
    assert "to keep this page under 5 MB" in page
    assert page.count("data:image/webp") >= 100


def test_a_ledger_that_differs_from_the_manifest_is_refused(build: Path, tmp_path: Path) -> None:
    copy = tmp_path / "out"
    shutil.copytree(build, copy)
    (copy / "ledger" / "00000.parquet").unlink()
    with pytest.raises(RunError, match="the ledger counts"):
        write_report(str(copy))
    shutil.rmtree(copy / "ledger")
    write_report(str(copy))
    assert numbers(copy)["ledger"] == {}
    assert "Where every input went" not in (copy / "report.html").read_text()


def test_command(build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(build), "--json", "--output", str(tmp_path / "mine.html")]) == 0
    assert json.loads(capsys.readouterr().out) == numbers(build) == json.loads((tmp_path / "mine.json").read_text())
    assert (tmp_path / "mine.html").read_bytes() == (build / "report.html").read_bytes()
    assert main(["report", str(build), "--output", str(tmp_path / "mine.html")]) == 0
    assert re.search(r"dropped: near_duplicate +3 ", capsys.readouterr().out)
    assert main(["report", str(tmp_path)]) == 2


def test_report_may_precede_the_manifest(build: Path, tmp_path: Path) -> None:
    copy = tmp_path / "out"
    shutil.copytree(build, copy)
    manifest = read_manifest(str(copy))
    for name in ("manifest.json", "report.html"):
        (copy / name).unlink()
    write_report(str(copy), manifest)
    assert (copy / "report.html").read_bytes() == (build / "report.html").read_bytes()


def test_reasons_stand_in_the_order_of_decisions() -> None:
    found = ["near_duplicate", "aspect_ratio", "zz_third_party", "caption_missing", "profanity", "exact_duplicate"]
    expected = ["caption_missing", "profanity", "aspect_ratio", "zz_third_party", "exact_duplicate", "near_duplicate"]
    assert in_order(found, ["profanity", "aspect_ratio"]) == expected


@pytest.mark.parametrize(("share", "text"), [(0.0, "0.0%"), (0.0004, "<0.1%"), (0.1234, "12.3%"), (0.99999, ">99.9%"), (1.0, "100.0%")])
def test_a_share_never_looks_like_nothing_or_all(share: float, text: str) -> None:
    assert percent(share) == text


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--output", "no/such/report.html"], "no folder 'no/such'"),
        (["--output", "report.json"], "a name ending in .html"),
        (["--csv", "a file"], "a folder, made where it is not there"),
        (["--limit", "3"], "--limit 3 without native metadata"),
        (["--sample", "0"], "at least 1"),
        (["--word", ""], "no word in ''"),
    ],
)
def test_flags_that_cannot_be_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, flags: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a file").write_text("kept")
    write_build(tmp_path / "out", rows()[:4], RECIPE)
    capsys.readouterr()
    assert main(["report", "out", *flags]) == 2
    assert said in capsys.readouterr().err
    assert (tmp_path / "a file").read_text() == "kept"
    assert not (tmp_path / "out" / "report.html").exists()


@pytest.mark.slow
def test_torn_statistics_are_counted_anew(tmp_path: Path) -> None:
    write_build(tmp_path / "out", rows(), RECIPE)
    write_report(str(tmp_path / "out"))
    before = (tmp_path / "out" / "report.json").read_bytes()
    whole = {path: path.read_bytes() for path in (tmp_path / "out" / "stats").iterdir()}
    assert len(whole) > 1
    for length in (lambda n: 0, lambda n: 3, lambda n: n // 2, lambda n: n - 1):
        for path, content in whole.items():
            path.write_bytes(content[: length(len(content))])
        write_report(str(tmp_path / "out"))
        assert {path: path.read_bytes() for path in whole} == whole
    assert (tmp_path / "out" / "report.json").read_bytes() == before


@pytest.mark.slow
def test_a_report_of_a_build_and_of_metadata_is_not_the_builds_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_build(tmp_path / "out", rows(), RECIPE)
    (tmp_path / "captions.tsv").write_text("a dog\thttp://example.org/1.jpg\n")
    assert main(["report", "out", "--source", "cc3m", "--input", "captions.tsv"]) == 0
    assert (tmp_path / "report.html").exists()
    assert not (tmp_path / "out" / "report.html").exists()
