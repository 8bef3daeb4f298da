"""What several tests use."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import NoReturn

import pytest


def ci_skip(reason: str) -> NoReturn:
    """Skips the test for `reason` on a person's machine; fails it where CI=true."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"must not be skipped in CI: {reason}")
    pytest.skip(reason)


def whole_story(error: BaseException) -> str:
    """Everything that an exception and whatever it came from can say, in every way it can be said."""
    told: list[str] = []
    left: list[BaseException | None] = [error]
    seen: set[int] = set()
    while left:
        one = left.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            told += [str(one), repr(one), repr(one.args), repr(vars(one)), *getattr(one, "__notes__", ())]
            left += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]
    return "\n".join(told)


def eventually(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    """Whether `condition` comes true within some seconds, which a busy machine may need."""
    give_up = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > give_up:
            return False
        time.sleep(0.02)
    return True
