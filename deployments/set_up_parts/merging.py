"""What to write where a declaration, the server and what was written last may all differ. Pure.

A field that stands as it was last written follows its declaration. One that does not has been set by somebody in
Prefect: it stays, until the declaration says the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Written:
    """Fingerprints of one field: of its declaration when it was last written, and of what the server then held."""

    declared: str
    found: str


@dataclass(frozen=True)
class Merged:
    """Which fields are to be written, which stay as somebody set them, and which are as declared anyway."""

    write: tuple[str, ...]
    kept: tuple[str, ...]
    same: tuple[str, ...]


def merged(
    declared: Mapping[str, Any],
    found: Mapping[str, Any],
    last: Mapping[str, Written],
    *,
    unknown: frozenset[str] = frozenset(),
    overwrite: bool = False,
) -> Merged:
    """Compares the declared fields with the found ones. What the server adds to a field by itself is no difference.

    The fields `unknown` are written when nobody knows what was written last; any other is then kept. With `overwrite`
    nothing is kept.
    """
    write, kept, same = [], [], []
    for name, value in declared.items():
        wanted, there, before = fingerprint(value), fingerprint(found.get(name)), last.get(name)
        if wanted == there or before == Written(wanted, there):
            same.append(name)
        elif overwrite or (there == before.found if before else name in unknown):
            write.append(name)
        else:
            kept.append(name)
    return Merged(tuple(write), tuple(kept), tuple(same))


def fingerprint(value: Any) -> str:
    """Twelve hex digits that stand for a value made of JSON; they tell nothing of a secret in it."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
