from __future__ import annotations

import pytest
import torch
from omnialign_protein.augmentations import Crop, Mask

from omnialign import OmniAlignError

RESIDUES = "MQIFVKTLTGKTITLEVEPSDTIENVKAKIQDKEGIPPDQQRLIFAGKQL"


def results(augment: Mask | Crop, sample: str = RESIDUES) -> list[str]:
    return [augment(sample, torch.Generator().manual_seed(seed)) for seed in range(200)]


def test_mask_hides_its_share() -> None:
    found = results(Mask(0.25))
    for text in found:
        assert all(a in (b, "X") for a, b in zip(text, RESIDUES, strict=True))
    assert sum(t.count("X") for t in found) / (200 * len(RESIDUES)) == pytest.approx(0.25, abs=0.02)
    assert set(results(Mask(0.0))) == {RESIDUES}


def test_crop_keeps_one_stretch() -> None:
    found = results(Crop(0.5))
    assert all(text in RESIDUES for text in found)
    lengths = [len(text) for text in found]
    assert min(lengths) >= 25
    assert max(lengths) > 45
    assert any(RESIDUES.startswith(t) for t in found)
    assert any(RESIDUES.endswith(t) for t in found)
    assert set(results(Crop(0.01), "M")) == {"M"}


def test_options_are_checked() -> None:
    with pytest.raises(OmniAlignError, match="from 0 to 1"):
        Mask(1.1)
    with pytest.raises(OmniAlignError, match="more than 0"):
        Crop(0.0)
