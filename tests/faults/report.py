"""Makes docs/promises.md from what the runs of the laboratory wrote down. `python -m tests.faults.report`."""

from __future__ import annotations

from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
#: Where each run leaves its lines; `make faults` begins with an empty directory.
RECORDS = CHECKOUT / "build" / "faults"
