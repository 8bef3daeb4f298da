"""Every package that is imported is declared in pyproject.toml: none is there only because another one needs it."""

from __future__ import annotations

import ast
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.documents.bill_of_materials import shortened

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


def test_the_bill_of_materials_lists_the_lock_with_every_licence() -> None:
    bill = json.loads((CHECKOUT / "docs/sbom.json").read_text(encoding="utf-8"))
    listed = {normal(one["name"]): one for one in bill["components"]}
    locked = re.findall(
        r"^([a-z0-9._-]+)==(\S+)( ; .*)? \\$", (CHECKOUT / "requirements.lock").read_text(), re.MULTILINE
    )
    always = {normal(name): version for name, version, marker in locked if not marker}
    conditional = {normal(name) for name, _, marker in locked if marker}
    assert always == {name: listed[name]["version"] for name in always if name in listed}
    assert set(listed) <= set(always) | conditional
    assert {name for name, one in listed.items() if not one.get("licenses")} == {"pyrage"}
    assert bill == shortened(bill), "make sbom takes addresses out"


def test_the_page_names_every_licence_that_asks_for_more_than_a_notice() -> None:
    bill = json.loads((CHECKOUT / "docs/sbom.json").read_text(encoding="utf-8"))
    page = (CHECKOUT / "docs/security.md").read_text(encoding="utf-8")
    for one in bill["components"]:
        licences = json.dumps([each.get("expression") or each["license"] for each in one.get("licenses", [])])
        if re.search(r"GPL|MPL|Mozilla|GNU|EUPL|CDDL", licences):
            assert f"`{one['name']}`" in page, one["name"]
