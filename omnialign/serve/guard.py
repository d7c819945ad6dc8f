"""Who may ask, and how much of a request is taken: an ASGI layer before everything else."""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from omnialign.errors import OmniAlignError
from omnialign.serve.limits import Budget, Limits, RefusedError

COOKIE = "omnialign"
MIN_TOKEN_LETTERS = 16
OPEN_PATHS = frozenset({"/health", "/login", "/login.html", "/style.css"})
"""What one sees without the token."""
PAGES = frozenset({"/", "/login"})
"""What links of other sites lead to."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "media-src 'self' blob:; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
"""Content-Security-Policy of the page: nothing comes from elsewhere, nothing is written inline."""
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
"""Of every response that does not say otherwise itself."""


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass
class Door:
    """Lets in whoever has the token; without a token, whoever comes from a page of our own host."""

    token: str | None = None
    session: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    """What the cookie holds: another one for each process, so that it says nothing of the token."""

    def __post_init__(self) -> None:
        if self.token is not None and len(self.token) < MIN_TOKEN_LETTERS:
            raise OmniAlignError(
                f"the token has {len(self.token)} characters; wants {MIN_TOKEN_LETTERS} or more, "
                f'as in: --token "{secrets.token_urlsafe(24)}"'
            )

    def is_token(self, given: str) -> bool:
        return self.token is not None and _equal(given, self.token)

    def check(self, method: str, path: str, headers: Headers) -> None:
        """Raises `RefusedError` with what is missing."""
        is_link = method == "GET" and path in PAGES and _is_navigation(headers)
        if _is_from_elsewhere(method, path, headers) and not is_link:
            raise RefusedError(403, "requests from pages of other sites are not answered")
        if self.token is None:
            host = _host(headers.get("host", ""))
            if not is_loopback(host):
                raise RefusedError(
                    421, f"this service is not '{host[:80]}'; ask for it as localhost"
                )
        elif path not in OPEN_PATHS and not self._knows(headers):
            raise RefusedError(
                401,
                "this service wants its token: 'Authorization: Bearer TOKEN', or log in at /login",
                WWW_Authenticate="Bearer",
            )

    def _knows(self, headers: Headers) -> bool:
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self.is_token(given.strip()):
            return True
        return _equal(cookie_parser(headers.get("cookie", "")).get(COOKIE, ""), self.session)

    def let_in(self, secure: bool) -> Response:
        """To the page, with the cookie."""
        response = RedirectResponse("/", 303)
        response.set_cookie(COOKIE, self.session, httponly=True, samesite="strict", secure=secure)
        return response


def _equal(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), wanted.encode())


def _host(header: str) -> str:
    """Without the port."""
    name, _, port = header.rpartition(":")
    return (name if name and port.isdigit() else header).strip("[]").lower()


def _is_from_elsewhere(method: str, path: str, headers: Headers) -> bool:
    """Whether a page of another site asks; older browsers tell it by the origin alone.

    The origin of our own form is "null" too, as no address is told to anybody.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None or origin is None or method in ("GET", "HEAD"):
        return site == "cross-site"
    if origin == "null":
        return path != "/login"
    return urlsplit(origin).netloc != headers.get("host")


def _is_navigation(headers: Headers) -> bool:
    """Whether a person follows a link to the page."""
    return headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") in (
        "document",
        None,
    )


class Guard:
    """The door, the bounds of a body, and the headers of every response."""

    def __init__(self, app: ASGIApp, *, door: Door, limits: Limits) -> None:
        self._app, self._door, self._limits = app, door, limits
        self._budget = Budget(limits.uploads_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        body = Body(receive, self._limits)
        started = False

        async def guarded_send(message: Message) -> None:
            nonlocal started
            if body.refused is not None and not started:
                raise body.refused  # whatever the application made of it
            if message["type"] == "http.response.start":
                started = True
                given = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    given.setdefault(name, value)
            await send(message)

        try:
            let_in = self._let_in(scope)
            if let_in is not None:
                await let_in(scope, receive, guarded_send)
                return
            self._door.check(scope["method"], scope["path"], headers)
            with self._budget.taken(body.most_bytes(headers)):
                await self._app(scope, body.receive, guarded_send)
        except Exception as error:
            refused = body.refused or error
            if started or not isinstance(refused, RefusedError):
                raise
            body.refused = None
            if refused.status == 401 and "text/html" in headers.get("accept", ""):
                await RedirectResponse("/login", 303)(scope, receive, guarded_send)
            else:
                await refusal(refused)(scope, receive, guarded_send)

    def _let_in(self, scope: Scope) -> Response | None:
        """The answer to `/?token=…`, after which the token stands in no address any more."""
        if scope["path"] != "/" or not scope["query_string"] or self._door.token is None:
            return None
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        return self._door.let_in(scope["scheme"] == "https") if self._door.is_token(given) else None


class Body:
    """The body of a request, bounded in bytes and in the time that it takes to arrive."""

    def __init__(self, receive: Receive, limits: Limits) -> None:
        self._receive, self._limits = receive, limits
        self._num_bytes = 0
        self._until: float | None = None
        self._is_whole = False
        self.refused: RefusedError | None = None
        """Why the rest is not received."""

    def most_bytes(self, headers: Headers) -> int:
        """As stated; raises `RefusedError` (413) before anything is received."""
        if "transfer-encoding" in headers:
            return self._limits.upload_bytes
        stated = headers.get("content-length", "0")
        is_number = stated.isascii() and stated.isdigit() and len(stated) < 20
        if not is_number or int(stated) > self._limits.upload_bytes:
            raise self._too_large()
        return int(stated)

    async def receive(self) -> Message:
        if self._is_whole:
            return await self._receive()
        now = asyncio.get_running_loop().time()
        if self._until is None:
            self._until = now + self._limits.receive_seconds
        try:
            message = await asyncio.wait_for(self._receive(), max(self._until - now, 0))
        except TimeoutError:
            seconds = self._limits.receive_seconds
            self.refused = RefusedError(
                408, f"the request did not arrive within {seconds:g} s", Connection="close"
            )
            raise self.refused from None
        self._num_bytes += len(message.get("body", b""))
        self._is_whole = not message.get("more_body", False)
        if self._num_bytes > self._limits.upload_bytes:
            self.refused = self._too_large()
            raise self.refused
        return message

    def _too_large(self) -> RefusedError:
        return RefusedError(
            413,
            f"the request is larger than {self._limits.upload_bytes} bytes",
            Connection="close",
        )


def refusal(error: RefusedError) -> Response:
    """One sentence, as JSON."""
    body = json.dumps({"error": str(error)}, ensure_ascii=False)
    return Response(body, error.status, error.headers, "application/json")
