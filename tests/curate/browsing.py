"""A real headless Chromium for tests of pages: Debian's package, driven by Playwright."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

# Captions that would be markup, script, templates or commands, if a page let them.
HOSTILE = [
    "<script>alert(1)</script> cat",
    "</script><script>alert(1)</script>",
    "</style><img src=x onerror=alert(1)> dog",
    '"><svg onload=alert(1)>',
    "' onmouseover='alert(1) cat",
    "<img src=https://example.org/pixel.png>",
    "<!--<script>",
    "]]> <![CDATA[ <iframe src=//example.org></iframe>",
    "{{ 7 * 7 }} {% raw %} ${7*7} $x^2$ \\frac{1}{2}",
    "&lt;b&gt; &amp; \x00\x07\x1b[31m",
    "\u202eright to left\u202c سلام 漢字 😀",
    "\u2028\u2029 line separators",
    "z" * 5000,
]
EVIL = "<img src=x onerror=alert(1)>"  # as the name of a source
NAMES = ("chromium", "chromium-browser", "google-chrome")


def executable() -> str:
    """Return the browser's path; skip the test where there is none."""
    found = os.environ.get("PROVENDER_CHROMIUM") or next((path for name in NAMES if (path := shutil.which(name))), None)
    if not found:
        pytest.skip("no Chromium here: install Debian's package `chromium`, or name one in PROVENDER_CHROMIUM")
    return found


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """Start a browser; its sandbox does not start for root."""
    from playwright.sync_api import sync_playwright

    path = executable()
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        try:
            yield started
        finally:
            started.close()


@dataclass
class Watched:
    """An open page, and what it did that no report may do: dialogs, errors, requests beyond its own file."""

    page: Page
    offences: list[str] = field(default_factory=list)


@contextlib.contextmanager
def opened(browser: Browser, path: Path, **options: Any) -> Iterator[Watched]:
    """Open a page from disk and watch it; options are Playwright's, such as viewport and color_scheme."""
    context = browser.new_context(**options)
    watched = Watched(context.new_page())
    page, uri = watched.page, path.as_uri()

    def dialog(found: Any) -> None:
        watched.offences.append(f"dialog: {found.message}")
        found.dismiss()

    def request(found: Any) -> None:
        if found.url != uri and not found.url.startswith("data:image/webp;base64,"):
            watched.offences.append(f"request: {found.url}")

    page.on("dialog", dialog)
    page.on("request", request)
    page.on("pageerror", lambda error: watched.offences.append(f"error: {error}"))
    page.on(
        "console", lambda message: watched.offences.append(f"console: {message.text}") if message.type in ("error", "warning") else None
    )
    page.on("popup", lambda found: watched.offences.append(f"window: {found.url}"))
    try:
        page.goto(uri)
        yield watched
    finally:
        context.close()
