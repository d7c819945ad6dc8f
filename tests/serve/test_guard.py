"""Who is let in."""

import httpx
import pytest

from omnialign.errors import OmniAlignError
from omnialign.serve.guard import COOKIE, Door, is_loopback
from omnialign.serve.limits import Limits

TOKEN = "a-token-of-24-characters"


@pytest.fixture(scope="module")
def guarded(library, serve):
    with serve(library.open(), Limits(num_decoders=1), TOKEN) as address:
        yield address


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:8000", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:8000", 200),
        ("evil.example", 421),
        ("localhost.evil.example:8000", 421),
        ("127.0.0.1.evil.example", 421),
        ("10.0.0.1", 421),
        ("", 421),
    ],
)
def test_without_a_token_only_names_of_this_machine_are_answered(client, host, status) -> None:
    assert client.get("/health", headers={"host": host}).status_code == status


def test_pages_of_other_sites_are_not_answered(client) -> None:
    other = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}
    assert client.get("/search?words=a", headers=other).status_code == 403
    assert client.post("/search", data={"words": "a"}, headers=other).status_code == 403
    link = {
        "sec-fetch-site": "cross-site",
        "sec-fetch-mode": "navigate",
        "sec-fetch-dest": "document",
    }
    assert client.get("/", headers=link).status_code == 200
    assert client.get("/library", headers=link).status_code == 403
    assert client.post("/search", data={"words": "a"}, headers=link).status_code == 403
    for origin in ("http://evil.example", "null"):
        said = client.post("/search", data={"words": "a"}, headers={"origin": origin})
        assert said.status_code == 403
    own = {"origin": str(client.base_url).rstrip("/")}
    assert client.post("/search", data={"words": "a"}, headers=own).status_code == 200
    answer = client.get("/", headers={"origin": "https://evil.example"})
    assert not any(name.startswith("access-control") for name in answer.headers)


def test_every_answer_has_its_headers(client) -> None:
    for path in ("/", "/health", "/nowhere", "/search?words=a", "/app.js"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "unsafe" not in client.get("/").headers["content-security-policy"]


@pytest.mark.parametrize("path", ["/", "/search?words=a", "/library", "/metrics", "/items/x/file"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer wrong-token-of-24-letters"},
        {"authorization": f"Basic {TOKEN}"},
        {"authorization": f"Bearer {TOKEN}x"},
        {"authorization": "Bearer \xff"},
        {"cookie": f"{COOKIE}={TOKEN}"},
        {"cookie": f"{COOKIE}=;;;"},
    ],
    ids=["none", "wrong", "kind", "longer", "bytes", "cookie", "broken"],
)
def test_without_the_token_nothing_is_told(guarded, path, headers) -> None:
    sent = {name: value.encode("latin-1") for name, value in headers.items()}
    answer = httpx.get(guarded + path, headers=sent)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert list(answer.json()) == ["error"]


def test_with_the_token_everything_is_answered(guarded) -> None:
    bearer = {"authorization": f"Bearer {TOKEN}"}
    answer = httpx.get(f"{guarded}/search?words=a", headers=bearer, timeout=60)
    assert len(answer.json()["hits"]) == 24
    elsewhere = bearer | {"host": "library.example"}
    assert httpx.get(f"{guarded}/library", headers=elsewhere).status_code == 200


def test_health_and_the_way_in_are_open(guarded) -> None:
    assert httpx.get(f"{guarded}/health").json() == {"status": "ok"}
    page = httpx.get(guarded, headers={"accept": "text/html"})
    assert (page.status_code, page.headers["location"]) == (303, "/login")
    assert 'type="password"' in httpx.get(f"{guarded}/login").text


@pytest.mark.parametrize("way", ["form", "address"])
def test_a_person_goes_in_once_and_has_a_cookie(guarded, way) -> None:
    with httpx.Client(base_url=guarded, timeout=60) as client:
        if way == "form":
            wrong = client.post("/login", data={"token": "wrong"})
            assert (wrong.headers["location"], client.cookies.get(COOKIE)) == ("/login#wrong", None)
            answer = client.post("/login", data={"token": TOKEN})
        else:
            assert client.get("/", params={"token": "wrong"}).status_code == 401
            answer = client.get("/", params={"token": TOKEN})
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        stated = answer.headers["set-cookie"].lower()
        assert "httponly" in stated
        assert "samesite=strict" in stated
        assert TOKEN not in stated
        assert client.get("/search?words=a").status_code == 200
        several = f'other={{"a": 1}}; {COOKIE}={client.cookies[COOKIE]}'
        assert httpx.get(f"{guarded}/library", headers={"cookie": several}).status_code == 200


def test_short_tokens_are_refused() -> None:
    with pytest.raises(OmniAlignError, match=r"has 5 characters; wants 16 or more"):
        Door("short")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        *((host, True) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost")),
        *((host, False) for host in ("0.0.0.0", "::", "192.168.1.2", "a.localhost.b")),
    ],
)
def test_loopback(host, expected) -> None:
    assert is_loopback(host) is expected
