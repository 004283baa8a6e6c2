"""Headless Chromium for tests of pages: whatever the console complains of, or cannot be loaded, fails the test."""

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

# Software rendering, so that WebGL 2 is there without a GPU; containers run as root, where the sandbox cannot be had.
_ARGUMENTS = ("--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist")

PageOf = Callable[[int], Any]


def chromium() -> str | None:
    """Return the browser's path: ``ABDOSEG_CHROMIUM``, or what is installed."""
    named = os.environ.get("ABDOSEG_CHROMIUM")
    return named or next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium; the test is skipped where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: no browser test")
    path = chromium()
    if path is None:
        pytest.skip("no Chromium is installed: no browser test")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=list(_ARGUMENTS))
        yield started
        started.close()


@pytest.fixture
def page_of(browser: Any) -> Iterator[PageOf]:
    """A function that opens an empty page of some width; at the end no page may have complained."""
    contexts, complaints = [], []

    def make(width: int, height: int = 800) -> Any:
        context = browser.new_context(viewport={"width": width, "height": height})
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url}"))
        page.on("response", lambda r: complaints.append(f"{r.status}: {r.url}") if r.status >= 400 else None)
        return page

    yield make
    for context in contexts:
        context.close()
    # Chromium's own remark on reading pictures back for a screenshot is none of the page's.
    assert [text for text in complaints if "GPU stall due to ReadPixels" not in text] == []
