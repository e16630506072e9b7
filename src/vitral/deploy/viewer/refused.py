"""What a request can be refused for beside a bad value: the sentence, and the HTTP status that says which kind it is."""

from vitral.errors import VitralError


class RefusedError(VitralError):
    """An answer that cannot be given. `status`: 401 no token, 403 another site, 404 nothing there, 413 too much, 503 too busy."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)
