"""Requests of strangers who mean no good."""

import http.client
import io
import os
import shutil
import socket
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
import soundfile

from omnialign.index import Index
from omnialign.serve.limits import Limits

LABELS = [str(i) * 1000 for i in range(1, 25)]


def one_sentence(answer: httpx.Response, status: int) -> str:
    """The error of a response that says no more than that."""
    assert answer.status_code == status, answer.text
    said = answer.json()
    assert list(said) == ["error"]
    assert said["error"]
    assert "Traceback" not in answer.text
    assert "\n" not in said["error"]
    return said["error"]


def works(client: httpx.Client) -> bool:
    return client.get("/search", params={"words": "a circle"}).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/../../../../etc/passwd",
        "/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/..%2f..%2f..%2f..%2fetc%2fpasswd",
        "//etc/passwd",
        "/items/%2e%2e%2f%2e%2e%2fetc%2fpasswd/file",
        "/items/..%2f..%2fetc%2fpasswd/preview",
        "/items//etc/passwd/file",
        "/items/%00/file",
        "/app.py",
        "/../app.py",
    ],
)
def test_no_path_leads_out(address, path) -> None:
    connection = http.client.HTTPConnection(urlsplit(address).netloc)  # sends the path as it is
    connection.request("GET", path)
    answer = connection.getresponse()
    assert answer.status == 404
    assert b"root:" not in answer.read()
    connection.close()


@pytest.mark.parametrize("words", ["/etc/passwd", "file:///etc/passwd", "../files/metadata.jsonl"])
def test_words_are_words_and_no_paths(client, words) -> None:
    answer = client.post("/embed", data={"words": words})
    assert answer.status_code == 200  # the vector of these letters: nothing is opened
    assert client.post("/embed", data={"words": f"{words} "}).status_code == 200


@pytest.fixture(scope="module")
def exchanged(library, tmp_path_factory):
    """A library of files that tests exchange, and its rows by name."""
    folder = tmp_path_factory.mktemp("exchanged")
    shutil.copytree(library.folder / "files" / "image", folder / "files")
    index = Index.create(folder / "index", library.folder / "model")
    index.add([folder / "files"])
    batches = index.rows.read(["id", "path"])
    ids = {row["path"]: row["id"] for batch in batches for row in batch.to_pylist()}
    return folder, index, ids


def test_only_what_was_indexed_is_given(exchanged, serve) -> None:
    folder, index, ids = exchanged
    secret = folder / "secret.png"
    shutil.copy(next(iter(ids)), secret)
    secret.write_bytes(secret.read_bytes() + b"secret")
    paths = sorted(ids)
    first, second, third, fourth, fifth, sound = paths[:6]

    with serve(index) as address, httpx.Client(base_url=address, timeout=120) as client:
        for path in (first, second):  # what was seen as sound before is looked at again
            assert client.get(f"/items/{ids[path]}/file").status_code == 200
            assert client.get(f"/items/{ids[path]}/preview").status_code == 200
        for path, target in ((first, "/etc/passwd"), (second, secret)):
            os.unlink(path)
            os.symlink(target, path)
        times = os.stat(third)
        with open(third, "r+b") as file:  # same size, same times
            file.seek(-1, 2)
            file.write(b"x")
        os.utime(third, ns=(times.st_atime_ns, times.st_mtime_ns))
        os.unlink(fourth)
        os.unlink(fifth)
        os.mkfifo(fifth)
        for path in paths[:5]:
            for what in ("file", "preview"):
                answer = client.get(f"/items/{ids[path]}/{what}")
                assert "its file" in one_sentence(answer, 410)
        assert client.get(f"/items/{ids[sound]}/file").status_code == 200


def png(width: int, height: int) -> bytes:
    """A picture of zeros, of which only a few rows are there."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(3 * width + 1) * 100)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def silence(hours: float) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(int(hours * 3600 * 8000), np.int16), 8000, format="FLAC")
    return file.getvalue()


def ply(num_points: int) -> bytes:
    header = "ply\nformat binary_little_endian 1.0\nelement vertex {}\nproperty float x\n"
    header += "property float y\nproperty float z\nend_header\n"
    return header.format(num_points).encode() + bytes(120)


@pytest.mark.parametrize(
    "make",
    [
        lambda: png(50_000, 50_000),
        lambda: silence(3),
        lambda: ply(4_000_000_000),
        lambda: b"OFF\n4000000000 4000000000 0\n0 0 0\n",
        lambda: b"glTF" + struct.pack("<II", 2, 2**32 - 1) + bytes(64),
        lambda: (
            b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (9,)}".ljust(
                200
            )
        ),
        lambda: b"RIFF" + struct.pack("<I", 2**32 - 1) + b"WAVEfmt " + bytes(40),
        lambda: b"\x00\x00\x00\x18ftypmp42" + os.urandom(3000),
        lambda: os.urandom(100_000),
        lambda: b"",
    ],
    ids=["png", "flac", "ply", "off", "glb", "npy", "wav", "mp4", "noise", "empty"],
)
def test_bombs_and_garbage_are_refused_in_a_sentence(client, make) -> None:
    started = time.monotonic()
    answer = client.post("/search", files={"file": make()})
    one_sentence(answer, 422 if answer.status_code == 422 else 400)
    assert time.monotonic() - started < 120
    assert works(client)


def test_large_requests_are_refused_before_they_are_read(library, serve) -> None:
    limits = Limits(upload_bytes=100_000, num_decoders=1)
    with serve(library.open(), limits) as address, httpx.Client(base_url=address) as client:
        said = one_sentence(client.post("/search", files={"file": bytes(200_000)}), 413)
        assert "100000 bytes" in said

        def unstated():
            yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
            for _ in range(100):
                yield bytes(10_000)

        kind = {"content-type": "multipart/form-data; boundary=x"}
        one_sentence(client.post("/search", content=unstated(), headers=kind), 413)
        assert works(client)


def test_uploads_of_all_are_bounded(library, serve) -> None:
    limits = Limits(uploads_bytes=1000, num_decoders=1)
    with serve(library.open(), limits) as address, httpx.Client(base_url=address) as client:
        answer = client.post("/search", files={"file": bytes(2000)})
        assert "too much" in one_sentence(answer, 503)
        assert answer.headers["retry-after"] == "5"
        assert works(client)


def test_who_waits_too_long_is_told(library, serve) -> None:
    limits = Limits(answer_seconds=0.0, num_decoders=1)
    with serve(library.open(), limits) as address:
        answer = httpx.get(f"{address}/search", params={"words": "a"})
        assert "no answer within 0 s" in one_sentence(answer, 503)


def test_a_table_that_cannot_be_read_is_told(library, serve) -> None:
    class Broken(Index):
        def __len__(self) -> int:
            raise OSError("gone")

    index = Broken.open(library.folder / "index")
    with serve(index, Limits(num_decoders=1)) as address:
        assert "cannot be read" in one_sentence(httpx.get(f"{address}/health"), 503)
        assert "omnialign_rows NaN" in httpx.get(f"{address}/metrics").text


def test_a_slow_client_is_dropped_and_keeps_nobody_waiting(library, serve) -> None:
    limits = Limits(receive_seconds=2.0, num_decoders=1)
    with serve(library.open(), limits) as address, httpx.Client(base_url=address) as client:
        netloc = urlsplit(address)
        idle = [socket.create_connection((netloc.hostname, netloc.port)) for _ in range(20)]
        slow = idle[0]
        head = f"POST /search HTTP/1.1\r\nHost: {netloc.netloc}\r\nContent-Length: 9999\r\n"
        slow.sendall(
            head.encode() + b"Content-Type: application/x-www-form-urlencoded\r\n\r\nwords=a"
        )
        assert works(client)
        slow.settimeout(30)
        said = slow.recv(1000)
        assert said.startswith(b"HTTP/1.1 408")
        assert works(client)
        for connection in idle:
            connection.close()


def test_32_at_once_get_what_each_would_get_alone(client, library) -> None:
    asked = [{"words": row["text"][0], "k": 3} for row in library.rows[:32]]
    alone = [client.get("/search", params=each).json() for each in asked]
    data = library.file("audio", 2).read_bytes()
    with ThreadPoolExecutor(32) as pool:
        at_once = list(pool.map(lambda each: client.get("/search", params=each), asked))
        files = list(
            pool.map(
                lambda _: client.post("/search", files={"file": data}, data={"k": 4}), range(8)
            )
        )
    for one, other in zip(alone, at_once, strict=True):
        assert [h["id"] for h in one["hits"]] == [h["id"] for h in other.json()["hits"]]
    assert {h["metadata"]["scene"] for answer in files for h in answer.json()["hits"]} == {2}
    counts = [line for line in client.get("/metrics").text.splitlines() if "batch_size" in line]
    (largest,) = (float(line.split()[1]) for line in counts if 'le="64.0"' in line)
    (single,) = (float(line.split()[1]) for line in counts if 'le="1.0"' in line)
    assert largest > single


@pytest.mark.parametrize(
    ("method", "path", "asked", "status", "said"),
    [
        ("GET", "/search", {"words": "a", "k": 0}, 422, "k: "),
        ("GET", "/search", {"words": "a", "offset": 990}, 400, "page to hit 1000"),
        ("GET", "/search", {"words": "  "}, 400, "the words are empty"),
        ("GET", "/search", {"words": "x" * 2001}, 400, "at most 2000 letters"),
        ("GET", "/search", {"words": ["a"] * 17}, 400, "at most 16 parts"),
        ("GET", "/search", {"words": "a", "modality": "smell"}, 400, "smell"),
        ("GET", "/search", {"words": "a", "modality": list("abcdef")}, 400, "no more than 5"),
        ("GET", "/search", {"words": "a", "where": "colour = "}, 400, ""),
        ("GET", "/search", {"words": "a", "where": "1 = 1; drop table x"}, 400, ""),
        ("GET", "/search", {}, 422, "words"),
        ("POST", "/search", {}, 400, "nothing is asked"),
        ("POST", "/search", {"like": "nothing"}, 404, "no item 'nothing'"),
        ("GET", "/similar/nothing", {}, 404, "no item 'nothing'"),
        ("GET", "/items/nothing", {}, 404, "no item 'nothing'"),
        ("GET", "/search", {"words": "a", "where": "path like '/%'"}, 400, "path"),
        ("GET", "/search", {"words": "a", "where": "content = 'x'"}, 400, "content"),
        ("POST", "/classify", {"words": "a", "label": LABELS}, 400, "at most 20000 letters"),
        ("POST", "/embed", {}, 400, "either words or a file"),
        ("POST", "/classify", {"words": "a", "label": "one"}, 400, "two or more"),
        ("GET", "/nowhere", {}, 404, "nothing at this address"),
        ("DELETE", "/search", {}, 405, "another method"),
    ],
)
def test_mistakes_are_told_in_a_sentence(client, method, path, asked, status, said) -> None:
    kind = {"data": asked} if method == "POST" else {"params": asked}
    assert said in one_sentence(client.request(method, path, **kind), status)


def test_our_own_failures_say_nothing_of_us(library, serve, monkeypatch) -> None:
    index = library.open()
    monkeypatch.setattr(index, "search_vectors", lambda *_, **__: 1 / 0)
    limits = Limits(num_decoders=1)
    with serve(index, limits) as address, httpx.Client(base_url=address) as client:
        answer = client.get("/search", params={"words": "a circle"})
        assert "not your fault" in one_sentence(answer, 500)
        assert (
            'omnialign_errors_total{kind="ZeroDivisionError"} 1.0'
            in httpx.get(f"{address}/metrics").text
        )
