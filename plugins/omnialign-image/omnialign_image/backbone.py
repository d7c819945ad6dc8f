"""Any classification network of torchvision, without its head.

Axes: n images, S side of the square, W width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights, list_models

from omnialign import Encoder, OmniAlignError
from omnialign_image.fitting import Fit, FitSquare

NUM_CLASSES = 1000
"""Of ImageNet; the last layer with as many outputs is the head."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


class TorchvisionEncoder(Encoder):
    """A torchvision backbone, from scratch or pretrained.

    Takes uint8 `(n, 3, S, S)`, normalised with ImageNet's mean and deviation, and gives `(n, W)`,
    where W is what the network's own classifier head took: 512 for `resnet18`.

    Many backbones have batch norm. In training it mixes the samples of a batch, which a cached
    gradient does not see: freeze such a tower, or choose one without (`convnext_tiny`, `swin_t`,
    `vit_b_16`). In evaluation features are a function of the one sample.

    Args:
        backbone: A name from `torchvision.models.list_models(module=torchvision.models)`.
        weights: The path of a state dict (`torch.save`; loaded with `weights_only`), or the name
            of torchvision weights such as `IMAGENET1K_V1`, which are then downloaded.
        image_size: The side S; most backbones want at least 32, a ViT's weights their own.
        fit: How a picture becomes a square.

    Raises:
        OmniAlignError: an unknown backbone or weights, weights of another network, or a failed
            download.
    """

    def __init__(
        self,
        backbone: str = "resnet18",
        weights: str | None = None,
        image_size: int = 224,
        fit: Fit = "pad",
    ) -> None:
        super().__init__()
        self.mean: Tensor
        self.deviation: Tensor
        self.preprocess = FitSquare(image_size, fit)
        self.resolution = image_size
        known = list_models(module=torchvision.models)
        if backbone not in known:
            raise OmniAlignError(_unknown("backbone", backbone, known))
        self.network = get_model(backbone, weights=None, **_own_options(backbone, image_size))
        head, self.width = _remove_head(self.network)
        if weights is not None:
            _load(self.network, _state(backbone, weights), head, f"{weights!r} for {backbone}")
        for name, value in (("mean", IMAGENET_MEAN), ("deviation", IMAGENET_DEVIATION)):
            self.register_buffer(name, 255 * torch.tensor(value)[:, None, None], persistent=False)

    def forward(self, batch: Tensor) -> Tensor:
        return self.network((batch - self.mean) / self.deviation)

    def list_blocks(self) -> Sequence[nn.Module]:
        """Of a ResNet, the blocks of all four stages."""
        stages = [getattr(self.network, f"layer{i}", None) for i in range(1, 5)]
        if all(isinstance(stage, nn.Sequential) for stage in stages):
            return [block for stage in stages if stage is not None for block in stage]
        return super().list_blocks()

    @classmethod
    def from_files(cls, folder: Path, **options: Any) -> Self:
        """Rebuilds the network without its weights: neither a file nor a download is needed."""
        return super().from_files(folder, **options | {"weights": None})


def _own_options(backbone: str, image_size: int) -> dict[str, Any]:
    """What a family of networks needs to give features of any image size and nothing else."""
    if backbone.startswith("vit_"):
        return {"image_size": image_size}
    if backbone in ("googlenet", "inception_v3"):
        return {"aux_logits": False, "init_weights": True, "transform_input": True}
    return {}


def _remove_head(network: nn.Module) -> tuple[str, int]:
    """Replaces the classifier by nothing; gives its name and how many features it took."""
    for name, layer in reversed(list(network.named_modules())):
        if isinstance(layer, nn.Linear) and layer.out_features == NUM_CLASSES:
            width = layer.in_features
        elif isinstance(layer, nn.Conv2d) and layer.out_channels == NUM_CLASSES:
            width = layer.in_channels
        else:
            continue
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, nn.Identity())
        return name, width
    raise AssertionError("every classification network of torchvision ends in a head")


def _state(backbone: str, weights: str) -> Mapping[str, Tensor]:
    """The state dict that `weights` names."""
    if Path(weights).is_file():
        wanted = f"weights {weights!r}: wanted a state dict saved by torch.save"
        try:
            state = torch.load(weights, map_location="cpu", weights_only=True)
        except Exception as error:  # torch.load raises many types on other files
            raise OmniAlignError(f"{wanted}, found a file that does not load: {error}") from error
        if not isinstance(state, Mapping):
            raise OmniAlignError(f"{wanted}, found {type(state).__name__}")
        return state
    named = get_model_weights(backbone).__members__
    if weights not in named:
        raise OmniAlignError(f"{_unknown('weights', weights, named)}; nor is it a file")
    try:
        return named[weights].get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:  # out of reach, or cut short on the way
        raise OmniAlignError(
            f"weights {weights!r} for {backbone}: wanted {named[weights].url}, which did not "
            f"download ({error}); fetch it elsewhere, and give the path of that file as weights"
        ) from error


def _load(network: nn.Module, state: Mapping[str, Tensor], head: str, what: str) -> None:
    """Loads all but the head and auxiliary classifiers."""
    drop = (f"{head}.", "aux1.", "aux2.", "AuxLogits.")
    try:
        network.load_state_dict({k: v for k, v in state.items() if not k.startswith(drop)})
    except RuntimeError as error:
        raise OmniAlignError(f"weights {what} do not fit: {error}") from error


def _unknown(kind: str, wanted: str, valid: Any) -> str:
    from difflib import get_close_matches

    near = get_close_matches(wanted, valid, n=3, cutoff=0.3) or sorted(valid)[:10]
    return f"unknown {kind} {wanted!r}; near it: {', '.join(near)}"
