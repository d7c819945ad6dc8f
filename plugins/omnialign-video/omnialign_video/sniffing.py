"""What a file is, by its first bytes."""

from __future__ import annotations

from io import BytesIO
from os import PathLike
from typing import Any

from omnialign import Claim

AUDIO_OR_STILL_BRANDS = {b"M4A ", b"M4B ", b"heic", b"heix", b"mif1", b"avif", b"avis"}
"""Of the MP4 family, without moving pictures that FFmpeg's `mov` reader would find."""
MOV_ATOMS = {b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"}
PICTURE_KINDS = ("GIF", "WEBP", "PNG")


def kind(head: bytes) -> str | None:
    """The reader for a file that starts so: FFmpeg's `mov`, `matroska` or `avi`, or Pillow's name
    of a picture format; None for anything else. 16 bytes are enough."""
    if head[4:8] in MOV_ATOMS:
        return None if head[8:12] in AUDIO_OR_STILL_BRANDS else "mov"
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    if head[:4] == b"RIFF":
        return {b"AVI ": "avi", b"WEBP": "WEBP"}.get(head[8:12])
    if head[:4] == b"GIF8":
        return "GIF"
    return "PNG" if head[:8] == b"\x89PNG\r\n\x1a\n" else None


def claim_content(source: Any) -> Claim:
    """The claim on bytes, an open file (which keeps its position) or the path of a picture."""
    if isinstance(source, PathLike):
        try:
            with open(source, "rb") as file:
                return claim_content(file)
        except OSError:
            return Claim.COULD
    file = BytesIO(source) if isinstance(source, bytes) else source
    position = file.tell()
    try:
        head = file.read(16)
        found = kind(head) if isinstance(head, bytes) else None
        if found not in PICTURE_KINDS:
            return Claim.OWNS if found else Claim.NO
        file.seek(position)
        if _is_animated(file):
            return Claim.OWNS
        return Claim.NO if found == "PNG" else Claim.COULD
    finally:
        file.seek(position)


def claim_pictures(source: Any) -> Claim:
    """The claim on `(frames, fps)`: owned where the frames are PIL images."""
    if not (isinstance(source, tuple) and len(source) == 2 and isinstance(source[0], list)):
        return Claim.NO
    from PIL.Image import Image

    frames, fps = source
    pictures = frames and all(isinstance(frame, Image) for frame in frames)
    return Claim.OWNS if pictures and isinstance(fps, int | float) else Claim.NO


def _is_animated(file: Any) -> bool:
    import warnings

    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(file, formats=PICTURE_KINDS) as picture:
                return bool(getattr(picture, "is_animated", False))
        except Exception:  # Pillow raises many types on broken files
            return False
