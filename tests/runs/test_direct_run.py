"""A run without a Prefect server: its temporary one answers nobody but the run."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest

from tests.support import eventually

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
    somebody = httpx.Client(timeout=60)
    asked = [
        somebody.post(f"{url}/block_documents/filter", json={"include_secrets": True}),
        somebody.post(f"{url}/block_documents/filter", json={}, auth=("direct", "guessed")),
        somebody.post(f"{url}/variables/", json={"name": "theirs", "value": "planted"}),
        somebody.get(f"{url}/variables/name/ours"),
    ]
    own = somebody.get(f"{url}/variables/name/ours", auth=tuple(password.split(":", 1)))
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


_WAITS = """
import logging, subprocess, sys
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.variables import Variable
from tasks.runs.command_line import some_server

@flow
def wait() -> None:
    Variable.set("ours", "kept")
    with get_client(sync_client=True) as client:
        print(client.api_url.port, flush=True)
    subprocess.run(["sleep", "600"])

with some_server(logging.ERROR):
    wait()
"""


@pytest.fixture
def proxy() -> Iterator[tuple[str, list[bytes]]]:
    """A proxy that says yes to everything: its address, and the first line of each request that it got."""
    asked: list[bytes] = []

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with closing(connection):
                    asked.append(connection.recv(4096).split(b"\r\n")[0])
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\ntrue")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked


@pytest.mark.slow
@pytest.mark.parametrize("ended_by", [signal.SIGKILL, signal.SIGTERM])
def test_a_direct_run_asks_no_proxy_for_its_temporary_server_which_ends_with_it_however_it_ends(
    tmp_path: Path, proxy: tuple[str, list[bytes]], ended_by: signal.Signals
) -> None:
    address, asked = proxy
    left = ("PREFECT_", "NO_PROXY", "no_proxy")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(left)}
    environment.update(dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"), address))
    environment.update(PREFECT_HOME=str(tmp_path / "prefect"), DO_NOT_TRACK="1", PREFECT_LOGGING_LEVEL="ERROR")
    environment["PREFECT_API_URL"] = "http://127.0.0.1:1/api"  # where nobody answers
    run = subprocess.Popen(
        [sys.executable, "-c", _WAITS],
        cwd=Path(__file__).parents[2],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert run.stdout
    port = run.stdout.readline().strip()
    children = psutil.Process(run.pid).children(recursive=True)
    [server] = [process for process in children if port in process.cmdline() and "uvicorn" in process.cmdline()]
    try:
        assert asked == []
        run.send_signal(ended_by)
        run.wait(timeout=60)
        assert eventually(lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE)
    finally:
        for process in children:
            with suppress(psutil.NoSuchProcess):
                process.kill()
