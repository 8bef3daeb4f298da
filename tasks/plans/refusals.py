"""What a Prefect server answers when it refuses something, as one sentence that names the thing and the reason."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from tasks.errors import BadSetting

_LONGEST = 300  # characters


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
