"""The pictures of docs/web_page.md: `python -m tests.mllm.web.screenshots -o docs/images`."""

import argparse
from pathlib import Path

from playwright.sync_api import Browser, Page

from mllm.engine import Engine
from mllm.pipeline import Pipeline
from tests.mllm.web.browser import PHONE, find_chromium, open_browser, serve_page

PATIENCE = 300_000  # ms
DESKTOP = {"width": 1280, "height": 1160}  # the whole conversation


def open_page(browser: Browser, address: str, *, viewport: dict, scheme: str) -> Page:
    page = browser.new_page(viewport=viewport, color_scheme=scheme)
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    page.wait_for_selector(".welcome")
    return page


def talk(page: Page) -> None:
    """A question about an example, then a drawing with a fixed seed."""
    page.click(".example:has-text('what is in the picture')")
    page.wait_for_selector("#transcript .turn")
    page.click("#settings button")
    page.get_by_label("number input for Pictures").fill("2")
    page.fill("#settings input[placeholder=random]", "2")
    page.keyboard.press("Tab")
    page.click("#settings button")
    page.fill("#text textarea", "three green hearts")
    page.click("#draw")
    page.wait_for_selector("#transcript .drawing")


def save(page: Page, path: Path, *, full_page: bool = False) -> None:
    page.mouse.move(0, 0)
    page.evaluate("document.activeElement.blur()")
    page.wait_for_timeout(500)  # transitions end
    page.screenshot(path=path, full_page=full_page)
    page.close()


def take_screenshots(folder: Path) -> None:
    executable = find_chromium()
    if executable is None:
        raise SystemExit("chromium is missing; apt-get install chromium")
    pipeline = Pipeline.from_pretrained("nano")
    engine = Engine(pipeline)
    with serve_page(engine, pipeline) as address, open_browser(executable) as browser:
        for name, viewport, scheme in (("desktop", DESKTOP, "light"), ("phone", PHONE, "dark")):
            page = open_page(browser, address, viewport=viewport, scheme=scheme)
            talk(page)
            save(page, folder / f"web_{name}.png")
        page = open_page(browser, address, viewport=DESKTOP, scheme="light")
        page.get_by_role("tab", name="Tokenization").click()
        page.wait_for_selector(".maps")
        save(page, folder / "web_tokenization.png", full_page=True)
    engine.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True, help="a folder")
    take_screenshots(parser.parse_args().output)
