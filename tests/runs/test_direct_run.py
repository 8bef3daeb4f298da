"""A run without a Prefect server: its temporary one answers nobody but the run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

_RUN = """
import json, logging, pathlib
import httpx
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_AUTH_STRING
from prefect.variables import Variable
from tasks.runs.command_line import some_server

@flow
def ask() -> dict[str, object]:
    Variable.set("ours", "kept")
    with get_client(sync_client=True) as client:
        url = str(client.api_url).rstrip("/")
    password = PREFECT_API_AUTH_STRING.value()
    lines = [file.read_bytes() for file in pathlib.Path("/proc").glob("[0-9]*/cmdline")]
    asked = [
        httpx.post(f"{url}/block_documents/filter", json={"include_secrets": True}),
        httpx.post(f"{url}/block_documents/filter", json={}, auth=("direct", "guessed")),
        httpx.post(f"{url}/variables/", json={"name": "theirs", "value": "planted"}),
        httpx.get(f"{url}/variables/name/ours"),
    ]
    own = httpx.get(f"{url}/variables/name/ours", auth=tuple(password.split(":", 1)))
    return {
        "others": [answer.status_code for answer in asked],
        "own": own.json()["value"],
        "theirs": Variable.get("theirs"),
        "length": len(password),
        "in arguments": any(password.encode() in line for line in lines),
    }

with some_server(logging.ERROR):
    print(json.dumps(ask()))
"""


@pytest.mark.slow
def test_the_temporary_server_of_a_direct_run_refuses_every_client_without_its_password(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment.update(PREFECT_HOME=str(tmp_path / "prefect"), DO_NOT_TRACK="1", PREFECT_LOGGING_LEVEL="ERROR")
    done = subprocess.run(
        [sys.executable, "-c", _RUN],
        cwd=Path(__file__).parents[2],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == {"others": [401] * 4, "own": "kept", "theirs": None, "length": 50, "in arguments": False}
