"""The page of a GenEval run: what stands on it, and that nothing of a prompt becomes markup."""

from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from eval.geneval import app
from tests.eval.geneval_folders import CASES, write_known, write_pictures


class Page(HTMLParser):
    """Tags with their attributes, and all text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("a page")
    write_pictures(CASES, folder / "the images")
    known = write_known(CASES, folder / "known.jsonl", name="a <known> detector")
    arguments = ["score", folder / "the images", "-o", folder / "results", "--detections", known]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture(scope="module")
def html(folder: Path) -> str:
    return (folder / "results" / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_scores_and_the_detector_stand_at_the_top(page: Page) -> None:
    head = page.text[: page.text.index("Task")]
    assert "geneval-own: 0.50000" in head
    assert "Detector a <known> detector, hash beef; colours by a hand" in head
    assert "a painter (0123)" in head
    for case in CASES:
        assert case.metadata["tag"] in head


def test_every_prompt_picture_and_reason_is_there(page: Page) -> None:
    assert len(page.all("section")) == len(CASES)
    assert [each["class"] for each in page.all("figure")] == ["right", "wrong"] * len(CASES)
    for case in CASES:
        assert case.metadata["prompt"] in page.text
        assert case.reasons[1] in page.text


def test_pictures_are_linked_relatively_and_are_there(page: Page, folder: Path) -> None:
    sources = [str(image["src"]) for image in page.all("img")]
    assert sources[1] == "../the%20images/00000/samples/0001.png"
    for source in sources:
        assert (folder / "results" / source.replace("%20", " ")).is_file()


def test_boxes_are_drawn_where_things_are(page: Page) -> None:
    boxes = [each for each in page.all("rect") if each["class"] == "box"]
    left, top, right, bottom = CASES[0].pictures[0][0].box
    first = [float(str(boxes[0][name])) for name in ("x", "y", "width", "height")]
    assert first == [left, top, right - left, bottom - top]
    # One thing of "two_object" stays below the threshold.
    num_things = sum(len(things) for case in CASES for things in case.pictures)
    assert len(boxes) == num_things - 2
    assert page.all("svg")[0]["viewbox"] == "0 0 64 64"


def test_prompts_and_names_are_escaped(html: str, page: Page) -> None:
    assert "a photo of a &lt;dog&gt; &amp; a half" in html
    assert "<dog>" not in html
    assert "<known>" not in html
    assert page.all("img")[0]["alt"] == "a photo of a <dog> & a half"


def test_pictures_can_be_filtered_by_task_and_verdict(page: Page) -> None:
    assert [select["name"] for select in page.all("select")] == ["task", "verdict"]
    assert [section["data-task"] for section in page.all("section")] == [
        case.metadata["tag"] for case in CASES
    ]


def test_the_page_needs_nothing_from_elsewhere(html: str, page: Page) -> None:
    assert "http" not in html
    assert not page.all("link")
    assert all("src" not in script for script in page.all("script"))
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all(
        "meta"
    )
    assert "prefers-color-scheme: dark" in html
