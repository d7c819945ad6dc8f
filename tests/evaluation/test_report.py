"""The page of a toy run: whole, on its own, and safe whatever the captions say."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from omnialign.building import build
from omnialign.contract import Preview
from omnialign.engine import train
from omnialign.errors import OmniAlignError
from omnialign.evaluation import evaluate
from omnialign.evaluation.answers import ask, gather_shelves, sample_queries
from omnialign.evaluation.report import embed_preview, write_report
from omnialign.recipe import Recipe, parse_recipe
from omnialign.testing import toy

pytestmark = pytest.mark.usefixtures("toys")
HOSTILE = '<script>alert("1")</script> & <img src=http://x.invalid/a.png>'
FETCHED = {"src", "href", "xlink:href", "srcset", "poster", "data", "action", "style"}


class Page(HTMLParser):
    """Tags, attributes and text of a page, as a browser takes them apart."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.styles = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.tags and self.tags[-1] == "style":
            self.styles += data


def recipe(folder: Path) -> Recipe:
    """Trains on toy rows; three files are the test rows, one with hostile words, one broken."""
    lines: list[str] = []
    for name, words in (("a", [HOSTILE, "second words"]), ("b", ["calm"]), ("broken", ["none"])):
        toy.write_signal(folder / f"{name}.toy", [0.25, 1.0, 2.0 if name == "a" else -2.0])
        lines.append(json.dumps({"toy_signal": f"{name}.toy", "toy_words": words}))
    (folder / "broken.toy").write_bytes(b"broken")
    (folder / "rows.jsonl").write_text("\n".join(lines))
    table = toy.recipe(num_steps=2)
    table["description"] = "A <b>toy</b>"
    source = {"name": "manifest", "path": str(folder / "rows.jsonl")}
    table["data"]["unseen"] = {"source": source}
    return parse_recipe(table)


@pytest.fixture
def text(tmp_path: Path) -> str:
    """The report of a run, after its answers were checked."""
    checked = recipe(tmp_path)
    space = train(checked, tmp_path / "run")
    shelves = gather_shelves(space, checked)
    assert list(shelves) == ["toy_signal"]
    shelf = shelves["toy_signal"]
    assert [path.name for path in shelf.items] == ["a.toy", "b.toy"]
    assert shelf.vectors.shape == (2, 16)
    queries = sample_queries(shelves, 5)
    assert sorted(queries) == [HOSTILE, "calm"]
    assert len(sample_queries(shelves, 1)) == 1
    answers = ask(space, shelves, [*queries, "second words"], k=3)
    for answer in answers:
        hits = answer.found["toy_signal"]
        assert [hit.score for hit in hits] == sorted((h.score for h in hits), reverse=True)
        right = "b.toy" if answer.query == "calm" else "a.toy"
        assert {hit.item.name: hit.right for hit in hits} == {
            name: name == right for name in ("a.toy", "b.toy")
        }
        one = ask(space, shelves, [answer.query], k=1)[0].found["toy_signal"]
        assert [hit.item for hit in one] == [hits[0].item]
    results: dict[str, Any] = evaluate(space, checked)
    report, metrics = tmp_path / "report.html", tmp_path / "run" / "metrics.jsonl"
    write_report(report, space, checked, results, shelves, answers, metrics)
    first = report.read_bytes()
    write_report(report, space, checked, results, shelves, answers, metrics)
    assert report.read_bytes() == first
    assert not list(tmp_path.glob("*.partial"))
    assert space.fingerprint() in first.decode()
    return first.decode()


def test_the_page_is_self_contained(text: str) -> None:
    page = Page(text)
    assert page.tags.count("svg") == 3
    for name, value in page.attributes:
        if name in FETCHED - {"style"}:
            assert value.startswith(("#", "data:")), (name, value)
        if not name.startswith(("xmlns", "rdf:")):  # names of namespaces, which nobody fetches
            assert "//" not in value, (name, value)
        assert not name.startswith("on"), (name, value)
    assert not {"script", "link", "iframe", "object", "embed", "base"} & set(page.tags)
    for outside in ("@import", "//", "url("):
        assert outside not in page.styles


def test_words_are_escaped(text: str) -> None:
    page = Page(text)
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert "b" not in page.tags
    assert "A <b>toy</b>" in page.text
    assert page.text.count(HOSTILE) >= 1 + 3  # the question, and a caption in every answer
    assert "0.25 1.00 2.00" in page.text


def test_previews_carry_their_own_bytes() -> None:
    said = 'a "b" <c>'
    image = embed_preview(Preview("image/webp", b"\0\1\2"), said)
    audio = embed_preview(Preview("audio/wav", b"\0\1\2"), said)
    assert Page(image).tags == ["img"]
    assert Page(image).attributes == [("src", "data:image/webp;base64,AAEC"), ("alt", said)]
    assert Page(audio).tags == ["audio"]
    assert dict(Page(audio).attributes) == {
        "controls": "",
        "preload": "none",
        "src": "data:audio/wav;base64,AAEC",
        "aria-label": said,
    }
    assert Page(embed_preview(Preview("video/mp4", b""), said)).tags == ["video"]
    for mime in ("text/plain", "text/html"):
        words = Page(embed_preview(Preview(mime, b"<script>1</script> \xff"), said))
        assert (words.tags, words.text) == (["pre"], "<script>1</script> \N{REPLACEMENT CHARACTER}")


def test_answers_want_words() -> None:
    table = toy.recipe(num_steps=1)
    del table["pairs"][0]["test"]
    checked = parse_recipe(table)
    with pytest.raises(OmniAlignError, match="no test rows that pair a modality with words"):
        gather_shelves(build(checked), checked)
