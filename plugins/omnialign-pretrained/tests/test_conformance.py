"""The conformance kit on a model of each modality; the rest of the kinds are slow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from omnialign_audio import Audio
from omnialign_image import ImageModality
from omnialign_pretrained import ENCODERS
from omnialign_protein import Protein
from omnialign_text import Text
from omnialign_video import VideoModality

from omnialign.testing import ModalityConformance

READING = "the modality's own tests read its files"


class Pretrained(ModalityConformance):
    checkpoint_name: ClassVar[str]
    options: ClassVar[Mapping[str, Any]] = {}
    exempt: ClassVar[Mapping[str, str]] = {
        "test_reads_its_files": READING,
        "test_opens_what_it_reads": READING,
        "test_refuses_broken_files": READING,
        "test_augmentations_are_seeded_and_keep_the_form": "it adds none",
    }

    @pytest.fixture(autouse=True)
    def _checkpoint(self, checkpoint: Callable[[str], str]) -> None:
        self.made = checkpoint(self.checkpoint_name)

    def checkpoint_options(self, encoder: str, folder: Path) -> Mapping[str, Any]:
        return {"model": self.made, **self.options}


class TestText(Pretrained):
    modality = Text()
    encoders = {"transformers": ENCODERS["text"]["transformers"]}  # noqa: RUF012
    checkpoint_name = "bert"


@pytest.mark.slow
class TestPaddedText(TestText):
    checkpoint_name = "siglip"


class TestImage(Pretrained):
    modality = ImageModality()
    encoders = {"transformers": ENCODERS["image"]["transformers"]}  # noqa: RUF012
    checkpoint_name = "dinov2"


@pytest.mark.slow
class TestImageOfAnyShape(TestImage):
    checkpoint_name = "siglip2-naflex"


class TestAudio(Pretrained):
    modality = Audio()
    encoders = {"transformers": ENCODERS["audio"]["transformers"]}  # noqa: RUF012
    checkpoint_name = "wav2vec2"


@pytest.mark.slow
class TestSpectrogram(TestAudio):
    checkpoint_name = "ast"


@pytest.mark.slow
class TestVideo(Pretrained):
    modality = VideoModality()
    encoders = {"transformers": ENCODERS["video"]["transformers"]}  # noqa: RUF012
    checkpoint_name = "vjepa2"


@pytest.mark.slow
class TestProtein(Pretrained):
    modality = Protein()
    encoders = {"transformers": ENCODERS["protein"]["transformers"]}  # noqa: RUF012
    checkpoint_name = "esm2"
    options: ClassVar = {"max_residues": 200}
