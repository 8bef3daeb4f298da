"""A replica fails while copies are made, removed and restored."""

from __future__ import annotations

import pytest

from tests.faults.fault import Fault
from tests.faults.fault_lists import parameters
from tests.faults.laboratory import Laboratory
from tests.faults.running import check

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("fault", parameters("replica"))
def test_whatever_a_replica_does_the_promises_are_kept(
    laboratory: Laboratory, fault: Fault, request: pytest.FixtureRequest
) -> None:
    check(laboratory, fault, request)
