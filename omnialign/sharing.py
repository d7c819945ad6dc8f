"""Models on the Hugging Face hub, each with its card."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from omnialign import hub
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
            one; else the card is written from the run. Without a run it says what the model tells.

    Returns:
        `hub:user/name@commit`, for `omnialign.load`.

    Raises:
        HubError: nobody is logged in, the name is another's, or the hub cannot be reached.
        ModelError: the run, or its results, are of another model.
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
    return (run / "README.md").read_text("utf-8")
