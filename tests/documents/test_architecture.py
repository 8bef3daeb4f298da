"""The structure is as designed: one folder for each capability, imports point one way, names say what is where."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ci_skip

CHECKOUT = Path(__file__).parents[2]
#: The folders and modules of tasks/. Each may import those before it, and itself.
CAPABILITIES = (
    "errors",
    "names",
    "prefect_client",
    "postgres",
    "storage",
    "catalogue",
    "plans",
    "stored_backups",
    "runs",
    "alarms",
    "backup",
    "restore",
    "databases",
    "adopt",
    "verify",
    "retention",
    "rebuild_catalogue",
    "list_events",
    "download",
    "health",
    "admin_page",
    "backup_all",
)
LAYERS = (*(f"tasks.{name}" for name in CAPABILITIES), "flows", "deployments")
#: The modules of tasks/ that may import Prefect, beside every `steps.py`.
WITH_PREFECT = {
    "tasks.admin_page.prefect_data",
    "tasks.alarms.apply_automations",
    "tasks.alarms.automations",
    "tasks.alarms.run_reports",
    "tasks.alarms.watch",
    "tasks.backup_all.backups_under_way",
    "tasks.health.prefect_facts",
    "tasks.plans.blocks",
    "tasks.plans.find_plan",
    "tasks.plans.from_settings",
    "tasks.plans.schedules",
    "tasks.prefect_client",
    "tasks.runs.at_once",
    "tasks.runs.audit",
    "tasks.runs.command_line",
    "tasks.runs.other_runs",
    "tasks.runs.reporting",
    "tasks.runs.retries",
}
#: The packages of Prefect.
PREFECT = ("prefect", "prefect_aws")
MOST_LINES = 350
MOST_FILES = 173
TOP = {
    ".ci",
    ".env.example",
    ".gitignore",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "SECURITY.md",
    "deployments",
    "docs",
    "flows",
    "prefect.yaml",
    "pyproject.toml",
    "requirements-dev.lock",
    "requirements-mutation.lock",
    "requirements.lock",
    "tasks",
    "tests",
}


def module_name(file: Path) -> str:
    parts = file.relative_to(CHECKOUT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {
    module_name(file): file
    for top in ("deployments", "flows", "tasks")
    for file in sorted((CHECKOUT / top).rglob("*.py"))
}


def imported(name: str) -> set[str]:
    """Every module that the module `name` imports, anywhere in it; of this project and of others."""
    return set(_imported(name, ast.parse(MODULES[name].read_text())))


def _imported(name: str, tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


def layer(name: str) -> int:
    """The place of a module of this project in `LAYERS`."""
    return next(place for place, layer in enumerate(LAYERS) if name == layer or name.startswith(layer + "."))


def is_ours(name: str) -> bool:
    return name.split(".")[0] in ("deployments", "flows", "tasks", "tests")


def needs_prefect(name: str) -> bool:
    return any(module.split(".")[0] in PREFECT for module in imported(name))


def in_tasks() -> list[str]:
    return [name for name in MODULES if name.startswith("tasks.")]


def test_every_folder_of_tasks_has_a_place_in_the_order() -> None:
    folders = {name.split(".")[1] for name in in_tasks()}
    assert folders == set(CAPABILITIES)


@pytest.mark.parametrize("name", [name for name in MODULES if name != "tasks"])
def test_imports_point_one_way(name: str) -> None:
    for other in filter(is_ours, imported(name) - {"tasks"}):
        assert not other.startswith("tests"), f"{name} imports the tests"
        assert layer(other) <= layer(name), f"{name} imports {other}, which comes later in the order"


def test_only_steps_and_the_listed_modules_import_prefect() -> None:
    found = {name for name in in_tasks() if not name.endswith(".steps") and needs_prefect(name)}
    assert found == WITH_PREFECT


def test_every_capability_with_steps_has_them_in_steps() -> None:
    """A Prefect task is declared in a `steps.py` alone."""
    for name in in_tasks():
        if "\n@task" in MODULES[name].read_text():
            assert name.endswith(".steps"), name


@pytest.mark.parametrize("name", MODULES)
def test_every_module_of_ours_that_is_imported_is_there(name: str) -> None:
    assert {other for other in imported(name) if is_ours(other)} <= MODULES.keys()


def test_no_modules_import_each_other_in_a_circle() -> None:
    depends_on = {name: imported(name) & MODULES.keys() - {name} for name in MODULES}
    while leaves := {name for name, others in depends_on.items() if not others & depends_on.keys()}:
        for name in leaves:
            del depends_on[name]
    assert not depends_on, f"these import each other, or what does: {sorted(depends_on)}"


def test_plain_python_can_be_imported_without_prefect() -> None:
    """The same as above, seen from the outside: whatever plain modules import does not bring Prefect along either."""
    reached_by = {name: imported(name) & MODULES.keys() for name in MODULES}
    touched = {name for name in MODULES if needs_prefect(name)}
    while more := {name for name, others in reached_by.items() if name not in touched and others & touched}:
        touched |= more
    plain = [name for name in in_tasks() if name not in touched and "__main__" not in MODULES[name].read_text()]
    assert len(plain) > len(in_tasks()) / 2
    code = f"import sys, {', '.join(plain)}; sys.exit(any(n.split('.')[0] == 'prefect' for n in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, check=False).returncode == 0


def test_no_two_files_of_tasks_share_a_name() -> None:
    names = Counter(file.name for name, file in MODULES.items() if name.startswith("tasks."))
    twice = {name for name, count in names.items() if count > 1}
    assert twice <= {"__init__.py", "steps.py"}


def test_there_are_few_files_and_none_is_long() -> None:
    assert len([name for name in in_tasks() if MODULES[name].name != "__init__.py"]) <= MOST_FILES
    long = {name for name, file in MODULES.items() if len(file.read_text().splitlines()) > MOST_LINES}
    assert not long


@pytest.mark.parametrize("folder", [name for name in CAPABILITIES if (CHECKOUT / "tasks" / name).is_dir()])
def test_each_folder_maps_its_files(folder: str) -> None:
    """The docstring of its `__init__.py` names every file and folder beside it."""
    directory = CHECKOUT / "tasks" / folder
    text = ast.get_docstring(ast.parse((directory / "__init__.py").read_text())) or ""
    there = {path.stem for path in directory.iterdir() if path.suffix in (".py", "") and not path.name.startswith("__")}
    assert not {name for name in there if name not in text}, "these files are missing in the map"


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("flows.")])
def test_each_file_of_flows_bears_its_flows_name(name: str) -> None:
    """Prefect puts `flows/` first on the path of a run, so no file may hide a module of Python either."""
    own = name.removeprefix("flows.")
    assert own not in sys.stdlib_module_names
    functions = [node.name for node in ast.parse(MODULES[name].read_text()).body if isinstance(node, ast.FunctionDef)]
    assert own in functions


def test_the_top_of_the_repository_is_that_of_the_design() -> None:
    words = ["git", "-c", f"safe.directory={CHECKOUT}", "ls-files", "-z"]
    try:
        listed = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
    except (FileNotFoundError, subprocess.CalledProcessError):
        ci_skip("what belongs to the repository can only be known in a checkout, with git installed")
    assert {name.split("/")[0] for name in listed.split("\0") if name} <= TOP
    assert {name for name in TOP if not (CHECKOUT / name).exists()} == set()
