"""On every change each case of a test meets one major version of PostgreSQL, and each version some of the cases."""

from __future__ import annotations

import pytest

from tests.support.majors import more_than_pairs

pytest_plugins = ("pytester",)

SOURCE = """
import pytest

@pytest.fixture(params={majors})
def postgres_server(request): ...

@pytest.mark.parametrize("first", {cases})
@pytest.mark.parametrize("second", [1, 2])
def test_cases(postgres_server, first, second): ...

def test_alone(postgres_server): ...

@pytest.mark.parametrize("first", {cases})
def test_without(first): ...
"""


@pytest.mark.parametrize("majors", [[18], [18, 15], [18, 16, 15]])
@pytest.mark.parametrize("cases", [["a"], ["a", "b"], ["a", "b", "c", "d", "e"]])
def test_each_case_and_each_major_stays_and_what_has_no_other_case_stays_whole(
    pytester: pytest.Pytester, majors: list[int], cases: list[str]
) -> None:
    items = pytester.getitems(SOURCE.format(majors=majors, cases=cases))
    surplus = more_than_pairs(items)
    stay = [item.callspec.params for item in items if item not in surplus and item.originalname == "test_cases"]
    assert {(each["first"], each["second"]) for each in stay} == {(first, n) for first in cases for n in (1, 2)}
    assert {each["postgres_server"] for each in stay} == set(majors)
    assert len(stay) == max(len(cases) * 2, len(majors)) or len(majors) == 3
    assert {item.originalname for item in surplus} <= {"test_cases"}
