"""The store fails while a backup is restored or verified."""

from __future__ import annotations

import pytest

from tests.faults.fault import IN_PLACE, NEW_DATABASE, SWAP, VERIFY, Fault
from tests.faults.fault_lists import parameters
from tests.faults.laboratory import Laboratory
from tests.faults.running import check

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("fault", parameters("store", SWAP, NEW_DATABASE, IN_PLACE, VERIFY))
def test_the_promises_are_kept(laboratory: Laboratory, fault: Fault, request: pytest.FixtureRequest) -> None:
    check(laboratory, fault, request)
