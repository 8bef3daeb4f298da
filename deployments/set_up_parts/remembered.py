"""What the set-up has written last, kept on the Prefect server: so that it knows what somebody else has changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from prefect.blocks.core import Block
from pydantic import Field

NAME = "database-backup-system"


@dataclass(frozen=True)
class Written:
    """Fingerprints of one field: of its declaration when it was last written, and of what the server then had."""

    declared: str
    found: str


def fingerprint(value: Any) -> str:
    """Twelve hex digits that stand for a value made of JSON; they tell nothing of a secret in it."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class SetUpMemory(Block):
    """Fingerprints of what the set-up has written. Not for editing; without it, nothing that differs is overwritten."""

    _block_type_name = "Backup Set-Up Memory"
    _block_type_slug = "backup-set-up-memory"
    _description = "What the set-up of the backups has written last, by which it knows what was changed since."

    written: dict[str, dict[str, list[str]]] = Field(
        default_factory=dict, description="By thing and field: fingerprints of what was declared and what was stored."
    )


class Memory:
    """What was written last of each thing (such as `schedule backup/daily nightly`), a `Written` a field."""

    def __init__(self, block: SetUpMemory, stored: str) -> None:
        self._block = block
        self._stored = stored

    @classmethod
    def load(cls) -> Memory:
        """As the server has it; empty when it has none, or none that can be read."""
        try:
            block = SetUpMemory.load(NAME)
        except ValueError:
            return cls(SetUpMemory(), "")
        assert isinstance(block, SetUpMemory)  # loaded from synchronous code, so not a coroutine
        return cls(block, fingerprint(block.written))

    def save(self) -> None:
        """The server has it."""
        now = fingerprint(self._block.written)
        if now != self._stored:
            self._block.save(NAME, overwrite=True)
            self._stored = now

    def of(self, thing: str) -> dict[str, Written]:
        """What was written last of each field of a thing."""
        return {field: Written(*both) for field, both in self._block.written.get(thing, {}).items() if len(both) == 2}

    def things(self, prefix: str) -> list[str]:
        """The names of the things that are known, without the prefix that they begin with."""
        return [name.removeprefix(prefix) for name in self._block.written if name.startswith(prefix)]

    def note(self, thing: str, fields: Iterable[str], declared: Mapping[str, Any], found: Mapping[str, Any]) -> None:
        """These fields of a thing are as declared: the server holds `found`."""
        about = self._block.written.setdefault(thing, {})
        for name in fields:
            about[name] = [fingerprint(declared.get(name)), fingerprint(found.get(name))]

    def rename(self, old: str, new: str) -> None:
        """What was written last of things whose names begin with `old` is known by names that begin with `new`."""
        for name in [name for name in self._block.written if name.startswith(old)]:
            self._block.written.setdefault(new + name.removeprefix(old), self._block.written.pop(name))

    def forget(self, thing: str) -> None:
        """The thing is neither declared nor there any more."""
        self._block.written.pop(thing, None)
