"""What the service answers, asked over HTTP."""

import asyncio
import json
import os
import time
from contextlib import suppress

import httpx
import numpy as np
import pytest
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect

from omnialign.serve.files import file_response
from omnialign.serve.limits import RefusedError

SCENE = 5
IN_TURN = (8, 9)


def found(answer: httpx.Response) -> list[dict]:
    assert answer.status_code == 200, answer.text
    return answer.json()["hits"]


def scenes(answer: httpx.Response) -> list[int]:
    return [hit["metadata"]["scene"] for hit in found(answer)]


def first_id(client: httpx.Client, library, kind: str, scene: int = SCENE) -> str:
    words = library.row(kind, scene)["text"][0]
    (hit,) = found(client.get("/search", params={"words": words, "modality": kind, "k": 1}))
    assert hit["metadata"]["scene"] == scene
    return hit["id"]


def test_words_find_every_kind_of_file(client, library) -> None:
    words = library.row("image", SCENE)["text"][0]
    hits = found(client.get("/search", params={"words": words, "k": 4}))
    assert {hit["modality"] for hit in hits} == {"image", "audio", "video", "pointcloud"}
    assert {hit["metadata"]["scene"] for hit in hits} == {SCENE}
    assert all(hit["score"] >= 0 and -1 <= hit["cosine"] <= 1 for hit in hits)
    assert not any("path" in hit or str(library.folder) in json.dumps(hit) for hit in hits)


def test_pages_follow_each_other(client) -> None:
    asked = {"words": "two red circles"}
    whole = client.get("/search", params=asked | {"k": 49})
    pages = [client.get("/search", params=asked | {"k": 20, "offset": n}) for n in (0, 20, 40)]
    assert [len(found(page)) for page in pages] == [20, 20, 9]
    assert [page.json()["more"] for page in pages] == [True, True, False]
    ids = [hit["id"] for page in pages for hit in found(page)]
    assert ids == [hit["id"] for hit in found(whole)]


def test_hits_are_filtered(client) -> None:
    kinds = ["image", "audio"] * 9
    asked = {"words": "a circle", "k": 48, "modality": kinds, "where": "count >= 3"}
    hits = found(client.get("/search", params=asked))
    assert {hit["modality"] for hit in hits} == {"image", "audio"}
    assert {hit["metadata"]["count"] >= 3 for hit in hits} == {True}


@pytest.mark.parametrize("kind", ["audio", "image", "video", "pointcloud"])
def test_an_uploaded_file_finds_the_others(client, library, kind) -> None:
    data = library.file(kind, SCENE).read_bytes()
    asked = {"k": "1", "modality": "pointcloud" if kind == "image" else "image"}
    if kind == "video":
        asked["query_modality"] = kind  # a GIF could be a picture
    answer = client.post("/search", data=asked, files={"file": ("../../x", data)})
    assert scenes(answer) == [SCENE]


def test_a_hit_says_which_second_fits(client, library) -> None:
    words = library.row("audio", IN_TURN[1])["text"][0]
    hits = found(client.get("/search", params={"words": words, "modality": "audio", "k": 2}))
    (long,) = (hit for hit in hits if hit["name"] == "in-turn.wav")
    assert (long["start_seconds"], long["end_seconds"]) == (1.5, 3.0)
    asked = {"words": words, "modality": "audio", "k": 14, "segments": True}
    names = [hit["name"] for hit in found(client.get("/search", params=asked))]
    assert names.count("in-turn.wav") == 2


def test_files_words_and_items_are_asked_together(client, library) -> None:
    other = library.row("image", 1)["text"][0]
    data = library.file("audio", SCENE).read_bytes()
    asked = {"words": other, "k": "8"}
    answer = client.post("/search", data=asked, files={"file": data})
    assert set(scenes(answer)) == {1, SCENE}
    asked = {"like": first_id(client, library, "image"), "words": other, "k": "7"}
    assert set(scenes(client.post("/search", data=asked))) == {1, SCENE}


def test_words_are_taken_away(client, library) -> None:
    wanted, other = (library.row("image", scene)["text"][0] for scene in (SCENE, 1))
    data = {"words": [wanted, other], "minus": other, "k": "4"}
    assert set(scenes(client.post("/search", data=data))) == {SCENE}


def test_similar_leaves_the_item_out(client, library) -> None:
    item = first_id(client, library, "image")
    hits = found(client.get(f"/similar/{item}", params={"k": 3}))
    assert {hit["metadata"]["scene"] for hit in hits} == {SCENE}
    assert {hit["modality"] for hit in hits} == {"audio", "video", "pointcloud"}


def test_vectors_are_those_of_the_index(client, library) -> None:
    words = library.row("audio", SCENE)["text"][1]
    file = library.file("audio", SCENE)
    by_words = client.post("/embed", data={"words": words}).json()["embedding"]
    by_file = client.post("/embed", files={"file": file.read_bytes()}).json()["embedding"]
    wanted = library.open().embed([words, file])
    assert np.allclose([by_words, by_file], wanted, atol=1e-5)


def test_classify(client, library) -> None:
    labels = [library.row("image", scene)["text"][0] for scene in range(4)]
    answer = client.post(
        "/classify", data={"label": labels}, files={"file": library.file("image", 2).read_bytes()}
    )
    chances = answer.json()["labels"]
    assert next(iter(chances)) == labels[2]
    assert sum(chances.values()) == pytest.approx(1)
    item = first_id(client, library, "image", 3)
    answer = client.post("/classify", data={"label": labels, "like": item})
    assert next(iter(answer.json()["labels"])) == labels[3]


@pytest.mark.parametrize(
    ("stated", "start", "end"),
    [
        ("bytes=0-99", 0, 100),
        ("bytes=100-", 100, None),
        ("bytes=-50", -50, None),
        ("bytes=10-999999999", 10, None),
        ("bytes=5-9, 20-30", 5, 10),
    ],
)
def test_files_are_given_in_ranges(client, library, stated, start, end) -> None:
    data = library.file("audio", SCENE).read_bytes()
    item = first_id(client, library, "audio")
    answer = client.get(f"/items/{item}/file", headers={"range": stated})
    assert answer.status_code == 206
    assert answer.content == data[start:end]
    at = range(len(data))[start:end]
    assert answer.headers["content-range"] == f"bytes {at[0]}-{at[-1]}/{len(data)}"
    assert answer.headers["content-type"].startswith("audio/")


@pytest.mark.parametrize("sent", [{}, {"range": f"bytes={'9' * 5000}-"}, {"if-none-match": '"x"'}])
def test_descriptors_are_closed(tmp_path, sent) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"x")
    file = os.open(path, os.O_RDONLY)

    async def gone(*_: object) -> dict:
        raise OSError("the client has left")

    async def answer() -> None:
        response = file_response(file, {"path": str(path), "content": "image:x"}, Headers(sent))
        await response({"type": "http", "asgi": {"spec_version": "2.4"}}, gone, gone)

    with suppress(OSError, ClientDisconnect, RefusedError):
        asyncio.run(answer())
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(file)


@pytest.mark.parametrize(
    "stated",
    ["bytes=9999999-", "bytes=9-3", "lines=1-2", "bytes=-", "bytes=a-b", f"bytes={'9' * 5000}-"],
)
def test_other_ranges_are_refused(client, library, stated) -> None:
    item = first_id(client, library, "audio")
    answer = client.get(f"/items/{item}/file", headers={"range": stated})
    assert answer.status_code == 416
    size = library.file("audio", SCENE).stat().st_size
    assert answer.headers["content-range"] == f"bytes */{size}"


def test_a_file_is_asked_again_only_when_it_has_changed(client, library) -> None:
    item = first_id(client, library, "image")
    for what in ("file", "preview"):
        answer = client.get(f"/items/{item}/{what}")
        assert answer.status_code == 200
        tag = {"if-none-match": answer.headers["etag"]}
        assert client.get(f"/items/{item}/{what}", headers=tag).status_code == 304
    assert client.get(f"/items/{item}/file").content == library.file("image", SCENE).read_bytes()


def test_previews_are_what_the_modality_makes(client, library) -> None:
    kinds = {"image": "image/jpeg", "audio": "audio/wav", "video": "image/webp"}
    for kind, mime in {**kinds, "pointcloud": "image/png"}.items():
        answer = client.get(f"/items/{first_id(client, library, kind)}/preview")
        assert (answer.headers["content-type"], bool(answer.content)) == (mime, True)


def test_shapes_can_be_taken_in_hand(client, library) -> None:
    item = first_id(client, library, "pointcloud")
    assert client.get(f"/items/{item}").json()["interactive"]
    answer = client.get(f"/items/{item}/preview", params={"interactive": True})
    assert answer.headers["content-type"] == "model/gltf-binary"
    assert answer.content.startswith(b"glTF")
    item = first_id(client, library, "image")
    assert not client.get(f"/items/{item}").json()["interactive"]
    answer = client.get(f"/items/{item}/preview", params={"interactive": True})
    assert answer.json() == {"error": "image has no preview that can be handled"}


def test_the_library_is_described(client, library) -> None:
    about = client.get("/library").json()
    assert about["rows"] == library.num_rows
    assert about["modalities"]["audio"]["rows"] == 14
    assert ".wav" in about["modalities"]["audio"]["suffixes"]
    assert about["columns"]["count"] == "number"
    assert not about["columns"].keys() & {"id", "path", "content"}


def test_the_map_has_every_file(client, library) -> None:
    answer = client.get("/map")
    until = time.monotonic() + 240
    while answer.status_code == 202 and time.monotonic() < until:
        time.sleep(0.5)
        answer = client.get("/map")
    found_map = answer.json()
    assert len(set(found_map["ids"])) == library.num_files
    assert len(found_map["places"]) == 2 * library.num_files
    assert all(0 <= place <= found_map["steps"] for place in found_map["places"])
    assert client.get(f"/items/{found_map['ids'][0]}").status_code == 200
    kept = list((library.folder / "index" / "projection").glob("*.arrow"))
    assert len(kept) == 1


def test_requests_batches_and_errors_are_counted(client) -> None:
    client.get("/search", params={"words": "a square"})
    client.get("/items/nothing")
    text = client.get("/metrics").text
    assert 'omnialign_requests_total{path="/search",status="200"}' in text
    assert 'omnialign_requests_total{path="/items/{item_id}",status="404"}' in text
    assert "omnialign_batch_size_count" in text
    assert "omnialign_rows 50.0" in text


def test_the_api_is_documented_offline(client) -> None:
    schema = client.get("/openapi.json").json()
    assert {"/search", "/embed", "/classify", "/map"} <= schema["paths"].keys()
    pages = [client.get(path) for path in ("/", "/docs")]
    for page in pages:
        assert page.headers["content-type"].startswith("text/html")
        assert "http://" not in page.text
        assert "https://" not in page.text
