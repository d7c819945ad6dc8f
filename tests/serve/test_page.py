"""The page in a real browser: what a person types, drops, hears and turns."""

import base64
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Route, sync_playwright

SCENE = 5
IN_TURN = (8, 9)
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
SECONDS = 180_000  # milliseconds that a page may take on a busy machine

NAMELESS = """() => [...document.querySelectorAll(
    "button, input, select, a, img, audio, video, canvas")]
  .filter((e) => e.checkVisibility() && !(e.ariaLabel || e.alt === "" || e.alt || e.title
    || e.textContent.trim() || e.labels?.length))
  .map((e) => e.outerHTML)"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM:
        pytest.skip("no Chromium is installed")
    options = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield found
        found.close()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """The page, loaded; afterwards, that nothing left this machine and nothing went wrong."""
    context = browser.new_context(base_url=address, reduced_motion="reduce")
    context.set_default_timeout(SECONDS)
    asked: list[str] = []
    problems: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    context.on("weberror", lambda error: problems.append(str(error.error)))
    context.on("console", lambda said: problems.append(said.text) if is_problem(said) else None)
    found = context.new_page()
    found.goto("/")
    found.wait_for_selector("#modalities label")
    yield found
    assert found.evaluate(NAMELESS) == []
    context.close()
    assert not problems
    assert [url for url in asked if not url.startswith((address, f"blob:{address}"))] == []


def is_problem(said: ConsoleMessage) -> bool:
    """A refused upload is told by the browser too, and that is as it should be."""
    return said.type == "error" and "status of 400" not in said.text


def ask(page: Page, words: str) -> None:
    page.fill("#words", words)
    page.keyboard.press("Enter")
    finished(page)


def finished(page: Page) -> None:
    page.wait_for_function(
        "() => /result|Nothing/.test(document.querySelector('#status').textContent)"
    )


def cards(page: Page, kind: str = "") -> Locator:
    return page.locator(f".card[data-modality='{kind}']" if kind else ".card")


def picture(page: Page, library, scene: int) -> bool:
    """Whether the first picture is that of a scene, and is really shown."""
    first = cards(page, "image").first
    shown = first.locator("img")
    shown.scroll_into_view_if_needed()
    page.wait_for_function(
        "(image) => image.complete && image.naturalWidth > 0", arg=shown.element_handle()
    )
    answer = page.request.get(f"/items/{first.get_attribute('data-id')}/file")
    return answer.body() == library.file("image", scene).read_bytes()


def test_words_show_the_right_picture(page, library) -> None:
    words = library.row("image", SCENE)["text"][0]
    ask(page, words)
    assert picture(page, library, SCENE)
    assert cards(page, "image").first.locator("img").get_attribute("alt") == words
    assert page.locator("#status").text_content() == "24 results, and there are more, best first"
    assert "match" in (cards(page).first.locator(".bottom").text_content() or "")


@pytest.mark.parametrize("kind", ["audio", "pointcloud"])
def test_a_dropped_file_shows_what_is_like_it(page, library, kind) -> None:
    data = base64.b64encode(library.file(kind, SCENE).read_bytes()).decode()
    dropped = page.evaluate_handle(
        """([data, name]) => {
          const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
          const transfer = new DataTransfer();
          transfer.items.add(new File([bytes], name));
          return transfer;
        }""",
        [data, library.file(kind, SCENE).name],
    )
    page.dispatch_event("body", "drop", {"dataTransfer": dropped})
    finished(page)
    assert picture(page, library, SCENE)
    page.get_by_role("button", name="Ask without").click()
    assert page.locator("#parts li").count() == 0


def test_files_of_two_kinds_are_asked_with(page, library) -> None:
    for kind in ("audio", "pointcloud"):
        with page.expect_response("**/search") as seen:
            page.locator("#file").set_input_files(library.file(kind, SCENE))
        assert seen.value.status == 200
        finished(page)
    assert picture(page, library, SCENE)
    page.get_by_role("button", name="Ask without").first.click()
    assert page.locator("#parts li").count() == 1
    assert page.evaluate("() => document.activeElement.ariaLabel").startswith("Ask without")


def test_a_file_that_cannot_be_read_is_explained(page) -> None:
    file = {"name": "x.png", "mimeType": "image/png", "buffer": b"no picture"}
    page.locator("#file").set_input_files(file)  # type: ignore[arg-type]
    page.wait_for_selector("#problem:not(:empty)")
    assert "upload" in (page.locator("[role=alert]").text_content() or "")


def test_a_sound_plays_from_the_second_that_fits(page, library) -> None:
    ask(page, library.row("audio", IN_TURN[1])["text"][0])
    card = cards(page, "audio").filter(has_text="0:01 to 0:03")
    sound = card.locator("audio")
    page.wait_for_function("(sound) => sound.readyState > 0", arg=sound.element_handle())
    assert sound.evaluate("(sound) => sound.currentTime") == pytest.approx(1.5, abs=0.05)
    sound.focus()
    page.keyboard.press("Space")
    page.wait_for_function("(sound) => sound.currentTime > 1.7", arg=sound.element_handle())


def test_hits_are_filtered(page) -> None:
    ask(page, "a circle")
    page.get_by_label("audio (").uncheck()
    finished(page)
    page.wait_for_function("() => !document.querySelector('.card[data-modality=audio]')")
    assert cards(page, "image").count() > 0
    page.get_by_text("Filter", exact=True).click()
    page.select_option("#column", "count")
    page.select_option("#operator", "at least")
    with page.expect_response(lambda answer: "where" in (answer.request.post_data or "")) as seen:
        page.fill("#value", "3")
        page.keyboard.press("Enter")
    hits = seen.value.json()["hits"]
    assert hits
    assert all(hit["metadata"]["count"] >= 3 for hit in hits)


def test_one_pages_through(page, library) -> None:
    ask(page, "a circle")
    more = page.get_by_role("button", name="More results")
    more.click()
    page.wait_for_function("() => document.querySelectorAll('.card').length === 48")
    assert page.evaluate("() => document.activeElement.closest('.card') !== null")
    more.click()
    page.wait_for_function("() => document.querySelectorAll('.card').length === 49")
    assert not more.is_visible()
    ids = [card.get_attribute("data-id") for card in cards(page).all()]
    assert len(set(ids)) == library.num_files


def test_more_like_this(page, library) -> None:
    ask(page, library.row("image", SCENE)["text"][0])
    with page.expect_response("**/search") as seen:
        cards(page, "image").first.get_by_role("button", name="More like").click()
    hits = seen.value.json()["hits"]
    assert {hit["metadata"].get("scene") for hit in hits[:3]} == {SCENE}
    page.get_by_role("button", name="Ask without").wait_for()
    assert page.locator("#words").input_value() == ""


def test_with_the_keyboard_alone(page, library) -> None:
    assert page.evaluate("() => document.activeElement.id") == "words"
    page.keyboard.type(library.row("image", SCENE)["text"][0])
    page.keyboard.press("Enter")
    finished(page)
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate(
            "() => document.activeElement.matches('.card[data-modality=image] .show')"
        ):
            break
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    dialog.locator("img").wait_for()
    assert dialog.get_by_role("heading").text_content() == library.row("image", SCENE)["text"][0]
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert page.evaluate("() => document.activeElement.matches('.card[data-modality=image] .show')")


def test_shapes_turn(page, library) -> None:
    ask(page, library.row("pointcloud", SCENE)["text"][0])
    cards(page, "pointcloud").first.locator(".show").click()
    canvas = page.locator("#item-media canvas")
    canvas.wait_for()
    page.wait_for_timeout(500)
    before = canvas.screenshot()
    canvas.focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    page.wait_for_timeout(500)
    after = canvas.screenshot()
    assert len(before) > 3000, "nothing is drawn"
    assert before != after
    page.keyboard.press("Escape")


def test_a_slow_item_does_not_land_in_another_dialog(page, library) -> None:
    ask(page, library.row("pointcloud", SCENE)["text"][0])
    held: list[Route] = []
    page.route("**/preview?interactive=true", lambda route: held.append(route))
    with page.expect_request("**/preview?interactive=true"):
        cards(page, "pointcloud").first.locator(".show").click()
    page.keyboard.press("Escape")
    cards(page, "image").first.locator(".show").click()
    page.locator("#item-media img").wait_for()
    with page.expect_response("**/preview?interactive=true"):
        held[0].continue_()
    page.wait_for_timeout(500)
    assert page.locator("#item-media canvas").count() == 0
    page.keyboard.press("Escape")


@pytest.mark.slow
def test_the_map_is_wandered_in(page) -> None:
    page.get_by_role("button", name="Map").click()
    page.wait_for_selector("#legend li", timeout=SECONDS)
    assert page.locator("#legend li").count() == 4
    plane = page.locator("#plane")
    before = plane.screenshot()
    plane.focus()
    page.keyboard.press("+")
    page.keyboard.press("ArrowLeft")
    page.wait_for_function(
        "() => /^(image|audio|video|pointcloud): /"
        ".test(document.querySelector('#map-status').textContent)"
    )
    page.locator("#hover figcaption").wait_for()
    assert plane.screenshot() != before
    page.keyboard.press("Enter")
    page.get_by_role("dialog").wait_for()
    page.get_by_role("button", name="More like this", exact=True).first.click()
    finished(page)
    assert cards(page).count() == 24
