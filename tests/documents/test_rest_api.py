"""docs/api.md holds: its commands, run as they stand there, do what they say, and nothing without the password."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.installation import Installation
from tests.support.world import CHECKOUT, plain_dump

pytestmark = pytest.mark.slow
PAGE = (CHECKOUT / "docs" / "api.md").read_text(encoding="utf-8")
SET_UP, IDS, RUNS, RUN = re.findall(r"(?ms)^```sh\n(.*?)^```$", PAGE)
#: What stands in the table: the command of each call.
CALLS = dict(re.findall(r"(?m)^\| ([a-z ]+) \| `.*?` \| `(.*?)` \|$", PAGE))
#: The calls of a classic backup API.
EIGHT = ("list", "create", "download", "restore", "delete", "clean up", "cron trigger", "cron status")


class Reader:
    """Somebody with the page before them, in an empty directory, who has followed its first section."""

    def __init__(self, installation: Installation, directory: Path) -> None:
        self.installation, self.directory = installation, directory
        self.environment = {
            "PATH": os.environ["PATH"],
            "no_proxy": "*",
            "PREFECT_API_URL": installation.server.api_url,
            "PREFECT_API_AUTH_STRING": installation.server.auth_string,
        }
        self.sh("\n".join(line for line in SET_UP.splitlines() if not line.startswith("export ")))
        shown = self.sh(f"{IDS}\nenv")
        self.environment |= {
            name: value
            for name, _, value in (line.partition("=") for line in shown.splitlines())
            if re.fullmatch(r"[0-9a-f-]{36}", value)
        }

    def sh(self, script: str, **more: str) -> str:
        """What the commands print; stops at the first error. A server that is busy is asked again, as the page says."""
        for _ in range(20):
            done = subprocess.run(
                ["sh", "-euc", script],
                cwd=self.directory,
                env={**self.environment, **more},
                text=True,
                capture_output=True,
                timeout=60,
                check=False,
            )
            if "Service Unavailable" not in done.stdout:
                break
            time.sleep(1)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def call(self, name: str, **more: str) -> Any:
        """What one call of the table answers."""
        return json.loads(self.sh(CALLS[name], **more))

    def runs(self, name: str, **more: str) -> dict[str, Any]:
        """The flow run that a call starts, once it is completed, as the page tells how to look."""
        return self.completed(self.call(name, **more)["id"])

    def completed(self, run_id: str) -> dict[str, Any]:
        """A flow run, which must end well."""
        self.installation.ended(run_id)
        run: dict[str, Any] = json.loads(self.sh(RUN, RUN=run_id))
        assert run["state"]["type"] == "COMPLETED", run["state"]
        return run


@pytest.fixture
def reader(installation: Installation, tmp_path: Path) -> Reader:
    return Reader(installation, tmp_path)


def completed(installation: Installation) -> list[str]:
    """File names of what is completed and was not made by a restore, newest first."""
    rows = installation.world.rows()
    return [row.filename for row in rows if (row.status, row.backup_type) == ("completed", "full")]


def test_the_page_tells_of_the_eight_calls_each_as_one_curl() -> None:
    assert tuple(CALLS) == EIGHT
    for command in CALLS.values():
        assert command.startswith("curl --config api.conf ") and command.count("curl") == 1
        assert not re.search(r"[|;&`]|\$\(", command)


def test_every_call_of_the_page_does_what_it_says(reader: Reader, installation: Installation) -> None:
    assert (reader.directory / "api.conf").stat().st_mode & 0o077 == 0
    installation.world.sql("DELETE FROM shop.order_items")
    reader.runs("restore")
    assert plain_dump(installation.world.cluster, installation.world.database_url) == installation.original

    before = completed(installation)
    made = reader.runs("create")
    assert made["parameters"]["requested_by"] == "Ada"
    triggered = reader.runs("cron trigger")
    assert triggered["deployment_id"] == reader.environment["DAILY"]
    newer, new = completed(installation)[:2]
    assert completed(installation) == [newer, new, *before]
    assert installation.world.rows()[1].created_by == "Ada"

    others = [reader.call("delete", FILE=new)["id"], reader.call("clean up")["id"]]
    reader.runs("download")
    link = json.loads(reader.sh(CALLS["list"].replace("/backups/", "/download-default/")))["data"]
    url = re.fullmatch(rf"\[Download {newer}\]\((.*)\)", link)
    assert url
    with httpx.Client(trust_env=False, timeout=60) as client:
        fetched = client.get(url[1])
    assert hashlib.sha256(fetched.content).hexdigest() == installation.world.rows()[0].metadata["sha256"]

    for run_id in others:
        reader.completed(run_id)
    assert completed(installation) == [newer, *before]
    assert newer.encode() in json.dumps(reader.call("list")["data"]).encode()

    [schedule] = reader.call("cron status")["schedules"]
    assert (schedule["schedule"]["cron"], schedule["active"]) == ("0 2 * * *", True)
    runs = json.loads(reader.sh(RUNS))
    assert triggered["id"] in [run["id"] for run in runs]
    assert any(run["state"]["type"] == "SCHEDULED" for run in runs)


def test_without_the_password_every_call_answers_401(reader: Reader, installation: Installation) -> None:
    rows, runs = installation.world.rows(), installation.api("/flow_runs/count", {})
    login = reader.directory / "api.conf"
    for without in (_no_login, lambda text: text.replace(installation.server.password, "wrong")):
        login.write_text(without(login.read_text()).replace("fail-with-body\n", ""))
        for command in (*CALLS.values(), RUN, RUNS):
            said = reader.sh(command.replace("curl ", "curl --write-out '\\n%{http_code}' ", 1), FILE="x", RUN="x")
            body, _, status = said.rpartition("\n")
            assert status == "401", (command, said)
            assert body == '{"exception_message":"Unauthorized"}', body
    assert installation.world.rows() == rows and installation.api("/flow_runs/count", {}) == runs


_no_login: Callable[[str], str] = lambda text: re.sub("(?m)^user = .*\n", "", text)  # noqa: E731
