from typing import Any

import pytest

from omnialign.errors import OmniAlignError
from omnialign.prompts import described, filled


def test_a_label_describes_itself_unless_words_are_given() -> None:
    assert described(["a", "b"]) == {"a": "a", "b": "b"}
    assert described({"0": "zero", "1": ["one", "a single"]}) == {
        "0": "zero",
        "1": ["one", "a single"],
    }


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ("words", "two or more different labels; got 'words'"),
        (["a"], "two or more"),
        (["a", "a"], "two or more"),
        ({"a": "one"}, "two or more"),
        ({"a": "one", "b": ""}, "label 'b' wants a description"),
        ({"a": "one", "b": []}, "label 'b' wants a description"),
        ({"a": "one", "b": ["two", " "]}, "label 'b' wants a description"),
    ],
)
def test_labels_that_say_nothing_are_refused(labels: Any, reason: str) -> None:
    with pytest.raises(OmniAlignError, match=reason):
        described(labels)


def test_every_wording_goes_into_every_template() -> None:
    assert filled(["a {}", "{}: {}"], "cat") == ["a cat", "cat: cat"]
    assert filled(["a {}", "{}"], ["cat", "{}"]) == ["a cat", "cat", "a {}", "{}"]


@pytest.mark.parametrize("templates", [[], ["a {}", "a photo"], "a {}"])
def test_templates_without_a_place_are_refused(templates: Any) -> None:
    with pytest.raises(OmniAlignError, match=r"templates want \{\}"):
        filled(templates, "cat")
