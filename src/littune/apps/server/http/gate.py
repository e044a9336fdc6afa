"""How much and how long: the gate that every request goes through.

It reads the body itself, a chunk at a time, so that a body over the limit is refused when the first byte too many
comes, whether its length was announced or not. While the routes work it listens for the client: where that has gone,
the work is cancelled, and leaves its batch.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from littune.apps.server.http.refusals import Refusal, busy
from littune.apps.server.limits import Limits


class _GoneError(Exception):
    """The client has closed its connection."""


class Gate:
    """ASGI middleware that holds requests to ``limits``.

    Attributes:
        under_way: the requests of each address that are under way.
        held: the bytes of all bodies that are in memory.
    """

    def __init__(self, app: ASGIApp, *, limits: Limits) -> None:
        self.app = app
        self.limits = limits
        self.under_way: Counter[str] = Counter()
        self.held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # A look at the server's state, or a GET without work, must get through when the server is full.
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        client = scope["client"][0] if scope.get("client") else ""
        try:
            self._check_room(client)
        except Refusal as refusal:
            await refusal.response(scope, receive, send)
            return
        self.under_way[client] += 1
        answer = _Answer(send, on_end=partial(self._leave, client))
        try:
            await self._serve(scope, receive, answer)
        finally:
            answer.end()

    def _leave(self, client: str) -> None:
        self.under_way[client] -= 1
        # Addresses that are done must not add up.
        if not self.under_way[client]:
            del self.under_way[client]

    def _check_room(self, client: str) -> None:
        if self.under_way[client] >= self.limits.max_per_client:
            raise busy(429, f"{self.limits.max_per_client} requests of yours are under way already; wait for some")
        if self.under_way.total() >= self.limits.max_queue:
            raise busy(503, f"{self.limits.max_queue} requests are under way, as many as may be; try again soon")

    async def _serve(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        body = bytearray()
        try:
            await self._read_in_time(scope, receive, body)
            await self._work_in_time(scope, bytes(body), receive, answer)
        except Refusal as refusal:
            # Of an answer that is on its way already, the rest is left out; the connection is closed then.
            if not answer.started:
                await refusal.response(scope, receive, answer)
        except _GoneError:
            pass
        finally:
            self.held -= len(body)

    async def _read_in_time(self, scope: Scope, receive: Receive, body: bytearray) -> None:
        limits = self.limits
        announced = Headers(scope=scope).get("content-length", "0")
        if announced.isdecimal() and int(announced) > limits.max_body:
            raise self._too_large()
        try:
            async with asyncio.timeout(limits.body_timeout):
                await self._read(receive, body)
        except TimeoutError:
            raise Refusal(408, f"the body was not there within {limits.body_timeout:g} s; send it faster") from None

    async def _read(self, receive: Receive, body: bytearray) -> None:
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _GoneError
            chunk, more = message.get("body", b""), message.get("more_body", False)
            if len(body) + len(chunk) > self.limits.max_body:
                raise self._too_large()
            if self.held + len(chunk) > self.limits.max_held:
                held = f"{self.limits.max_held >> 20} MB of requests are held, as much as may be"
                raise busy(503, f"{held}; try again soon")
            body += chunk
            self.held += len(chunk)

    def _too_large(self) -> Refusal:
        return Refusal(413, f"the body is over the limit of {self.limits.max_body_mb} MB")

    async def _work_in_time(self, scope: Scope, body: bytes, receive: Receive, answer: "_Answer") -> None:
        work = asyncio.ensure_future(self.app(scope, _replay(body), answer))
        gone = asyncio.ensure_future(_until_gone(receive))
        try:
            async with asyncio.timeout(self.limits.timeout):
                await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
                # A server says that the client is gone, too, once the answer is out.
                if answer.complete:
                    await asyncio.wait((work,))
        except TimeoutError:
            raise Refusal(504, f"no answer within {self.limits.timeout:g} s; ask for less, or try again") from None
        finally:
            gone.cancel()
            await _cancelled(work)
        if not work.cancelled():
            work.result()


class _Answer:
    """``send``, which remembers how far an answer has come, and tells ``on_end`` once that there is no more of it."""

    def __init__(self, send: Send, on_end: Callable[[], None]) -> None:
        self._send = send
        self._on_end = on_end
        self._ended = False
        self.started = False
        self.complete = False

    async def __call__(self, message: Message) -> None:
        self.started = True
        self.complete = message["type"] == "http.response.body" and not message.get("more_body", False)
        if self.complete:
            # Before it is sent: the client may ask again as soon as it has it.
            self.end()
        await self._send(message)

    def end(self) -> None:
        if not self._ended:
            self._ended = True
            self._on_end()


def _replay(body: bytes) -> Receive:
    """A ``receive`` that gives the whole body."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return messages.pop() if messages else {"type": "http.disconnect"}

    return receive


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancelled(work: "asyncio.Future[None]") -> None:
    """End ``work`` where it has not ended; its failure is its own result's."""
    if not work.done():
        work.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await work
