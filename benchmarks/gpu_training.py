"""Training steps of CLIP ViT-B/32 on a GPU: ours beside open_clip's loop.

    uv run --with open_clip_torch python benchmarks/gpu_training.py
    uv run --with open_clip_torch python benchmarks/gpu_training.py --model tiny --device cpu

Both sides train open_clip's own towers from the same weights, in micro-batches of the same size and
in the same precision, so what differs is the loop, the loss and the optimizer's kernel: our
`Objective` and `GradientCache` with what `kept_graphs_mib = "auto"` keeps, `info_nce` and fused
AdamW; its `train_one_epoch` with `accum_freq`, `ClipLoss` and AdamW as its `main` builds it. Inputs
are random uint8 pictures and token ids that wait in (pinned) host memory, the same on both sides:
reading and decoding are left out.

First each side makes one step, which is not timed, and the directions of the towers' gradients are
compared. (That of open_clip's temperature is `accum_freq` times too large.) Then sides take turns
of `--steps` steps, with a line a round; rates and ratios are medians over rounds. `utilisation` is
model operations, three times those of a forward, over what a large matrix product reaches just
before. Memory is a turn's peak beyond what stood before, which holds both sides' weights and
optimizer states. Where memory runs out in its first step a side halves its micro-batches.

Axes: N pairs of a batch, n of a micro-batch, S side of a picture, L tokens, D dim.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")  # sides take turns

import torch
from gpu_losses import CALIBRATED, peak_operations
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from omnialign.data.loader import PairBatch, SideBatch
from omnialign.encoder import Encoder
from omnialign.engine.gradient_cache import GradientCache, split
from omnialign.engine.memory import free_bytes
from omnialign.engine.micro_batches import SHARE_OF_FREE
from omnialign.engine.objective import Objective
from omnialign.engine.optimizer import build_optimizer
from omnialign.engine.sharding import clip_gradients
from omnialign.recipe import Recipe
from omnialign.space import SharedSpace
from omnialign.tower import Tower

LEARNING_RATE, WEIGHT_DECAY, CLIP_NORM = 1e-4, 0.2, 1.0
LEAST_COSINE = 0.95
"""Of the sides' gradients; rounding in bf16 turns them a little."""
KEPT_SHARE = SHARE_OF_FREE * 3 / 4
"""Of the free memory, for graphs that are kept: what `kept_graphs_mib = "auto"` takes."""


@dataclass(frozen=True)
class Sizes:
    """Of a model, and of the batches that suit it."""

    dim: int
    vision: dict[str, int]
    text: dict[str, int]
    batch_size: int
    micro_batch: int


MODELS = {
    "ViT-B-32": Sizes(
        dim=512,
        vision={"layers": 12, "width": 768, "patch_size": 32, "image_size": 224},
        text={"layers": 12, "width": 512, "heads": 8, "context_length": 77, "vocab_size": 49408},
        batch_size=32768,
        micro_batch=1024,
    ),
    "tiny": Sizes(
        dim=64,
        vision={"layers": 2, "width": 64, "patch_size": 8, "image_size": 32},
        text={"layers": 2, "width": 64, "heads": 2, "context_length": 16, "vocab_size": 512},
        batch_size=64,
        micro_batch=16,
    ),
}


class Normalised(nn.Module):
    """A picture's network behind what makes uint8 `(n, 3, S, S)` float, on its device."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pictures: Tensor) -> Tensor:
        return self.network(pictures.float() / 127.5 - 1)


def clip(sizes: Sizes, device: str) -> Any:
    """open_clip's model, from scratch."""
    import open_clip

    library: Any = open_clip
    torch.manual_seed(0)
    vision = library.CLIPVisionCfg(**sizes.vision)
    configs = vision, library.CLIPTextCfg(**sizes.text)
    model = library.CustomTextCLIP(sizes.dim, *configs, output_dict=True)
    model.visual = Normalised(model.visual)
    return model.to(device).train()


def inputs(sizes: Sizes, num_pairs: int, device: str) -> tuple[Tensor, Tensor]:
    """Pictures `(N, 3, S, S)` and token ids `(N, L)` in host memory."""
    side, tokens = sizes.vision["image_size"], sizes.text["context_length"]
    generator = torch.Generator(device).manual_seed(0)

    def drawn(most: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        found = torch.empty(shape, dtype=dtype, pin_memory=device == "cuda")
        for start in range(0, num_pairs, 4096):
            part = found[start : start + 4096]
            part.copy_(torch.randint(most, part.shape, generator=generator, device=device))
        return found

    return (
        drawn(256, (num_pairs, 3, side, side), torch.uint8),
        drawn(sizes.text["vocab_size"], (num_pairs, tokens), torch.int64),
    )


class Side(ABC):
    """One way to train a copy of the model on one batch."""

    optimizer: torch.optim.Optimizer

    def __init__(self, model: Any, batch: tuple[Tensor, Tensor], micro_batch: int, bf16: bool):
        self.model = copy.deepcopy(model)
        self.batch = batch
        self.micro_batch = micro_batch
        self.bf16 = bf16
        self.device = next(self.model.parameters()).device

    @abstractmethod
    def __call__(self, num_steps: int) -> None:
        """Trains so many steps."""

    def directions(self) -> Tensor:
        """The towers' gradients as one unit vector."""
        towers = (*self.model.visual.parameters(), *self.model.text.parameters())
        flat = torch.cat([p.grad.flatten() for p in towers if p.grad is not None])
        return flat / flat.norm()


class _Half(Encoder):
    """One of the model's towers, projection included."""

    def __init__(self, network: nn.Module, width: int) -> None:
        super().__init__()
        self.network = network
        self.width = width

    def forward(self, batch: Tensor) -> Tensor:
        return self.network(batch)


class Ours(Side):
    """A step as `omnialign.engine.trainer` makes it, without reports and checkpoints."""

    def __init__(
        self, model: Any, batch: tuple[Tensor, Tensor], micro_batch: int, bf16: bool, graphs: int
    ) -> None:
        super().__init__(model, batch, micro_batch, bf16)
        recipe = Recipe.model_validate(
            {
                "space": {"dim": self.model.visual.network.output_dim},
                "data": {"random": {"source": {"name": "random"}}},
                "pairs": [{"modalities": ["image", "text"], "train": {"data": "random"}}],
                "train": {"learning_rate": LEARNING_RATE, "weight_decay": WEIGHT_DECAY},
            }
        )
        dim = recipe.space.dim
        networks = {"image": self.model.visual, "text": self.model.text}
        modality: Any = SimpleNamespace(name="random")
        towers = {
            name: Tower(
                modality,
                _Half(network, dim),
                name=name,
                options={},
                dim=dim,
                projection="identity",
                long_input="truncate",
            )
            for name, network in networks.items()
        }
        space = SharedSpace(towers, dim, {("image", "text"): 0.07})
        self.objective = Objective(space, recipe, bf16=bf16).to(self.device).train()
        self.optimizer = build_optimizer(self.objective, recipe.train)
        self.cache = GradientCache(self.objective, graphs)
        ids = torch.arange(len(batch[0]))
        self.pairs = PairBatch([SideBatch(inputs, ids) for inputs in batch], None, [])
        self.step = 0

    def __call__(self, num_steps: int) -> None:
        for _ in range(num_steps):
            self.optimizer.zero_grad()
            self.cache(split([[self.pairs]], self.micro_batch), (0, self.step, 0), measure=False)
            if torch.isfinite(clip_gradients(self.objective.parameters(), CLIP_NORM)):
                self.optimizer.step()
            self.objective.clamp_temperatures()
            self.step += 1


class OpenClip(Side):
    """Its `train_one_epoch` over the batch, cut into micro-batches that it accumulates."""

    def __init__(self, model: Any, batch: tuple[Tensor, Tensor], micro_batch: int, bf16: bool):
        super().__init__(model, batch, micro_batch, bf16)
        groups = [
            {
                "params": [p for p in self.model.parameters() if (p.ndim >= 2) == matrices],
                "weight_decay": WEIGHT_DECAY if matrices else 0.0,
            }
            for matrices in (False, True)
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(0.9, 0.98), eps=1e-6)

    def __call__(self, num_steps: int) -> None:
        from open_clip import ClipLoss  # pyright: ignore[reportMissingImports]
        from open_clip_train.train import train_one_epoch  # pyright: ignore[reportMissingImports]

        parts = list(zip(*(side.split(self.micro_batch) for side in self.batch), strict=True))

        class Loader(list[Any]):
            num_batches = num_steps * len(parts)
            num_samples = num_steps * len(self.batch[0])

        settings = SimpleNamespace(
            device=str(self.device),
            precision="amp_bf16" if self.bf16 else "fp32",
            distill=False,
            accum_freq=len(parts),
            skip_scheduler=True,
            horovod=False,
            grad_clip_norm=CLIP_NORM,
            batch_size=self.micro_batch,
            rank=0,
            local_rank=0,
            world_size=1,
            log_every_n_steps=num_steps,
            log_local=False,
            wandb=False,
        )
        loader = Loader(num_steps * parts)
        data = {"train": SimpleNamespace(dataloader=loader, set_epoch=lambda _: None)}
        train_one_epoch(self.model, data, ClipLoss(), 0, self.optimizer, None, None, None, settings)


def first_step(name: str, side: Side) -> None:
    """In micro-batches that fit."""
    while True:
        try:
            side(1)
            return
        except torch.OutOfMemoryError:
            if side.micro_batch == 1:
                raise
            side.micro_batch //= 2
        side.optimizer.zero_grad()  # out of the handler, whose traceback holds the graphs
        torch.cuda.empty_cache()
        print(f"{name}: out of memory, so micro-batches of {side.micro_batch}", flush=True)


def forward_operations(side: Side, bf16: bool) -> float:
    """Of one pair."""
    pictures, tokens = (part[:8].to(side.device) for part in side.batch)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), torch.autocast(side.device.type, torch.bfloat16, enabled=bf16), counter:
        side.model(pictures, tokens)
    return counter.get_total_flops() / len(pictures)


@dataclass
class Turn:
    """What was measured."""

    samples_per_second: float
    utilisation: float
    gibibytes: float


def turn(side: Side, num_steps: int, operations: float, product: int) -> Turn:
    dtype = torch.bfloat16 if side.bf16 else torch.float32
    peak = peak_operations(product, side.device.type, dtype)
    cuda, before = side.device.type == "cuda", 0
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    started = time.perf_counter()
    side(num_steps)
    if cuda:
        torch.cuda.synchronize()
    rate = num_steps * len(side.batch[0]) / (time.perf_counter() - started)
    used = (torch.cuda.max_memory_allocated() - before) / 2**30 if cuda else float("nan")
    return Turn(rate, 3 * operations * rate / peak, used)


def compare(arguments: argparse.Namespace) -> None:
    sizes, device = MODELS[arguments.model], arguments.device
    num_pairs = arguments.batch_size or sizes.batch_size
    micro_batch = arguments.micro_batch or sizes.micro_batch
    bf16 = arguments.precision == "bf16"
    torch.set_float32_matmul_precision(arguments.matmul_precision)
    where = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    print(f"{arguments.model}, {num_pairs} pairs in micro-batches of {micro_batch}, ", end="")
    print(f"{arguments.precision}, {where}, torch {torch.__version__}", flush=True)
    model, batch = clip(sizes, device), inputs(sizes, num_pairs, device)
    kept_gib = arguments.kept_gib
    if kept_gib is None:
        kept_gib = KEPT_SHARE * free_bytes(torch.device(device)) / 2**30
    sides: dict[str, Side] = {
        "ours": Ours(model, batch, micro_batch, bf16, int(kept_gib * 2**30)),
        "open_clip": OpenClip(model, batch, micro_batch, bf16),
    }
    operations = forward_operations(sides["ours"], bf16)
    for name, side in sides.items():
        started = time.perf_counter()
        first_step(name, side)
        print(f"{name}: first step {time.perf_counter() - started:.1f} s", flush=True)
    directions = [side.directions() for side in sides.values()]
    cosine = float(torch.dot(*directions))
    del directions
    print(f"gradients of both sides: cosine {cosine:.6f}", flush=True)
    if cosine < LEAST_COSINE:
        print(f"WRONG? below {LEAST_COSINE}: the sides may do different things", flush=True)
    found: dict[str, list[Turn]] = {name: [] for name in sides}
    product = CALIBRATED if device == "cuda" else 512
    for number in range(1, arguments.rounds + 1):
        for name, side in sides.items():
            found[name].append(turn(side, arguments.steps, operations, product))
        rates = [f"{name} {turns[-1].samples_per_second:.0f}" for name, turns in found.items()]
        print(f"round {number}: {', '.join(rates)} samples/s", flush=True)
    ours = [one.samples_per_second for one in found["ours"]]
    for name, turns in found.items():
        rates = [one.samples_per_second for one in turns]
        ratio = statistics.median(a / b for a, b in zip(ours, rates, strict=True))
        print(
            f"{name:<12}{statistics.median(rates):9.0f} samples/s  ours {ratio:.2f} of it  "
            f"utilisation {statistics.median(one.utilisation for one in turns):.1%}  "
            f"peak {max(one.gibibytes for one in turns):.1f} GiB"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", default="ViT-B-32", choices=[*MODELS])
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--precision", default="bf16", choices=("bf16", "float32"))
    parser.add_argument("--batch-size", type=int, help="32,768; 64 of the tiny model")
    parser.add_argument("--micro-batch", type=int, help="1,024; 16 of the tiny model")
    parser.add_argument("--kept-gib", type=float, help="of graphs; by default as `auto` has it")
    parser.add_argument("--steps", type=int, default=2, help="of a turn")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--matmul-precision", default="highest", choices=("highest", "high"))
    compare(parser.parse_args())


if __name__ == "__main__":
    main()
