"""Who may ask: the token, and browsers that were sent here by another site.

A server on loopback is open to every page that its user's browser shows: by a plain cross-origin request, or by a
name of the page's own that it lets point to 127.0.0.1 (DNS rebinding). So a request that names an ``Origin`` must come
from a page of this server, and on loopback the ``Host`` must be a name of loopback. There are no CORS headers: other
origins may not read an answer.
"""

import ipaddress
import secrets
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from littune.apps.server.http.refusals import Refusal
from littune.base.errors import InputError

# What is the same for every server, and what a load balancer must see.
_OPEN_PATHS = frozenset(("/health", "/docs", "/openapi.json"))
_ANSWER_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
)
_SHORTEST_TOKEN = 16


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches ``host``; a name other than localhost is not looked up."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_binding(host: str, token: str) -> None:
    """Refuse what would be open to a network.

    Raises:
        InputError: the host is not loopback and there is no token, or the token is short or cannot stand in a header.
    """
    if token and (len(token) < _SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token):
        how = f"give at least {_SHORTEST_TOKEN} letters, digits and signs of ASCII, without spaces"
        raise InputError(f"the token of {len(token)} characters is not usable; {how}")
    if not token and not is_loopback(host):
        raise InputError(f"--host {host} is open to a network: give a --token, or bind 127.0.0.1")


class Guard:
    """ASGI middleware that lets through whom it should.

    Args:
        app: what it guards.
        host: what the server is bound to.
        token: what ``Authorization: Bearer`` must hold; empty for none.
    """

    def __init__(self, app: ASGIApp, *, host: str, token: str) -> None:
        self.app = app
        self.on_loopback = is_loopback(host)
        self.token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_ANSWER_HEADERS]
            await send(message)

        try:
            self.check(Headers(scope=scope), scope["path"])
        except Refusal as refusal:
            await refusal.response(scope, receive, send_with_headers)
            return
        await self.app(scope, receive, send_with_headers)

    def check(self, headers: Headers, path: str) -> None:
        """Let a request through.

        Raises:
            Refusal: 403 for another host or origin, 401 without the token.
        """
        host = headers.get("host", "")
        if self.on_loopback and not is_loopback(_name_of(host)):
            raise Refusal(403, f"the Host {host[:100]!r} is no name of loopback; ask for localhost or 127.0.0.1")
        origin = headers.get("origin")
        if origin is not None and _netloc_of(origin) != host.lower():
            raise Refusal(403, f"the Origin {origin[:100]!r} is another site; its pages may not use this server")
        if self.token and path not in _OPEN_PATHS:
            self._check_token(headers.get("authorization", ""))

    def _check_token(self, given: str) -> None:
        scheme, _, token = given.partition(" ")
        right = secrets.compare_digest(token.strip().encode("utf-8", "surrogateescape"), self.token)
        if scheme.lower() != "bearer" or not right:
            problem = "is not the server's" if given else "is missing"
            message = f"the token {problem}; send the header Authorization: Bearer TOKEN"
            raise Refusal(401, message, {"WWW-Authenticate": "Bearer"})


def _name_of(host: str) -> str:
    """The name in a ``Host``, without its port and the brackets of IPv6; empty where it is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _netloc_of(origin: str) -> str:
    """The host and port of an ``Origin``; something that is no host's where it is none, as ``null``."""
    try:
        return urlsplit(origin).netloc.lower() or origin
    except ValueError:
        return origin
