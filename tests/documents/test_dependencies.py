"""Every package that is imported is declared in pyproject.toml: none is there only because another one needs it."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
OURS = {"deployments", "flows", "tasks", "tests"}


def names(requirements: list[str]) -> set[str]:
    """The packages of a list of requirements, written in one way."""
    return {normal(re.split(r"[^\w.-]", one)[0]) for one in requirements}


def normal(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()


NEEDED = names(PROJECT["project"]["dependencies"])
FOR_TESTS = NEEDED | names(PROJECT["dependency-groups"]["dev"])


def imported(folder: str) -> dict[str, str]:
    """The modules outside of the standard library and of this project, each with a file that imports it."""
    found = {}
    for file in sorted((CHECKOUT / folder).rglob("*.py")):
        for name in _imported(ast.parse(file.read_text(encoding="utf-8"))):
            if name not in OURS | sys.stdlib_module_names:
                found[name] = str(file.relative_to(CHECKOUT))
    return found


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize(
    ("folder", "declared"), [("deployments", NEEDED), ("flows", NEEDED), ("tasks", NEEDED), ("tests", FOR_TESTS)]
)
def test_every_package_that_is_imported_is_declared(folder: str, declared: set[str]) -> None:
    packages = packages_distributions()
    undeclared = {
        f"{file} imports {module}"
        for module, file in imported(folder).items()
        if not {normal(package) for package in packages.get(module, [module])} & declared
    }
    assert undeclared == set()


@pytest.mark.parametrize(
    ("lock", "declared"),
    [
        ("requirements.lock", NEEDED),
        ("requirements-dev.lock", FOR_TESTS),
        ("requirements-mutation.lock", names(PROJECT["dependency-groups"]["mutation"])),
    ],
)
def test_every_package_that_is_declared_is_in_the_lock(lock: str, declared: set[str]) -> None:
    listed = re.findall(r"^([a-z0-9.-]+)(?:\[[a-z0-9,-]+\])?==", (CHECKOUT / lock).read_text(), re.MULTILINE)
    assert declared <= set(listed)
