"""Images through the models of `transformers`.

Axes: n images, H height, V breadth.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor
from transformers import AutoImageProcessor

from omnialign_pretrained.adapter import PretrainedEncoder, first, settings_hash, stack
from omnialign_pretrained.checkpoint import Origin
from omnialign_pretrained.families import Pooling


@dataclass(frozen=True, eq=False)
class ProcessImage:
    """A uint8 RGB picture `(3, H, V)` to what the model's own processor makes of it."""

    processor: Any = field(repr=False)
    settings: str
    """A hash that identifies the processor."""

    def __call__(self, sample: Tensor) -> dict[str, Tensor]:
        return first(
            self.processor(images=[sample], input_data_format="channels_first", return_tensors="pt")
        )


class PretrainedImage(PretrainedEncoder):
    """An image model of `transformers`, by hub name or folder.

    Of a model with several towers it is the image encoder. Pictures of which the processor makes
    inputs of several sizes (NaFlex packs patches with a mask, others do not) go through in groups.

    Args:
        model: a name on the hub, or a folder.
        revision: a branch, tag or commit on the hub.
        pooling: from tokens to one vector; the mean and the maximum leave out class token and
            registers. By default what the family does, or the class token, or the mean.
        trust_remote_code: whether code that comes with the model is run.

    Raises:
        ModelError: there is no such model, or it has no such part or pooling.
    """

    modality = "image"
    processors: ClassVar = (AutoImageProcessor,)
    preparation = "image processor"

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        pooling: Pooling | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        super().__init__()
        self._load(Origin(model, revision, trust_remote_code), pooling)

    def _prepare(self, settings: Any) -> None:
        self.resolution = getattr(settings, "image_size", None)
        if not isinstance(self.resolution, int):
            self.resolution = None
        self.preprocess = ProcessImage(self.processor, settings_hash(self.processor))
        self.collate = stack
