"""The page over stored answers in a real browser, where Playwright and a Chromium are there."""

from collections.abc import Iterator

import pytest
from local_pages import CHROMIUM, serving, watch
from stored_audits import store_audit

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
sync_api = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
STALL = 60_000
"""Milliseconds until a test gives up; a busy machine is no bug."""


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> Iterator[str]:
    from unseen.serve.answers import answers_app

    home = tmp_path_factory.mktemp("home")
    store_audit(home, skill=0.3, codes=("U203", "U101"))
    store_audit(home, skill=3.0, codes=("U203", "U301"))
    store_audit(home, seed=7, title="Forest on a-very-long-name-of-a-table-without-any-space" * 3)
    with serving(answers_app(home)) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address) -> Iterator:
    """A tab that fails the test for a message on the console or a request off this machine."""
    trouble: list[str] = []
    page = browser.new_page()
    page.set_default_timeout(STALL)
    watch(page, address, trouble)
    page.goto(address)
    yield page
    page.close()
    assert not trouble


def test_filtering_opening_and_going_back(page, address):
    assert page.locator("article").count() == 3
    page.fill("input[name=words]", "u301")
    page.click("text=Filter")
    page.wait_for_url("**/?words=u301*")
    assert page.locator("article").count() == 1
    page.click("article h2 a")
    page.wait_for_url("**/answers/*")
    assert "Something about U301" in page.inner_text("main")
    page.click("text=All stored answers")
    page.wait_for_url(address)
    page.select_option("select[name=kind]", "audit")
    page.click("text=Filter")
    page.wait_for_url("**kind=audit")
    assert page.locator("article").count() == 3


def test_the_keyboard_alone_compares_two(page):
    boxes = page.locator("input[type=checkbox]")
    for k in (1, 2):
        boxes.nth(k).focus()
        page.keyboard.press("Space")
        assert boxes.nth(k).is_checked()
    page.locator("button.main").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/compare?*")
    assert "better at Basel and Chur" in page.inner_text(".lead")
    page.keyboard.press("Tab")  # the way past the top
    assert page.evaluate("document.activeElement.className") == "skip"


def test_the_command_can_be_read_and_the_one_before_is_a_click_away(page):
    row = page.locator("li", has=page.locator("text=U301"))
    row.locator("summary").press("Enter")
    assert "unseen audit clinics.csv --seed 0" in row.locator("pre").inner_text()
    row.locator("text=What changed since the one before").click()
    page.wait_for_url("**/compare?*")
    assert "Gone: Something about U101" in page.inner_text("main")


@pytest.mark.parametrize("width", [360, 400, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_width_and_scheme_shows_the_pages_whole(page, address, width, scheme):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})
    boxes = page.locator("input[type=checkbox]")
    keys = [boxes.nth(k).get_attribute("value") for k in range(2)]
    for path in ("", f"answers/{keys[0]}", f"compare?one={keys[0]}&one={keys[1]}"):
        page.goto(address + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, background[4:-1].split(","))) < 150) == (scheme == "dark")
