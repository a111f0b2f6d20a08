"""`evaluate plot`: the page, its JSON and PDFs, what is left out, hostile names, and a real browser on a desk and a phone."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import plots_world as planted
import pytest

from eval import results
from eval.cli import main
from eval.plots._page import cell

if TYPE_CHECKING:
    from playwright.sync_api import Browser

EVIL = "<img src=x onerror=alert(1)>\u202e$x^2$"
ALL = ("matrix", "shots", "size", "exchange", "objectives", "upstream", "frequency", "robustness", "wise", "layers", "ensemble")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a page with every plot."""
    folder = tmp_path_factory.mktemp("plots")
    flags = ["--concepts", planted.write_counts(folder), "--classnames", planted.write_names(folder)]
    assert main(["plot", planted.world(folder), "--output", str(folder / "page.html"), *flags]) == 0
    return folder / "page.html"


def numbers(page: Path) -> dict[str, Any]:
    """Return the JSON beside a page."""
    return json.loads(page.with_suffix(".json").read_text())


def test_every_plot_is_there(page: Path) -> None:
    text = page.read_text()
    assert [plot["name"] for plot in numbers(page)["plots"]] == list(ALL)
    assert re.findall(r'<section id="(\w+)">', text) == list(ALL)
    assert numbers(page)["left_out"] == []
    charts = [figure["name"] for plot in numbers(page)["plots"] for figure in plot["figures"]]
    assert re.findall(r'data-chart="([\w-]+)"', text) == charts
    assert len(set(charts)) == len(charts)


def test_the_tables_of_the_page_are_those_of_the_json(page: Path) -> None:
    rows = [re.findall(r"<td[^>]*>([^<]*)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", page.read_text(), re.DOTALL)]
    shown = {entry for row in rows for entry in row}
    for plot in numbers(page)["plots"]:
        for figure in plot["figures"]:
            if figure["kind"] == "matrix":
                values = [cell(entry["value"], True) for row in figure["cells"] for entry in row if entry]
            else:
                percent = figure["percent"] if isinstance(figure["percent"], bool) else figure["percent"][1]
                drawn = [line for line in figure["series"] if line["kind"] != "curve"]
                values = [cell(point["y"], percent) for line in drawn for point in line["points"]]
            assert values
            assert set(values) <= shown


def test_nothing_is_loaded_and_nothing_runs(page: Path) -> None:
    text = page.read_text()
    assert "<script" not in text
    assert not re.search(r'(?:href|src)="(?!#)', text)
    assert " style=" not in text
    assert "url(" not in re.sub(r"url\(#p[0-9a-f]{10}\)", "", text)
    assert "default-src 'none'; style-src 'sha256-" in text
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert str(page.parent) not in text


def test_the_same_results_give_the_same_bytes(page: Path, tmp_path: Path) -> None:
    folder = page.parent
    flags = ["--where", "data=eurosat", "--only", "shots", "exchange", "--pdf"]
    for name in ("one", "two"):
        out = tmp_path / name
        assert main(["plot", str(folder / "results.jsonl"), "--output", str(out), *flags, str(out)]) == 0
        assert sorted(path.name for path in out.iterdir()) == ["exchange.pdf", "plots.html", "plots.json", "shots.pdf"]
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


@pytest.mark.slow
def test_every_plot_as_pdf(page: Path, tmp_path: Path) -> None:
    flags = ["--concepts", str(page.parent / "counts.csv"), "--classnames", str(page.parent / "names.txt"), "--pdf", str(tmp_path / "pdf")]
    assert main(["plot", str(page.parent / "results.jsonl"), "--output", str(tmp_path), *flags]) == 0
    for name in ALL:
        assert (tmp_path / "pdf" / f"{name}.pdf").read_bytes().startswith(b"%PDF")


def test_what_cannot_be_filled_is_left_out_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "results.jsonl")
    results.append(path, [row for row in planted.curves() if row.labels["size"] == 4000])
    assert main(["plot", path, "--output", str(tmp_path / "page.html")]) == 0
    said = capsys.readouterr().err.splitlines()
    left_out = {line.partition(":")[0]: line for line in said if ": left out: " in line}
    assert set(left_out) == set(ALL) - {"matrix", "shots"}
    assert "no source has two sizes" in left_out["size"]
    assert "needs label size" in left_out["size"]
    assert [entry["name"] for entry in numbers(tmp_path / "page.html")["left_out"]] == [name for name in ALL if name in left_out]
    assert "no source has two sizes on one data set" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--only", "shot"], "did you mean 'shots'?"),
        (["--only", "wise"], "no plot that these results fill: wise: no row has settings.acc1_by_alpha"),
        (["--where", "sorce=redcaps"], "no field 'sorce'"),
        (["--over", "draws"], "no field 'draws'"),
        (["--baseline", "objectiv=clip"], "no field 'objectiv'"),
        (["--concepts", "none.csv", "--only", "frequency"], "none.csv: no such file"),
        (["--metric", "nll"], "--metric nll"),
        (["--output", "FILE"], "a name ending in .html, or a folder"),
        (["--pdf", "FILE"], "a folder, made where it is not there"),
    ],
)
def test_bad_flags(flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "results.jsonl")
    results.append(path, planted.curves())
    (tmp_path / "file").write_text("")
    words = [str(tmp_path / "file") if flag == "FILE" else flag for flag in flags]
    output = [] if "--output" in flags else ["--output", str(tmp_path / "page.html")]
    assert main(["plot", path, *output, *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()


def test_flags_choose_rows(tmp_path: Path) -> None:
    path = str(tmp_path / "results.jsonl")
    results.append(path, [*planted.curves(), *planted.objectives()])
    flags = ["--where", "objective=simclr", "data=pets", "--only", "shots"]
    assert main(["plot", path, "--output", str(tmp_path / "page.html"), *flags]) == 0
    (plot,) = numbers(tmp_path / "page.html")["plots"]
    assert [figure["title"] for figure in plot["figures"]] == ["pets"]
    assert "Only results with objective=simclr, data=pets." in (tmp_path / "page.html").read_text()


def test_plots_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--json"]) == 0
    listed = {row["name"]: row["summary"] for row in json.loads(capsys.readouterr().out) if row["kind"] == "plot"}
    assert set(listed) == set(ALL)
    assert all(summary.endswith(".") and len(summary) < 150 for summary in listed.values())


@contextlib.contextmanager
def started() -> Iterator[Browser]:
    """Start a browser; its sandbox does not start for root."""
    from playwright.sync_api import sync_playwright

    names = ("chromium", "chromium-browser", "google-chrome")
    path = os.environ.get("PROVENDER_CHROMIUM") or next((found for name in names if (found := shutil.which(name))), None)
    if not path:
        pytest.skip("no Chromium here: install Debian's package `chromium`, or name one in PROVENDER_CHROMIUM")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        try:
            yield running
        finally:
            running.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with started() as running:
        yield running


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_a_browser_shows_it(chromium: Browser, page: Path, width: int, scheme: Any) -> None:
    context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=True)
    shown = context.new_page()
    offences: list[str] = []
    shown.on("request", lambda request: offences.append(request.url) if request.url != page.as_uri() else None)
    shown.on("console", lambda message: offences.append(message.text))
    shown.on("pageerror", lambda error: offences.append(str(error)))
    shown.goto(page.as_uri())
    assert shown.evaluate("document.documentElement.scrollWidth") == width
    ink = "getComputedStyle(document.querySelector('.chart text')).fill"
    assert shown.evaluate(ink) == {"light": "rgb(93, 93, 88)", "dark": "rgb(165, 167, 170)"}[scheme]
    shown.check("#dark")
    assert shown.evaluate(ink) == "rgb(165, 167, 170)"  # the switch works by style alone
    narrow = "[...document.querySelectorAll('.chart:not(.fixed)')].map(c => c.getBoundingClientRect().width)"
    assert min(shown.evaluate(narrow)) > 300
    assert offences == []
    context.close()


@pytest.mark.slow
def test_hostile_names_do_nothing(chromium: Browser, tmp_path: Path) -> None:
    path = str(tmp_path / "results.jsonl")
    rows = [
        replace(row, data=EVIL, labels={**row.labels, "source": f"{row.labels['source']}{EVIL}"})
        for row in planted.curves()
        if row.data == "pets"
    ]
    results.append(path, rows)
    assert main(["plot", path, "--output", str(tmp_path / "page.html"), "--pdf", str(tmp_path / "pdf")]) == 0
    text = (tmp_path / "page.html").read_text()
    assert "<img" not in text
    assert "\u202e" not in text
    context = chromium.new_context()
    shown = context.new_page()
    dialogs: list[str] = []
    shown.on("dialog", lambda dialog: dialogs.append(dialog.message))
    shown.goto((tmp_path / "page.html").as_uri())
    assert shown.evaluate("document.querySelectorAll('img, script, iframe, object').length") == 0
    assert "<img src=x onerror=alert(1)>" in shown.inner_text("main")
    assert dialogs == []
    context.close()
