"""The losses' passes over the similarity matrix on a GPU, with Triton's kernels.

A kernel takes the product of a tile and what follows it at once, so that the float32 similarities
never leave the chip. The forward stores a log-sum for each block's rows and columns. The backward
stores a tile of derivatives in the inputs' dtype, and two products of the device's own library take
it to both sides' gradients. Everything is summed in one order, so a run repeats bit for bit.

Axes: n rows, N partners, M columns, D dim.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from omnialign.losses.pairing import Pairing
from omnialign.losses.tiles import COARSE, tiles

TILE = (8192, 8192)
"""Rows and columns whose derivatives are stored at once: 128 MiB in 16 bits."""
MOST_GAIN = 2.0**13
"""What small weights are multiplied by, so that float16 holds them; more could overflow it."""


@dataclass(frozen=True)
class Block:
    """What one program takes, and how it is compiled.

    Fixed rather than tuned when first used: another shape is another order of sums.
    """

    rows: int
    columns: int
    step: int
    """Dimensions that are multiplied at once."""
    group: int
    num_warps: int
    num_stages: int
    max_registers: int | None = None
    """Of a thread; fewer let two programs share a multiprocessor."""


BLOCKS = {
    2: Block(128, 128, 64, 8, num_warps=8, num_stages=3, max_registers=128),
    4: Block(64, 64, 32, 8, num_warps=4, num_stages=3),
}
"""By the bytes of an input's number."""


def usable(x: Tensor) -> bool:
    """Whether the kernels serve: 16 or 32 bits, on a CUDA device or in Triton's interpreter."""
    if x.dtype == torch.float64:
        return False
    if x.is_cuda:
        serves = torch.cuda.get_device_capability(x.device) >= (8, 0)
    else:
        serves = os.environ.get("TRITON_INTERPRET") == "1"
    return serves and find_spec("triton") is not None


def log_sums(
    x: Tensor, keys: Tensor, scale: float, pairing: Pairing
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-sums of rows `(n,)` and columns `(N,)`, and the sum of target times S but for own."""
    N = pairing.num_partners
    launch = _Launch(x, keys, scale, pairing)
    row_logs = pairing.weights.new_full((len(x),), -torch.inf)
    column_logs = pairing.weights.new_full((N,), -torch.inf)
    due_total = pairing.weights.new_zeros((), dtype=torch.float64)
    for r, c in tiles(len(x), N, len(keys), (TILE[0], len(keys))):
        down, across = launch.blocks(r, c)
        of_rows = row_logs.new_empty(across, r.stop - r.start)
        of_columns = row_logs.new_empty(down, N) if c.start < N else None
        dues = row_logs.new_empty(down * across) if launch.has_due(c) else None
        launch("log_sums", r, c, row_logs=of_rows, column_logs=of_columns, dues=dues)
        row_logs[r] = torch.logaddexp(row_logs[r], of_rows.logsumexp(0))
        if of_columns is not None:
            column_logs = torch.logaddexp(column_logs, of_columns.logsumexp(0))
        if dues is not None:
            due_total += dues.sum(dtype=torch.float64)
    return row_logs, column_logs, due_total.to(row_logs)


def info_nce_gradients(
    x: Tensor,
    keys: Tensor,
    scale: float,
    pairing: Pairing,
    row_logs: Tensor,
    column_logs: Tensor,
    wants_x: bool,
    wants_keys: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Twice the derivative by `x` `(n, D)` and by `keys` `(M, D)`, over the scale."""
    N = pairing.num_partners
    gradients = _Gradients(x, keys, N, wants_x, wants_keys)
    pairing = pairing.times(gradients.gain)
    launch = _Launch(x, keys, scale, pairing)
    for r, c in tiles(len(x), N, len(keys), TILE):
        launch(
            "info_nce_derivatives",
            r,
            c,
            row_weights=pairing.weights[pairing.own][r],
            column_weights=pairing.weights[c] if c.start < N else None,
            own_target=pairing.own_target[r],
            row_logs=row_logs[r],
            column_logs=column_logs[c] if c.start < N else None,
            out=gradients.tile(r, c),
        )
        gradients.add(r, c)
    return gradients.d_x, gradients.d_keys


def sigmoid_one_pass(
    x: Tensor,
    keys: Tensor,
    scale: float,
    bias: float,
    pairing: Pairing,
    wants_x: bool,
    wants_keys: bool,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """The loss but for what own entries are due, and its derivatives by the bias and, over the
    scale, by `x` `(n, D)` and `keys` `(M, D)`."""
    N = pairing.num_partners
    gradients = _Gradients(x, keys, N, wants_x, wants_keys)
    pairing = pairing.times(gradients.gain / 2)
    launch = _Launch(x, keys, scale, pairing)
    loss, d_bias = (pairing.weights.new_zeros((), dtype=torch.float64) for _ in range(2))
    for r, c in tiles(len(x), N, len(keys), TILE):
        down, across = launch.blocks(r, c)
        costs, sums = (pairing.weights.new_empty(down * across) for _ in range(2))
        halves = pairing.weights[pairing.own][r]
        launch(
            "sigmoid_derivatives",
            r,
            c,
            row_weights=halves if c.start < N else 2 * halves,
            column_weights=pairing.weights[c] if c.start < N else None,
            own_target=pairing.own_target[r],
            bias=bias,
            costs=costs,
            sums=sums,
            out=gradients.tile(r, c),
        )
        loss += costs.sum(dtype=torch.float64)
        d_bias += sums.sum(dtype=torch.float64)
        gradients.add(r, c)
    loss, d_bias = ((v / gradients.gain).to(pairing.weights) for v in (loss, d_bias))
    return loss, d_bias, gradients.d_x, gradients.d_keys


class _Launch:
    """Starts a kernel on a tile."""

    def __init__(self, x: Tensor, keys: Tensor, scale: float, pairing: Pairing) -> None:
        self._x, self._keys = _aligned(x), _aligned(keys)
        self._scale = scale
        self._pairing = pairing
        self._block = BLOCKS[x.dtype.itemsize]
        highest = torch.get_float32_matmul_precision() == "highest"
        self._precision = "ieee" if highest else "tf32"

    def blocks(self, r: slice, c: slice) -> tuple[int, int]:
        """Blocks of a tile, down and across."""
        block = self._block
        return -(-(r.stop - r.start) // block.rows), -(-(c.stop - c.start) // block.columns)

    def has_due(self, c: slice) -> bool:
        """Whether entries other than own ones are due something."""
        targets = self._pairing.targets
        is_pair = c.start < self._pairing.num_partners
        return targets.spread_rows is not None or (is_pair and targets.positive is not None)

    def __call__(self, kernel: str, r: slice, c: slice, **arguments: Any) -> None:
        from triton.tools.tensor_descriptor import TensorDescriptor

        from omnialign.losses import triton_kernels

        block = self._block
        for name, tensor, shape in (
            ("x", self._x[r], [block.rows, block.step]),
            ("keys", self._keys[c], [block.columns, block.step]),
            ("out", arguments.get("out"), [block.rows, block.columns]),
        ):
            if tensor is not None:
                arguments[name] = TensorDescriptor.from_tensor(tensor, shape)
        down, across = self.blocks(r, c)
        registers = {"maxnreg": block.max_registers} if block.max_registers else {}
        with torch.cuda.device_of(self._x):
            getattr(triton_kernels, kernel)[(down * across,)](
                scale=self._scale,
                diagonal=self._pairing.own.start + r.start - c.start,
                n=r.stop - r.start,
                m=c.stop - c.start,
                **self._relations(r, c),
                **arguments,
                D=self._x.shape[1],
                PRECISION=self._precision,
                ROWS=block.rows,
                COLUMNS=block.columns,
                STEP=block.step,
                GROUP=block.group,
                num_warps=block.num_warps,
                num_stages=block.num_stages,
                **registers,
            )

    def _relations(self, r: slice, c: slice) -> dict[str, Any]:
        """What `Pairing.tile` says of a tile, in numbers a row and a column."""
        pairing, targets = self._pairing, self._pairing.targets
        places = slice(pairing.own.start + r.start, pairing.own.start + r.stop)
        found: dict[str, Any] = {"MASK": pairing.leaves_out(c)}
        for name, i in (("first", 0), ("second", 1)):
            ids = pairing.ids[i] if i < len(pairing.ids) else None
            found[f"{name}_rows"] = None if ids is None else ids.rows[r].contiguous()
            found[f"{name}_columns"] = None if ids is None else ids.columns[c].contiguous()
        positive = targets.positive if c.start < pairing.num_partners else None
        for name, rows, columns in (
            ("spread", targets.spread_rows, targets.spread_columns),
            ("positive", positive, positive),
        ):
            found[f"{name}_rows"] = None if rows is None else rows[places]
            found[f"{name}_columns"] = None if columns is None else columns[c]
        return found


class _Gradients:
    """A tile of derivatives, and the sums that it is taken into."""

    def __init__(self, x: Tensor, keys: Tensor, N: int, wants_x: bool, wants_keys: bool) -> None:
        self._x, self._keys = x, keys
        self.gain = min(2.0 ** (N.bit_length() - 1), MOST_GAIN)
        self.d_x = x.new_zeros(x.shape, dtype=torch.float32) if wants_x else None
        self.d_keys = x.new_zeros(keys.shape, dtype=torch.float32) if wants_keys else None
        width = -(-min(TILE[1], len(keys)) // 8) * 8  # a row starts at a multiple of 16 bytes
        self._memory = x.new_empty(min(TILE[0], len(x)), width)

    def tile(self, r: slice, c: slice) -> Tensor:
        return self._memory[: r.stop - r.start, : c.stop - c.start]

    def add(self, r: slice, c: slice) -> None:
        """The tile, which holds derivatives times `gain`, goes into both sides' gradients."""
        G = self.tile(r, c)
        if self.d_x is not None:
            _add_product(self.d_x[r], G, self._keys[c], 1 / self.gain)
        if self.d_keys is not None:
            _add_product(self.d_keys[c], G.T, self._x[r], 1 / self.gain)


def _add_product(into: Tensor, weights: Tensor, vectors: Tensor, factor: float) -> None:
    """Adds `factor * weights @ vectors`, summed in float32."""
    if into.is_cuda and vectors.dtype in COARSE:
        torch.addmm(into, weights, vectors, out_dtype=into.dtype, alpha=factor, out=into)
    else:
        into.addmm_(weights.to(into.dtype), vectors.to(into.dtype), alpha=factor)


def _aligned(vectors: Tensor) -> Tensor:
    """Vectors whose rows start at multiples of 16 bytes, with zeros after the last number."""
    numbers = 16 // vectors.dtype.itemsize
    missing = -vectors.shape[1] % numbers
    found = pad(vectors, (0, missing)) if missing else vectors.contiguous()
    return found if found.data_ptr() % 16 == 0 else found.clone()
