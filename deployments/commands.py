"""What every command of `deployments` does with its arguments."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from cyclopts import App, CycloptsError


def run(command: Callable[..., int], arguments: Sequence[str] | None = None) -> int:
    """The exit status of `command`, whose parameters are the options and whose docstring is the help.

    `--help` only shows that. Arguments that `command` does not take are refused with 2 and one sentence on stderr.
    """
    spec = sys.modules[command.__module__].__spec__
    name = spec.name.removesuffix(".__main__") if spec else command.__module__
    app = App(
        name=f"python -m {name}",
        version_flags=[],
        default_command=command,
        result_action="return_value",
        print_error=False,
        exit_on_error=False,
    )
    try:
        return app(arguments) or 0
    except CycloptsError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
