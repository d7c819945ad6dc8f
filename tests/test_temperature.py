"""Temperatures of pairs, their own or one for all, and biases."""

import pytest
import torch

from omnialign.temperature import LogitBiases, LogScales, pair_key

PAIRS = {("image", "text"): 0.1, ("text", "audio"): 0.4}


def test_pair_keys_have_no_order() -> None:
    assert pair_key("b", "a") == pair_key("a", "b") == "a-b"


def test_of_a_pair_that_was_never_trained_the_mean() -> None:
    scales = LogScales(PAIRS, shared=False)
    assert scales.of("text", "image").exp().item() == pytest.approx(10)
    assert scales.of("text", "audio") is scales["audio-text"]
    assert scales.of("image", "audio").exp().item() == pytest.approx(5)


def test_all_pairs_may_share_one() -> None:
    scales = LogScales(dict.fromkeys(PAIRS, 0.2), shared=True)
    (only,) = scales.parameters()
    for pair in (*PAIRS, ("image", "audio")):
        assert torch.equal(scales.of(*pair), only)
    assert scales.of("text", "image") is only
    assert only.exp().item() == pytest.approx(5)


def test_a_bias_belongs_to_two_modalities() -> None:
    biases = LogitBiases([("text", "image"), ("image", "text")])
    (only,) = biases.parameters()
    assert biases.of("image", "text") is only
    assert only.item() == -10
    assert biases.of("audio", "text") is None
