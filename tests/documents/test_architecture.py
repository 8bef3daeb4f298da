"""The house is built as designed: imports point one way, and nothing lies at its top that does not belong there."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ci_skip

CHECKOUT = Path(__file__).parents[2]
#: Each layer may import those to its right, and itself.
LAYERS = ("deployments", "flows", "tasks", "tasks.core")
TOP = {
    ".ci",
    ".env.example",
    ".gitignore",
    "CHANGELOG.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "deployments",
    "docs",
    "flows",
    "prefect.yaml",
    "pyproject.toml",
    "requirements-dev.lock",
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


def layer(name: str) -> str:
    """The layer that a module of this project belongs to."""
    return next(one for one in reversed(LAYERS) if name == one or name.startswith(one + "."))


def is_ours(name: str) -> bool:
    return name.split(".")[0] in ("deployments", "flows", "tasks", "tests")


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_one_way(name: str) -> None:
    allowed = LAYERS[LAYERS.index(layer(name)) :]
    for other in filter(is_ours, imported(name)):
        assert not other.startswith("tests"), f"{name} imports the tests"
        assert layer(other) in allowed, f"{name} imports {other}"


@pytest.mark.parametrize("name", [name for name in MODULES if layer(name) == "tasks.core"])
def test_the_core_never_imports_prefect(name: str) -> None:
    assert not [other for other in imported(name) if other.split(".")[0].startswith("prefect")]


@pytest.mark.parametrize("name", MODULES)
def test_every_module_of_ours_that_is_imported_is_there(name: str) -> None:
    assert {other for other in imported(name) if is_ours(other)} <= MODULES.keys()


def test_no_modules_import_each_other_in_a_circle() -> None:
    depends_on = {name: imported(name) & MODULES.keys() - {name} for name in MODULES}
    while leaves := {name for name, others in depends_on.items() if not others & depends_on.keys()}:
        for name in leaves:
            del depends_on[name]
    assert not depends_on, f"these import each other, or what does: {sorted(depends_on)}"


def test_the_core_can_be_imported_without_prefect() -> None:
    """The same as above, seen from the outside: whatever the core imports does not bring Prefect along either."""
    names = [name for name in MODULES if layer(name) == "tasks.core" and "__main__" not in MODULES[name].read_text()]
    code = f"import sys, {', '.join(names)}; sys.exit(any(n.split('.')[0] == 'prefect' for n in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, check=False).returncode == 0


@pytest.mark.parametrize("name", [name for name in MODULES if layer(name) == "flows" and name != "flows"])
def test_a_file_of_flows_hides_no_module_of_python(name: str) -> None:
    """Prefect puts `flows/` first on the path of a run."""
    assert name.removeprefix("flows.") not in sys.stdlib_module_names


def test_the_top_of_the_repository_is_that_of_the_design() -> None:
    words = ["git", "-c", f"safe.directory={CHECKOUT}", "ls-files", "-z"]
    try:
        listed = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
    except (FileNotFoundError, subprocess.CalledProcessError):
        ci_skip("what belongs to the repository can only be told in a checkout, with git installed")
    assert {name.split("/")[0] for name in listed.split("\0") if name} <= TOP
    assert {name for name in TOP if not (CHECKOUT / name).exists()} == set()
