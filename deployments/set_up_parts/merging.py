"""What is declared meets what is on the Prefect server, where somebody may have changed it.

A field that is as the set-up last wrote it follows its declaration. A field that is not was set by somebody in
Prefect: it stays, until the declaration says the same, and the set-up reports it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deployments.set_up_parts.remembered import Memory, Written, fingerprint


@dataclass(frozen=True)
class Merged:
    """Which fields are to be written, which stay as somebody set them, and which are as declared anyway."""

    write: tuple[str, ...]
    kept: tuple[str, ...]
    same: tuple[str, ...]


@dataclass(frozen=True)
class SetUp:
    """One run of the set-up: what it remembers, and whether it only compares, or overwrites what somebody has set."""

    memory: Memory
    check: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class Thing:
    """Something on the server that follows a declaration.

    `key` is its name in the memory of the set-up, `source` what declares it, and `show` turns values into words.
    """

    key: str
    title: str
    source: str
    show: Callable[[str, Any], str]


def follow(
    thing: Thing,
    declared: Mapping[str, Any],
    found: Mapping[str, Any],
    write: Callable[[Sequence[str]], Mapping[str, Any]],
    run: SetUp,
    always: Sequence[str] = (),
) -> Iterator[str]:
    """A thing is as declared, apart from what somebody has set; yields a line for each difference.

    `write` writes these fields and returns what the server then has. The fields `always` are nobody's to set.
    """
    free = {field: value for field, value in declared.items() if field not in always}
    result = merged(free, found, run.memory.of(thing.key), overwrite=run.overwrite)
    for field in result.kept:
        yield (
            f"{thing.title}: {field} was changed in Prefect, and stays {thing.show(field, found[field])}; "
            f"{thing.source} says {thing.show(field, declared[field])}."
        )
    differ = [field for field in always if declared[field] != found.get(field)]
    words = differ + [_change(thing, field, declared[field], found[field]) for field in result.write]
    if words and not run.check:
        found = write([*differ, *result.write])
    if words:
        yield f"{thing.title} {'is to be' if run.check else 'was'} changed: {', '.join(words)}."
    if not run.check:
        run.memory.note(thing.key, [*result.write, *result.same], declared, found)


def _change(thing: Thing, field: str, declared: Any, found: Any) -> str:
    """The field, with both values where they are short."""
    now, before = thing.show(field, declared), thing.show(field, found)
    return field if "…" in now + before else f"{field} is {now} instead of {before}"


def merged(
    declared: Mapping[str, Any], found: Mapping[str, Any], last: Mapping[str, Written], *, overwrite: bool = False
) -> Merged:
    """Compares the declared fields with the found ones. What the server adds to a field by itself is no difference.

    A field that nobody remembers writing is kept. With `overwrite` nothing is kept. Pure.
    """
    write, kept, same = [], [], []
    for field, value in declared.items():
        wanted, there, before = fingerprint(value), fingerprint(found.get(field)), last.get(field)
        if wanted == there or before == Written(wanted, there):
            same.append(field)
        elif overwrite or (before is not None and there == before.found):
            write.append(field)
        else:
            kept.append(field)
    return Merged(tuple(write), tuple(kept), tuple(same))
