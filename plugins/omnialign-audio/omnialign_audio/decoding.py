"""Decodes files block by block: the length in a header is not believed.

Axes: C channels, T samples in time.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, BinaryIO

import soundfile
import torch

from omnialign import ReadError, Segment
from omnialign_audio.limits import (
    MAX_SECONDS,
    MAX_STREAM_SECONDS,
    check_length,
    check_rate_and_channels,
    checked,
)
from omnialign_audio.sniffing import HEAD_BYTES, container
from omnialign_audio.waveform import Waveform, window_length, windows

WANTED = "WAV, AIFF, FLAC, OGG, MP3, M4A, or the sound of MP4, MOV, MKV, WebM, AVI"
UNKNOWN_FORMAT = 1
"""libsndfile's code of the error."""
BLOCK_VALUES = 1 << 20
"""C · T decoded at a time: 4 MB."""


def decode(source: Any, file: BinaryIO) -> Waveform:
    """The whole of an open binary file; raises `ReadError`."""
    return next(decode_windows(source, file, 2 * MAX_SECONDS)).sample


def decode_windows(source: Any, file: BinaryIO, seconds: float) -> Iterator[Segment[Waveform]]:
    """The windows of what `decode` would give, each when it is asked for; raises `ReadError`.

    Beside a window, no more than a block is held.
    """
    pieces: list[Waveform] = []
    start = stop = rate = 0
    for block in blocks(source, file):
        rate, channels, at = block.sample_rate_hz, len(block.values), 0
        step = window_length(rate, seconds)
        if stop + block.length > MAX_STREAM_SECONDS * rate:
            raise ReadError(
                source, f"wanted at most {MAX_STREAM_SECONDS:.0f} s, found more; cut it into parts"
            )
        while at < block.length:
            piece = block.stretch(at, min(block.length, at + step - (stop - start)))
            at, stop = at + piece.length, stop + piece.length
            check_length(source, stop - start, channels, rate)
            pieces.append(piece)
            if stop - start == step:
                yield _joined(pieces, start, stop)
                pieces, start = [], stop
    if pieces and windows(stop, rate, seconds)[-1][1] == stop:
        yield _joined(pieces, start, stop)


def _joined(pieces: list[Waveform], start: int, stop: int) -> Segment[Waveform]:
    rate = pieces[0].sample_rate_hz
    values = torch.cat([piece.values for piece in pieces], dim=1)
    return Segment(Waveform(values, rate), start / rate, stop / rate)


def blocks(source: Any, file: BinaryIO) -> Iterator[Waveform]:
    """The sound of a file in consecutive stretches, of one rate and number of channels."""
    head = file.read(HEAD_BYTES)
    if not head:
        raise ReadError(source, "wanted audio, found an empty file")
    file.seek(-len(head), io.SEEK_CUR)
    found = container(head)
    if found is None:
        return _sound_file(source, file)
    from omnialign_audio.sound_track import sound_track

    return sound_track(source, file, found)


def _sound_file(source: Any, file: BinaryIO) -> Iterator[Waveform]:
    """What libsndfile reads."""
    try:
        with soundfile.SoundFile(file) as sound:
            rate, channels = sound.samplerate, sound.channels
            check_rate_and_channels(source, rate, channels)
            is_empty = True
            while True:
                values = sound.read(BLOCK_VALUES // channels, dtype="float32", always_2d=True)
                if not len(values):
                    break
                is_empty = False
                yield checked(source, torch.from_numpy(values.T.copy()), rate)
    except (soundfile.LibsndfileError, OSError, EOFError) as error:
        found = getattr(error, "error_string", error)
        unknown = getattr(error, "code", None) == UNKNOWN_FORMAT
        remedy = "convert it to one of these" if unknown else "is it damaged?"
        raise ReadError(source, f"wanted {WANTED}; {found}; {remedy}") from error
    if is_empty:
        raise ReadError(source, f"wanted sound, found 0 seconds at {rate} Hz")


def stretch_of(path: str, start: int, stop: int) -> Waveform:
    """The samples from `start` to before `stop` of a file, as `decode` would give them."""
    try:
        with soundfile.SoundFile(path) as sound:
            rate = sound.samplerate
            check_length(path, stop - start, sound.channels, rate)
            sound.seek(start)
            values = sound.read(stop - start, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise ReadError(path, f"wanted the samples {start} to {stop}; {error}") from error
    if len(values) != stop - start:
        raise ReadError(path, f"wanted the samples {start} to {stop}, found {len(values)}")
    return checked(path, torch.from_numpy(values.T.copy()), rate)
