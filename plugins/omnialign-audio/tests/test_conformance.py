"""The contract, held by `audio`."""

from pathlib import Path
from typing import ClassVar

import numpy as np
import soundfile
from omnialign_audio import Audio

from omnialign.testing import ModalityConformance


class TestAudio(ModalityConformance):
    modality = Audio()
    encoder_options: ClassVar = {
        "conv": {"width": 64, "num_mels": 32, "hop_seconds": 0.02},
        "transformer": {"width": 32, "num_mels": 32, "hop_seconds": 0.02, "depth": 2},
    }

    def files(self, folder: Path) -> list[Path]:
        tone = np.sin(np.linspace(0, 300, 8000)).astype(np.float32)
        stereo = np.stack([tone, tone / 2], axis=1)
        paths = [
            folder / f"tone{suffix}"
            for suffix in (".wav", ".aif", ".aiff", ".flac", ".ogg", ".oga", ".mp3")
        ]
        for path in paths:
            format = {".aif": "AIFF", ".oga": "OGG"}.get(path.suffix)
            soundfile.write(path, stereo, 16_000, format=format)
        opus = folder / "tone.opus"
        soundfile.write(opus, stereo, 16_000, format="OGG", subtype="OPUS")
        long = [folder / f"long{suffix}" for suffix in (".wav", ".aiff", ".flac", ".mp3")]
        noise = np.random.default_rng(0).uniform(-0.5, 0.5, (32 * 8000, 2)).astype(np.float32)
        for path in long:
            soundfile.write(path, noise, 8000)
        return [*paths, opus, *long]
