"""What this process tells Prefect servers in the background: logs and events.

Prefect has one sender of each for a whole process, which stays with the server that was in use when it was first needed,
and goes on trying when that one is gone. In the tests one server follows another.
"""

from __future__ import annotations

import queue
from contextlib import suppress
from typing import Any

from prefect._internal.concurrency.services import BatchedQueueService, QueueService
from prefect.events.clients import PrefectEventsClient
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_URL

_any_sender = EventsWorker.instance.__func__  # type: ignore[attr-defined]


def one_for_each_server() -> None:
    """From now on every server is told of its own runs, by senders of its own."""
    EventsWorker.instance = classmethod(_sender_of_events)  # type: ignore[assignment,method-assign]
    APILogWorker.instance = classmethod(_sender_of_logs)  # type: ignore[assignment,method-assign]


def sent(seconds: float = 20) -> None:
    """What is still to be told is told within some seconds, or never: nothing waits for a server that is gone."""
    there = [*EventsWorker._instances.values(), *APILogWorker._instances.values()]
    for sender in (APILogWorker, EventsWorker):
        sender.drain_all(timeout=seconds, at_exit=False)
    for one in there:
        with suppress(queue.Empty):
            while True:
                one._queue.get_nowait()
        one._queue.put_nowait(None)  # the end


def _sender_of_events(cls: Any, client_type: Any = None) -> Any:
    url = PREFECT_API_URL.value()
    if url and client_type is None and cls._client_override is None:
        return QueueService.instance.__func__(cls, PrefectEventsClient, (("api_url", url),))  # type: ignore[attr-defined]
    return _any_sender(cls, client_type)


def _sender_of_logs(cls: Any) -> Any:
    return BatchedQueueService.instance.__func__(cls, PREFECT_API_URL.value())  # type: ignore[attr-defined]
