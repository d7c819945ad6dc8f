"""Axes: n samples."""

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from omnialign.encoder import Encoder, pad_and_stack
from omnialign.testing import toy


def test_padding_is_zero_and_masked() -> None:
    batch = pad_and_stack([torch.ones(2, 3), torch.ones(4, 3), torch.ones(1, 3)])
    assert batch["values"].shape == (3, 4, 3)
    assert batch["mask"].sum(1).tolist() == [2, 4, 1]
    assert batch["values"][~batch["mask"]].eq(0).all()
    assert batch["values"][batch["mask"]].eq(1).all()
    assert batch["mask"][0].tolist() == [True, True, False, False]


class Least(Encoder):
    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.width = width
        self.preprocess = toy.Resample(width)

    def forward(self, batch: Any) -> Tensor:
        return batch


def test_an_encoder_needs_little(tmp_path: Path) -> None:
    encoder = Least.from_files(tmp_path, width=5)
    encoder.save_files(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert encoder.window is None
    assert encoder.collate is default_collate
    inputs = [encoder.preprocess(torch.arange(n).float()) for n in (4, 9)]
    assert encoder(encoder.collate(inputs)).shape == (2, 5)
    assert pickle.loads(pickle.dumps(encoder.collate)) is default_collate


class Blocks(Encoder):
    """Six linear layers in nested containers, between an embedding and a head."""

    width = 4

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Sequential(nn.Linear(4, 4), nn.GELU())
        self.body = nn.Sequential(nn.ModuleList(nn.Linear(4, 4) for _ in range(6)))
        self.head = nn.Linear(4, 4)

    def forward(self, batch: Tensor) -> Tensor:
        return batch


def test_the_blocks_are_the_sequence_that_holds_most() -> None:
    encoder = Blocks()
    assert list(encoder.list_blocks()) == list(encoder.body[0])


def test_an_encoder_without_a_sequence_has_no_blocks() -> None:
    assert list(toy.HashedWords().list_blocks()) == []
