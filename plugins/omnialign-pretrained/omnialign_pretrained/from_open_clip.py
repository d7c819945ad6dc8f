"""Models of the `open_clip` library: its networks, transforms and tokenizers, our reading.

Axes: n samples, H height, W width, S side of the square, T tokens, D dim.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor

from omnialign import AlignedModel, AlignedTower, ModelError
from omnialign_pretrained.clip_inputs import PROBE, ClipTokens, vocabulary_hash
from omnialign_pretrained.placed_tower import PlacedModel, PlacedTower
from omnialign_pretrained.places import Place, read_json
from omnialign_pretrained.state_dicts import fill, read_lazily

TEXT_CONFIG = "text_config"
"""A folder beside the configuration, with the configuration of a text tower of `transformers`."""
WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)
TEXT_AT_THE_TOP = (
    "text_projection",
    "positional_embedding",
    "token_embedding.",
    "transformer.",
    "ln_final.",
)
"""How the names of the text tower of a `CLIP` begin; a `CustomTextCLIP` has them below `text.`."""
PAIR = ("image", "text")


def read(name: str, *, revision: str | None, modalities: Sequence[str] | None) -> AlignedModel:
    """A model of open_clip's shapes `CLIP` and `CustomTextCLIP`.

    `name` is a folder as `open_clip` writes it, a repository of the hub, or a file of weights with
    `open_clip_config.json` beside it. Raises `ModelError`.
    """
    found = OpenClipModel.find(name, revision)
    towers = {
        kind.MODALITY: kind.built(found.config, found.place)
        for kind in (OpenClipImage, OpenClipText)
        if modalities is None or kind.MODALITY in modalities
    }
    scalars = found.load(towers)
    options = {"model": name, "revision": found.place.revision}
    return AlignedModel(
        architecture(found.config)["embed_dim"],
        {m: AlignedTower(tower, "open_clip", options) for m, tower in towers.items()},
        {PAIR: float(scalars["logit_scale"].exp())},
        {PAIR: float(scalars["logit_bias"])} if "logit_bias" in scalars else {},
    )


def architecture(config: dict[str, Any]) -> dict[str, Any]:
    """The `model_cfg` of a configuration, or the whole where it is nothing else."""
    about = config.get("model_cfg", config)
    missing = [key for key in ("embed_dim", "vision_cfg", "text_cfg") if key not in about]
    if missing:
        raise ModelError(f"{OpenClipModel.CONFIG} of this model lacks {', '.join(missing)}")
    if "multimodal_cfg" in about:
        raise ModelError(
            "this model is a CoCa, whose decoder of captions is not read; take a CLIP or a SigLIP"
        )
    return about


@dataclass(frozen=True)
class OpenClipModel(PlacedModel):
    """A model of open_clip."""

    CONFIG = "open_clip_config.json"

    @classmethod
    def find(cls, name: str, revision: str | None) -> OpenClipModel:
        try:
            import open_clip as _  # noqa: F401
        except ImportError as error:
            raise ModelError(
                f"models of open_clip want its library ({error}); install it: "
                "pip install 'omnialign-pretrained[open-clip]'"
            ) from None
        name = name.removeprefix("hf-hub:")
        place, file = Place(name, revision), Path(name)
        if file.is_file():
            place = Place(str(file.parent))
        stated = place.file(cls.CONFIG)
        place = place.fixed_by(stated)
        config = read_json(stated)
        architecture(config)
        return cls(place, config, file if file.is_file() else place.file(*WEIGHTS))

    def load(self, towers: Mapping[str, PlacedTower]) -> dict[str, Tensor]:
        """Gives the scalars of the pair."""
        state = read_lazily(self.weights)
        is_custom = any(name.startswith("text.") for name in state)
        starts = {"image": ("visual.",), "text": ("text.",) if is_custom else TEXT_AT_THE_TOP}
        prefixes = {"image": "visual.", "text": "text." if is_custom else ""}
        others = [start for modality in starts.keys() - towers for start in starts[modality]]
        has_bias = architecture(self.config).get("init_logit_bias") is not None
        return fill(
            self.weights,
            state,
            [(tower.network, prefixes[modality].__add__) for modality, tower in towers.items()],
            also=["logit_scale", "logit_bias"] if has_bias else ["logit_scale"],
            # transformers before 4.31 saved the positions of tokens among the weights
            passed_over=(*others, "text.transformer.embeddings.position_ids"),
        )


class OpenClipImage(PlacedTower):
    """The image tower of an open_clip model: a ViT, a modified ResNet, or a trunk of timm.

    Pictures go through open_clip's own transform to `(n, 3, S, S)`; features are `(n, D)`, as
    `encode_image` gives them. Where the network has batch norm (`RN50`), training mixes the samples
    of a batch, which a cached gradient does not see: freeze such a tower.

    Args:
        model: A folder, a repository of the hub, or a file of weights, as for `open_clip:…`.
        revision: A version on the hub.
    """

    KIND = OpenClipModel
    MODALITY = "image"

    def build(self, place: Place) -> None:
        del place
        from open_clip.model import _build_vision_tower
        from open_clip.transform import PreprocessCfg, merge_preprocess_dict

        about = architecture(self.config)
        options = about["vision_cfg"] | {"timm_model_pretrained": False, "output_tokens": False}
        with _errors_of_building():
            self.network: Any = _build_vision_tower(
                about["embed_dim"], options, about.get("quick_gelu", False)
            )
        self.width = about["embed_dim"]
        size = self.network.image_size
        size = (size, size) if isinstance(size, int) else tuple(size)
        self.resolution = min(size)
        stated = merge_preprocess_dict(PreprocessCfg(), self.config.get("preprocess_cfg", {}))
        self.preprocess = EvaluationTransform(
            size,
            tuple(stated["mean"]),
            tuple(stated["std"]),
            stated["interpolation"],
            stated["resize_mode"],
            stated["fill_color"],
        )


class OpenClipText(PlacedTower):
    """The text tower of an open_clip model: its own transformer, or one of `transformers`.

    Texts go through the model's tokenizer to `(n, T)`, cut at its context length as open_clip cuts
    them; features are `(n, D)`, as `encode_text` gives them.

    Args:
        model: A folder, a repository of the hub, or a file of weights, as for `open_clip:…`.
        revision: A version on the hub.
    """

    KIND = OpenClipModel
    MODALITY = "text"

    def build(self, place: Place) -> None:
        from open_clip.model import _build_text_tower

        about = architecture(self.config)
        options = about["text_cfg"] | {"hf_model_pretrained": False, "output_tokens": False}
        if place.is_folder and Path(place.name, TEXT_CONFIG).is_dir():
            options["hf_model_name"] = str(Path(place.name, TEXT_CONFIG))
        with _errors_of_building():
            self.network: Any = _build_text_tower(
                about["embed_dim"], options, about.get("quick_gelu", False)
            )
            self.tokenizer = _tokenizer(options, place)
            self.preprocess = _tokens(self.tokenizer)
        self.width = about["embed_dim"]

    def save_files(self, folder: Path) -> None:
        super().save_files(folder)
        if hasattr(self.network, "config"):
            self.network.config.save_pretrained(folder / TEXT_CONFIG)
        if hasattr(self.tokenizer, "save_pretrained"):
            self.tokenizer.save_pretrained(str(folder))


@dataclass(frozen=True)
class EvaluationTransform:
    """uint8 `(3, H, W)` to float32 `(3, S, S)` through Pillow, as open_clip evaluates."""

    size: tuple[int, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    interpolation: str
    resize_mode: str
    fill_color: int

    def __call__(self, sample: Tensor) -> Tensor:
        from PIL import Image

        picture = Image.fromarray(sample.permute(1, 2, 0).contiguous().numpy())
        return _transform(self)(picture)


@cache
def _transform(stated: EvaluationTransform) -> Any:
    from open_clip.transform import image_transform

    size: Any = stated.size
    return image_transform(
        size,
        is_train=False,
        mean=stated.mean,
        std=stated.deviation,
        interpolation=stated.interpolation,
        resize_mode=stated.resize_mode,
        fill_color=stated.fill_color,
    )


def _tokenizer(text_config: dict[str, Any], place: Place) -> Any:
    from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

    length = text_config.get("context_length", 77)
    options: dict[str, Any] = text_config.get("tokenizer_kwargs") or {}
    name = text_config.get("hf_tokenizer_name")
    if not name:
        return SimpleTokenizer(context_length=length, **options)
    if place.is_folder:
        name = place.name
    elif name == place.name:
        options = options | {"revision": place.revision}
    mode = text_config.get("tokenizer_mode")
    return HFTokenizer(name, context_length=length, tokenizer_mode=mode, **options)


def _tokens(tokenizer: Any) -> ClipTokens:
    """Texts by one of open_clip's tokenizers."""
    within = getattr(tokenizer, "tokenizer", None)
    vocabulary = tokenizer.encoder if within is None else within.get_vocab()
    probed = tokenizer([PROBE])[0].tolist()
    return ClipTokens(tokenizer, tokenizer.context_length, vocabulary_hash(vocabulary, probed))


@contextmanager
def _errors_of_building() -> Generator[None]:
    """Turns what a library raises over a configuration into `ModelError`."""
    try:
        yield
    except (AssertionError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(f"open_clip cannot build this model: {error}") from error
