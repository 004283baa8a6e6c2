"""Make the pictures of docs/get-started.md: type its commands, in order, and look at what they made.

Run from the checkout: ``python docs/pictures/get_started.py FOLDER``. It needs playwright and a Chromium, the one that
``ABDOSEG_CHROMIUM`` names or one that is installed. What each command printed is in ``FOLDER/printed.txt``, and what it
took is told. The same folder again keeps phantoms, cases and training, and makes the rest anew.
"""

import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page, sync_playwright

DOCS = Path(__file__).parents[1]
KEPT = ("phantom", "init", "ingest", "train")
"""Commands that are not typed again in a folder where they were."""

MOST_BYTES = 200_000
# Software rendering, so that WebGL 2 is there without a GPU; containers run as root, where the sandbox cannot be had.
CHROMIUM = ("--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist")


def commands() -> list[list[str]]:
    """Return the words of the commands on the page that are typed on phantoms."""
    text = (DOCS / "get-started.md").read_text(encoding="utf-8")
    part = text[text.index("\n## Phantoms") : text.index("\n## With your own scans")].replace("\\\n", " ")
    return [shlex.split(line)[1:] for line in re.findall(r"^    (abdoseg .*)$", part, re.MULTILINE)]


def typed(words: list[str], folder: Path) -> None:
    """Type a command, note what it prints, and tell what it took."""
    noted = folder / "printed.txt"
    line = f"$ {shlex.join(['abdoseg', *words])}\n"
    if words[0] in KEPT and noted.is_file() and line in noted.read_text(encoding="utf-8"):
        return
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    command = [sys.executable, "-m", "abdoseg", *words]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    after, seconds = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - begun
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    sys.stdout.write(f"{seconds:6.0f} s, {cpu:5.0f} s of CPU  {shlex.join(words)}\n")
    if done.returncode:
        raise SystemExit(done.stdout)
    with noted.open("a", encoding="utf-8") as file:
        file.write(f"{line}{done.stdout}\n")


@contextmanager
def viewer(words: list[str], folder: Path) -> Iterator[str]:
    """Give the address of ``abdoseg view`` while it runs."""
    command = [sys.executable, "-m", "abdoseg", *words, "--no-open"]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            yield next(line.strip() for line in process.stderr if line.startswith("http"))
        finally:
            process.send_signal(signal.SIGINT)


def save(page: Page, name: str, **options: Any) -> None:
    """Write a picture of a page."""
    path = DOCS / "images" / f"get-started-{name}.png"
    page.screenshot(path=path, **options)
    shrink(path)


def shrink(path: Path) -> None:
    """Bring a picture below 200 kB: 256 colours, then fewer pixels."""
    with Image.open(path) as opened:
        whole = opened.convert("RGB")
    part = 1.0
    while part == 1 or path.stat().st_size > MOST_BYTES:
        size = (round(whole.width * part), round(whole.height * part))
        whole.resize(size, Image.Resampling.LANCZOS).quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
        part *= 0.95


def draw_report(page: Page, report: Path) -> None:
    """Write a picture of the report's cases, with the bar of sections."""
    page.goto(report.resolve().as_uri())
    page.wait_for_selector(".case[data-ready=yes]")
    save(page, "report")


def draw_viewer(page: Page, address: str) -> None:
    """Write a picture of the viewer, its crosshair in the liver."""
    page.goto(address)
    page.wait_for_selector("body[data-ready=true]", timeout=120_000)
    page.locator("tr[data-structure=aorta] .jump").click()
    page.wait_for_timeout(2000)
    save(page, "viewer")


def main() -> None:
    """Type all commands and write the pictures into docs/images."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / "predictions", ignore_errors=True)
    chromium = os.environ.get("ABDOSEG_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(CHROMIUM))
        page = browser.new_page(viewport={"width": 1200, "height": 800})
        for words in commands():
            if words[0] == "view":
                with viewer(words, folder) as address:
                    draw_viewer(page, address)
                continue
            typed(words, folder)
        draw_report(page, next((folder / "workspace" / "runs").glob("*/report.html")))
        browser.close()
    (preview,) = (folder / "predictions").glob("*.png")
    shutil.copy(preview, DOCS / "images" / "get-started-preview.png")
    shrink(DOCS / "images" / "get-started-preview.png")


if __name__ == "__main__":
    main()
