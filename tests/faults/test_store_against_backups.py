"""The store fails while a backup is made, cleaned up or deleted."""

from __future__ import annotations

import pytest

from tests.faults.fault import BACKUP, CLEANUP, DELETE, Fault
from tests.faults.fault_lists import parameters
from tests.faults.laboratory import Laboratory
from tests.faults.running import check

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("fault", parameters("store", BACKUP, CLEANUP, DELETE))
def test_the_promises_are_kept(laboratory: Laboratory, fault: Fault, request: pytest.FixtureRequest) -> None:
    check(laboratory, fault, request)
