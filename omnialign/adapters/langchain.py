"""A space as embeddings of LangChain."""

from __future__ import annotations

from pathlib import Path

from langchain_core.embeddings import Embeddings

from omnialign.adapters import as_space
from omnialign.space import SharedSpace


class OmniAlignEmbeddings(Embeddings):
    """Documents of one modality, which words find.

    Args:
        model: a space, or what `omnialign.load` takes.
        modality: of documents, which LangChain holds as strings: words themselves (the default),
            or paths of files.

    Raises:
        ModalityError: the model has no such modality, or none that takes words.
    """

    def __init__(self, model: SharedSpace | str | Path, *, modality: str | None = None) -> None:
        self.space = as_space(model)
        self.modality = modality or self.space.words
        self.space.tower(self.modality)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Unit vectors of documents; raises `ReadError` for one that cannot be read."""
        return self.space.embed(texts, self.modality).tolist()

    def embed_query(self, text: str) -> list[float]:
        """The unit vector of words."""
        return self.space.embed([text], self.space.words)[0].tolist()
