"""Checkpoints of a few thousand weights, made on the spot and saved by transformers itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers.utils import logging

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 37,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
SQUARE = {"height": 32, "width": 32}
CROP = {"size": {"shortest_edge": 32}, "crop_size": SQUARE}
PICTURE = {"image_size": 32, "patch_size": 16}
MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = [chr(code) for code in range(33, 127)]
NUM_TOKENS = len(MARKS) + 2 * len(LETTERS)
MARK_IDS = {"pad_token_id": 0, "cls_token_id": 2, "bos_token_id": 2}
MARK_IDS |= {"sep_token_id": 3, "eos_token_id": 3}
WORDS = {"vocab_size": NUM_TOKENS, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
RESIDUES = ["<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSERTIDPKQNFYMHWCXBUZO.-", "<mask>"]
CONVOLUTIONS = {
    "conv_dim": (16, 16, 16),
    "conv_kernel": (10, 3, 3),
    "conv_stride": (5, 4, 4),
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}
ENCODER_DECODER = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 37,
    "decoder_ffn_dim": 37,
}
SWIN = {
    "spec_size": 64,
    "num_mel_bins": 16,
    "window_size": 2,
    "patch_size": 4,
    "patch_stride": [4, 4],
    "depths": [1, 1],
    "num_attention_heads": [1, 2],
    "patch_embeds_hidden_size": 16,
    "hidden_size": 32,
    "num_hidden_layers": 2,
}
MODERN = {"model_type": "modernbert", **SIZES, **WORDS, **MARK_IDS}
PERCEPTION = {**SIZES, "num_key_value_heads": 2, "head_dim": 16}
CODEC = {"encoder_hidden_size": 8, "hidden_size": 32, "downsampling_ratios": [2, 4]}
PERCEIVED_AUDIO = {**PERCEPTION, "dac_config": {**CODEC, "codebook_dim": 8}}
FRAME_MODEL = {"img_size": 32, "embed_dim": 32, "depth": 1, "num_heads": 2}
PERCEIVED_VIDEO = {
    **PERCEPTION,
    "vision_config": {
        "architecture": "vit_pe_core_tiny_patch16_384",
        "num_classes": 8,
        "model_args": {**FRAME_MODEL, "ref_feat_shape": (2, 2)},
    },
}

Parts = Mapping[str, Any]
"""The name of a model's class, its settings, and what to save beside it."""


def letters(folder: Path, **options: Any) -> None:
    """A tokenizer whose tokens are letters."""
    vocabulary = MARKS + LETTERS + [f"##{letter}" for letter in LETTERS]
    ids = {token: i for i, token in enumerate(vocabulary)}
    transformers.BertTokenizer(vocab=ids, **options).save_pretrained(folder)


def residues(folder: Path) -> None:
    file = folder / "vocab.txt"
    file.write_text("\n".join(RESIDUES))
    transformers.EsmTokenizer(str(file)).save_pretrained(folder)


def saved(name: str, **options: Any) -> Callable[[Path], None]:
    """Saves a processor of that class."""
    return lambda folder: getattr(transformers, name)(**options).save_pretrained(folder)


def tokens(**options: Any) -> Callable[[Path], None]:
    return lambda folder: letters(folder, **options)


def speech(norm: str) -> tuple[dict[str, Any], Callable[[Path], None]]:
    settings = {"feat_extract_norm": norm, "do_stable_layer_norm": norm == "layer"}
    extractor = saved("Wav2Vec2FeatureExtractor", return_attention_mask=norm == "layer")
    return {**CONVOLUTIONS, **SIZES, **settings}, extractor


def clap(fused: bool) -> tuple[Any, ...]:
    fusion = {"enable_fusion": fused, "fusion_type": "aff_2d" if fused else None}
    settings = {
        "text_config": {**SIZES, **WORDS, "max_position_embeddings": 60},
        "audio_config": {**SWIN, **fusion},
        "projection_dim": 24,
    }
    extractor = saved(
        "ClapFeatureExtractor",
        feature_size=16,
        sampling_rate=8000,
        hop_length=80,
        max_length_s=2,
        fft_window_size=256,
        frequency_max=4000,
        truncation="fusion" if fused else "rand_trunc",
    )
    return "ClapConfig", "ClapModel", settings, extractor, tokens(model_max_length=59)


def clip(kind: str, **text: Any) -> tuple[Any, ...]:
    settings = {
        "text_config": {**SIZES, **WORDS, "max_position_embeddings": 48, **text},
        "vision_config": {**SIZES, **PICTURE},
        "projection_dim": 24,
    }
    processor = saved("CLIPImageProcessor", **CROP)
    return f"{kind}Config", f"{kind}Model", settings, processor, tokens(model_max_length=48)


def siglip(kind: str, picture: Mapping[str, Any], processor: Any) -> tuple[Any, ...]:
    settings = {
        "text_config": {**SIZES, **WORDS, "max_position_embeddings": 64, "projection_size": 32},
        "vision_config": {**SIZES, **picture},
    }
    return f"{kind}Config", f"{kind}Model", settings, processor, letters


SIGLIP_PROCESSOR = saved("SiglipImageProcessor", size=SQUARE)
NAFLEX = saved("Siglip2ImageProcessor", patch_size=16, max_num_patches=16)
BIT = saved("BitImageProcessor", **CROP)
DINO = saved("DINOv3ViTImageProcessor", size=SQUARE)
MAE = saved("VideoMAEImageProcessor", **CROP)
HEARING = saved("PeAudioFeatureExtractor", sampling_rate=1000, hop_length=8)
SEEING = saved("PeVideoVideoProcessor", size=SQUARE, do_resize=True)
HEADS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}

CHECKPOINTS: Mapping[str, tuple[Any, ...]] = {
    "clip": clip("CLIP"),
    "metaclip2": clip("MetaClip2"),
    "siglip": siglip("Siglip", PICTURE, SIGLIP_PROCESSOR),
    "siglip2": siglip("Siglip", PICTURE, SIGLIP_PROCESSOR),
    "siglip2-naflex": siglip("Siglip2", {"patch_size": 16, "num_patches": 16}, NAFLEX),
    "tipsv2": (
        "Tipsv2Config",
        "Tipsv2Model",
        {
            "text_config": {**SIZES, **WORDS, "max_position_embeddings": 64},
            "vision_config": {**SIZES, "image_size": 28, "patch_size": 14},
        },
        saved("Tipsv2ImageProcessor", size={"height": 28, "width": 28}),
        letters,
    ),
    "dinov2": ("Dinov2Config", "Dinov2Model", {**HEADS, **PICTURE}, BIT),
    "dinov2-registers": (
        "Dinov2WithRegistersConfig",
        "Dinov2WithRegistersModel",
        {**HEADS, **PICTURE},
        BIT,
    ),
    "dinov3": ("DINOv3ViTConfig", "DINOv3ViTModel", {**SIZES, **PICTURE}, DINO),
    "dinov3-convnext": (
        "DINOv3ConvNextConfig",
        "DINOv3ConvNextModel",
        {"image_size": 32, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]},
        DINO,
    ),
    "vit": ("ViTConfig", "ViTModel", {**SIZES, **PICTURE}, saved("ViTImageProcessor", size=SQUARE)),
    "clap": clap(fused=False),
    "clap-fused": clap(fused=True),
    "ast": (
        "ASTConfig",
        "ASTModel",
        {**SIZES, "num_mel_bins": 16, "max_length": 64},
        saved("ASTFeatureExtractor", num_mel_bins=16, max_length=64),
    ),
    "whisper": (
        "WhisperConfig",
        "WhisperModel",
        {
            **ENCODER_DECODER,
            **WORDS,
            "num_mel_bins": 16,
            "max_source_positions": 100,
            "decoder_start_token_id": 2,
        },
        saved("WhisperFeatureExtractor", feature_size=16, chunk_length=2),
    ),
    "wav2vec2": ("Wav2Vec2Config", "Wav2Vec2Model", *speech("group")),
    "wav2vec2-large": ("Wav2Vec2Config", "Wav2Vec2Model", *speech("layer")),
    "hubert": ("HubertConfig", "HubertModel", *speech("group")),
    "videomae": ("VideoMAEConfig", "VideoMAEModel", {**SIZES, **PICTURE, "num_frames": 4}, MAE),
    "vivit": (
        "VivitConfig",
        "VivitModel",
        {**SIZES, "image_size": 32, "num_frames": 4},
        saved("VivitImageProcessor", **CROP),
    ),
    "vjepa2": (
        "VJEPA2Config",
        "VJEPA2Model",
        {
            **HEADS,
            "hidden_size": 24,
            "crop_size": 32,
            "frames_per_clip": 4,
            "pred_hidden_size": 24,
            "pred_num_attention_heads": 2,
            "pred_num_hidden_layers": 1,
        },
        saved("VJEPA2VideoProcessor", **CROP),
    ),
    "xclip": (
        "XCLIPConfig",
        "XCLIPModel",
        {
            "text_config": {**SIZES, **WORDS, "max_position_embeddings": 48},
            "vision_config": {
                **SIZES,
                **PICTURE,
                "num_frames": 4,
                "mit_hidden_size": 24,
                "mit_intermediate_size": 24,
                "mit_num_attention_heads": 2,
            },
            "projection_dim": 24,
            "prompt_num_attention_heads": 2,
        },
        MAE,
        tokens(model_max_length=48),
    ),
    "pe-audio": (
        "PeAudioConfig",
        "PeAudioModel",
        {"text_config": MODERN, "audio_config": PERCEIVED_AUDIO},
        HEARING,
        letters,
    ),
    "pe-video": (
        "PeVideoConfig",
        "PeVideoModel",
        {"text_config": MODERN, "video_config": PERCEIVED_VIDEO},
        SEEING,
        letters,
    ),
    "pe-audio-video": (
        "PeAudioVideoConfig",
        "PeAudioVideoModel",
        {
            "text_config": MODERN,
            "audio_video_config": {
                **PERCEPTION,
                "audio_config": PERCEIVED_AUDIO,
                "video_config": PERCEIVED_VIDEO,
            },
        },
        HEARING,
        SEEING,
        letters,
    ),
    "bert": ("BertConfig", "BertModel", {**SIZES, **WORDS}, letters),
    "bert-masked": ("BertConfig", "BertForMaskedLM", {**SIZES, **WORDS}, letters),
    "roberta": ("RobertaConfig", "RobertaModel", {**SIZES, **WORDS}, letters),
    "distilbert": (
        "DistilBertConfig",
        "DistilBertModel",
        {"vocab_size": NUM_TOKENS, "dim": 32, "n_heads": 2, "n_layers": 2, "hidden_dim": 37},
        letters,
    ),
    "modernbert": ("ModernBertConfig", "ModernBertModel", {**SIZES, **WORDS, **MARK_IDS}, letters),
    "llama": ("LlamaConfig", "LlamaModel", {**SIZES, **WORDS}, letters),
    "t5": (
        "T5Config",
        "T5ForConditionalGeneration",
        {"vocab_size": NUM_TOKENS, "d_model": 32, "d_kv": 16, "d_ff": 37, "num_layers": 2}
        | {"num_heads": 2},
        letters,
    ),
    "esm2": (
        "EsmConfig",
        "EsmModel",
        {
            **SIZES,
            "vocab_size": len(RESIDUES),
            "max_position_embeddings": 260,
            "pad_token_id": 1,
            "mask_token_id": RESIDUES.index("<mask>"),
            "position_embedding_type": "rotary",
            "token_dropout": True,
            "emb_layer_norm_before": False,
        },
        residues,
    ),
    "esmc": (
        "EsmcConfig",
        "EsmcModel",
        {**SIZES, "num_key_value_heads": 2},
        saved("EsmcTokenizer"),
    ),
}


def make(name: str, folder: Path) -> str:
    """Saves the checkpoint `name` in a folder."""
    config, model, settings, *processors = CHECKPOINTS[name]
    torch.manual_seed(0)
    made = getattr(transformers, model)(getattr(transformers, config)(**settings))
    with torch.no_grad():
        for parameter in made.parameters():  # so that no part is negligible, or the same for all
            if parameter.ndim:
                parameter += 0.05 * torch.randn_like(parameter)
    made.save_pretrained(folder)
    for save in processors:
        save(folder)
    return str(folder)


@pytest.fixture(scope="session", autouse=True)
def quiet() -> Iterator[None]:
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    yield
    logging.enable_progress_bar()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Gives the folder of a checkpoint, which is made when it is first asked for."""
    made: dict[str, str] = {}

    def folder_of(name: str) -> str:
        if name not in made:
            made[name] = make(name, tmp_path_factory.mktemp(name))
        return made[name]

    return folder_of
