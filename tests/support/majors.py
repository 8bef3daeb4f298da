"""Which tests that are repeated on each major version of PostgreSQL run on every change."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import pytest

_MAJOR = "postgres_server"


def more_than_pairs(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """The tests that the others make up for: without them each case still meets a major, and each major a case.

    A test with one case alone stays on every major.
    """
    surplus = []
    for group in _by_function(items).values():
        cases = _numbered(_case(item) for item in group)
        majors = _numbered(_major(item) for item in group)
        period = min(len(cases), len(majors))
        surplus += [item for item in group if (cases[_case(item)] - majors[_major(item)]) % period]
    return surplus


def _by_function(items: Iterable[pytest.Item]) -> dict[str, list[pytest.Function]]:
    """The tests that are repeated on each major version, by file and name."""
    functions = defaultdict(list)
    for item in items:
        if isinstance(item, pytest.Function) and hasattr(item, "callspec") and _MAJOR in item.callspec.params:
            functions[item.nodeid.partition("[")[0]].append(item)
    return functions


def _major(item: pytest.Function) -> str:
    return str(item.callspec.params[_MAJOR])


def _case(item: pytest.Function) -> str:
    """The parameters of the test but for the version; the tests of one function share their values."""
    return str(sorted((name, id(value)) for name, value in item.callspec.params.items() if name != _MAJOR))


def _numbered(names: Iterable[str]) -> dict[str, int]:
    """Each name with its place among the names that differ, in order of appearance."""
    return {name: number for number, name in enumerate(dict.fromkeys(names))}
