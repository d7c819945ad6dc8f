"""Channels-last tensors and `torch.compile` in the towers, beside the encoders as they are.

    OMP_NUM_THREADS=1 uv run python benchmarks/layouts.py
    uv run python benchmarks/layouts.py --device cuda --precisions bf16 --samples 256

Forward and backward in training mode. Each round runs every variant once, and ratios are medians
over rounds of two times in one round. `inputs` keeps the first convolution's input, and so all that
follows, in channels-last order; `weights` the convolutions' weights as well. Beside a compiled
encoder stand the seconds until its first two batches of different shape were through, and after how
many steps what it saves a step has paid for them. `differs` is how far features, or all gradients
together, are from those of the first variant in evaluation mode, over their norm.

Axes: n samples, W width.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"  # compiling costs what it costs at first

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn

from omnialign.data.loader import take
from omnialign.registry import registry

ENCODERS = {
    "image conv": ("image", "conv", 64),
    "image resnet18": ("image", "torchvision", 8),
    "image vit": ("image", "vit", 32),
    "audio conv": ("audio", "conv", 32),
    "text transformer": ("text", "transformer", 64),
}
"""Modality, name, and samples a batch."""
VARIANTS = ("as it is", "contiguous", "inputs", "inputs, weights", "compiled")


def laid_out(encoder: Any, inputs: Any, weights: Any) -> Any:
    """The encoder with its first 2-D convolution's input and all 4-D weights in these formats."""

    def convert(_: nn.Module, given: tuple[Tensor]) -> Tensor:
        return given[0].contiguous(memory_format=inputs)

    first = next(layer for layer in encoder.modules() if isinstance(layer, nn.Conv2d))
    first.register_forward_pre_hook(convert)
    return encoder.to(memory_format=weights)


def variants(encoder: nn.Module, names: list[str]) -> dict[str, Any]:
    """Copies of one encoder; layouts only where there is a 2-D convolution to lay out."""
    contiguous, last = torch.contiguous_format, torch.channels_last
    formats = {
        "contiguous": (contiguous, contiguous),
        "inputs": (last, contiguous),
        "inputs, weights": (last, last),
    }
    found: dict[str, Any] = {}
    for name in names:
        own = copy.deepcopy(encoder)
        if name == "compiled":
            found[name] = torch.compile(own)
        elif name not in formats:
            found[name] = own
        elif any(isinstance(layer, nn.Conv2d) for layer in own.modules()):
            found[name] = laid_out(own, *formats[name])
    return found


def gradients(encoder: nn.Module, batch: Any, bf16: bool) -> Tensor:
    """Features `(n, W)` of one forward and backward; gradients stay with the parameters."""
    for parameter in encoder.parameters():
        parameter.grad = None
    with torch.autocast(_device(encoder).type, torch.bfloat16, enabled=bf16):
        features: Tensor = encoder(batch)
    features.float().square().mean().backward()
    return features.detach()


def _device(encoder: nn.Module) -> torch.device:
    return next(encoder.parameters()).device


def seconds(step: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def difference(encoder: nn.Module, other: nn.Module, batch: Any, bf16: bool) -> float:
    """Of features or gradients in evaluation mode, where nothing is drawn, over their norm."""
    results: list[tuple[Tensor, Tensor]] = []
    for one in (encoder, other):
        features = gradients(one.eval(), batch, bf16)
        found = [p.grad.flatten() for p in one.parameters() if p.grad is not None]
        results.append((features.float(), torch.cat(found)))
        one.train()
    return max(float((a - b).norm() / a.norm()) for a, b in zip(*results, strict=True))


def compare(title: str, arguments: argparse.Namespace, bf16: bool) -> None:
    """Prints a line of each variant of one encoder."""
    modality, name, n = ENCODERS[title]
    n = arguments.samples or n
    torch.manual_seed(0)
    device = torch.device(arguments.device)
    encoder = registry().encoder(modality, name)().to(device).train()
    samples = registry().modality(modality).example_samples(n)
    batch = encoder.collate([encoder.preprocess(sample) for sample in samples])
    batch = send_to_device(batch, device)
    print(f"{title}, {n} samples, {'bf16' if bf16 else 'float32'}", flush=True)
    sides = variants(encoder, arguments.variants)
    compiling = 0.0
    for key, side in sides.items():
        shapes = (batch, take(batch, slice(n // 2))) if key == "compiled" else (batch,)
        for shape in (*shapes, batch):
            taken = seconds(lambda s=side, b=shape: gradients(s, b, bf16), device)
            compiling += taken if key == "compiled" else 0.0
    times: dict[str, list[float]] = {key: [] for key in sides}
    for _ in range(arguments.rounds):
        for key, side in sides.items():
            times[key].append(seconds(lambda s=side: gradients(s, batch, bf16), device))
    first = next(iter(sides))
    for key, values in times.items():
        ratio = statistics.median(a / b for a, b in zip(values, times[first], strict=True))
        line = f"  {key:<16}{1000 * statistics.median(values):8.1f} ms  {ratio:.2f}"
        if key != first:
            line += f"  differs {difference(sides[first], sides[key], batch, bf16):.0e}"
        if key == "compiled":
            saved = statistics.median(times[first]) * (1 - ratio)
            back = f"paid back after {compiling / saved:.0f} steps" if saved > 0 else "never paid"
            line += f"  {compiling:.0f} s to compile, {back}"
        print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--encoders", nargs="*", default=[*ENCODERS], choices=[*ENCODERS])
    parser.add_argument("--variants", nargs="*", default=[*VARIANTS], choices=VARIANTS)
    parser.add_argument("--precisions", nargs="*", default=["float32", "bf16"])
    parser.add_argument("--samples", type=int, help="a batch; by default what suits a CPU")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    print(f"torch {torch.__version__}, {arguments.device}, {torch.get_num_threads()} threads")
    for title in arguments.encoders:
        for precision in arguments.precisions:
            compare(title, arguments, precision == "bf16")
            torch.compiler.reset()


if __name__ == "__main__":
    main()
