"""A cache that drops the least recently used values."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """Values by key, together at most `limit` in size (in what `size` counts, such as bytes); the newest is kept even if it alone is larger."""

    def __init__(self, limit: int, size: Callable[[T], int]) -> None:
        self.limit, self.size, self.total = limit, size, 0
        self._values: OrderedDict[Hashable, T] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable) -> T | None:
        """The value; None where there is none (any more)."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: Hashable, value: T) -> T:
        """Keep a value, drop those for which there is no more room, and return it."""
        with self._lock:
            old = self._values.pop(key, None)
            self.total += self.size(value) - (0 if old is None else self.size(old))
            self._values[key] = value
            while self.total > self.limit and len(self._values) > 1:
                self.total -= self.size(self._values.popitem(last=False)[1])
        return value
