"""Arguments of a command: its parameters are the options, its docstring is the help. Never imports Prefect."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, get_origin

from cyclopts import App, CycloptsError, Parameter, Token, UnusedCliTokensError


def whole_number(_: Any, tokens: Sequence[Token]) -> int:
    """The converter of options that are whole numbers: cyclopts by itself would round 1.5."""
    try:
        return int(tokens[0].value)
    except ValueError:
        raise ValueError(f"{tokens[0].value!r} is no whole number.") from None


WholeNumber = Annotated[int, Parameter(converter=whole_number)]
#: A line of a docstring's `Args:` that goes on in the next one.
_WRAPPED = re.compile(r"\n {6,}(?=\S)")


def flag(name: str, meaning: str) -> inspect.Parameter:
    """An option without a value, which is off unless it is given."""
    kind = Annotated[bool, Parameter(help=meaning, negative=(), show_default=False)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)


def with_options(
    run: Callable[..., int],
    parameters: Iterable[inspect.Parameter],
    doc: str,
    more: Sequence[inspect.Parameter] = (),
    first: str = "",
) -> Callable[..., int]:
    """`run` with an option for each parameter of a flow; that of a list may be given several times.

    `doc` is the docstring of the flow. The parameter called `first` may also be given as the first word.
    """
    options = [*(_option(parameter, parameter.name == first) for parameter in parameters), *more]
    options.sort(key=lambda option: option.kind)
    run.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    run.__annotations__ = {option.name: option.annotation for option in options}
    run.__doc__ = _WRAPPED.sub(" ", inspect.cleandoc(doc))
    return run


def _option(parameter: inspect.Parameter, is_first: bool) -> inspect.Parameter:
    kind = parameter.annotation
    name = parameter.name.removesuffix("s") if get_origin(kind) is list else parameter.name
    shown = Parameter(
        name=f"--{name.replace('_', '-')}",
        negative=f"--no-{name.replace('_', '-')}" if parameter.default is True else (),
        show_default=bool(parameter.default),
        converter=whole_number if kind is int else None,
    )
    place = inspect.Parameter.POSITIONAL_OR_KEYWORD if is_first else inspect.Parameter.KEYWORD_ONLY
    return parameter.replace(kind=place, annotation=Annotated[kind, shown])


def run_command(command: Callable[..., int], arguments: Sequence[str] | None = None, program: str = "") -> int:
    """The exit status of `command`, called with these arguments, or those of this process.

    `program` is what a person types before the arguments; by default `python -m` and the module of `command`.
    `--help` only shows the help. Arguments that `command` does not take are refused with 2 and one line on stderr.
    """
    program = program or f"python -m {_module_of(command)}"
    app = new_app(program)
    app.default(command)
    return run_app(app, arguments)


def new_app(program: str, help: str | None = None) -> App:  # noqa: A002 - cyclopts's own word
    """A command line that never ends the process by itself; `program` is what a person types before the arguments."""
    return App(
        name=program,
        help=help,
        version_flags=(),
        help_formatter="plain",
        result_action="return_value",
        print_error=False,
        exit_on_error=False,
    )


def run_app(app: App, arguments: Sequence[str] | None = None) -> int:
    """The exit status of the command that these arguments name, or those of this process; see `run_command`."""
    try:
        return int(app(sys.argv[1:] if arguments is None else arguments) or 0)
    except CycloptsError as error:
        command = " ".join([*app.name, *(error.command_chain or ())])
        sys.stderr.write(f"{_sentence(error)} See {command} --help.\n")
        return 2


def _module_of(command: Callable[..., int]) -> str:
    """The name under which `python -m` runs the module."""
    spec = sys.modules[command.__module__].__spec__
    return spec.name.removesuffix(".__main__") if spec else command.__module__


def _sentence(error: CycloptsError) -> str:
    if isinstance(error, UnusedCliTokensError):
        return f"Unknown argument: {' '.join(error.unused_tokens or ())}."
    return " ".join(str(error).split())
