"""The page in a real browser, as a person uses it."""

import re

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from mllm.answer import ChatAnswer
from mllm.engine import ChatRequest, Engine, Finished, RowDrawn
from mllm.pictures import EXAMPLES_FOLDER, read_notes
from tests.mllm.web.browser import DESKTOP, PHONE, serve_page
from tests.mllm.web.scripted_engine import ScriptedEngine

PATIENCE = 120_000  # ms; a quiet machine needs a few hundred
# What has the focus, and whether that is seen; the page itself has it after the last control.
FOCUSED = """() => {
  const focused = document.activeElement;
  const name = focused === document.body ? "" : focused.textContent.trim() || focused.placeholder;
  return [name, getComputedStyle(focused).outlineStyle !== "none"];
}"""
END_IN_VIEW = """() => {
  const end = document.querySelector("#live").getBoundingClientRect().bottom;
  return 0 < end && end <= innerHeight;
}"""
GREY = Image.new("RGB", (64, 64), "grey")


@pytest.fixture(scope="module")
def scripted() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture(scope="module")
def scripted_address(nano, scripted):
    with serve_page(scripted, nano) as address:
        yield address


@pytest.fixture(scope="module")
def real_address(nano):
    engine = Engine(nano)
    with serve_page(engine, nano) as address:
        yield address
    engine.close()


def close_page(page: Page) -> None:
    page.context.close()
    assert not page.context.outside


def open_page(browser, address: str, *, viewport=DESKTOP, **options) -> Page:
    context = browser.new_context(viewport=viewport, **options)
    context.outside = []  # requests to other hosts, which no test may cause
    context.on(
        "request",
        lambda request: (
            None
            if request.url.startswith((address, "data:", "blob:"))
            else context.outside.append(request.url)
        ),
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    expect(page.locator("#text textarea")).to_be_visible(timeout=PATIENCE)
    return page


@pytest.fixture
def page(browser, scripted, scripted_address):
    """An empty conversation with an engine that does what the test says."""
    scripted.jobs.clear()
    scripted.is_full = False
    page = open_page(browser, scripted_address)
    yield page
    close_page(page)


def show_picture(page: Page, name: str = "star") -> None:
    page.set_input_files("#picker input", EXAMPLES_FOLDER / f"{name}.png")
    expect(page.locator(".pending img")).to_be_visible(timeout=PATIENCE)


def write(page: Page, text: str) -> None:
    page.fill("#text textarea", text)


def see_text(page: Page, selector: str, text: str | re.Pattern) -> None:
    expect(page.locator(selector)).to_contain_text(text, timeout=PATIENCE)


def see_count(page: Page, selector: str, count: int) -> None:
    expect(page.locator(selector)).to_have_count(count, timeout=PATIENCE)


def finish_answer(scripted: ScriptedEngine, index: int, text: str) -> None:
    message = {"role": "assistant", "content": text}
    scripted.tell(index, Finished(ChatAnswer(text, [], [message])))


def test_a_question_about_an_uploaded_picture_is_answered_word_by_word(page, scripted):
    show_picture(page)
    write(page, "what is it?")
    page.press("#text textarea", "Enter")
    (job,) = scripted.wait_for_jobs(1)
    assert isinstance(job.request, ChatRequest)
    assert [part["type"] for part in job.request.messages[-1]["content"]] == ["image", "text"]
    scripted.tell(0, "a red ")
    see_text(page, "#live .answer .text", "a red")
    scripted.tell(0, "star")
    see_text(page, "#live .answer .text", "a red star")
    finish_answer(scripted, 0, "a red star")
    see_text(page, "#transcript .answer .text", "a red star")
    see_count(page, "#transcript .question img", 1)
    see_count(page, ".pending", 0)
    expect(page.locator("#status [role=status]")).to_have_text("a red star")


def test_the_next_question_continues_the_conversation(page, scripted):
    for number, (question, answer) in enumerate([("first?", "one"), ("second?", "two")]):
        write(page, question)
        page.click("#ask")
        scripted.wait_for_jobs(number + 1)
        finish_answer(scripted, number, answer)
        see_count(page, "#transcript .turn", number + 1)
    texts = [message["content"] for message in scripted.jobs[1].request.messages]
    assert texts == [
        [{"type": "text", "text": "first?"}],
        "one",
        [{"type": "text", "text": "second?"}],
    ]


def test_a_drawing_appears_row_by_row_and_can_be_downloaded_with_its_notes(page, scripted):
    page.click("#settings button")
    page.fill("#settings input[placeholder=random]", "5")
    write(page, "a red star")
    page.click("#draw")
    scripted.wait_for_jobs(1)
    scripted.tell(0, RowDrawn(1, 4), RowDrawn(2, 4, GREY))
    sheet = page.locator("#live [role=progressbar]")
    expect(sheet).to_have_attribute("aria-valuenow", "2", timeout=PATIENCE)
    see_count(page, "#live .sheet img", 1)
    scripted.tell(0, Finished(GREY))
    see_count(page, "#transcript .drawing img", 1)
    see_count(page, "#gallery .drawing img", 1)
    with page.expect_download() as download:
        page.click("#gallery [data-action=download]")
    notes = read_notes(download.value.path())
    assert (notes["prompt"], notes["seed"]) == ("a red star", "5")
    page.click("#transcript [data-action=reuse]")
    see_count(page, ".pending img", 1)


def test_settings_reach_the_model(page, scripted):
    page.click("#settings button")
    page.get_by_label("number input for Pictures").fill("3")
    page.get_by_label("number input for Guidance").fill("4.5")
    page.fill("#settings input[placeholder=random]", "11")
    page.keyboard.press("Tab")
    write(page, "two circles")
    page.click("#draw")
    requests = [job.request for job in scripted.wait_for_jobs(3)]
    assert [request.seed for request in requests] == [11, 12, 13]
    assert {request.sampling.guidance_scale for request in requests} == {4.5}
    page.click("#stop")
    see_text(page, "#transcript .problem", "Stopped.")


def test_stop_ends_the_answer_and_keeps_what_is_there(page, scripted):
    expect(page.locator("#stop")).to_be_hidden()
    write(page, "tell me everything")
    page.click("#ask")
    (job,) = scripted.wait_for_jobs(1)
    scripted.tell(0, "first of all")
    see_text(page, "#live .answer .text", "first of all")
    expect(page.locator("#ask")).to_be_disabled()
    page.click("#stop")
    see_text(page, "#transcript .turn", re.compile("first of all.*Stopped", re.DOTALL))
    assert job.is_cancelled
    expect(page.locator("#ask")).to_be_enabled()
    expect(page.locator("#stop")).to_be_hidden()


def test_a_person_who_leaves_frees_the_model(browser, scripted, scripted_address):
    scripted.jobs.clear()
    page = open_page(browser, scripted_address)
    write(page, "a red star")
    page.click("#draw")
    (job,) = scripted.wait_for_jobs(1)
    close_page(page)
    assert job.wait_until_cancelled(PATIENCE / 1000)


def test_a_full_queue_is_told_in_one_sentence_and_the_question_stays(page, scripted):
    scripted.is_full = True
    write(page, "what is it?")
    page.click("#ask")
    see_text(page, "#notice [role=alert]", "Many people are waiting for this model right now")
    expect(page.locator("#text textarea")).to_have_value("what is it?")
    expect(page.locator("#ask")).to_be_enabled()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"no picture", "This file cannot be shown: no image can be read from"),
        (bytes(11 * 2**20), "The file has 11.0 MB; a picture may have at most 10 MB"),
    ],
)
def test_a_bad_upload_is_told_in_one_sentence(page, content, sentence):
    file = {"name": "photo.png", "mimeType": "image/png", "buffer": content}
    page.set_input_files("#picker input", file)
    see_text(page, "#notice [role=alert]", sentence)


def test_an_empty_question_and_an_empty_prompt_are_asked_for(page):
    page.click("#ask")
    see_text(page, "#notice", "Write a question first, or add a picture.")
    page.click("#draw")
    see_text(page, "#notice", "Describe first what to draw.")


def test_all_is_reached_by_keyboard_and_the_focus_is_seen(page, scripted):
    page.locator("[role=tab]").first.focus()
    seen = []
    for _ in range(20):
        page.keyboard.press("Tab")
        seen.append(page.evaluate(FOCUSED))
    names = [name for name, _ in seen]
    for expected in (
        "three green hearts",
        "Ask, or describe",
        "Add picture",
        "Draw",
        "Ask",
        "Settings",
    ):
        assert any(expected in name for name in names), f"{expected} is not in {names}"
    assert [name for name, is_outlined in seen if name and not is_outlined] == []
    page.focus("#text textarea")
    page.keyboard.type("a star")
    page.keyboard.press("Tab")
    while not page.evaluate("document.activeElement.id === 'draw'"):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    scripted.wait_for_jobs(1)
    scripted.tell(0, Finished(GREY))
    see_count(page, "#transcript .drawing", 1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_a_phone(browser, scripted, scripted_address, scheme):
    scripted.jobs.clear()
    page = open_page(browser, scripted_address, viewport=PHONE, color_scheme=scheme)
    assert is_dark(page) == (scheme == "dark")
    assert_fits(page)
    write(page, "x" * 300)
    page.click("#ask")
    scripted.wait_for_jobs(1)
    finish_answer(scripted, 0, "a" * 300)
    scripted.tell(0, "a" * 300)
    see_count(page, "#transcript .turn", 1)
    assert_fits(page)
    page.get_by_role("tab", name="Tokenization").click()
    expect(page.locator(".tokenization")).to_be_visible()
    assert_fits(page)
    close_page(page)


def test_the_end_of_the_newest_answer_stays_in_view(browser, scripted, scripted_address):
    scripted.jobs.clear()
    page = open_page(browser, scripted_address, viewport=PHONE)
    page.click("#settings button")  # below the conversation there is much else
    write(page, "tell me a story")
    page.click("#ask")
    scripted.wait_for_jobs(1)
    scripted.tell(0, "once upon a time\n" * 60)
    see_text(page, "#live .answer .text", "once upon a time")
    expect(page.locator("#text textarea")).to_be_in_viewport(timeout=PATIENCE)
    page.wait_for_function(END_IN_VIEW)
    close_page(page)


def is_dark(page: Page) -> bool:
    color = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return sum(map(int, re.findall(r"\d+", color)[:3])) < 3 * 128


def assert_fits(page: Page) -> None:
    width, window = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width <= window


def test_the_second_tab_shows_what_becomes_of_a_picture(page):
    page.get_by_role("tab", name="Tokenization").click()
    see_count(page, ".trio img", 3)
    see_count(page, ".maps img", 8)
    before = page.get_attribute(".trio img >> nth=0", "src")
    page.set_input_files("#code-picker input", EXAMPLES_FOLDER / "star.png")
    expect(page.locator(".trio img").first).not_to_have_attribute("src", before, timeout=PATIENCE)
    file = {"name": "a.txt", "mimeType": "text/plain", "buffer": b"no picture"}
    page.set_input_files("#code-picker input", file)
    see_text(page, "#code-notice", "This file cannot be shown")


def test_nano_answers_and_draws_for_two_people_apart(browser, real_address):
    first, second = (open_page(browser, real_address) for _ in range(2))
    first.click(".example:has-text('how many hearts')")
    second.click(".example:has-text('three green hearts')")
    see_text(first, "#transcript .answer .text", "three")
    see_count(second, "#transcript .drawing img", 1)
    see_count(first, "#gallery .drawing", 0)
    see_count(second, "#transcript .turn", 1)
    close_page(first)
    close_page(second)
