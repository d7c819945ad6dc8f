from __future__ import annotations

import pytest
import torch
from omnialign_text.augmentations import Case, Typos, WordDropout

from omnialign import OmniAlignError

CAPTION = "three small red circles left of a blue square"


def results(augment: WordDropout | Case | Typos, sample: str = CAPTION) -> list[str]:
    return [augment(sample, torch.Generator().manual_seed(seed)) for seed in range(200)]


def test_word_dropout_leaves_out_its_share_in_order() -> None:
    words = CAPTION.split()
    found = results(WordDropout(0.25))
    for text in found:
        rest = iter(words)
        assert all(word in rest for word in text.split()), "order and spelling stay"
    kept = sum(len(text.split()) for text in found) / (200 * len(words))
    assert kept == pytest.approx(0.75, abs=0.04)


def test_word_dropout_always_leaves_a_word() -> None:
    assert all(len(text.split()) == 1 for text in results(WordDropout(1.0)))
    assert set(results(WordDropout(1.0), "word")) == {"word"}


def test_case_changes_nothing_but_case() -> None:
    found = set(results(Case()))
    assert found == {CAPTION, CAPTION.upper(), CAPTION.capitalize()}
    assert set(results(Case(0.0), "A Red Ball")) == {"A Red Ball"}


def test_typos_keep_spaces_digits_and_first_letters() -> None:
    sample = "3 red circles"
    for text in results(Typos(0.5), sample):
        assert [word[0] for word in text.split(" ")] == ["3", "r", "c"]
    assert results(Typos(0.0)) == [CAPTION] * 200
    assert len(set(results(Typos(0.1)))) > 100


@pytest.mark.parametrize("kind", [WordDropout, Case, Typos])
@pytest.mark.parametrize("probability", [-0.1, 1.5])
def test_probabilities_are_checked(kind: type[Case], probability: float) -> None:
    with pytest.raises(OmniAlignError, match=r"from 0 to 1"):
        kind(probability)
