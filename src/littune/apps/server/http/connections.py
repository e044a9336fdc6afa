"""Connections that ask nothing do not stay: uvicorn's HTTP/1.1, with a clock on whoever sends no request.

uvicorn's own clock runs after an answer and stops at the first byte that comes. A client that sends its headers a byte
at a time, or none at all, would hold its connection for ever.
"""

import asyncio
from typing import cast

from uvicorn.protocols.http.h11_impl import H11Protocol

SECONDS = 15.0
"""How long a connection may be without a request under way, headers that are not complete included."""


class PatientlyTimed(H11Protocol):
    """HTTP/1.1 over a connection that is closed where no request is under way for ``SECONDS``."""

    _clock: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the clock."""
        super().connection_made(cast(asyncio.Transport, transport))
        self._start_clock()

    def data_received(self, data: bytes) -> None:
        """Stop the clock as soon as a request is complete enough to be under way."""
        super().data_received(data)
        if self._is_busy():
            self._stop_clock()

    def on_response_complete(self) -> None:
        """Start the clock again, unless the next request lay behind this one."""
        super().on_response_complete()
        if not self._is_busy():
            self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_clock()
        super().connection_lost(exc)

    def _is_busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _start_clock(self) -> None:
        self._stop_clock()
        self._clock = self.loop.call_later(SECONDS, self._give_up)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _give_up(self) -> None:
        if not self._is_busy():
            self.transport.abort()
