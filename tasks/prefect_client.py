"""What the clients of Prefect's API lack: answers of several pages, and times that keep their zone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from prefect.client.orchestration import SyncPrefectClient

#: So many things fit into one answer of the server, and into one question.
PAGE = 200
T = TypeVar("T")


def pages(read: Callable[..., Sequence[T]], **filters: Any) -> Iterator[T]:
    """Everything that fits the filters. `read` is a method of a client that takes `limit` and `offset`."""
    offset = 0
    while page := read(**filters, limit=PAGE, offset=offset):
        yield from page
        if len(page) < PAGE:
            return
        offset += len(page)


def documents(client: SyncPrefectClient, path: Any, **filters: Any) -> Iterator[dict[str, Any]]:
    """The same for a path such as `/flows/filter`, as JSON: for what the client's own methods cannot ask."""
    return pages(lambda **asked: client.request("POST", path, json=asked).json(), **filters)


def batches(items: Sequence[T], size: int = PAGE) -> Iterator[Sequence[T]]:
    """The items in groups, each small enough for one question."""
    return (items[at : at + size] for at in range(0, len(items), size))


def aware(moment: Any) -> datetime:
    """The time in UTC: Prefect's own kind of time loses its zone when something is added to it."""
    return datetime.fromtimestamp(moment.timestamp(), UTC)
