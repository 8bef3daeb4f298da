"""PostgreSQL, processes, disks and clocks fail, and two operations meet."""

from __future__ import annotations

import pytest

from tests.faults.fault import Fault
from tests.faults.fault_lists import parameters
from tests.faults.laboratory import Laboratory
from tests.faults.running import check

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("fault", parameters("process"))
def test_whatever_is_killed_the_promises_are_kept(
    laboratory: Laboratory, fault: Fault, request: pytest.FixtureRequest
) -> None:
    check(laboratory, fault, request)


@pytest.mark.parametrize("fault", parameters("two"))
def test_two_at_once_keep_the_promises(laboratory: Laboratory, fault: Fault, request: pytest.FixtureRequest) -> None:
    check(laboratory, fault, request)


@pytest.mark.parametrize("fault", parameters("store's process"))
def test_the_store_may_be_killed(laboratory: Laboratory, fault: Fault, request: pytest.FixtureRequest) -> None:
    check(laboratory, fault, request)


@pytest.mark.parametrize("fault", parameters("clock"))
def test_whatever_the_clocks_say_the_promises_are_kept(
    laboratory: Laboratory, fault: Fault, request: pytest.FixtureRequest
) -> None:
    check(laboratory, fault, request)


@pytest.mark.parametrize("fault", parameters("disk"))
def test_full_disks_break_no_promise(laboratory: Laboratory, fault: Fault, request: pytest.FixtureRequest) -> None:
    check(laboratory, fault, request)


@pytest.mark.parametrize("fault", parameters("postgres"))
def test_whatever_postgres_does_the_promises_are_kept(
    laboratory: Laboratory, fault: Fault, request: pytest.FixtureRequest
) -> None:
    check(laboratory, fault, request)
