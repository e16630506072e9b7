"""Errors of requests with an HTTP status of their own."""

from vitral.errors import VitralError


class RefusedError(VitralError):
    """A request that is refused. status: 401 no token, 403 another site, 404 not found, 413 too large, 503 too busy.

    wait: seconds after which it is worth asking again, for 503.
    """

    def __init__(self, status: int, message: str, *, wait: int | None = None) -> None:
        self.status, self.wait = status, wait
        super().__init__(message)

    @property
    def headers(self) -> dict[str, str]:
        """Of the answer that refuses."""
        return {"cache-control": "no-store"} | ({} if self.wait is None else {"retry-after": str(self.wait)})
