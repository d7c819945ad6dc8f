"""A stretch of a file is what the whole file has there."""

import random
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from omnialign_audio import Audio
from omnialign_audio.augmentations import Crop, Noise
from omnialign_audio.encoders import SpectrogramConv
from omnialign_audio.recording import Recording

from omnialign import ReadError, Unread
from omnialign.data.pipeline import Pipeline

AUDIO = Audio()
RATE = 8000
SECONDS = 40
FORMATS = {
    "pcm.wav": ("WAV", "PCM_16"),
    "float.wav": ("WAV", "FLOAT"),
    "law.wav": ("WAV", "ULAW"),
    "a.flac": ("FLAC", "PCM_24"),
}


def write(path: Path, seconds: float = SECONDS) -> Path:
    format, subtype = FORMATS.get(path.name, ("FLAC", "PCM_16"))
    rng = np.random.default_rng(0)
    noise = rng.uniform(-0.3, 0.3, (int(seconds * RATE), 2))
    loudness = np.abs(np.sin(np.linspace(0, 50, len(noise))))[:, None]
    soundfile.write(path, noise * loudness, RATE, subtype, format=format)
    return path


@pytest.mark.parametrize("name", FORMATS)
def test_every_stretch_is_bit_for_bit_that_of_the_whole(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name)
    opened, whole = AUDIO.open(path), AUDIO.read(path)
    assert isinstance(opened, Recording)
    assert opened.length == whole.length
    drawn = random.Random(0)
    for _ in range(40):
        start = drawn.randrange(whole.length)
        stop = drawn.randrange(start + 1, min(whole.length, start + 5 * RATE) + 1)
        stretch = opened.stretch(start, stop).read()
        assert torch.equal(stretch.values, whole.values[:, start:stop]), (start, stop)
        assert stretch.sample_rate_hz == RATE


def pipeline(*augmentations: object) -> Pipeline:
    encoder = SpectrogramConv(sample_rate_hz=RATE, num_mels=32, width=64)
    return Pipeline(
        AUDIO,
        encoder.preprocess,
        encoder.collate,
        encoder.window,
        "windows",
        augmentations,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("augmentations", [(), (Crop(5.0),), (Crop(5.0), Noise()), (Crop(99.0),)])
def test_training_draws_the_same_input(augmentations: tuple[object, ...], tmp_path: Path) -> None:
    path, made = write(tmp_path / "a.flac"), pipeline(*augmentations)
    opened = made.open(path)
    assert isinstance(opened, Unread)
    places: set[int] = set()
    for seed in range(20):
        found, whole = (
            made.training_input(sample, torch.Generator().manual_seed(seed))
            for sample in (opened, made.read(path))
        )
        assert torch.equal(found[0], whole[0])
        assert found[1] == whole[1]
        places.add(found[1])
    assert len(places) > 1


def test_what_needs_the_whole_is_read_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac")
    assert not isinstance(pipeline(Noise()).open(path), Unread)
    assert not isinstance(pipeline(Noise(), Crop(5.0)).open(path), Unread)


def test_short_cut_off_and_inexact_files_are_read_whole(tmp_path: Path) -> None:
    short = write(tmp_path / "short.flac", 29)
    assert not isinstance(AUDIO.open(short), Unread)
    assert not isinstance(AUDIO.open(short.read_bytes()), Unread)
    cut = tmp_path / "cut.flac"
    cut.write_bytes(write(tmp_path / "a.flac").read_bytes()[:200_000])
    with pytest.raises(ReadError, match=r"cut\.flac"):
        AUDIO.open(cut)
    with pytest.raises(ReadError, match=r"missing\.flac"):
        AUDIO.open(tmp_path / "missing.flac")
    for name, subtype in {"g.wav": "GSM610", "a.mp3": "MPEG_LAYER_III", "a.ogg": "VORBIS"}.items():
        soundfile.write(tmp_path / name, np.zeros(SECONDS * RATE), RATE, subtype)
        assert not isinstance(AUDIO.open(tmp_path / name), Unread)


def test_a_stretch_that_has_gone_is_unreadable(tmp_path: Path) -> None:
    path = write(tmp_path / "pcm.wav")
    opened = AUDIO.open(path)
    assert isinstance(opened, Recording)
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(ReadError, match=r"pcm\.wav.*wanted the samples"):
        opened.stretch(opened.length - 100, opened.length).read()
    path.unlink()
    with pytest.raises(ReadError, match=r"pcm\.wav"):
        opened.read()
