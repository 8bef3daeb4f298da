"""Random operations beside clients that write: afterwards catalogue, bucket and databases agree, and nothing has grown."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.fault_lists import SEED
from tests.faults.laboratory import Laboratory
from tests.faults.soak import Soak, growth, minutes_wanted

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(60 * minutes_wanted() + 600)]


@pytest.fixture
def roomy(laboratory: Laboratory, servers_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Laboratory]:
    """The laboratory with room for a server of the worker's own, and with a directory for temporary files alone."""
    spool, temporary = servers_directory / "soak" / "spool", servers_directory / "soak" / "temporary"
    for directory, mode in ((spool.parent, 0o711), (temporary, 0o777)):
        directory.mkdir()
        directory.chmod(mode)
    monkeypatch.setenv("SPOOL_DIRECTORY", str(spool))
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    before, laboratory.world = laboratory.world, replace(laboratory.world, spool=spool)
    yield laboratory
    laboratory.world = before


def test_after_a_soak_all_is_as_before(roomy: Laboratory, request: pytest.FixtureRequest) -> None:
    soak, minutes = Soak(roomy, SEED), minutes_wanted()
    soak.run(minutes)
    measures = {name: [value, soak.after[name]] for name, value in soak.before.items()}
    request.node.user_properties += [
        ("kind", "soak"),
        ("minutes", minutes),
        ("seed", SEED),
        ("operations", dict(soak.done)),
        ("measures", measures),
        ("memory", [soak.memory[tenth * (len(soak.memory) - 1) // 10] >> 10 for tenth in range(11)]),
        ("growth", round(growth(soak.memory), 1)),
        ("differences", soak.differences),
    ]
    print(dict(soak.done), measures, soak.memory)
    assert not soak.differences, f"{soak.differences} Repeat it: make soak SOAK_MINUTES={minutes} SEED={SEED}"


def test_memory_that_levels_off_is_told_from_memory_that_grows() -> None:
    levelled = [200_000 + min(number, 100) * 300 for number in range(400)]
    assert growth(levelled) == 0 and growth([*range(0, 40_000, 100)]) == pytest.approx(100)
