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
