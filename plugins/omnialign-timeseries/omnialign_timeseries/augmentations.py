"""Random changes of a series.

Axes: T steps in time, C channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from omnialign import OmniAlignError
from omnialign_timeseries.series import Series


def uniform(low: float, high: float, generator: Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def integer(low: int, high: int, generator: Generator) -> int:
    """From `low` to `high`, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def require(condition: bool, rule: str, found: object) -> None:
    if not condition:
        raise OmniAlignError(f"wanted {rule}, found {found}")


def interpolated(values: Tensor, at: Tensor) -> Tensor:
    """`values` `(T, …)` on lines between its steps, at places from 0 to T - 1."""
    left = at.long().clamp(0, max(0, len(values) - 2))
    right = (left + 1).clamp(max=len(values) - 1)
    part = (at - left).reshape(-1, *[1] * (values.ndim - 1))
    return torch.lerp(values[left], values[right], part)


@dataclass(frozen=True)
class Crop:
    """A random stretch of at least `min_fraction` of the series."""

    min_fraction: float = 0.8

    def __post_init__(self) -> None:
        valid = 0 < self.min_fraction <= 1
        require(valid, "0 < crop.min_fraction <= 1", self.min_fraction)

    def __call__(self, sample: Series, generator: Generator) -> Series:
        total = len(sample.values)
        length = integer(math.ceil(self.min_fraction * total), total, generator)
        start = integer(0, total - length, generator)
        return replace(sample, values=sample.values[start : start + length])


@dataclass(frozen=True)
class Jitter:
    """Adds white noise, in each channel of `level` times its own standard deviation."""

    level: float = 0.05

    def __post_init__(self) -> None:
        require(self.level >= 0, "jitter.level of at least 0", self.level)

    def __call__(self, sample: Series, generator: Generator) -> Series:
        noise = torch.randn(sample.values.shape, generator=generator)
        spread = sample.values.std(0, correction=0)
        return replace(sample, values=sample.values + self.level * spread * noise)


@dataclass(frozen=True)
class Scale:
    """Multiplies each channel by a factor of its own, up to `max_factor` times more or less."""

    max_factor: float = 1.2

    def __post_init__(self) -> None:
        require(self.max_factor >= 1, "scale.max_factor of at least 1", self.max_factor)

    def __call__(self, sample: Series, generator: Generator) -> Series:
        power = 2 * torch.rand(sample.values.shape[1], generator=generator) - 1
        return replace(sample, values=sample.values * self.max_factor**power)


@dataclass(frozen=True)
class Rotation:
    """Turns the device: one rotation of up to `max_degrees` about any axis, for all triads.

    A triad is three channels x, y, z of one sensor. Without `triads` they are consecutive threes;
    a rest of one or two channels stays as it is.
    """

    max_degrees: float = 20.0
    triads: tuple[tuple[int, int, int], ...] = ()

    def __post_init__(self) -> None:
        valid = 0 <= self.max_degrees <= 180
        require(valid, "rotation.max_degrees from 0 to 180", self.max_degrees)
        used = [c for triad in self.triads for c in triad]
        valid = len(set(used)) == len(used) and min(used, default=0) >= 0
        require(valid, "rotation.triads of different channels, counted from 0", self.triads)

    def __call__(self, sample: Series, generator: Generator) -> Series:
        num_channels = sample.values.shape[1]
        used = [c for triad in self.triads for c in triad] or range(num_channels // 3 * 3)
        require(
            max(used, default=2) < num_channels,
            f"rotation.triads of the {num_channels} channels there are (three at least)",
            self.triads,
        )
        matrix = rotation(math.radians(uniform(0, self.max_degrees, generator)), generator)
        values = sample.values.clone()
        index = torch.tensor(list(used))
        values[:, index] = (values[:, index].unflatten(1, (-1, 3)) @ matrix.T).flatten(1)
        return replace(sample, values=values)


def rotation(radians: float, generator: Generator) -> Tensor:
    """`(3, 3)`, by an angle about an axis drawn evenly from the sphere."""
    x, y, z = torch.nn.functional.normalize(torch.randn(3, generator=generator), dim=0).tolist()
    cross = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return torch.eye(3) + math.sin(radians) * cross + (1 - math.cos(radians)) * cross @ cross


@dataclass(frozen=True)
class TimeWarp:
    """Lets time run faster and slower along the series, which keeps its length (Um et al. 2017,
    "Data augmentation of wearable sensor data for Parkinson's disease monitoring").

    Speeds between `1 / max_factor` and `max_factor` at `num_knots` even places, lines in between.
    """

    max_factor: float = 1.3
    num_knots: int = 4

    def __post_init__(self) -> None:
        require(self.max_factor >= 1, "time_warp.max_factor of at least 1", self.max_factor)
        require(self.num_knots >= 2, "time_warp.num_knots of at least 2", self.num_knots)

    def __call__(self, sample: Series, generator: Generator) -> Series:
        length = len(sample.values)
        power = 2 * torch.rand(self.num_knots, generator=generator) - 1
        speed = interpolated(self.max_factor**power, torch.linspace(0, self.num_knots - 1, length))
        place = speed.cumsum(0) - speed[0]
        at = place / place[-1].clamp(min=1e-6) * (length - 1)
        return replace(sample, values=interpolated(sample.values, at))


@dataclass(frozen=True)
class Mask:
    """Levels `num_masks` stretches, each of up to `max_fraction` of the series, to the channels'
    means."""

    num_masks: int = 2
    max_fraction: float = 0.1

    def __post_init__(self) -> None:
        require(self.num_masks >= 1, "mask.num_masks of at least 1", self.num_masks)
        valid = 0 <= self.max_fraction <= 1
        require(valid, "mask.max_fraction from 0 to 1", self.max_fraction)

    def __call__(self, sample: Series, generator: Generator) -> Series:
        values, length = sample.values.clone(), len(sample.values)
        mean = values.mean(0)
        for _ in range(self.num_masks):
            masked = integer(0, int(self.max_fraction * length), generator)
            start = integer(0, length - masked, generator)
            values[start : start + masked] = mean
        return replace(sample, values=values)
