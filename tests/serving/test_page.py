"""The page at `/` in a real headless Chromium: by mouse, by keyboard alone, in light and dark."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from recsys.serving.app import app_of, create_app
from recsys.serving.assembly import assemble
from recsys.serving.config import ServiceConfig
from recsys.serving.recommender import Recommender
from tests.serving import making

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is in the extra dev")
CHROMIUM = os.environ.get("RECSYS_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; install the package chromium, or set RECSYS_CHROMIUM")]
TOKEN = "a secret of sixteen characters"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def served(app: Any) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(timeout=20)


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    model = Recommender(making.loaded(tmp_path), item_encoder=making.Hashed())
    yield from served(app_of(assemble(model, new_items=tmp_path / "new")))


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    page = browser.new_page()
    page.set_default_timeout(60_000)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" and "Failed to load resource" not in message.text else None)
    page.on("dialog", lambda dialog: (faults.append("a script of a title ran"), dialog.dismiss()))
    yield page
    page.close()
    assert faults == []


def until(page: Any, expression: str, arg: object = None) -> None:
    """Wait until it is true. Playwright's own way evaluates strings within the page, which its policy forbids."""
    deadline = time.monotonic() + 60
    while not page.evaluate(expression, arg):
        assert time.monotonic() < deadline, expression
        time.sleep(0.05)


def shown(page: Any) -> list[str]:
    return [text.strip() for text in page.locator("#items .title").all_inner_texts()]


def test_a_user_a_history_and_a_new_item(page: Any, url: str, tmp_path: Path) -> None:
    page.goto(url)
    page.wait_for_selector("#items li")
    assert "small, version" in page.inner_text("#model") and "40 items" in page.inner_text("#model")
    assert page.title() == "Recommendations"

    page.fill("#user", "u3")
    page.click("#user-form button")
    page.wait_for_selector("#history li")
    model = making.recommender(tmp_path / "library")
    titles = dict(zip(model.catalog.items.ids, model.catalog.titles(), strict=True))
    until(page, "document.querySelector('#history-title').textContent.includes('u3')")
    assert page.locator("#history li").count() == len(model.user_history("u3"))
    expected = [" ".join(titles[item].split()) for item in model.recommend(users=["u3"], k=10).item_ids("u3")]
    until(page, "title => document.querySelector('#items .title')?.textContent === title", arg=titles[model.recommend(users=["u3"]).item_ids("u3")[0]])
    assert [" ".join(title.split()) for title in shown(page)] == expected
    assert page.locator("#items .bar").count() == 10 and "Near" in page.inner_text("#items li:first-child .why")
    widths = page.evaluate("[...document.querySelectorAll('#items li:first-child .bar span')].map(part => part.getBoundingClientRect().width)")
    assert len(widths) == 2 and sum(widths) > 50

    # A history by clicking.
    page.click("#clear")
    page.fill("#search", "title 12 of")
    until(page, "document.querySelectorAll('#found li').length === 1")
    page.click("#found button")
    until(page, "document.querySelectorAll('#history li').length === 1")
    assert "title 12" in page.inner_text("#history")
    until(page, "![...document.querySelectorAll('#items .title')].some(title => title.textContent.startsWith('title 12 '))")
    page.click("#items li:first-child button")
    until(page, "document.querySelectorAll('#history li').length === 2")

    # Where an item without any history lands.
    page.fill("#field-title", "title 12 of the film again")
    page.fill("#field-categories", "noir, drama")
    page.click("#add")
    page.wait_for_selector("#landed ol li")
    landed = page.inner_text("#landed")
    assert "can be recommended now" in landed and "at place" in landed and page.locator("#landed ol li").count() == 5
    assert "1 of them new" in page.inner_text("#model")
    page.select_option("#allow", "noir")
    until(page, "document.querySelectorAll('#items > li').length === 1")
    assert shown(page) == ["title 12 of the film again"]

    # What the service refuses is told where the reader looks.
    page.fill("#field-item_id", "i1")
    page.click("#add")
    until(page, "document.querySelector('#status').textContent.includes('holds already')")


def test_by_keyboard_alone(page: Any, url: str) -> None:
    page.goto(url)
    page.wait_for_selector("#items li")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "search"
    page.keyboard.type("title 5 of")
    until(page, "document.querySelectorAll('#found li').length === 1")
    page.keyboard.press("Enter")
    until(page, "document.activeElement.closest('#found') !== null")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Enter")
    until(page, "document.querySelectorAll('#history li').length === 1")
    # Everything that can be used can be reached, and has a name.
    names = page.evaluate(
        """[...document.querySelectorAll('button, input, select, textarea')].filter(e => e.offsetParent !== null)
           .map(e => (e.getAttribute('aria-label') || e.textContent || e.labels?.[0]?.textContent || '').trim())"""
    )
    assert names and all(names)
    assert page.evaluate("[...document.querySelectorAll('[tabindex]')].every(e => e.tabIndex <= 0)")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_can_be_read_in_light_and_dark(page: Any, url: str, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    page.goto(url)
    page.wait_for_selector("#items li")
    ratios = page.evaluate(
        """() => {
          const rgb = text => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
          const light = text => rgb(text).map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
            .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
          const ground = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; if (!c.endsWith(', 0)')) return c; } };
          return ['h1', '#model', '#items .title', '.tags', '.legend', 'label', '#user-form button', '#found button'].map(selector => {
            const e = document.querySelector(selector); const [a, b] = [light(getComputedStyle(e).color), light(ground(e))];
            return [selector, (Math.max(a, b) + .05) / (Math.min(a, b) + .05)];
          });
        }"""
    )
    assert [pair for pair in ratios if pair[1] < 4.5] == []  # WCAG AA
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(int(v) for v in ground[4:-1].split(",")) < 200) == (scheme == "dark")
    page.set_viewport_size({"width": 360, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth <= 360")


def test_a_service_with_a_token_asks_for_it(page: Any, tmp_path: Path) -> None:
    for url in served(create_app(making.recommender(tmp_path), config=ServiceConfig(token=TOKEN))):
        page.goto(url)
        page.wait_for_selector("#token-form:not([hidden])")
        assert page.locator("#items li").count() == 0
        page.fill("#token", TOKEN)
        page.click("#token-form button")
        page.wait_for_selector("#items li")
        assert page.locator("#token-form").is_hidden()
