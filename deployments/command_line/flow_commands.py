"""A command for each flow, with its parameters as options, made of the text of its file, without importing it."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cyclopts import App

from deployments.command_line.output import Run, print_json
from deployments.command_line.runs import connected, link_of, progress, start, watch
from tasks.errors import BadSetting
from tasks.runs.arguments import flag, with_options

_FLOWS = Path(__file__).parents[2] / "flows"
#: Docstrings begin with what the button of the form does: `Submit replaces …`.
_OF_THE_FORM = re.compile(r"^Submit (\w)")
_TYPES: dict[str, Any] = {"str": str, "int": int, "bool": bool, "list[str]": list[str]}


@dataclass(frozen=True)
class FlowCommand:
    """A flow as a command."""

    module: str
    """The file in `flows/`, and the flow in it."""
    deployment: str
    """What runs it, as `<flow>/<name>`."""
    first: str = "backup"
    """The parameter that may also be given as the first word."""


COMMANDS = {
    "backup": FlowCommand("backup", "backup/manual"),
    "backup-all": FlowCommand("backup_all", "backup-all/backup-all-plans"),
    "restore": FlowCommand("restore", "restore/restore-backup"),
    "undo": FlowCommand("undo_restore", "undo-restore/undo-last-restore"),
    "verify": FlowCommand("verify_backup", "verify-backup/verify-backup"),
    "health": FlowCommand("check_health", "check-health/check-now"),
    "download": FlowCommand("download_backup", "download-backup/download-backup"),
    "delete": FlowCommand("delete_backup", "delete-backup/delete-backup"),
    "keep": FlowCommand("keep_backup", "keep-backup/keep-backup"),
    "adopt": FlowCommand("adopt_backup", "adopt-backup/take-over-dump", first="key"),
    "cleanup": FlowCommand("cleanup", "cleanup/clean-up-now"),
    "rebuild-catalogue": FlowCommand("rebuild_catalogue", "rebuild-catalogue/rebuild-catalogue"),
    "refresh": FlowCommand("list_backups", "list-backups/refresh-admin-page"),
}
_OPTIONS = (
    flag("here", "Run in this process, without a worker, instead of through the deployment."),
    flag("json", "Print the outcome as JSON."),
    flag("quiet", "Print no progress and no log lines."),
)
#: The options of single commands that no flow has.
_MORE = {"download": (flag("print_link", "Print the link, a secret, on standard output."),)}


def add_flow_commands(app: App) -> None:
    """Every flow is a command of `app`."""
    for name, command in COMMANDS.items():
        doc, parameters = declared(command.module)
        run = with_options(
            _runner(name, command), parameters, doc, [*_MORE.get(name, ()), *_OPTIONS], first=command.first
        )
        app.command(run, name=name)


def declared(module: str) -> tuple[str, list[inspect.Parameter]]:
    """The docstring and the parameters of the flow in `flows/<module>.py`, read from its text."""
    tree = ast.parse((_FLOWS / f"{module}.py").read_text(encoding="utf-8"))
    [function] = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == module]
    doc = _OF_THE_FORM.sub(lambda match: match[1].upper(), ast.get_docstring(function) or "")
    return doc, list(_parameters(function.args))


def _parameters(arguments: ast.arguments) -> Iterator[inspect.Parameter]:
    given = [inspect.Parameter.empty] * (len(arguments.args) - len(arguments.defaults))
    defaults = [*given, *map(ast.literal_eval, arguments.defaults)]
    for argument, default in zip(arguments.args, defaults, strict=True):
        kind = inspect.Parameter.KEYWORD_ONLY
        yield inspect.Parameter(argument.arg, kind, default=default, annotation=_type(argument.annotation))


def _type(annotation: ast.expr | None) -> Any:
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Literal":
        choices = ast.literal_eval(annotation.slice)
        return Literal[choices]
    assert annotation is not None
    return _TYPES[ast.unparse(annotation)]


def _runner(name: str, command: FlowCommand) -> Callable[..., int]:
    def run(*first: Any, here: bool = False, json: bool = False, quiet: bool = False, **given: Any) -> int:
        if first:
            given[command.first] = first[0]
        if not here:
            return _through_deployment(command, given, json, quiet)
        if json:
            raise BadSetting("--json needs the record of a run in Prefect: leave --here or --json out.")
        return _here(name, command, given, quiet)

    return run


def _through_deployment(command: FlowCommand, given: dict[str, Any], json: bool, quiet: bool) -> int:
    """0 when the run was completed, 1 when it was not."""
    wants_link = given.pop("print_link", False)
    api = connected(", or run this here with --here")
    started = start(api, command.deployment, given)
    try:
        with progress(started, quiet or json) as shown:
            run = watch(api, started, shown)
    except KeyboardInterrupt:
        sys.stderr.write(f"The run {started.name} goes on; to cancel it: prefect flow-run cancel {started.id}\n")
        return 130
    if wants_link and run.state == "COMPLETED":
        run = run.model_copy(update={"link": link_of(api, started.id)})
    _say(run, json, quiet)
    return 0 if run.state == "COMPLETED" else 1


def _say(run: Run, json: bool, quiet: bool) -> None:
    if json:
        print_json(run)
    elif run.link:
        sys.stdout.write(f"{run.link}\n")
    elif run.state == "COMPLETED" and not quiet:
        sys.stdout.write(f"{run.name} was completed after {run.seconds:.1f} s.\n")
    if run.state != "COMPLETED":
        sys.stderr.write(f"{run.message}\n")


def _here(name: str, command: FlowCommand, given: Mapping[str, Any], quiet: bool) -> int:
    """The same as `python -m flows.<module>` with these options."""
    if quiet:
        os.environ["PREFECT_LOGGING_LEVEL"] = "CRITICAL"
    switched_on = [option.name for option in declared(command.module)[1] if option.default is True]
    sys.argv = [f"backups {name}", *_words(given, switched_on)]
    return int(importlib.import_module(f"flows.{command.module}").main())


def _words(given: Mapping[str, Any], switched_on: Collection[str]) -> Iterator[str]:
    """`switched_on` are the options that are on unless they are switched off."""
    for name, value in given.items():
        option = f"--{(name.removesuffix('s') if isinstance(value, list) else name).replace('_', '-')}"
        if value is True:
            yield option
        elif value is False:
            yield from [f"--no-{option.removeprefix('--')}"] * (name in switched_on)
        else:
            yield from (f"{option}={item}" for item in (value if isinstance(value, list) else [value]))
