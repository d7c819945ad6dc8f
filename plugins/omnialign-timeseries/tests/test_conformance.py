"""The contract, held by `timeseries`."""

from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
from omnialign_timeseries import TimeSeries
from pyarrow import parquet

from omnialign.testing import ModalityConformance


class TestTimeSeries(ModalityConformance):
    modality = TimeSeries()
    encoder_options: ClassVar = {
        "conv": {"width": 32, "depth": 2},
        "transformer": {"width": 32, "depth": 2},
    }

    def files(self, folder: Path) -> list[Path]:
        values = np.random.default_rng(0).normal(size=(100, 9)).astype(np.float32)
        names = [f"c{i}" for i in range(9)]
        paths = [folder / f"walk{suffix}" for suffix in (".npy", ".npz", ".csv", ".parquet")]
        np.save(paths[0], values)
        np.savez_compressed(paths[1], values=values, sample_rate_hz=50.0, channels=names)
        rows = [",".join(map(str, row)) for row in values.tolist()]
        paths[2].write_text("\n".join([",".join(names), *rows]))
        parquet.write_table(pa.table(dict(zip(names, values.T, strict=True))), paths[3])
        return paths
