"""Components by key, and what happens when a key is taken."""

from collections.abc import Iterator
from typing import Generic, TypeVar

from mcpworker.logs import get_logger
from mcpworker.settings import DuplicateBehavior

__all__ = ["Registry"]

logger = get_logger("server")

T = TypeVar("T")


class Registry(Generic[T]):
    """Components of one kind, in the order in which they came."""

    def __init__(self, kind: str, on_duplicate: DuplicateBehavior) -> None:
        self._kind = kind
        self._on_duplicate = on_duplicate
        self._items: dict[str, T] = {}

    def add(self, key: str, item: T) -> bool:
        """Keep `item` under `key`; False if the one that was there stays instead.

        Raises:
            ValueError: the key is taken and duplicates are errors.
        """
        if key in self._items:
            if self._on_duplicate == "ignore":
                return False
            if self._on_duplicate == "error":
                raise ValueError(f"{self._kind} already exists: {key}")
            if self._on_duplicate == "warn":
                logger.warning("%s already exists: %s", self._kind, key)
        self._items[key] = item
        return True

    def remove(self, key: str) -> T:
        """Forget a component.

        Raises:
            KeyError: there is none under this key.
        """
        return self._items.pop(key)

    def get(self, key: str) -> T | None:
        return self._items.get(key)

    def items(self) -> dict[str, T]:
        """A copy of all of them."""
        return dict(self._items)

    def __iter__(self) -> Iterator[T]:
        return iter(list(self._items.values()))

    def __contains__(self, key: object) -> bool:
        return key in self._items

    def __bool__(self) -> bool:
        return bool(self._items)
