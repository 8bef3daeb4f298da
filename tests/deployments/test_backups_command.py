"""The command `backups`: what it reads without Prefect, what it starts through deployments, and what it refuses."""

from __future__ import annotations

import inspect
import io
import json
import os
import pty
import re
import resource
import signal
import subprocess
import sys
import tomllib
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from deployments import add_plan
from deployments.command_line.flow_commands import COMMANDS, declared
from deployments.command_line.main import main
from deployments.command_line.output import OUTPUTS
from deployments.command_line.prefect_api import Server, find_server
from deployments.quick_start.prefect_services import PrefectServer
from tasks.catalogue.catalogue import Catalogue
from tasks.catalogue.rows import Event
from tasks.postgres.dsn import parse
from tests.admin_page.rows import insert, row
from tests.support.installation import Installation
from tests.support.output_schema import schema

CHECKOUT = Path(__file__).parents[2]
AT = datetime(2026, 3, 1, 2, tzinfo=UTC)
SECRET = "not-for-the-screen"
FLOWS = sorted(path.stem for path in (CHECKOUT / "flows").glob("[!_]*.py"))
#: Flows whose result `backups` reads by itself.
READ = {"list_events"}


def environment(**more: str) -> dict[str, str]:
    """That of a person who has set nothing of Prefect's, in an empty home."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return {**kept, "PREFECT_HOME": "/nonexistent", "PYTHONPATH": str(CHECKOUT), **more}


def backups(*words: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, whose last line on standard error says whether it imported Prefect."""
    program = (
        "import sys\nfrom deployments.command_line.main import main\nstatus = main()\n"
        "sys.stderr.write(f\"prefect: {'prefect' in sys.modules}\\n\")\nsys.exit(status)"
    )
    return subprocess.run(
        [sys.executable, "-c", program, *words],
        cwd=cwd,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def described(catalogue_url: str, directory: Path) -> Path:
    """A directory whose `.env` describes a plan with this catalogue."""
    (directory / ".env").write_text(
        f"DATABASE_URL=postgresql://nobody:{SECRET}@127.0.0.1:1/nothing\nCATALOG_URL={catalogue_url}\n"
        f"S3_ENDPOINT_URL=http://127.0.0.1:1\nAWS_ACCESS_KEY_ID=key\nAWS_SECRET_ACCESS_KEY={SECRET}\n"
    )
    return directory


@pytest.fixture(scope="module")
def place(catalogue_url: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan of `.env`, in whose catalogue there are three backups and a line of the audit."""
    catalogue = Catalogue(parse(catalogue_url))
    insert(
        catalogue,
        [
            row("default", AT),
            row("default", AT + timedelta(days=1), status="failed", error="The disk \x1b[31mis full."),
            row("other", AT + timedelta(days=2), suspicious="It has shrunk."),
        ],
    )
    catalogue.note(Event("restore", "failed", "default", "Ada", "run-1", error="No room.", details={"mode": "swap"}))
    return described(catalogue_url, tmp_path_factory.mktemp("place"))


# --- reading


def test_a_list_takes_no_prefect_and_less_than_two_seconds_of_work(place: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = backups("list", cwd=place)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (done.returncode, done.stderr) == (0, "prefect: False\n")
    assert (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime) < 2
    names = [line.split()[1] for line in done.stdout.splitlines()[1:]]
    assert [name[:17] for name in names] == ["backup_2026-03-03", "backup_2026-03-02", "backup_2026-03-01"]
    assert "suspicious" in done.stdout and SECRET not in done.stdout


def test_a_list_can_be_narrowed(place: Path) -> None:
    done = backups("list", "--plan", "default", "--last", "1", "--quiet", cwd=place)
    assert done.returncode == 0 and re.fullmatch(r"backup_2026-03-02_\S+\.sql\n", done.stdout)


def test_a_reader_that_has_seen_enough_gets_no_traceback(place: Path) -> None:
    words = [sys.executable, "-c", "from deployments.command_line.main import main; main(['list'] )"]
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as closed:
        done = subprocess.run(
            words, cwd=place, env=environment(), stdout=closed, stderr=subprocess.PIPE, text=True, check=False
        )
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr


@pytest.mark.parametrize("words", [["list"], ["events"], ["plans"]])
def test_json_is_as_the_published_schema_says(place: Path, words: list[str]) -> None:
    done = backups(*words, "--json", cwd=place)
    assert done.returncode == 0 and "prefect: False" in done.stderr
    published = json.loads((CHECKOUT / "docs" / "backups.schema.json").read_text())
    asked = {**published, "anyOf": [{"$ref": f"#/$defs/{OUTPUTS[words[0]].__name__}"}]}
    jsonschema.validate(json.loads(done.stdout), asked, format_checker=jsonschema.FormatChecker())
    assert SECRET not in done.stdout


def test_the_published_schema_is_that_of_the_program() -> None:
    assert json.loads((CHECKOUT / "docs" / "backups.schema.json").read_text()) == schema()


def test_events_are_those_of_the_audit(place: Path) -> None:
    [event] = json.loads(backups("events", "--action", "restore", "--json", cwd=place).stdout)["events"]
    assert (event["actor"], event["error"], event["details"]) == ("Ada", "No room.", {"mode": "swap"})
    assert "No room." in backups("events", cwd=place).stdout


# --- what cannot be done


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (["lst"], 2, 'Unknown command "lst". Did you mean "list"?'),
        (["list", "--last", "0"], 1, "set last to 1"),
        (["list", "--last", "1.5"], 2, "is no whole number"),
        (["list", "--plan", "nothing"], 1, "There is no plan 'nothing': there is default."),
        (["restore", "--mode", "gently"], 2, "gently"),
        (["delete"], 2, "--backup"),
        (["backup"], 1, "or run this here with --here."),
        (["backup", "--here", "--json"], 1, "leave --here or --json out"),
        (["plan", "show", "default"], 1, "No Prefect server is set"),
        (["plan", "set", "default", "retention_days=2"], 1, "No Prefect server is set"),
        (["plan", "add", "crm"], 1, "No Prefect server is set"),
        (["completion", "cmd"], 2, "cmd"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_sentence(
    place: Path, words: list[str], status: int, sentence: str
) -> None:
    done = backups(*words, cwd=place)
    said, is_ours, _ = done.stderr.partition("prefect: ")
    assert is_ours and (done.returncode, done.stdout, said.count("\n")) == (status, "", 1), done.stderr
    assert sentence in said and "Traceback" not in said and SECRET not in said


def test_a_catalogue_that_does_not_answer_is_named_without_its_password(tmp_path: Path) -> None:
    done = backups("list", cwd=described(f"postgresql://nobody:{SECRET}@127.0.0.1:1/nothing", tmp_path))
    assert done.returncode == 1 and "127.0.0.1" in done.stderr and SECRET not in done.stderr + done.stdout


def test_a_server_that_is_gone_is_named_and_the_plan_of_the_settings_shown(place: Path) -> None:
    done = backups("list", cwd=place, PREFECT_API_URL="http://127.0.0.1:1/api")
    assert done.returncode == 0 and "backup_2026-03-01" in done.stdout
    assert done.stderr.startswith("No Prefect server answers at http://127.0.0.1:1/api (ConnectError).")
    refused = backups("backup", cwd=place, PREFECT_API_URL="http://127.0.0.1:1/api")
    assert refused.returncode == 1 and "--here" in refused.stderr


def test_without_any_plan_one_sentence_says_what_to_do(tmp_path: Path) -> None:
    done = backups("list", cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.startswith("There is no plan: run `make up`")


# --- the commands and the flows


def test_every_flow_is_a_command_with_a_deployment_that_runs_it() -> None:
    entries = yaml.safe_load((CHECKOUT / "prefect.yaml").read_text())["deployments"]
    runs = {entry["name"]: entry["entrypoint"] for entry in entries}
    assert sorted([*READ, *(command.module for command in COMMANDS.values())]) == FLOWS
    for command in COMMANDS.values():
        assert runs[command.deployment.partition("/")[2]] == f"flows/{command.module}.py:{command.module}"


@pytest.mark.parametrize("name", FLOWS)
def test_the_options_of_a_command_are_the_parameters_of_its_flow(name: str) -> None:
    flow = getattr(import_module(f"flows.{name}"), name)
    doc, parameters = declared(name)
    there = inspect.signature(flow.fn, eval_str=True).parameters.values()
    assert [(it.name, it.annotation, it.default) for it in parameters] == [
        (it.name, it.annotation, it.default) for it in there
    ]
    assert doc.split("\n")[1:] == inspect.cleandoc(flow.fn.__doc__).split("\n")[1:] and not doc.startswith("Submit")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_imports_neither_prefect_nor_the_flow(name: str, place: Path) -> None:
    if name not in ("restore", "delete"):  # a process for each would take long; the others are made alike
        assert main([name, "--help"]) == 0
        return
    done = backups(name, "--help", cwd=place)
    assert (done.returncode, done.stderr) == (0, "prefect: False\n")
    assert f"Usage: backups {name}" in done.stdout and "--here" in done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_get_their_completion(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "rebuild-catalogue" in script and "new_database" in script


def test_the_project_declares_the_command() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"backups": "deployments.command_line.main:main"}
    assert "from deployments.command_line.main import main" in (CHECKOUT / "deployments/environment.sh").read_text()


@pytest.mark.parametrize(
    ("words", "given"),
    [
        (["restore", "--here"], []),
        (
            ["restore", "12", "--here", "--table", "a b", "--table=-c", "--drop-dependents", "--plan", ""],
            ["--backup=12", "--table=a b", "--table=-c", "--drop-dependents", "--plan="],
        ),
        (
            ["restore", "--here", "--into", "staging", "--confirm", "stage", "--owners", "target", "--no-privileges"],
            ["--into=staging", "--confirm=stage", "--owners=target", "--no-privileges"],
        ),
        (["restore", "--here", "--privileges"], ["--privileges"]),
        (["download", "--print-link", "--expires-minutes", "5", "--here"], ["--print-link", "--expires-minutes=5"]),
    ],
)
def test_here_runs_the_command_of_the_flow_with_the_same_options(
    words: list[str], given: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[list[str]] = []
    flow = import_module(f"flows.{COMMANDS[words[0]].module}")
    monkeypatch.setattr(flow, "main", lambda: called.append(sys.argv[1:]) or 3)
    monkeypatch.setattr(sys, "argv", ["backups"])
    assert main(words) == 3
    assert [sorted(argv) for argv in called] == [sorted(given)]


def test_the_address_of_a_new_plan_comes_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"postgresql://ada:{SECRET}@db.example/crm\nmore\n"))
    settings = add_plan._settings(None)
    assert settings.database_url == f"postgresql://ada:{SECRET}@db.example/crm" and SECRET not in repr(settings)


# --- where the Prefect server is


PROFILES = """active = "one"
[profiles.one]
PREFECT_API_URL = "http://one.example/api"
PREFECT_API_AUTH_STRING = "admin:pass:word"
[profiles.two]
PREFECT_API_URL = "http://two.example/api"
"""


@pytest.mark.parametrize(
    ("variables", "written", "found"),
    [
        ({}, "", Server("http://one.example/api", "admin:pass:word")),
        ({"PREFECT_PROFILE": "two"}, "", Server("http://two.example/api")),
        ({"PREFECT_API_URL": "http://three.example/api"}, "", Server("http://three.example/api", "admin:pass:word")),
        ({}, "PREFECT_API_URL=http://four.example/api\n", Server("http://four.example/api", "admin:pass:word")),
    ],
)
def test_the_server_is_the_one_that_prefect_itself_would_ask(
    tmp_path: Path, variables: dict[str, str], written: str, found: Server
) -> None:
    (tmp_path / "profiles.toml").write_text(PROFILES)
    (tmp_path / ".env").write_text(written)
    given = {**environment(), "PREFECT_HOME": str(tmp_path), **variables}
    assert find_server(tmp_path, given) == found
    program = "from prefect.settings import get_current_settings as s; print(s().api.url)"
    asked = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=given, capture_output=True, text=True, check=True
    )
    assert asked.stdout.strip() == found.url
    assert "pass:word" not in repr(found)


def test_a_wrong_password_is_refused_in_one_sentence(prefect_server: PrefectServer, tmp_path: Path) -> None:
    settings = {**prefect_server.settings(), "PREFECT_API_AUTH_STRING": f"admin:{SECRET}"}
    for words in (["list"], ["backup"]):
        done = backups(*words, cwd=tmp_path, **settings)
        assert done.returncode == 1 and "refuses the login" in done.stderr and SECRET not in done.stderr


# --- through the deployments


class Person:
    """Somebody with the command and an installation."""

    def __init__(self, installation: Installation, directory: Path) -> None:
        self.installation, self.directory = installation, directory

    def backups(self, *words: str) -> subprocess.CompletedProcess[str]:
        return backups(*words, cwd=self.directory, **self.installation.server.environment())

    def printed(self, *words: str, status: int = 0) -> Any:
        done = self.backups(*words, "--json")
        assert done.returncode == status, done.stderr
        value = json.loads(done.stdout)
        jsonschema.validate(value, json.loads((CHECKOUT / "docs" / "backups.schema.json").read_text()))
        return value


@pytest.fixture
def person(installation: Installation, tmp_path: Path) -> Person:
    return Person(installation, tmp_path)


def test_a_backup_is_made_watched_listed_and_deleted(person: Person) -> None:
    done = person.backups("backup", "--requested-by", "Ada")
    assert done.returncode == 0 and "was completed after" in done.stdout
    assert re.search(r"(?m)^\d\d:\d\d:\d\d  .+", done.stderr) and "prefect: False" in done.stderr
    assert not re.search("flow run|[Ww]orker|deployment step|deployment pull", done.stderr), done.stderr
    newest, before = person.printed("list", "--last", "2")["backups"]
    assert (newest["created_by"], newest["status"], newest["plan"]) == ("Ada", "completed", "default")
    link = person.backups("download", newest["filename"], "--print-link", "--quiet")
    assert re.fullmatch(rf"http\S+{newest['filename']}\S+\n", link.stdout)
    refused = person.printed("delete", newest["filename"], status=1)
    assert refused["state"] == "FAILED" and "confirm" in refused["message"]
    assert person.printed("keep", "latest", "--reason", "for the auditors")["state"] == "COMPLETED"
    assert "(for the auditors)" in person.printed("list")["backups"][0]["kept"]
    kept = person.printed("delete", newest["filename"], "--confirm", newest["filename"], status=1)
    assert "is kept for ever" in kept["message"] and "let it go first" in kept["message"]
    assert person.printed("keep", newest["filename"], "--let-go")["state"] == "COMPLETED"
    assert person.printed("delete", newest["filename"], "--confirm", newest["filename"])["state"] == "COMPLETED"
    deleted, untouched = person.printed("list", "--last", "2")["backups"]
    assert deleted["status"] == "deleted" and untouched == before


def test_a_run_that_fails_ends_with_1_and_its_sentence(person: Person) -> None:
    done = person.backups("verify", "nothing-like-it", "--quiet")
    assert (done.returncode, done.stdout) == (1, "")
    assert "nothing-like-it" in done.stderr and "Traceback" not in done.stderr


def test_a_plan_is_shown_and_changed_without_its_secrets(person: Person) -> None:
    assert person.printed("plan", "show", "default")["fields"]["retention_days"] == 7
    assert person.backups("plan", "set", "default", "retention_days=8").returncode == 0
    shown = person.backups("plan", "show", "default").stdout
    assert "retention_days=8" in shown and "postgresql://" not in shown
    assert person.backups("plan", "set", "default", "retention_days=7").returncode == 0
    wrong = person.backups("plan", "set", "default", "retention_days=0")
    assert wrong.returncode == 1 and "Traceback" not in wrong.stderr
    [plan] = [it for it in person.printed("plans")["plans"] if it["name"] == "default"]
    assert "127.0.0.1" in plan["database"] and "@" not in plan["database"]


def test_the_health_check_writes_metrics_where_the_plan_says(person: Person) -> None:
    assert person.backups("plan", "set", "default", f"metrics_directory={person.directory}").returncode == 0
    try:
        checked = person.backups("health")
    finally:
        assert person.backups("plan", "set", "default", "metrics_directory=").returncode == 0
    assert "Metrics: Written to" in checked.stderr, checked.stderr
    text = (person.directory / "database_backup_default.prom").read_text()
    assert 'database_backup_last_success_timestamp_seconds{plan="default"} 1.' in text


def test_who_stops_waiting_leaves_the_run_going_and_learns_how_to_cancel_it(person: Person) -> None:
    impatient = "from deployments.command_line import main, runs; runs._WAITING_SECONDS = 0.0"
    assert person.installation.run("-m", "prefect", "work-pool", "pause", "backups").returncode == 0
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", f"import sys; {impatient}; sys.exit(main.main())", "refresh"],
            cwd=person.directory,
            env=environment(**person.installation.server.environment()),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        assert "No worker has taken the run yet" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    finally:
        assert person.installation.run("-m", "prefect", "work-pool", "resume", "backups").returncode == 0
    found = re.search(r"goes on; to cancel it: prefect flow-run cancel ([0-9a-f-]{36})\n$", said)
    assert process.returncode == 130 and found and "Traceback" not in said, said
    assert person.installation.ended(found[1])["state"]["type"] == "COMPLETED"


def test_a_terminal_gets_a_bar(person: Person) -> None:
    outer, inner = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", "from deployments.command_line.main import main; main()", "refresh"],
        cwd=person.directory,
        env={**environment(**person.installation.server.environment()), "TERM": "xterm", "COLUMNS": "100"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=inner,
    )
    os.close(inner)
    drawn = b""
    while True:
        try:
            drawn += os.read(outer, 65536) or b""
        except OSError:  # the other end is closed
            break
    os.close(outer)
    assert process.wait(timeout=60) == 0
    assert "━" in drawn.decode() and b"list-backups-every-plan" in drawn
