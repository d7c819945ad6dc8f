import io
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from omnialign.errors import OmniAlignError, ReadError, choices, describe


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (b"12345", "5 bytes"),
        (bytearray(3), "3 bytes"),
        ("dog.wav", "'dog.wav'"),
        (Path("a/dog.wav"), "'a/dog.wav'"),
        ("x" * 200, f"'{'x' * 77}...'"),
        (torch.zeros(2, 3), "a torch.Tensor of shape (2, 3)"),
        (io.BytesIO(b""), "a _io.BytesIO"),
        (7, "a builtins.int"),
        (None, "a builtins.NoneType"),
    ],
)
def test_anything_has_a_short_name(source: Any, words: str) -> None:
    assert describe(source) == words


def test_an_open_file_is_called_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.touch()
    with path.open("rb") as file:
        assert describe(file) == repr(str(path))


def test_a_read_error_says_what_and_why_even_from_a_worker() -> None:
    error = ReadError(Path("a.wav"), "no sound in it")
    for one in (error, pickle.loads(pickle.dumps(error))):
        assert str(one) == "cannot read 'a.wav': no sound in it"
        assert (one.source, one.reason) == ("'a.wav'", "no sound in it")
    assert issubclass(OmniAlignError, ValueError)


def test_choices() -> None:
    assert choices("imgae", ["image", "audio"]) == "did you mean 'image'? valid: audio, image"
    assert choices("smell", ["image", "audio"]) == "valid: audio, image"
    assert choices("x", []) == "valid: none"
