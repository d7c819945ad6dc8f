"""Sensor time series for OmniAlign.

Axes: T steps in time, C channels.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from omnialign import Claim, Modality, Preview, Segment, hookimpl
from omnialign_timeseries.series import Series

__all__ = ["Series", "TimeSeries"]

MIN_TAIL = 0.1
"""Of a window: a shorter rest at the end of a series is not a window of its own."""
PREVIEW_STEPS = 2000
PREVIEW_CHANNELS = 16
_HEAD_BYTES = 256


class TimeSeries(Modality[Series]):
    """Regularly sampled channels: `(T, C)` float32 values in the units of their sensors.

    Reads NPY, NPZ, CSV and Parquet, arrays and data frames. The rate in Hz and the names of the
    channels are known where they were declared. NaN is a gap, filled by a straight line; infinite
    values, channels without any value and cells that are not numbers are refused.
    """

    name = "timeseries"
    suffixes = frozenset({".npy", ".npz", ".csv", ".parquet"})
    long_input = "windows"
    templates = ("{}", "a recording of {}", "a sensor signal of {}")
    augmentations: ClassVar = {
        "crop": "omnialign_timeseries.augmentations:Crop",
        "jitter": "omnialign_timeseries.augmentations:Jitter",
        "scale": "omnialign_timeseries.augmentations:Scale",
        "rotation": "omnialign_timeseries.augmentations:Rotation",
        "time_warp": "omnialign_timeseries.augmentations:TimeWarp",
        "mask": "omnialign_timeseries.augmentations:Mask",
    }
    encoders: ClassVar = {
        "conv": "omnialign_timeseries.encoders:SeriesConv",
        "transformer": "omnialign_timeseries.encoders:PatchTransformer",
    }
    default_encoder = "conv"

    def read(self, source: Any) -> Series:
        from omnialign_timeseries.reading import read

        return read(source)

    def claim(self, source: Any) -> Claim:
        """NPY and NPZ hold anything, so they are only possible; tables are this modality's own."""
        kind = type(source)
        if isinstance(source, Series):
            return Claim.OWNS
        if kind.__name__ == "DataFrame" and kind.__module__.split(".")[0] == "pandas":
            return Claim.OWNS
        if isinstance(source, bytes | bytearray | memoryview):
            return sniff(bytes(source[:_HEAD_BYTES]))
        if hasattr(source, "read") and hasattr(source, "seek"):
            position = source.tell()
            head = source.read(_HEAD_BYTES)
            source.seek(position)
            return sniff(head) if isinstance(head, bytes) else Claim.NO
        claim = super().claim(source)
        shared = claim != Claim.NO and Path(source).suffix.lower() in (".npy", ".npz")
        return Claim.COULD if shared else claim

    def segments(self, sample: Series, window: float) -> list[Segment[Series]]:
        """Consecutive windows of `window` seconds; the last may be shorter.

        A rest of less than a tenth of a window is left out, unless it is all there is. A series
        without a rate has no seconds and is one segment: the encoder cuts it at its own rate.
        """
        rate, length = sample.sample_rate_hz, len(sample.values)
        if rate is None:
            return [Segment(sample)]
        step = max(1, math.floor(window * rate + 1e-6))
        count = max(1, math.ceil(length / step - MIN_TAIL))
        cuts = [(i * step, min((i + 1) * step, length)) for i in range(count)]
        return [
            Segment(
                sample if b - a == length else Series(sample.values[a:b], rate, sample.channels),
                a / rate,
                b / rate,
            )
            for a, b in cuts
        ]

    def preview(self, sample: Series) -> Preview:
        """A PNG of lines, one a channel, over seconds or steps."""
        from matplotlib.figure import Figure

        values = sample.values[:, :PREVIEW_CHANNELS].numpy()
        stride = math.ceil(len(values) / PREVIEW_STEPS)
        clock = [i * stride / (sample.sample_rate_hz or 1) for i in range(len(values[::stride]))]
        figure = Figure(figsize=(4, 2), dpi=100, layout="constrained")
        axes = figure.add_subplot()
        axes.plot(clock, values[::stride], linewidth=0.8)
        axes.set_xlabel("seconds" if sample.sample_rate_hz else "steps")
        file = io.BytesIO()
        figure.savefig(file, format="png", metadata={"Software": None})
        return Preview("image/png", file.getvalue())

    def example_samples(self, n: int) -> Sequence[Series]:
        """2.56 s at 50 Hz of nine channels that swing at different speeds around an offset."""
        import torch

        seconds = torch.arange(128)[:, None] / 50
        channel = torch.arange(9)[None, :]
        values = [
            torch.sin(2 * math.pi * (1 + i) * seconds + channel) / (1 + channel / 3) + channel % 3
            for i in range(n)
        ]
        names = tuple(f"{kind}_{axis}" for kind in ("body", "gyro", "total") for axis in "xyz")
        return [Series(v, 50.0, names) for v in values]


def sniff(head: bytes) -> Claim:
    """What the first bytes of a file say."""
    if head.startswith(b"PAR1"):
        return Claim.OWNS
    archive = head.startswith(b"PK\x03\x04") and b".npy" in head
    return Claim.COULD if archive or head.startswith(b"\x93NUMPY") else Claim.NO


@hookimpl
def omnialign_modalities() -> Sequence[Modality[Any]]:
    """The modality `timeseries`."""
    return [TimeSeries()]
