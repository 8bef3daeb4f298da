"""JSON that comes from elsewhere, taken apart with every type checked: whoever has a value knows what it is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn

from tasks.errors import BackupDamaged

_ADVICE = "restore another backup, or this one from a replica"
_LARGEST = (1 << 63) - 1  # what PostgreSQL's bigint holds
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,6})?\+00:00", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Field:
    """One value of the file `document`, and the path that leads to it: `object.parts[3].size`.

    Every method answers with a value of the type that it names. Raises BackupDamaged, naming document and field.
    """

    document: str
    path: str
    value: object

    def refuse(self, why: str) -> NoReturn:
        """Raises BackupDamaged: the field … `why`."""
        where = f"the field {self.path}" if self.path else "its content"
        raise BackupDamaged(f"{self.document} is damaged: {where} {why}: {_ADVICE}.")

    def fields(self, *names: str) -> tuple[Field, ...]:
        """The fields of an object that has exactly these, in the order of `names`."""
        if not isinstance(self.value, dict):
            self.refuse("is no object")
        for missing in (name for name in names if name not in self.value):
            self._at(missing).refuse("is missing")
        for unknown in self.value.keys() - set(names):
            self._at(repr(unknown[:60])).refuse("is unknown")
        return tuple(self._at(name, self.value[name]) for name in names)

    def items(self) -> list[Field]:
        """The items of a list."""
        if not isinstance(self.value, list):
            self.refuse("is no list")
        return [Field(self.document, f"{self.path}[{number}]", item) for number, item in enumerate(self.value)]

    def text(self, may_be_empty: bool = False) -> str:
        """A text that PostgreSQL could hold."""
        if not isinstance(self.value, str):
            self.refuse("is no text")
        if not self.value and not may_be_empty:
            self.refuse("is empty")
        if "\0" in self.value or any("\ud800" <= character <= "\udfff" for character in self.value):
            self.refuse("holds a character that no text can have")
        return self.value

    def texts(self) -> tuple[str, ...]:
        """A list of texts."""
        return tuple(item.text() for item in self.items())

    def text_or_none(self) -> str | None:
        """A text, or null."""
        return None if self.value is None else self.text(may_be_empty=True)

    def one_of(self, choices: Iterable[str]) -> str:
        """One of some words."""
        found, known = self.text(), tuple(choices)
        if found not in known:
            self.refuse(f"is not one of {', '.join(known)}")
        return found

    def sha256(self) -> str:
        """A SHA-256."""
        found = self.text()
        if not _SHA256.fullmatch(found):
            self.refuse("is not 64 hexadecimal digits in lower case")
        return found

    def number(self, least: int = 0) -> int:
        """A whole number that PostgreSQL could hold, no smaller than `least`."""
        if type(self.value) is not int or not least <= self.value <= _LARGEST:
            self.refuse(f"is no whole number from {least} on")
        return self.value

    def flag(self) -> bool:
        """True or false."""
        if not isinstance(self.value, bool):
            self.refuse("is neither true nor false")
        return self.value

    def time(self) -> datetime:
        """A time in UTC."""
        text = self.text()
        try:
            if _TIME.fullmatch(text):
                return datetime.fromisoformat(text)
        except ValueError:
            pass
        return self.refuse("is no time in UTC")

    def _at(self, name: str, value: object = None) -> Field:
        return Field(self.document, f"{self.path}.{name}" if self.path else name, value)


def parsed(content: bytes, document: str) -> Field:
    """What the JSON file holds. Raises BackupDamaged, whatever else `content` is."""
    try:
        value = json.loads(content.decode(), object_pairs_hook=_object, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        why = f"is no JSON from line {error.lineno} on"
    except UnicodeDecodeError as error:
        why = f"is no UTF-8 from byte {error.start} on"
    except (ValueError, RecursionError):  # a name twice, NaN, a number of thousands of digits, endless nesting
        why = "is no JSON of this system's"
    else:
        return Field(document, "", value)
    return Field(document, "", None).refuse(why)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name twice")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)
