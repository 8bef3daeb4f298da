"""docs/promises.md is made from the records of runs, and holds nothing else."""

from __future__ import annotations

import re

from tests.faults.fault_lists import all_faults
from tests.faults.report import PAGE, page

FAULT = {"kind": "fault", "fault": "backup-HeadObject-late", "where": "store", "operation": "backup", "how": "late"}


def test_a_broken_promise_is_on_the_page() -> None:
    lines = [
        {**FAULT, "seed": 1, "ended": ended, "seconds": 60.0, "kept": ended != "killed"}
        for ended in ("completed", "killed")
    ]
    text = page([*lines, {"kind": "forged", "what": "names", "count": 7, "kept": True, "seed": 1}])
    assert "**2 faults, 1 broken promises**: backup-HeadObject-late. Seed 1, 2 minutes" in text
    assert "| late | 2 |" in text and "**0 tampered files and 7 forged backups refused**" in text


def test_the_page_tells_of_enough_faults_and_of_no_broken_promise() -> None:
    said = re.search(r"\*\*(\d+) faults, (\d+) broken promises\*\*", PAGE.read_text(encoding="utf-8"))
    assert said is not None and int(said[1]) >= 300 and said[2] == "0"


def test_every_fault_has_a_name_of_its_own() -> None:
    names = [fault.name for fault in all_faults()]
    assert len(names) >= 300 and len(set(names)) == len(names)
