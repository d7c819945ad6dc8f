"""Any network of the `timm` library, without its head.

Axes: n images, H height, W width, S side of the square.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Self

from torch import Tensor

from omnialign import Encoder, ModelError
from omnialign_pretrained.places import hub_quietly
from omnialign_pretrained.state_dicts import fill, read_lazily, refusal


class TimmEncoder(Encoder):
    """A timm network, from scratch or pretrained, with the preprocessing that timm states for it.

    Gives what the network's head would take: 512 numbers for `resnet18`.

    Many networks have batch norm. In training it mixes the samples of a batch, which a cached
    gradient does not see: freeze such a tower, or choose one without (`vit_*`, `convnext_*`,
    `swin_*`). In evaluation features are a function of the one sample.

    Args:
        model: A name of `timm.list_models()`, or of `timm.list_pretrained()` with the tag of its
            weights: `vit_small_patch16_224.augreg_in1k`.
        pretrained: Whether timm downloads the weights of that tag.
        weights: Instead, the path of a state dict: safetensors, or what `torch.save` wrote, which
            is loaded with `weights_only`. A head in it is left out.

    Raises:
        ModelError: an unknown model or tag, or weights of another network.
    """

    def __init__(
        self, model: str = "resnet18", pretrained: bool = False, weights: str | None = None
    ) -> None:
        super().__init__()
        try:
            import timm
            from timm.data.config import resolve_model_data_config
        except ImportError as error:
            raise ModelError(
                f"the encoder 'timm' wants its library ({error}); install it: "
                "pip install 'omnialign-pretrained[timm]'"
            ) from None
        if pretrained and weights is not None:
            raise ModelError(f"timm {model}: say pretrained or weights = {weights!r}, not both")
        known = timm.list_models()
        if model not in known and model not in timm.list_pretrained():
            near = get_close_matches(model, [*known, *timm.list_pretrained()], n=3, cutoff=0.3)
            raise ModelError(f"timm has no model {model!r}; near it: {', '.join(near)}")
        try:
            with hub_quietly():
                self.network: Any = timm.create_model(model, pretrained=pretrained, num_classes=0)
        except UnpicklingError as error:
            raise ModelError(f"timm {model}: the file of its weights {refusal(error)}") from None
        except (OSError, RuntimeError, ValueError) as error:
            cause = " ".join(str(error).split())
            raise ModelError(f"timm does not give {model!r}: {cause}") from error
        if weights is not None:
            self._load(Path(weights))
        self.width = getattr(self.network, "head_hidden_size", self.network.num_features)
        about = resolve_model_data_config(self.network)
        size = tuple(about["input_size"])
        self.resolution = min(size[1:])
        self.preprocess = EvaluationTransform(
            size,
            tuple(about["mean"]),
            tuple(about["std"]),
            about["interpolation"],
            about["crop_pct"],
            about["crop_mode"],
        )

    def forward(self, batch: Tensor) -> Tensor:
        return self.network(batch)

    def _load(self, path: Path) -> None:
        named = self.network.pretrained_cfg.get("classifier") or ()
        heads = (named,) if isinstance(named, str) else tuple(named)
        state = read_lazily(path)
        fill(path, state, [(self.network, str)], passed_over=tuple(f"{head}." for head in heads))

    @classmethod
    def from_files(cls, folder: Path, **options: Any) -> Self:
        """Rebuilds the network without its weights: neither a file nor a download is needed."""
        return super().from_files(folder, **options | {"pretrained": False, "weights": None})


@dataclass(frozen=True)
class EvaluationTransform:
    """uint8 `(3, H, W)` to float32 `(3, S, S)` through Pillow, as timm evaluates."""

    input_size: tuple[int, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    interpolation: str
    crop_fraction: float
    crop_mode: str

    def __call__(self, sample: Tensor) -> Tensor:
        from PIL import Image

        picture = Image.fromarray(sample.permute(1, 2, 0).contiguous().numpy())
        return _transform(self)(picture)


@cache
def _transform(stated: EvaluationTransform) -> Any:
    from timm.data.transforms_factory import create_transform

    size: Any = stated.input_size
    return create_transform(
        input_size=size,
        is_training=False,
        mean=stated.mean,
        std=stated.deviation,
        interpolation=stated.interpolation,
        crop_pct=stated.crop_fraction,
        crop_mode=stated.crop_mode,
    )
