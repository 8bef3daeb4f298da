"""What several tests use."""

from __future__ import annotations

import os
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
