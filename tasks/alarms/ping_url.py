"""Calls to a service outside that raises the alarm when no call comes: it works while the Prefect server is down.

The addresses are those of Healthchecks (https://healthchecks.io/docs/http_api/): the address itself for success,
`/start` and `/fail` below it; a body tells the reason. Who knows the address can call it: it is kept out of all texts.
"""

from __future__ import annotations

import time
from typing import Literal

import httpx

from tasks.errors import BadSetting

Kind = Literal["start", "success", "fail"]
SECONDS = 5.0  # for one call
#: A service that does not answer is asked once more after so long.
DELAYS = (1.0,)
_LONGEST = 10_000  # characters; Healthchecks keeps no more than 100 kB


def ping(url: str, kind: Kind, body: str = "") -> str:
    """Makes one call; returns why it failed, or an empty text. Takes no longer than some seconds; raises nothing."""
    try:
        address = address_for(url, kind)
    except BadSetting as error:
        return str(error)
    for delay in (*DELAYS, None):
        problem = _call(address, body[:_LONGEST])
        if not problem or delay is None:
            return problem
        time.sleep(delay)
    return ""


def address_for(url: str, kind: Kind) -> str:
    """The address of one kind of call; what follows a question mark in `url` stays. Pure.

    Raises BadSetting, which does not repeat the address, when it is none of HTTP.
    """
    try:
        read = httpx.URL(url.strip())
    except httpx.InvalidURL:
        read = httpx.URL("")
    if read.scheme not in ("http", "https") or not read.host:
        raise BadSetting("PING_URL is no address of HTTP: write it as https://host/path.")
    below = "" if kind == "success" else f"/{kind}"
    return str(read.copy_with(path=read.path.rstrip("/") + below)) if below else str(read)


def _call(address: str, body: str) -> str:
    try:
        with httpx.Client(timeout=SECONDS) as client:
            answer = client.post(address, content=body.encode()) if body else client.get(address)
    except httpx.HTTPError as error:
        return f"it did not answer ({type(error).__name__})."
    return f"it answered {answer.status_code}." if answer.is_error else ""
