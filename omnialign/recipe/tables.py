"""What stands in a recipe: its tables, their keys and their bounds."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from omnialign.contract import LongInput
from omnialign.recipe.evaluations import Evaluation, ModalityPair, Rows, Table

Tracker = Literal["tensorboard", "wandb", "mlflow", "comet_ml", "aim", "clearml", "dvclive"]


Number = Annotated[float, Field(strict=True)]
Flag = Annotated[bool, Field(strict=True)]


class Choice(BaseModel):
    """Something from a plugin, by name, with its options beside: `{name = "conv", width = 64}`.

    A bare string is a choice with default options.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str

    @pydantic.model_validator(mode="before")
    @classmethod
    def _bare_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class Space(Table):
    """The shared space."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    dim: int = Field(default=128, ge=2, le=65536, description="Dimensions of an embedding.")
    matryoshka: list[Annotated[int, Field(ge=2)]] = Field(
        default_factory=list[int],
        description="Smaller sizes that embeddings may be cut to later, in rising order.",
    )
    shared_temperature: bool = Field(
        default=False, description="All pairs have one temperature, rather than one each."
    )

    @pydantic.model_validator(mode="after")
    def _prefixes_rise_to_dim(self) -> Space:
        sizes = [*self.matryoshka, self.dim]
        if any(a >= b for a, b in pairwise(sizes)):
            raise ValueError(
                f"matryoshka wants sizes below dim = {self.dim} in rising order; "
                f"got {self.matryoshka}"
            )
        return self


class Lora(Table):
    """Adapters of an encoder whose own weights stay; they are merged into it at the end."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    rank: int = Field(default=8, ge=1, description="Of the matrix that each layer learns.")
    alpha: float = Field(default=16, gt=0, description="What it learns counts alpha / rank.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Of what goes into the adapters.")
    targets: list[str] = Field(
        default_factory=list[str],
        description="Layers by their name or its end; default: all linear layers.",
    )


class Tower(Table):
    """How one modality is brought into the space."""

    encoder: Choice | None = Field(
        default=None,
        description="Default: that of the model at start_from, or else the modality's own default.",
    )
    projection: Literal["linear", "mlp", "identity"] | None = Field(
        default=None,
        description="From features to the space; identity wants width = space.dim. Default: "
        "linear, or that of the tower from start_from.",
    )
    frozen: Flag | Literal["tower"] = Field(
        default=False,
        description="Keep the encoder's weights; train the projection. tower: keep both, as where "
        "others are bound to a tower from start_from.",
    )
    frozen_steps: Annotated[int, Field(strict=True)] = Field(
        default=0, ge=0, description="Keep the encoder's weights for so many steps, then train it."
    )
    learning_rate_scale: Number = Field(
        default=1.0, gt=0, description="Of the encoder: times train.learning_rate."
    )
    layer_decay: Number = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Each block of the encoder learns at this times the rate of what follows it.",
    )
    lora: Lora | None = Field(
        default=None, description="Train adapters of the encoder, not its weights."
    )
    augmentations: list[Choice] = Field(
        default_factory=list[Choice], description="Applied in this order while training."
    )
    long_input: LongInput | None = Field(
        default=None, description="Default: the modality's own policy."
    )
    licence: str | None = Field(
        default=None,
        description="SPDX id of the encoder's pretrained weights, for the model card.",
    )
    decode: Literal["whole", "scaled"] = Field(
        default="whole",
        description="scaled: training may decode no finer than the encoder sees, which is faster; "
        "everything else stays whole.",
    )

    @pydantic.model_validator(mode="after")
    def _frozen_alone(self) -> Tower:
        others = ("frozen_steps", "learning_rate_scale", "layer_decay", "lora")
        set_too = [n for n in others if getattr(self, n) != type(self).model_fields[n].default]
        if self.frozen and set_too:
            raise ValueError(f"frozen = true leaves nothing for {set_too[0]}; say one of them")
        if self.frozen and not self.augmentations and self.decode == "scaled":
            raise ValueError(
                "frozen = true without augmentations computes features once, of whole samples; "
                'leave out decode = "scaled"'
            )
        return self


class Data(Table):
    """A source of rows, named so that pairs and evaluations can share it."""

    source: Choice = Field(description="Where the rows come from, with the source's options.")
    licence: str | None = Field(
        default=None, description="SPDX id of the rows' licence, for the model card."
    )


class Pair(Table):
    """Two modalities that are aligned with each other."""

    modalities: ModalityPair
    train: Rows = Field(description="The rows to learn from.")
    test: Rows | None = Field(
        default=None, description="Held-out rows: retrieval in both directions."
    )
    weight: Number = Field(default=1.0, gt=0, description="Of this pair's loss in the sum.")
    loss: Literal["info_nce", "sigmoid"] = Field(
        default="info_nce", description="Softmax over the batch, or a question an entry."
    )
    duplicates: Literal["mask", "positive"] = Field(
        default="mask", description="Equal items in a batch: left out, or partners of each other."
    )
    label_smoothing: Number = Field(
        default=0.0, ge=0, le=1, description="For noisy captions: what a pair gives up."
    )
    negatives: str | None = Field(
        default=None,
        description="Column with items of the second modality that belong to no pair: hard "
        "negatives of all rows.",
    )
    weights: str | None = Field(
        default=None,
        description="Column with the share of each row in the mean: numbers of at least 0.",
    )
    temperature: Number = Field(default=0.07, gt=0, description="Where it starts.")
    learn_temperature: Flag = Field(default=True, description="Or it stays where it starts.")
    min_temperature: Number = Field(
        default=0.01, gt=0, le=1, description="The clamp of the temperature."
    )

    @pydantic.model_validator(mode="after")
    def _temperature_within_its_clamp(self) -> Pair:
        if self.learn_temperature and not self.min_temperature <= self.temperature <= 1:
            raise ValueError(
                f"a learned temperature starts between min_temperature = {self.min_temperature:g} "
                f"and 1; it is {self.temperature:g}"
            )
        return self


PairSampling = Literal["all", "proportional", "uniform"] | Annotated[float, Field(gt=0)]


class Train(Table):
    """How the run goes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    num_steps: int = Field(default=1000, ge=1)
    batch_size: int = Field(
        default=128, ge=2, description="Of each pair, over all processes; at most its rows."
    )
    pair_sampling: PairSampling = Field(
        default="all",
        description="all: every pair in every step. Else one is drawn: by its rows, evenly, or by "
        "rows ** (1 / number).",
    )
    learning_rate: float = Field(default=1e-3, gt=0, description="The peak.")
    warmup_steps: int = Field(default=50, ge=0, description="Linear rise before the cosine decay.")
    weight_decay: float = Field(
        default=0.05, ge=0, description="Not on norms, biases, temperatures."
    )
    gradient_clip_norm: float = Field(default=1.0, gt=0)
    weight_average: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Decay of the moving average that is saved; 0 saves the last.",
    )
    precision: Literal["auto", "float32", "bf16"] = Field(
        default="auto", description="auto: bf16 autocast where the GPU or the CPU has it."
    )
    checkpoint_every: int = Field(
        default=500, ge=1, description="Steps; the last step always is one."
    )
    keep_checkpoints: int = Field(default=2, ge=1)
    log_every: int = Field(default=10, ge=1)
    micro_batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] | None = Field(
        default=None,
        description="Pairs in one forward; gradients stay those of the whole batch. Default: all; "
        "auto: what fits into memory.",
    )
    kept_graphs_mib: Annotated[int, Field(ge=0)] | Literal["auto"] = Field(
        default="auto",
        description="Memory for micro-batches that need not be computed twice; auto: three "
        "eighths of what is free.",
    )
    shard_weights: bool = Field(
        default=False,
        description="Spread encoders over the processes (FSDP2): where one is too small.",
    )
    num_workers: int = Field(default=0, ge=0, description="Loader processes per pair.")
    cache_mib: int = Field(
        default=512, ge=0, description="Memory for decoded samples, per loader process."
    )
    max_unreadable: float = Field(
        default=0.05, ge=0, le=1, description="Share of unreadable rows above which the run stops."
    )
    trackers: list[Tracker] = Field(
        default_factory=lambda: ["tensorboard"], description="Of accelerate; [] for none."
    )

    @pydantic.model_validator(mode="after")
    def _graphs_of_micro_batches(self) -> Train:
        if self.kept_graphs_mib != "auto" and self.micro_batch_size is None:
            raise ValueError(
                f"kept_graphs_mib = {self.kept_graphs_mib} is of micro-batches; give "
                "micro_batch_size too, or leave it out"
            )
        return self


class Guard(Table):
    """What training may not destroy: the model at start_from is measured beside the trained one."""

    tolerance: Number = Field(
        default=0.02, ge=0, le=1, description="The largest drop of any figure of the evaluations."
    )


class Recipe(Table):
    """A whole recipe."""

    description: str = Field(default="", description="One line, for lists and reports.")
    start_from: str | None = Field(
        default=None,
        description="A run or saved model (a folder, or hf:NAME and the like); towers that it has "
        "begin with its weights.",
    )
    seed: int = Field(
        default=0, strict=True, ge=0, lt=2**63, description="Of everything that is random."
    )
    space: Space = Field(default=Space(), description="The shared space.")
    towers: dict[str, Tower] = Field(
        default_factory=dict[str, Tower], description="By modality; defaults for the rest."
    )
    data: dict[str, Data] = Field(description="Sources by a name of your own.")
    pairs: list[Pair] = Field(min_length=1, description="What is aligned with what.")
    evaluations: list[Evaluation] = Field(
        default_factory=list[Evaluation],
        description="Measured besides the test rows of every pair.",
    )
    train: Train = Field(default=Train(), description="How the run goes.")
    guard: Guard | None = Field(
        default=None,
        description="Fail where the model at start_from was better. Default: no guard.",
    )

    @pydantic.model_validator(mode="after")
    def _guards_what_was_there(self) -> Recipe:
        if self.guard and self.start_from is None:
            raise ValueError("guard compares with the model at start_from; give start_from")
        return self

    def modalities(self) -> list[str]:
        """All modalities of the space: those of the pairs, then towers that are only kept."""
        paired = [m for pair in self.pairs for m in pair.modalities]
        kept = [m for m, tower in self.towers.items() if tower.frozen == "tower"]
        return list(dict.fromkeys([*paired, *(kept if self.start_from else [])]))

    def tower(self, modality: str) -> Tower:
        return self.towers.get(modality, Tower())
