"""`python -m deployments.sample`: fill the database that DATABASE_URL names with the sample shop."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from deployments.sample.load import fill
from tasks.errors import BackupSystemError, BadSetting
from tasks.runs.arguments import WholeNumber, run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when the database holds the sample shop that was asked for, else 1 and one sentence on stderr."""
    return run_command(sample, arguments)


def sample(*, megabytes: WholeNumber = 50, seed: WholeNumber = 1) -> int:
    """Fill the database that DATABASE_URL names with a sample shop.

    Parameters
    ----------
    megabytes
        size of its plain dump in MB
    seed
        the same seed and size give the same rows
    """
    try:
        url = os.environ.get("DATABASE_URL", "")
        if not url:
            raise BadSetting("DATABASE_URL is not set: put the address of the database to fill into it.")
        fill(url, megabytes, seed, lambda line: print(line, flush=True))
    except BackupSystemError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
