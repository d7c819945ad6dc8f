"""What a file is, by its first bytes."""

from __future__ import annotations

HEAD_BYTES = 12


def is_audio(head: bytes) -> bool:
    """Whether a file of WAV, AIFF, FLAC, Ogg, M4A or MP3 (a tag, or a frame's sync word) starts so.

    A container that may hold pictures is no audio of its own.
    """
    riff = head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE"
    aiff = head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC")
    m4a = head[4:8] == b"ftyp" and head[8:12] in (b"M4A ", b"M4B ")
    mpeg = len(head) > 2 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2 and head[2] & 0xF0 != 0xF0
    return riff or aiff or m4a or mpeg or head[:4] in (b"fLaC", b"OggS") or head[:3] == b"ID3"


def container(head: bytes) -> str | None:
    """FFmpeg's reader for a container with tracks that starts so; None for anything else."""
    if head[4:8] in {b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"}:
        return "mov"
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    return "avi" if head[:4] == b"RIFF" and head[8:12] == b"AVI " else None
