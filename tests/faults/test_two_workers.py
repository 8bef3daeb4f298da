"""Two workers, or seven, do something with the same plan at once."""

from __future__ import annotations

import pytest

from tests.faults.fault import Fault
from tests.faults.fault_lists import parameters
from tests.faults.laboratory import Laboratory
from tests.faults.running import check

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("fault", parameters("workers"))
def test_workers_at_once_keep_the_promises(
    laboratory: Laboratory, fault: Fault, request: pytest.FixtureRequest
) -> None:
    check(laboratory, fault, request)
