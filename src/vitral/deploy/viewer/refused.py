"""Errors of requests with an HTTP status of their own."""

from vitral.errors import VitralError


class RefusedError(VitralError):
    """A request that is refused. status: 401 no token, 403 another site, 404 not found, 413 too large, 503 too busy."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)
