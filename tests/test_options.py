"""Options are what a callable takes, and nothing else."""

from dataclasses import dataclass
from typing import Literal

import pytest

from omnialign.errors import RecipeError
from omnialign.options import check_options


class Encoder:
    def __init__(
        self,
        width: int,
        depth: int = 2,
        scale: float = 1.0,
        kind: Literal["conv", "vit"] = "conv",
        sizes: tuple[int, ...] = (1, 2),
        checkpoint: str | None = None,
        model_name: str = "",
    ) -> None: ...


@dataclass(frozen=True)
class Flip:
    chance: float = 0.5


class Plain: ...


def test_defaults_are_filled_in() -> None:
    assert check_options("it", Encoder, {"width": 3, "sizes": [4], "scale": 2}) == {
        "width": 3,
        "depth": 2,
        "scale": 2.0,
        "kind": "conv",
        "sizes": (4,),
        "checkpoint": None,
        "model_name": "",
    }
    assert check_options("it", Flip, {}) == {"chance": 0.5}
    assert check_options("it", Plain, {}) == {}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "it: 'width' is missing"),
        ({"width": 1, "dept": 2}, "it: unknown key 'dept'; did you mean 'depth'?"),
        ({"width": "wide"}, "it: 'width' is 'wide': Input should be a valid integer"),
        ({"width": 1.5}, "it: 'width' is 1.5"),
        ({"width": 1, "kind": "cnn"}, "it: 'kind' is 'cnn': Input should be 'conv' or 'vit'"),
        ({"width": 1, "sizes": [1, "x"]}, "it: 'sizes.1' is 'x'"),
    ],
)
def test_slips(given: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        check_options("it", Encoder, given)
    assert message in str(caught.value)


def test_a_class_without_options() -> None:
    with pytest.raises(RecipeError, match="unknown key 'x'; valid: none"):
        check_options("it", Plain, {"x": 1})
