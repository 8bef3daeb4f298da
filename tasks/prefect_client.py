"""What the clients of Prefect's API lack: short waits, answers of several pages, aware times, refusals as sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.exceptions import PrefectException
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from tasks.errors import BadSetting

#: So many things fit into one answer of the server, and into one question.
PAGE = 200
SECONDS = 10.0  # for one answer, where a run must not be held up
#: The server does not answer, refuses, or answers what the client cannot read, as a proxy's page for signing in.
NO_ANSWER = (httpx.HTTPError, PrefectException, ValueError)
T = TypeVar("T")
_LONGEST = 300  # characters


@contextmanager
def brief_client() -> Iterator[SyncPrefectClient]:
    """A client that waits `SECONDS` for an answer, and asks a server that does not answer only twice more."""
    with (
        temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 2}),
        get_client(httpx_settings={"timeout": SECONDS}, sync_client=True) as client,
    ):
        yield client


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


def run_filter(**fields: Any) -> FlowRunFilter:
    """A filter for flow runs in the words of the API: `run_filter(name={"any_": ["backup-shop"]})`."""
    return FlowRunFilter.model_validate(fields)


def batches(items: Sequence[T], size: int = PAGE) -> Iterator[Sequence[T]]:
    """The items in groups, each small enough for one question."""
    return (items[at : at + size] for at in range(0, len(items), size))


def aware(moment: Any) -> datetime:
    """The time in UTC: Prefect's own kind of time loses its zone when something is added to it."""
    return datetime.fromtimestamp(moment.timestamp(), UTC)


@contextmanager
def refused(thing: str) -> Iterator[None]:
    """Raises BadSetting when Prefect refuses what is done with `thing`, such as `the deployment backup/daily`."""
    try:
        yield
    except httpx.HTTPStatusError as error:
        raise BadSetting(f"Prefect refuses {thing}: {reason(error)}") from None


def reason(error: httpx.HTTPStatusError) -> str:
    """`422, owner_resource: Extra inputs are not permitted.` Nothing of what was sent, which may hold a secret."""
    try:
        said = error.response.json()
    except ValueError:
        said = None
    words = "; ".join(_words(said)) or f"{error.request.method} {error.request.url.path}"
    return f"{error.response.status_code}, {words[:_LONGEST].rstrip('.')}."


def _words(said: Any) -> Iterator[str]:
    """The reasons in the JSON of an answer; those of FastAPI repeat what was sent, which is left out."""
    if not isinstance(said, dict):
        return
    details = said.get("exception_detail") or said.get("detail")
    if isinstance(details, str):
        yield details
    for one in details if isinstance(details, list) else ():
        place = ".".join(str(step) for step in one.get("loc", ()) if step != "body")
        yield f"{place}: {one.get('msg', '')}"
