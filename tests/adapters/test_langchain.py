"""LangChain's stores find by a space what the space finds."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore

from omnialign.adapters.langchain import OmniAlignEmbeddings
from omnialign.errors import ModalityError, ReadError
from omnialign.space import SharedSpace


def test_words_find_words(folder: Path, emoji: list[dict[str, Any]]) -> None:
    store = InMemoryVectorStore(OmniAlignEmbeddings(folder))
    store.add_texts([row["text"] for row in emoji], metadatas=emoji)
    found = store.similarity_search("a vehicle that flies", k=5)
    assert {"airplane", "rocket", "helicopter", "flying saucer"} & {d.page_content for d in found}
    assert found[0].metadata["path"].endswith(".png")


def test_words_find_pictures_as_the_space_ranks_them(
    space: SharedSpace, emoji: list[dict[str, Any]]
) -> None:
    paths = [row["path"] for row in emoji[:20]]
    store = InMemoryVectorStore(OmniAlignEmbeddings(space, modality="image"))
    store.add_documents([Document(path) for path in paths])
    found = store.similarity_search_with_score("a red heart", k=5)
    hits = space.rank("a red heart", paths, modality="text")[:5]
    assert [document.page_content for document, _ in found] == [str(hit.item) for hit in hits]
    assert [score for _, score in found] == pytest.approx([hit.score for hit in hits], abs=1e-5)


def test_plain_floats_alone_and_together_and_later(space: SharedSpace) -> None:
    embeddings = OmniAlignEmbeddings(space)
    documents = embeddings.embed_documents(["a cat", "a bridge", "photos/cat.png"])
    assert [len(vector) for vector in documents] == [space.dim] * 3
    assert all(type(value) is float for value in documents[0])
    assert embeddings.embed_query("a cat") == pytest.approx(documents[0], abs=1e-5)
    assert asyncio.run(embeddings.aembed_query("a cat")) == embeddings.embed_query("a cat")
    later = asyncio.run(embeddings.aembed_documents(["a cat", "a bridge"]))
    assert later[1] == pytest.approx(documents[1], abs=1e-5)
    assert embeddings.embed_documents([]) == []


def test_mistakes_are_named(space: SharedSpace) -> None:
    with pytest.raises(ModalityError, match="no modality 'smell'; it has:"):
        OmniAlignEmbeddings(space, modality="smell")
    with pytest.raises(ReadError, match=r"none\.png"):
        OmniAlignEmbeddings(space, modality="image").embed_documents(["none.png"])
