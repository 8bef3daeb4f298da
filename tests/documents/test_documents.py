"""Where two files must agree, they do: deployments, settings, the catalogue, and the commands that people are told."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from dotenv import dotenv_values

from tasks.catalogue.schema import SCHEMA_FILE
from tasks.plans import settings
from tasks.plans.settings import DEFAULTS, load_settings, settings_from

CHECKOUT = Path(__file__).parents[2]
LIST = CHECKOUT / "docs" / "deployments.md"
DOCUMENTS = [CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md", *sorted((CHECKOUT / "docs").glob("*.md"))]
DEPLOYMENTS: dict[str, Any] = yaml.safe_load((CHECKOUT / "prefect.yaml").read_text())
ENTRIES: list[dict[str, Any]] = DEPLOYMENTS["deployments"]

#: What Prefect 3 reads of prefect.yaml; it passes over any other key without a word.
TOP_KEYS = {"name", "prefect-version", "build", "push", "pull", "deployments", "definitions"}
DEPLOYMENT_KEYS = {
    "name",
    "version",
    "version_type",
    "tags",
    "description",
    "schedule",
    "schedules",
    "paused",
    "concurrency_limit",
    "flow_name",
    "entrypoint",
    "parameters",
    "enforce_parameter_schema",
    "build",
    "push",
    "pull",
    "work_pool",
    "triggers",
    "sla",
}
WORK_POOL_KEYS = {"name", "work_queue_name", "job_variables"}
SCHEDULE_KEYS = {
    "cron",
    "interval",
    "rrule",
    "timezone",
    "anchor_date",
    "active",
    "parameters",
    "slug",
    "replaces",
    "day_or",
}


def flow_of(entry: dict[str, Any]) -> Any:
    file, function = entry["entrypoint"].split(":")
    return getattr(importlib.import_module(file.removesuffix(".py").replace("/", ".")), function)


def full_name(entry: dict[str, Any]) -> str:
    return f"{flow_of(entry).name}/{entry['name']}"


def tables(text: str) -> Iterator[list[dict[str, str]]]:
    """Every table of a markdown text: a list of rows, each by the headers of its columns."""
    for block in re.findall(r"(?:^\|.*\|[ \t]*\n)+", text + "\n", re.MULTILINE):
        lines = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in block.splitlines()]
        if len(lines) > 1 and all(re.fullmatch(r":?-+:?", cell) for cell in lines[1]):
            yield [dict(zip(lines[0], line, strict=False)) for line in lines[2:]]


def told_deployments(document: Path) -> list[dict[str, str]]:
    """The rows of the tables whose first header is `deployment`."""
    return [row for table in tables(document.read_text()) for row in table if "deployment" in row]


def in_code(text: str) -> str:
    """What stands in code spans and code blocks, one after the other."""
    blocks = re.findall(r"^```.*?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    return "\n".join([*blocks, *spans])


def texts_in_program(file: Path) -> str:
    """The strings of a Python file, docstrings and messages alike."""
    constants = (node.value for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Constant))
    return "\n".join(value for value in constants if isinstance(value, str))


def told_commands() -> dict[str, str]:
    """Every text that tells people what to type, by where it stands."""
    texts = {str(file.relative_to(CHECKOUT)): in_code(file.read_text()) for file in DOCUMENTS}
    for top in ("deployments", "flows", "tasks"):
        for file in sorted((CHECKOUT / top).rglob("*.py")):
            texts[str(file.relative_to(CHECKOUT))] = texts_in_program(file)
    texts["prefect.yaml"] = (CHECKOUT / "prefect.yaml").read_text()
    texts[".env.example"] = (CHECKOUT / ".env.example").read_text()
    texts["docs/catalogue.sql"] = (CHECKOUT / "docs" / "catalogue.sql").read_text()
    return texts


# --- prefect.yaml


def test_prefect_yaml_has_no_key_that_prefect_does_not_know() -> None:
    assert DEPLOYMENTS.keys() <= TOP_KEYS
    for entry in ENTRIES:
        assert entry.keys() <= DEPLOYMENT_KEYS, entry["name"]
        assert entry["work_pool"].keys() <= WORK_POOL_KEYS, entry["name"]
        for schedule in entry.get("schedules", []):
            assert schedule.keys() <= SCHEDULE_KEYS, entry["name"]


def test_the_keys_that_this_test_knows_are_those_of_the_installed_prefect() -> None:
    from prefect.cli.deploy._models import DeploymentConfig, PrefectYamlModel, RawScheduleConfig, WorkPoolConfig

    assert set(DeploymentConfig.model_fields) == DEPLOYMENT_KEYS
    assert set(WorkPoolConfig.model_fields) == WORK_POOL_KEYS
    assert set(RawScheduleConfig.model_fields) == SCHEDULE_KEYS
    assert {field.alias or name for name, field in PrefectYamlModel.model_fields.items()} == TOP_KEYS - {"definitions"}


def test_every_deployment_is_listed_once() -> None:
    names = [full_name(entry) for entry in ENTRIES]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("entry", ENTRIES, ids=full_name)
def test_a_deployment_starts_a_flow_with_parameters_that_it_takes(entry: dict[str, Any]) -> None:
    flow = flow_of(entry)
    assert entry["parameters"].keys() <= inspect.signature(flow.fn).parameters.keys()
    assert "requested_by" in inspect.signature(flow.fn).parameters
    assert entry["description"].endswith(".")


@pytest.mark.parametrize("entry", ENTRIES, ids=full_name)
def test_every_parameter_of_a_flow_is_described_for_the_form_in_the_ui(entry: dict[str, Any]) -> None:
    from prefect.utilities.callables import parameter_schema

    described = parameter_schema(flow_of(entry).fn).properties
    assert described
    for name, field in described.items():
        assert field.get("description"), f"{name} of {full_name(entry)}"


#: When what runs by itself does so, in UTC.
SCHEDULES = {
    "backup/daily": "0 2 * * *",
    "verify-backup/verify-weekly": "0 4 * * 0",
    "check-health/hourly-check": "30 * * * *",
}


def test_what_runs_by_itself_does_so_at_its_hour_in_utc_and_nothing_else_does() -> None:
    every = {full_name(entry): entry["schedules"] for entry in ENTRIES if entry.get("schedules")}
    [off] = every.pop("backup-all/backup-all-plans")
    assert (off["cron"], off["timezone"], off["active"], off["slug"]) == ("0 2 * * *", "UTC", False, "nightly-all")
    schedules = every
    assert schedules.keys() == SCHEDULES.keys()
    for name, [schedule] in schedules.items():
        assert (schedule["cron"], schedule["timezone"], schedule["active"]) == (SCHEDULES[name], "UTC", True)


# --- the documents


def test_the_page_of_deployments_lists_every_deployment_and_no_other() -> None:
    listed = [row["deployment"].strip("`") for row in told_deployments(LIST)]
    assert sorted(listed) == sorted(full_name(entry) for entry in ENTRIES)


def test_the_page_of_deployments_names_the_parameters_of_every_deployment() -> None:
    parameters = {full_name(entry): list(inspect.signature(flow_of(entry).fn).parameters) for entry in ENTRIES}
    rows = list(told_deployments(LIST))
    told = {row["deployment"].strip("`"): re.findall(r"`(\w+)`", row["parameters"]) for row in rows}
    assert told == parameters


def test_the_readme_names_the_deployment_for_each_thing_that_people_do() -> None:
    rows = told_deployments(CHECKOUT / "README.md")
    named = [name for row in rows for name in re.findall(r"`([\w-]+/[\w-]+)`", row["deployment"])]
    assert set(named) <= {full_name(entry) for entry in ENTRIES}
    assert {"backup/daily", "backup/manual", "restore/restore-backup", "undo-restore/undo-last-restore"} <= set(named)


def test_the_start_page_lists_every_page_once() -> None:
    listed = re.findall(r"\]\(([^)]+)\)", (CHECKOUT / "docs" / "index.md").read_text())
    pages = {path.name for path in (CHECKOUT / "docs").iterdir() if path.suffix in (".md", ".sql", ".json")}
    assert sorted(listed) == sorted((pages - {"index.md"}) | {"../CONTRIBUTING.md"})


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: file.name)
def test_a_document_tells_of_no_deployment_that_is_not_there(document: Path) -> None:
    known = {full_name(entry) for entry in ENTRIES}
    named = {name for row in told_deployments(document) for name in re.findall(r"`([^`]+)`", row["deployment"])}
    assert named <= known
    assert set(re.findall(r"prefect deployment run ['\"]?([\w-]+/[\w-]+)", in_code(document.read_text()))) <= known


COMMANDS = told_commands()


def test_commands_are_found_where_they_are_known_to_be() -> None:
    assert "make up" in COMMANDS["README.md"] and "python -m flows.backup" in COMMANDS["docs/deployments.md"]


@pytest.mark.parametrize("place", COMMANDS)
def test_every_module_that_people_are_told_to_run_can_be_run(place: str) -> None:
    for name in re.findall(r"python[\d.]* -m ((?:deployments|flows|tasks|tests)[\w.]*)", COMMANDS[place]):
        if name in ("flows.", "deployments."):  # the beginning of a name that the program completes
            continue
        name = name.rstrip(".")
        spec = find_spec(name)
        assert spec is not None, name
        spec = find_spec(f"{name}.__main__") if spec.submodule_search_locations else spec
        assert spec is not None and spec.origin is not None, f"{name} is a package without __main__"
        assert spec.name.endswith("__main__") or '__name__ == "__main__"' in Path(spec.origin).read_text(), name


@pytest.mark.parametrize("place", COMMANDS)
def test_every_target_that_people_are_told_to_make_is_in_the_makefile(place: str) -> None:
    targets = set(re.findall(r"^([\w-]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))
    pattern = r"^\s*make ([a-z-]+)" if place.endswith(".md") else r"`make ([a-z-]+)`"
    assert set(re.findall(pattern, COMMANDS[place], re.MULTILINE)) <= targets


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: file.name)
def test_every_file_that_a_document_links_to_is_there(document: Path) -> None:
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in target and not target.startswith(("#", "mailto:")):
            assert (document.parent / target.split("#")[0]).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: file.name)
def test_every_heading_that_a_document_links_to_is_there(document: Path) -> None:
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]*#[^)\s]+)\)", text):
        if "://" not in target:
            file, _, anchor = target.partition("#")
            linked = (document.parent / file) if file else document
            assert anchor in anchors(linked.read_text()), target


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives the headings of a markdown text."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


# --- settings


ENV_EXAMPLE = CHECKOUT / ".env.example"


def test_env_example_names_exactly_the_settings_with_their_defaults() -> None:
    assert dotenv_values(ENV_EXAMPLE, interpolate=False) == DEFAULTS


def test_env_example_means_the_same_as_no_file_at_all() -> None:
    assert load_settings(CHECKOUT, environment={}, filename=ENV_EXAMPLE.name) == settings_from({})


def test_env_example_holds_no_secret() -> None:
    values = dotenv_values(ENV_EXAMPLE)
    assert not [name for name in values if re.search("KEY|URL|SECRET|PASSWORD", name) and values[name]]


def test_env_example_explains_every_variable() -> None:
    explained = False
    for line in ENV_EXAMPLE.read_text().splitlines():
        if line.startswith("#"):
            explained = not line.startswith("# ---")
        elif not line:
            explained = False
        else:
            assert explained, line


def test_the_set_up_page_tells_of_every_setting_and_its_default() -> None:
    rows = [
        row for table in tables((CHECKOUT / "docs" / "set-up.md").read_text()) for row in table if "variable" in row
    ]
    told = {name: row["default"] for row in rows for name in re.findall(r"`(\w+)`", row["variable"])}
    assert told.keys() == DEFAULTS.keys()
    for name, default in DEFAULTS.items():
        assert not default or told[name] == f"`{default}`", name


def test_settings_read_no_variable_that_is_not_listed() -> None:
    read = set(re.findall(r"value\[\"(\w+)\"\]", inspect.getsource(settings)))
    assert read <= DEFAULTS.keys()


# --- the catalogue


def test_the_page_of_the_catalogue_tells_of_every_column_and_status() -> None:
    page, ddl = (CHECKOUT / "docs" / "catalogue.md").read_text(), SCHEMA_FILE.read_text()
    told: dict[str, list[str]] = {"column": [], "status": []}
    for row in (row for table in tables(page) for row in table):
        for header in told.keys() & row.keys():
            told[header] += re.findall(r"`(\w+)`", row[header])
    columns = re.findall(r"^    ([a-z_0-9]+) +[A-Z]", ddl, re.MULTILINE)
    assert sorted(told["column"]) == sorted(columns)
    [statuses] = re.findall(r"status IN \((.+?)\)", ddl)
    assert told["status"] == re.findall(r"'(\w+)'", statuses)


# --- the promises


def test_every_promise_of_the_design_names_tests_that_are_there() -> None:
    rows = [row for table in tables((CHECKOUT / "docs" / "design.md").read_text()) for row in table if "held by" in row]
    assert len(rows) > 30
    for row in rows:
        named = re.findall(r"`([^`]+)`", row["held by"])
        assert named, row["promise"]
        for name in named:
            assert name.startswith("make ") or list(CHECKOUT.glob(name)), name
