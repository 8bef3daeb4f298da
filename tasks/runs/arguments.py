"""Arguments of a command: its parameters are the options, its docstring is the help. Never imports Prefect."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter, Token, UnusedCliTokensError


def whole_number(_: Any, tokens: Sequence[Token]) -> int:
    """The converter of options that are whole numbers: cyclopts by itself would round 1.5."""
    try:
        return int(tokens[0].value)
    except ValueError:
        raise ValueError(f"{tokens[0].value!r} is no whole number.") from None


WholeNumber = Annotated[int, Parameter(converter=whole_number)]


def run_command(command: Callable[..., int], arguments: Sequence[str] | None = None, program: str = "") -> int:
    """The exit status of `command`, called with these arguments, or those of this process.

    `program` is what a person types before the arguments; by default `python -m` and the module of `command`.
    `--help` only shows the help. Arguments that `command` does not take are refused with 2 and one line on stderr.
    """
    program = program or f"python -m {_module_of(command)}"
    app = App(
        name=program,
        version_flags=(),
        help_formatter="plain",
        result_action="return_value",
        print_error=False,
        exit_on_error=False,
    )
    app.default(command)
    try:
        return int(app(sys.argv[1:] if arguments is None else arguments) or 0)
    except CycloptsError as error:
        sys.stderr.write(f"{_sentence(error)} See {program} --help.\n")
        return 2


def _module_of(command: Callable[..., int]) -> str:
    """The name under which `python -m` runs the module."""
    spec = sys.modules[command.__module__].__spec__
    return spec.name.removesuffix(".__main__") if spec else command.__module__


def _sentence(error: CycloptsError) -> str:
    if isinstance(error, UnusedCliTokensError):
        return f"Unknown argument: {' '.join(error.unused_tokens or ())}."
    return " ".join(str(error).split())
