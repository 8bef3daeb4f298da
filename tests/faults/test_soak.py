"""Random operations beside clients that write: afterwards catalogue, bucket and databases agree, and nothing has grown."""

from __future__ import annotations

import pytest

from tests.faults.fault_lists import SEED
from tests.faults.laboratory import Laboratory
from tests.faults.soak import Soak, minutes_wanted

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(60 * minutes_wanted() + 600)]


def test_after_a_soak_all_is_as_before(laboratory: Laboratory, request: pytest.FixtureRequest) -> None:
    soak, minutes = Soak(laboratory, SEED), minutes_wanted()
    soak.run(minutes)
    measures = {name: [value, soak.after[name]] for name, value in soak.before.items()}
    request.node.user_properties += [
        ("kind", "soak"),
        ("minutes", minutes),
        ("seed", SEED),
        ("operations", dict(soak.done)),
        ("measures", measures),
        ("differences", soak.differences),
    ]
    print(dict(soak.done), measures)
    assert not soak.differences, f"{soak.differences} Repeat it: make soak SOAK_MINUTES={minutes} SEED={SEED}"
