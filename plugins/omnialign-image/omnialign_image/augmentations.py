"""Random changes of a picture that keep what it shows.

Each draws its numbers from the given generator alone and calls torchvision's functional transforms.

Axes: H height, W width.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from omnialign import OmniAlignError

Range = tuple[float, float]
Fill = Literal["white", "black"]
"""What stands where a turned or moved picture leaves its frame uncovered; white is also what
`read` lays behind transparency and what `fit = "pad"` adds."""


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


class Crop:
    """Cuts out a window, and stretches it to the picture's own aspect ratio.

    `scale` is the window's share of the area; `ratio` is its aspect ratio relative to the
    picture's, so that (1, 1) never distorts. The result has about as many pixels as the window.
    """

    def __init__(self, scale: Range = (0.6, 1.0), ratio: Range = (0.8, 1.25)) -> None:
        self.scale = checked_range("scale", scale, 0.01, 1)
        self.ratio = checked_range("ratio", ratio, 0.1, 10)
        self.zoom = math.sqrt(max(self.ratio[1], 1 / self.ratio[0], 1) / self.scale[0])

    def __call__(self, sample: Tensor, generator: torch.Generator) -> Tensor:
        H, W = sample.shape[-2:]
        top, left, height, width = rectangle(H, W, self.scale, self.ratio, generator)
        side = math.sqrt(height * width / (H * W))
        size = [max(1, round(H * side)), max(1, round(W * side))]
        window = functional.crop(sample, top, left, height, width)
        if size == [height, width]:
            return window
        return functional.resize(window, size, antialias=True)


class Flip:
    """Mirrors left and right. Turns "left of" and letters into their opposites."""

    def __init__(self, probability: float = 0.5) -> None:
        self.probability = checked("probability", probability)

    def __call__(self, sample: Tensor, generator: torch.Generator) -> Tensor:
        flips = uniform(0, 1, generator) < self.probability
        return functional.horizontal_flip(sample) if flips else sample


class Affine:
    """Turns, moves, scales and shears about the centre.

    `degrees` and `shear_degrees` are the most in either direction, `translate` the most in either
    direction as a share of the side, and `scale` the range of the factor.
    """

    def __init__(
        self,
        degrees: float = 10.0,
        translate: float = 0.1,
        scale: Range = (0.8, 1.2),
        shear_degrees: float = 0.0,
        fill: Fill = "white",
    ) -> None:
        self.degrees = checked("degrees", degrees, 180)
        self.translate = checked("translate", translate)
        self.scale = checked_range("scale", scale, 0.01, 100)
        self.zoom = max(1.0, self.scale[1])
        self.shear_degrees = checked("shear_degrees", shear_degrees, 80)
        self.fill: Fill = fill

    def __call__(self, sample: Tensor, generator: torch.Generator) -> Tensor:
        H, W = sample.shape[-2:]
        angle = uniform(-self.degrees, self.degrees, generator)
        across, down = (
            uniform(-self.translate, self.translate, generator) * side for side in (W, H)
        )
        scale = uniform(*self.scale, generator)
        shear = [uniform(-self.shear_degrees, self.shear_degrees, generator) for _ in range(2)]
        return moved(sample, angle, (across, down), scale, shear, self.fill)


class Rotation:
    """Turns about the centre by up to `degrees` either way; the corners that leave are lost."""

    def __init__(self, degrees: float = 15.0, fill: Fill = "white") -> None:
        self.degrees = checked("degrees", degrees, 180)
        self.fill: Fill = fill

    def __call__(self, sample: Tensor, generator: torch.Generator) -> Tensor:
        angle = uniform(-self.degrees, self.degrees, generator)
        return moved(sample, angle, (0.0, 0.0), 1.0, [0.0, 0.0], self.fill)


def moved(
    sample: Tensor,
    angle: float,
    translate: tuple[float, float],
    scale: float,
    shear: list[float],
    fill: Fill,
) -> Tensor:
    """An affine change of known size; `translate` in pixels across and down."""
    return functional.affine(
        sample,
        angle=angle,
        translate=list(translate),
        scale=scale,
        shear=shear,
        interpolation=InterpolationMode.BILINEAR,
        fill=[0.0 if fill == "black" else 255.0],
    )


class ColorJitter:
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

    def __call__(self, sample: Tensor, generator: torch.Generator) -> Tensor:
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
                sample = changes[index](sample, amount if index == 3 else 1 + amount)
        return sample


class Grayscale:
    """Takes the colour away."""

    def __init__(self, probability: float = 0.2) -> None:
        self.probability = checked("probability", probability)

    def __call__(self, sample: Tensor, generator: torch.Generator) -> Tensor:
        grays = uniform(0, 1, generator) < self.probability
        return functional.rgb_to_grayscale(sample, num_output_channels=3) if grays else sample


class Erasing:
    """Covers a rectangle with one random colour.

    `scale` is its share of the area, `ratio` its aspect ratio relative to the picture's. After
    Zhong et al., "Random Erasing Data Augmentation" (AAAI 2020).
    """

    def __init__(
        self, probability: float = 0.5, scale: Range = (0.02, 0.2), ratio: Range = (0.5, 2.0)
    ) -> None:
        self.probability = checked("probability", probability)
        self.scale = checked_range("scale", scale, 0, 1)
        self.ratio = checked_range("ratio", ratio, 0.1, 10)

    def __call__(self, sample: Tensor, generator: torch.Generator) -> Tensor:
        if uniform(0, 1, generator) >= self.probability:
            return sample
        H, W = sample.shape[-2:]
        where = rectangle(H, W, self.scale, self.ratio, generator)
        colour = torch.randint(0, 256, (3, 1, 1), generator=generator, dtype=torch.uint8)
        return functional.erase(sample, *where, colour)
