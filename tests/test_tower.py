"""Projections onto the unit sphere."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from omnialign.errors import PluginError, RecipeError
from omnialign.testing import toy
from omnialign.tower import Tower, build_projection


def tower(projection: str, width: int = 16, dim: int = 8) -> Tower:
    encoder, options = toy.Mlp(width=width), {"width": width}
    return Tower(
        toy.ToySignal(),
        encoder,
        name="mlp",
        options=options,
        dim=dim,
        projection=projection,
        long_input="windows",
    )


@pytest.mark.parametrize(("projection", "width"), [("linear", 16), ("mlp", 16), ("identity", 8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_vectors_are_unit(projection: str, width: int, dtype: torch.dtype) -> None:
    made = tower(projection, width).to(dtype)
    vectors = made(torch.randn(5, 12, dtype=dtype))
    assert vectors.shape == (5, 8)
    assert vectors.dtype == dtype
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(5, dtype=dtype))


def test_vectors_are_unit_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        vectors = tower("linear")(torch.randn(5, 12))
    assert vectors.dtype == torch.float32
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(5))


def test_identity_wants_the_width_of_the_space() -> None:
    with pytest.raises(RecipeError, match=r"identity.*the encoder gives 16 and space\.dim is 8"):
        tower("identity")
    assert isinstance(build_projection("identity", 8, 8, "toy_signal"), nn.Identity)


def test_it_knows_how_it_was_made() -> None:
    made: dict[str, Any] = tower("mlp").config
    assert made == {
        "encoder": {"name": "mlp", "width": 16},
        "projection": "mlp",
        "long_input": "windows",
    }
    pipeline = tower("mlp").pipeline
    assert pipeline.augmentations == ()
    assert pipeline.long_input == "windows"


def doubled(sample: Any) -> Any:
    return 2 * sample


def test_preprocessing_is_stated_without_addresses() -> None:
    made = tower("linear")
    made.encoder.preprocess = doubled
    assert made.stated_preprocess() == f"{__name__}.doubled"
    made.encoder.preprocess = partial(doubled)
    with pytest.raises(PluginError, match="plain function or a frozen dataclass"):
        made.stated_preprocess()
