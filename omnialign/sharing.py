"""Models on the Hugging Face hub, each with its card."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from omnialign import hub
from omnialign.errors import ModelError
from omnialign.model_card import check_same, model_card
from omnialign.model_folder import save
from omnialign.space import SharedSpace


def push(
    space: SharedSpace, name: str, *, private: bool = False, run: str | Path | None = None
) -> str:
    """Pushes a model with its card to the Hugging Face hub.

    Args:
        space: the model.
        name: `user/name`; the repository is made where there is none.
        private: whether a new repository is private.
        run: the folder of the run that the model came of. Its `README.md` is the card, where it has
            one, and names the model's fingerprint; else the card is written from the run. Without a
            run it says what the model tells.

    Returns:
        `hub:user/name@commit`, for `omnialign.load`.

    Raises:
        HubError: nobody is logged in, the name is another's, or the hub cannot be reached.
        ModelError: the run, its results or its card are of another model.
    """
    card = _card(space, f"{hub.SCHEME}:{name}", Path(run) if run is not None else None)
    hub.create(name, private)
    with TemporaryDirectory() as place:
        folder = Path(place)
        save(space, folder, by_tower=True)
        (folder / "README.md").write_text(card, "utf-8")
        return hub.upload(folder, name)


def _card(space: SharedSpace, source: str, run: Path | None) -> str:
    if run is None or not (run / "README.md").is_file():
        return model_card(space, source, run)
    check_same(space, run)
    file = run / "README.md"
    card = file.read_text("utf-8")
    if space.fingerprint() not in card:
        raise ModelError(
            f"{file} lacks the fingerprint {space.fingerprint()}, so it may tell of another model; "
            f"write it anew: omnialign card {run} > card.md && mv card.md {file}"
        )
    return card
