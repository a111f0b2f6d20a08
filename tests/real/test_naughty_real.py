"""The naughty strings that people collect, as captions: neither the report nor a comparison runs, asks or breaks."""

from __future__ import annotations

import json
from pathlib import Path

from curate.cli import main
from tests.curate.browsing import browser, opened
from tests.curate.report_synthetic import Row, picture, write_build


def test_naughty_captions_do_nothing(realdata: Path, tmp_path: Path) -> None:
    texts: list[str] = json.loads((realdata / "text" / "naughty_strings.json").read_text())
    assert len(texts) >= 200
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(picture(60, 40))
    rows = [Row("naughty", f"k{i}", text, image=str(photo)) for i, text in enumerate(texts)]
    dropped = [Row("naughty", f"k{i}", text, "dropped", "caption_length", text) for i, text in enumerate(texts)]
    plain = [Row("plain", f"p{i}", f"a dog number {i}", image=str(photo)) for i in range(30)]
    write_build(tmp_path / "one", [*rows, *plain], "seed: 7\n")
    write_build(tmp_path / "two", [*dropped[:100], *rows[100:], *plain], "seed: 7\n")
    pages = [tmp_path / "report.html", tmp_path / "compare.html"]
    sets = [str(tmp_path / "one"), str(tmp_path / "two")]
    assert main(["report", *sets, "--output", str(pages[0]), "--engine", "inline"]) == 0
    assert main(["compare", *sets, "--output", str(pages[1]), "--engine", "inline"]) == 0
    with browser() as started:
        for path in pages:
            with opened(started, path, viewport={"width": 390, "height": 800}, is_mobile=True) as watched:
                watched.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
                hover = "document.querySelectorAll('bdi').forEach(e => e.dispatchEvent(new MouseEvent('mouseover', {bubbles: true})))"
                watched.page.evaluate(hover)
                watched.page.wait_for_timeout(200)
                text = watched.page.inner_text("main")
                assert sum(one.isprintable() and len(one) > 8 and one in text for one in texts) >= 2
                assert watched.page.evaluate("document.scrollingElement.scrollWidth") <= 390
                assert watched.offences == []
