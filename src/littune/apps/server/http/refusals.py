"""A refusal: a status, one line that says what is wrong, as JSON ``{"error": …}``."""

from collections.abc import Mapping

from starlette.responses import JSONResponse


class Refusal(Exception):  # noqa: N818 (a refusal is an answer, not a fault)
    """A request that is not served.

    Args:
        status: the HTTP status.
        message: what is wrong, with the limit where there is one.
        headers: further headers of the answer.
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})

    @property
    def response(self) -> JSONResponse:
        """The answer."""
        return error_response(self.status, self.message, self.headers)


def busy(status: int, message: str) -> Refusal:
    """A refusal that will not last: 429 where it is the client who asks too much, 503 where it is all together."""
    return Refusal(status, message, {"Retry-After": "1"})


def error_response(status: int, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """``{"error": message}``."""
    return JSONResponse({"error": message}, status_code=status, headers=headers)
