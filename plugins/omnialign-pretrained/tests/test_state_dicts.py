"""Files of weights that are none, or that want more than to be read."""

import pickle
from pathlib import Path

import pytest
import torch
from omnialign_pretrained.state_dicts import read_lazily

from omnialign.errors import ModelError


class Malicious:
    """Makes a file when it is unpickled."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.made,)


@pytest.mark.parametrize("is_old", [False, True])
def test_a_pickle_that_wants_more_is_refused(tmp_path: Path, is_old: bool) -> None:
    file, malicious = tmp_path / "model.pt", Malicious(tmp_path / "made")
    state = {"state_dict": {"weight": torch.ones(2)}, "args": malicious}
    torch.save(state, file, _use_new_zipfile_serialization=not is_old)
    with pytest.raises(
        ModelError, match="nothing else is loaded, because it could run code"
    ) as caught:
        read_lazily(file)
    assert "weights_only" not in str(caught.value)
    file.write_bytes(pickle.dumps(malicious))
    with pytest.raises(ModelError, match="could run code"):
        read_lazily(file)
    assert not malicious.made.exists()
    pickle.loads(file.read_bytes())
    assert malicious.made.exists()


def test_files_that_hold_no_weights(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no file of weights at '.*none\.pt'"):
        read_lazily(tmp_path / "none.pt")
    (tmp_path / "a.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{")
    with pytest.raises(ModelError, match=r"a\.safetensors' is damaged"):
        read_lazily(tmp_path / "a.safetensors")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ModelError, match="holds no state_dict: wanted tensors by name"):
        read_lazily(tmp_path / "list.pt")
    torch.save({"weight": torch.ones(1), "epoch": 3}, tmp_path / "mixed.pt")
    with pytest.raises(ModelError, match="holds no state_dict"):
        read_lazily(tmp_path / "mixed.pt")
