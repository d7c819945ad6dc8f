"""Files and in-memory forms, sound, odd and hostile."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from omnialign_audio import Audio, Waveform, decoding

from omnialign import Claim, ReadError

AUDIO = Audio()
TONE = np.sin(np.linspace(0, 300, 8000)).astype(np.float32) / 2
DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data"


def wav(values: np.ndarray, rate: int = 8000, subtype: str = "PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, values, rate, subtype, format="WAV")
    return file.getvalue()


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_wav_of_every_width(subtype: str) -> None:
    waveform = AUDIO.read(wav(TONE, subtype=subtype))
    assert waveform.sample_rate_hz == 8000
    assert waveform.values.dtype == torch.float32
    tolerance = 0.01 if subtype == "PCM_U8" else 1e-4
    torch.testing.assert_close(waveform.values[0].numpy(), TONE, atol=tolerance, rtol=0)


@pytest.mark.parametrize("suffix", [".flac", ".ogg", ".mp3"])
def test_stereo_files_keep_their_channels(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    soundfile.write(path, np.stack([TONE, 0 * TONE], axis=1), 16_000)
    waveform = AUDIO.read(str(path))
    assert waveform.values.shape[0] == 2
    assert abs(waveform.seconds - 0.5) < 0.1
    assert waveform.values[0].std() > 10 * waveform.values[1].std()


@pytest.mark.parametrize(
    ("dtype", "full"), [("int8", 128), ("int16", 2**15), ("int32", 2**31), ("float64", 1)]
)
def test_arrays_are_scaled(dtype: str, full: int) -> None:
    waveform = AUDIO.read(((TONE * full).astype(dtype), 8000))
    torch.testing.assert_close(waveform.values[0].numpy(), TONE, atol=0.01, rtol=0)


def test_uint8_is_centred() -> None:
    values = AUDIO.read((np.array([0, 128, 192], np.uint8), 8000)).values
    assert values.tolist() == [[-1, 0, 0.5]]


def test_in_memory_forms_agree() -> None:
    forms = [
        (TONE, 8000),
        (torch.from_numpy(TONE), 8000.0),
        (TONE[None].tolist(), np.int64(8000)),
        {"array": TONE, "sampling_rate": 8000, "path": None},
        {"values": TONE, "sample_rate_hz": 8000},
        Waveform(torch.from_numpy(TONE)[None], 8000),
        io.BytesIO(wav(TONE, subtype="FLOAT")),
    ]
    for form in forms:
        waveform = AUDIO.read(form)
        assert waveform.sample_rate_hz == 8000
        torch.testing.assert_close(waveform.values[0].numpy(), TONE)


def test_reading_copies_the_array() -> None:
    array = TONE.copy()
    waveform = AUDIO.read((array, 8000))
    array[:] = 0
    assert waveform.values.abs().max() > 0


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ((TONE[:0], 8000), "shape"),
        ((TONE.reshape(2, 2, -1), 8000), "shape"),
        ((np.zeros((48_000, 2), np.float32), 8000), r"channels.*\(C, T\)"),
        ((TONE, 0), "rate"),
        ((TONE, 44_100.5), "whole number of Hz"),
        ((TONE, "fast"), "whole number of Hz"),
        ((TONE, float("nan")), "whole number of Hz"),
        ((TONE.astype(np.int64), 8000), "no known scale"),
        ((np.array(["a"]), 8000), "no known scale"),
        (([[1.0], [1.0, 2.0]], 8000), "wanted an array"),
        ((np.array([0, np.nan, np.inf]), 8000), "found 2 that are NaN"),
        ((np.zeros(4000, np.float32), 1), "3600 s"),
        ({"array": TONE}, "sampling_rate"),
        (TONE, "sample_rate_hz"),
        (3.0, "wanted a path"),
    ],
)
def test_refuses_arrays(source: object, message: str) -> None:
    with pytest.raises(ReadError, match=message):
        AUDIO.read(source)


def test_zero_seconds() -> None:
    with pytest.raises(ReadError, match="0 seconds at 8000 Hz"):
        AUDIO.read(wav(TONE[:0]))


def test_text_named_wav(tmp_path: Path) -> None:
    path = tmp_path / "notes.wav"
    path.write_text("not a sound\n" * 100)
    with pytest.raises(ReadError, match=r"notes\.wav.*wanted WAV.*Format not recognised"):
        AUDIO.read(path)


def test_an_mpeg_program_stream(tmp_path: Path) -> None:
    path = tmp_path / "clip.mpg"
    path.write_bytes(b"\x00\x00\x01\xba" + bytes(200))
    with pytest.raises(ReadError, match=r"MP4, MOV, MKV, WebM, AVI; .*; convert it") as caught:
        AUDIO.read(path)
    assert "damaged" not in str(caught.value)


def test_folder_and_null_character(tmp_path: Path) -> None:
    for bad in (tmp_path, "a\0.wav"):
        with pytest.raises(ReadError):
            AUDIO.read(bad)


def test_file_with_nan() -> None:
    values = TONE.copy()
    values[5] = np.nan
    with pytest.raises(ReadError, match="found 1 that are NaN"):
        AUDIO.read(wav(values, subtype="FLOAT"))


def test_header_that_promises_more_than_it_holds() -> None:
    data = bytearray(wav(TONE))
    at = data.index(b"data") + 4
    data[at : at + 4] = struct.pack("<I", 0x7FFFFFF0)
    assert AUDIO.read(bytes(data)).values.shape == (1, 8000)


def test_truncated_flac(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 100_000), 16_000)
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(ReadError, match=r"a\.flac.*lost sync"):
        AUDIO.read(path)


def test_bounds_hold_while_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "BLOCK_VALUES", 1000)
    assert AUDIO.read(wav(TONE)).values.shape == (1, 8000)
    monkeypatch.setattr(decoding, "MAX_STREAM_SECONDS", 0.5)
    with pytest.raises(ReadError, match="cut it into parts"):
        AUDIO.read(wav(TONE))


def test_claims() -> None:
    flac, ogg, mp3 = (io.BytesIO() for _ in range(3))
    for file, kind in ((flac, "FLAC"), (ogg, "OGG"), (mp3, "MP3")):
        soundfile.write(file, TONE, 16_000, format=kind)
        assert AUDIO.claim(file.getvalue()) == Claim.OWNS
        file.seek(0)
        assert AUDIO.claim(file) == Claim.OWNS
        assert file.tell() == 0
    assert AUDIO.claim(wav(TONE)) == Claim.OWNS
    assert AUDIO.claim(b"ID3\x04") == Claim.OWNS
    assert AUDIO.claim(Path("a.WAV")) == Claim.OWNS
    assert AUDIO.claim(AUDIO.example_samples(1)[0]) == Claim.OWNS
    jpeg, avi = b"\xff\xd8\xff\xe0" + bytes(8), b"RIFF\0\0\0\0AVI "
    for other in (
        TONE,
        (TONE, 8000),
        "a.wav",
        b"",
        b"\xff",
        jpeg,
        avi,
        Path("a.png"),
        io.StringIO("a"),
    ):
        assert AUDIO.claim(other) == Claim.NO


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared data is not here")
@pytest.mark.parametrize(
    ("name", "rate"),
    [("fsdd", 8000), ("fsdkaggle_instruments", 16_000), ("blanket_ambient", 16_000)],
)
def test_real_files(name: str, rate: int) -> None:
    for path in sorted((DATA / name / "audio").iterdir())[:20]:
        waveform = AUDIO.read(path)
        assert waveform.sample_rate_hz == rate
        assert 0.1 < waveform.seconds < 6
        assert waveform.values.abs().max() <= 1.5
