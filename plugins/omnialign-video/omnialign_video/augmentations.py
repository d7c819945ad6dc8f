"""Random changes of a clip that keep what it shows; each draws once for all frames.

All numbers come from the given generator; the work is torchvision's functional transforms.

Axes: T frames, H height, W width.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from omnialign import OmniAlignError
from omnialign_video.clip import Clip

Range = tuple[float, float]


def uniform(low: float, high: float, generator: torch.Generator) -> float:
    """One number, evenly from `low` to `high`."""
    return low + (high - low) * torch.rand((), generator=generator).item()


def checked_range(name: str, value: Range, low: float, high: float) -> Range:
    """`value` where it is an ordered pair within `low..high`; raises `OmniAlignError`."""
    if not low <= value[0] <= value[1] <= high:
        raise OmniAlignError(f"{name} is {value}; wanted two numbers in order from {low} to {high}")
    return value


def checked(name: str, value: float, high: float = 1.0) -> float:
    """`value` where it lies in `0..high`; raises `OmniAlignError`."""
    if not 0 <= value <= high:
        raise OmniAlignError(f"{name} is {value}; wanted a number from 0 to {high}")
    return value


def rectangle(
    H: int, W: int, scale: Range, ratio: Range, generator: torch.Generator
) -> tuple[int, int, int, int]:
    """Top, left, height and width of a random window, as `Crop` describes it."""
    side = math.sqrt(uniform(*scale, generator))
    stretch = math.sqrt(math.exp(uniform(math.log(ratio[0]), math.log(ratio[1]), generator)))
    height = max(1, min(H, round(H * side / stretch)))
    width = max(1, min(W, round(W * side * stretch)))
    top = round(uniform(0, H - height, generator))
    left = round(uniform(0, W - width, generator))
    return top, left, height, width


class PictureChange(ABC):
    """The same change of every frame; times stay."""

    def __call__(self, sample: Clip, generator: torch.Generator) -> Clip:
        return replace(sample, frames=self.change(sample.frames, generator))

    @abstractmethod
    def change(self, frames: Tensor, generator: torch.Generator) -> Tensor:
        """uint8 `(T, 3, H, W)` to the same, perhaps of another size."""


class Crop(PictureChange):
    """Cuts out a window, and stretches it to the frames' own aspect ratio.

    `scale` is the window's share of the area; `ratio` is its aspect ratio relative to the frames',
    so that (1, 1) never distorts. The result has about as many pixels as the window.
    """

    def __init__(self, scale: Range = (0.6, 1.0), ratio: Range = (0.8, 1.25)) -> None:
        self.scale = checked_range("scale", scale, 0.01, 1)
        self.ratio = checked_range("ratio", ratio, 0.1, 10)

    def change(self, frames: Tensor, generator: torch.Generator) -> Tensor:
        H, W = frames.shape[-2:]
        top, left, height, width = rectangle(H, W, self.scale, self.ratio, generator)
        side = math.sqrt(height * width / (H * W))
        size = [max(1, round(H * side)), max(1, round(W * side))]
        window = functional.crop(frames, top, left, height, width)
        if size == [height, width]:
            return window
        return functional.resize(window, size, antialias=True)


class Flip(PictureChange):
    """Mirrors left and right: a move to the left becomes one to the right."""

    def __init__(self, probability: float = 0.5) -> None:
        self.probability = checked("probability", probability)

    def change(self, frames: Tensor, generator: torch.Generator) -> Tensor:
        flips = uniform(0, 1, generator) < self.probability
        return functional.horizontal_flip(frames) if flips else frames


class Rotation(PictureChange):
    """Turns about the centre by up to `degrees` either way; the corners that leave are lost."""

    def __init__(self, degrees: float = 10.0, fill: Literal["white", "black"] = "white") -> None:
        self.degrees = checked("degrees", degrees, 180)
        self.fill = fill

    def change(self, frames: Tensor, generator: torch.Generator) -> Tensor:
        return functional.rotate(
            frames,
            uniform(-self.degrees, self.degrees, generator),
            InterpolationMode.BILINEAR,
            fill=[0.0 if self.fill == "black" else 255.0],
        )


class ColorJitter(PictureChange):
    """Changes brightness, contrast, saturation and hue, in a random order.

    The first three draw a factor from `1 - value` to `1 + value`; `hue` draws a shift of up to that
    share of the colour circle either way (0.5 reaches every hue), and costs the most.
    """

    def __init__(
        self,
        brightness: float = 0.2,
        contrast: float = 0.2,
        saturation: float = 0.2,
        hue: float = 0.0,
    ) -> None:
        self.strengths = (
            checked("brightness", brightness),
            checked("contrast", contrast),
            checked("saturation", saturation),
            checked("hue", hue, 0.5),
        )

    def change(self, frames: Tensor, generator: torch.Generator) -> Tensor:
        changes = (
            functional.adjust_brightness,
            functional.adjust_contrast,
            functional.adjust_saturation,
            functional.adjust_hue,
        )
        for index in torch.randperm(4, generator=generator).tolist():
            strength = self.strengths[index]
            amount = uniform(-strength, strength, generator)
            if strength:
                frames = changes[index](frames, amount if index == 3 else 1 + amount)
        return frames


class Erasing(PictureChange):
    """Covers one rectangle of all frames with one random colour.

    `scale` is its share of the area, `ratio` its aspect ratio relative to the frames'. After
    Zhong et al., "Random Erasing Data Augmentation" (AAAI 2020).
    """

    def __init__(
        self, probability: float = 0.5, scale: Range = (0.02, 0.2), ratio: Range = (0.5, 2.0)
    ) -> None:
        self.probability = checked("probability", probability)
        self.scale = checked_range("scale", scale, 0, 1)
        self.ratio = checked_range("ratio", ratio, 0.1, 10)

    def change(self, frames: Tensor, generator: torch.Generator) -> Tensor:
        if uniform(0, 1, generator) >= self.probability:
            return frames
        H, W = frames.shape[-2:]
        where = rectangle(H, W, self.scale, self.ratio, generator)
        colour = torch.randint(0, 256, (3, 1, 1), generator=generator, dtype=torch.uint8)
        return functional.erase(frames, *where, colour)


class TemporalJitter:
    """Cuts out a stretch of time, plays it faster or slower, and loses single frames.

    The order of time is kept. `keep` is the range of the stretch's share of the clip, `speed` that
    of the factor, and `frame_drop` the probability with which each frame but the first is lost (the
    one before it then stands for longer).
    """

    def __init__(
        self, keep: Range = (0.7, 1.0), speed: Range = (0.8, 1.25), frame_drop: float = 0.1
    ) -> None:
        self.keep = checked_range("keep", keep, 0.01, 1)
        self.speed = checked_range("speed", speed, 0.01, 100)
        self.frame_drop = checked("frame_drop", frame_drop)

    def __call__(self, sample: Clip, generator: torch.Generator) -> Clip:
        T = len(sample)
        length = max(1, round(T * uniform(*self.keep, generator)))
        start = round(uniform(0, T - length, generator))
        kept = torch.rand(length, generator=generator) >= self.frame_drop
        kept[0] = True
        chosen = start + torch.where(kept)[0]
        times = sample.times_seconds[chosen]
        faster = uniform(*self.speed, generator)
        return Clip(sample.frames[chosen], times[0] + (times - times[0]) / faster)
