"""The page in a real browser: Playwright drives the system's Chromium where both are there."""

import shutil
import threading
import time
from collections.abc import Iterator

import pytest

from unseen.cli.local_server import listen
from unseen.serve.generators import shipped_generator

pytest.importorskip("starlette")
uvicorn = pytest.importorskip("uvicorn")
sync_api = pytest.importorskip("playwright.sync_api")
NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
STALL = 60
"""Seconds until a test gives up; a busy machine is no bug."""
TILES = "document.querySelectorAll('#board .tile')"
PIXELS = """(() => {
  const image = document.querySelector('#NAME'), canvas = document.createElement('canvas');
  canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
  canvas.getContext('2d').drawImage(image, 0, 0);
  return canvas.toDataURL();
})()"""
SLIDE = """(() => {
  const slider = document.querySelector('SELECTOR');
  slider.value = STRENGTH;
  slider.dispatchEvent(new Event('input'));
})()"""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    listener = listen("127.0.0.1", 0)
    from unseen.serve.app import compass_app

    config = uvicorn.Config(compass_app(shipped_generator()), log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address) -> Iterator:
    """A tab that fails the test for a message on the console or a request off this machine."""
    context = browser.new_context(accept_downloads=True)
    trouble: list[str] = []

    def hear(message) -> None:
        if message.type in ("error", "warning"):
            trouble.append(message.text)

    def see(request) -> None:
        if not request.url.startswith((address, f"blob:{address}")):
            trouble.append(request.url)

    def watch(tab) -> None:
        tab.set_default_timeout(1000 * STALL)
        tab.on("console", hear)
        tab.on("pageerror", lambda error: trouble.append(str(error)))
        tab.on("request", see)

    context.on("page", watch)
    page = context.new_page()
    page.trouble = trouble
    load(page, address)
    yield page
    context.close()
    assert not trouble


def load(page, address: str) -> None:
    page.goto(address)
    until(page, f"{TILES}.length === 12")


def until(page, expression: str) -> None:
    """Waits for JavaScript to be true. Not `wait_for_function`, which the page's content security
    policy forbids: it must hold while the page is tested.
    """
    end = time.monotonic() + STALL
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(20)


def move(page, strength: float, selector: str = "#strength") -> None:
    """Drags a slider."""
    script = SLIDE.replace("SELECTOR", selector).replace("STRENGTH", str(strength))
    page.evaluate(script)


def shows(page, name: str, words: str) -> None:
    """Waits until an image shows the answer to an address with these words."""
    address = f"document.querySelector('#{name}').dataset.shows || ''"
    until(page, f"decodeURIComponent({address}).includes({words!r})")
    # an image without pixels is complete, too: while its address is exchanged
    image = f"document.querySelector('#{name}')"
    until(page, f"{image}.complete && {image}.naturalWidth > 0")


def pixels(page, name: str) -> str:
    return page.evaluate(PIXELS.replace("NAME", name))


def mark(page, more=(0, 1, 2, 3, 4), less=(5, 6, 7, 8, 9)) -> None:
    """One click marks more, two mark less."""
    for k, goal in [*((k, 1) for k in more), *((k, -1) for k in less)]:
        for mark in (1, goal)[goal == 1 :]:
            page.locator("#board .tile").nth(k).click()
            until(page, f"{TILES}[{k}].dataset.mark === '{mark}'")


def fit(page) -> None:
    page.click("#fit")
    until(page, "document.querySelector('#effects').rows.length === 5")
    until(page, "!document.querySelector('#safe').textContent.includes('measuring')")


def slide(page, strength: float) -> None:
    move(page, strength)
    shows(page, "image", f'"current":{strength}}}')


def says(page, words: str) -> None:
    until(page, f"document.querySelector('#status').textContent.includes({words!r})")


def test_marking_fitting_walking_mixing_and_checking(page):
    page.click("#fit")
    says(page, "Mark at least one image in each group")
    # Chromium writes every answer of 422 on the console by itself, when it gets to it
    end = time.monotonic() + STALL
    while not page.trouble and time.monotonic() < end:
        page.wait_for_timeout(20)
    assert page.trouble
    assert all("422" in line for line in page.trouble)
    page.trouble.clear()
    mark(page)
    fit(page)
    shows(page, "walk", "walk.png")
    assert page.locator("#walk").bounding_box()["height"] > 50
    slide(page, 0)
    start = pixels(page, "image")
    slide(page, 3)
    assert pixels(page, "image") != start
    slide(page, 0)
    assert pixels(page, "image") == start
    assert "[" in page.inner_text("#effects")
    assert "Safe range" in page.inner_text("#safe")
    page.fill("#name", "lighter")
    page.click("#save button")
    says(page, "Saved as lighter")
    move(page, 4, "#saved input")
    shows(page, "mixed", '"lighter":4')
    page.click("#ask")
    shows(page, "pair-image", "pair.png")
    page.click("#left")
    until(page, "document.querySelector('#accuracy').textContent.includes('of 1')")
    page.click("#compare")
    page.locator("#rows button").first.click()
    says(page, "mine")


def test_saving_opening_and_reloading_keep_the_session(page):
    mark(page)
    fit(page)
    page.fill("#name", "lighter")
    page.click("#save button")
    says(page, "Saved as lighter")
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename == "session.json"
    page.set_input_files("#open", download.value.path())
    says(page, "The session is open")
    assert page.locator("#saved li").count() == 1
    page.click("#uncertain")
    says(page, "the direction says least")
    page.reload()
    says(page, "as you left it")
    assert page.inner_text("#more .count") == "5"
    assert page.locator("#saved li").count() == 1


def test_the_keyboard_alone_is_enough(page):
    says(page, "Mark at least")
    page.locator("#board .tile").first.focus()
    steps = [("+", "1 more, 0 less"), ("ArrowRight", ""), ("-", "1 more, 1 less"),
             ("ArrowRight", ""), ("Enter", "2 more, 1 less"), ("ArrowLeft", ""),
             ("Delete", "2 more, 0 less"), ("-", "2 more, 1 less")]  # fmt: skip
    for key, words in steps:
        page.keyboard.press(key)
        says(page, words)
    page.focus("#fit")
    page.keyboard.press("Enter")
    until(page, "document.querySelector('#effects').rows.length === 5")
    page.focus("#strength")
    page.keyboard.press("ArrowRight")
    until(page, "document.querySelector('#alpha').textContent === '0.1'")


def test_two_tabs_keep_apart_also_as_a_copy(page, address):
    mark(page, (0,), (1,))
    other = page.context.new_page()
    load(other, address)
    assert other.inner_text("#more .count") == "0"
    with page.context.expect_page() as opened:  # takes a copy of sessionStorage along
        page.evaluate("void window.open(location.href)")
    copy = opened.value
    until(copy, f"{TILES}.length === 12")
    assert copy.inner_text("#more .count") == "0"
    assert page.inner_text("#more .count") == "1"


def test_slow_answers_leave_no_stale_image_in_either_tab(page, address):
    other = page.context.new_page()
    load(other, address)
    for tab, marks in ((page, ((0, 1), (2, 3))), (other, ((2, 3), (0, 1)))):
        mark(tab, *marks)
        fit(tab)
    held: list = []

    def hold(route) -> None:
        """Keeps the first answer back; the others go at once."""
        if held:
            route.continue_()
        else:
            held.append(route)

    page.route("**/image.png*", hold)
    for strength in (1, -3, 2, 5):
        move(page, strength)
    until(page, "true")
    while not held:
        page.wait_for_timeout(20)
    slide(other, 5)
    held[0].continue_()
    shows(page, "image", '"current":5}')
    here, there = pixels(page, "image"), pixels(other, "image")
    assert here != there  # opposite marks: each tab has its own direction
    # a fit while an answer is under way: that of the earlier direction is dropped
    held.clear()
    move(page, 4)
    while not held:
        page.wait_for_timeout(20)
    page.click("#fit")
    until(page, "document.querySelector('#status').textContent.startsWith('Direction from')")
    held[0].continue_()
    shows(page, "image", '&fit=2&mix={"current":4}')
    page.unroute("**/image.png*")


@pytest.mark.parametrize("width", [360, 768, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_width_and_scheme_shows_the_page_whole(page, width, scheme):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})
    mark(page, (0, 1), (2, 3))
    fit(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(20, 21, 26)") == (scheme == "dark")
