"""Which plans a scheduled run will back up. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any


def plans_of(flow: str, parameters: Mapping[str, Any], plans: Collection[str]) -> list[str]:
    """The plans among `plans` that a run of this flow backs up: `backup` has one, `backup-all` some, or all."""
    if flow == "backup":
        named: Any = [parameters.get("plan", "default")]
    else:
        named = parameters.get("plans") or list(plans)
    return [name for name in plans if isinstance(named, list) and name in named]
