"""`python -m deployments.down`: stop what `deployments.up` started in this checkout; the data stays."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from deployments.quick_start.services import Services
from tasks.errors import BackupSystemError
from tasks.runs.arguments import run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when no process of this checkout is left, else 1 and one sentence on stderr."""
    return run_command(down, arguments)


def down() -> int:
    """Stop what `make up` started in this checkout; the data stays."""
    services = Services()
    if not services.was_used:
        print("Nothing runs: `make up` was never called here.")
        return 0
    try:
        with services.alone():
            stopped = services.stop()
    except (BackupSystemError, OSError) as error:
        print(f"make down stopped: {error}", file=sys.stderr)
        return 1
    print(f"Stopped: {', '.join(stopped)}." if stopped else "Nothing was running.")
    print(f"The data stays in {services.state}; `make up` goes on with it.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
