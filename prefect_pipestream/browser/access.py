"""Who may ask the server what: everything that comes in passes here first.

A page of another site can make a browser send requests to this server, and a name that it owns can
point at this machine. So each request must name this server as its host and have the cookie that
the token gave, and a change must come from this server's own pages.
"""

import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.requests import cookie_parser
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BODY_BYTES = 96 << 20
"""The largest request that is read: an upload of 64 MiB as text."""

_SAFE = ("GET", "HEAD")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


@dataclass(frozen=True)
class Access:
    """What a request must have.

    Attributes:
        addresses: The addresses that the server is reached at, such as ``http://127.0.0.1:8765``.
        token: What the first address has in its query, ``?token=``.
        is_read_only: Whether every change is refused.
    """

    addresses: tuple[str, ...]
    token: str
    is_read_only: bool = False

    @property
    def cookie_name(self) -> str:
        """Another one for each server of a machine: cookies do not know of ports."""
        return "pipestream-" + sha256(self.addresses[0].encode()).hexdigest()[:12]

    @property
    def cookie(self) -> str:
        """What shows that the token was known; the same after a restart with the same token."""
        return hmac.new(self.token.encode(), b"cookie of the browser", sha256).hexdigest()

    def knows_token(self, given: str) -> bool:
        """Whether a token is the right one."""
        return hmac.compare_digest(given.encode(), self.token.encode())

    def refusal(self, method: str, headers: Mapping[str, list[str]]) -> tuple[int, str] | None:
        """Why a request is refused, and its status; None if it is not, or for its cookie alone."""
        hosts = {urlsplit(address).netloc for address in self.addresses}
        if [one.lower() for one in headers.get("host", [])] not in [[host] for host in hosts]:
            return 421, f"This server answers to {' and '.join(sorted(hosts))} only."
        if method in _SAFE:
            return None
        if headers.get("origin", []) not in [[address] for address in self.addresses]:
            return 403, "A change is taken from this server's own pages only."
        if self.is_read_only:
            return 403, "The dataset is shown read-only: nothing can be changed."
        return None

    def has_cookie(self, headers: Mapping[str, list[str]]) -> bool:
        """Whether a request has the cookie that the token gives."""
        given = (
            cookie_parser(line).get(self.cookie_name, "") for line in headers.get("cookie", [])
        )
        return any(hmac.compare_digest(one.encode(), self.cookie.encode()) for one in given)


class Guard:
    """An ASGI application around another one, which passes on what may be asked.

    Args:
        app: The application.
        access: What a request must have.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app = app
        self.access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request itself, or passes it on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            answer = self._answer(scope)
            if answer is None:
                bounded = _Bounded(receive)
                await self.app(scope, bounded, _with_headers(send))
            else:
                await answer(scope, receive, _with_headers(send))
        else:  # there is no WebSocket to connect to
            await send({"type": "websocket.close", "code": 1008})

    def _answer(self, scope: Scope) -> Response | None:
        headers = _headers_of(scope["headers"])
        refused = self.access.refusal(scope["method"], headers)
        if refused is None and _length(headers) > MOST_BODY_BYTES:
            refused = 413, f"A request may have {MOST_BODY_BYTES:,} bytes at most."
        if refused is not None:
            return _refusal(*refused)
        given = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        token = given.pop("token", None)
        if scope["method"] == "GET" and token is not None and self.access.knows_token(token):
            return self._welcome(scope["raw_path"].decode("latin-1"), given)
        if not self.access.has_cookie(headers):
            return _refusal(
                401,
                "Open the address with its token once, as the command `pipestream browse` printed "
                "it: this browser is not known yet.",
            )
        return None

    def _welcome(self, path: str, query: Mapping[str, str]) -> Response:
        """To the same page, without the token, which is not to be in the history."""
        # A path of two slashes would lead to another host.
        there = "/" + path.lstrip("/\\") + (f"?{urlencode(query)}" if query else "")
        answer = RedirectResponse(there, status_code=303)
        is_secure = self.access.addresses[0].startswith("https:")
        answer.set_cookie(
            self.access.cookie_name,
            self.access.cookie,
            max_age=30 * 24 * 3600,
            httponly=True,
            samesite="lax",
            secure=is_secure,
        )
        return answer


class _Bounded:
    """Reads the body of a request, as long as it is not too large."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._bytes = 0

    async def __call__(self) -> Message:
        message = await self._receive()
        self._bytes += len(message.get("body", b""))
        if self._bytes > MOST_BODY_BYTES:
            return {"type": "http.disconnect"}
        return message


def _refusal(status: int, text: str) -> Response:
    return JSONResponse({"error": text}, status_code=status)


def _headers_of(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in raw:
        found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return found


def _length(headers: Mapping[str, list[str]]) -> int:
    (text,) = headers.get("content-length", ["0"])[:1]
    return int(text) if text.isascii() and text.isdigit() else 0


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = {name.lower() for name, _ in message.get("headers", [])}
            added = {"cache-control": "no-store", **_HEADERS}
            message["headers"] = [
                *message.get("headers", []),
                *((n.encode(), v.encode()) for n, v in added.items() if n.encode() not in given),
            ]
        await send(message)

    return sending
