"""Prefect's API for the command `backups`, found where Prefect's own programs find it, without importing Prefect."""

from __future__ import annotations

import os
import time
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from dotenv import dotenv_values

from tasks.errors import AccessRefused, BadSetting, Unreachable

_SECONDS = 20.0  # for one answer
#: A server that restarts is asked again for so long.
PATIENCE = 240.0  # seconds
_PAGE = 200
_SETTINGS = ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "PREFECT_API_KEY")


@dataclass(frozen=True)
class Server:
    """Where the API is, and how to log in."""

    url: str
    login: str = field(default="", repr=False)
    """`user:password`."""
    key: str = field(default="", repr=False)
    """The key of Prefect Cloud."""


def find_server(directory: Path, environment: Mapping[str, str] = os.environ) -> Server | None:
    """The server of the environment, of `.env` in the directory, or of the active profile; None when none is set."""
    sources = (environment, dotenv_values(directory / ".env", interpolate=False), _profile(environment))
    url, login, key = (next((it[name] for it in sources if it.get(name)), "") for name in _SETTINGS)
    return Server(str(url).rstrip("/"), str(login), str(key)) if url else None


def _profile(environment: Mapping[str, str]) -> Mapping[str, str]:
    """The settings of the active profile; none when there is no file of profiles."""
    home = Path(environment.get("PREFECT_HOME") or "~/.prefect").expanduser()
    file = Path(environment.get("PREFECT_PROFILES_PATH") or home / "profiles.toml").expanduser()
    try:
        profiles = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise BadSetting(
            f"{file} cannot be read ({type(error).__name__}): correct it, or set PREFECT_API_URL."
        ) from None
    name = environment.get("PREFECT_PROFILE") or profiles.get("active", "")
    chosen: Mapping[str, str] = profiles.get("profiles", {}).get(name, {})
    return chosen


class PrefectApi:
    """The API. Every question raises Unreachable when it is not answered, AccessRefused when the login is refused."""

    def __init__(self, server: Server) -> None:
        self.server = server
        user, _, password = server.login.partition(":")
        self._client = httpx.Client(
            base_url=f"{server.url}/",
            auth=(user, password) if server.login else None,
            headers={"Authorization": f"Bearer {server.key}"} if server.key and not server.login else None,
            timeout=_SECONDS,
            verify=server.url.startswith("https:"),  # what plain HTTP does not need takes a while to load
        )

    def get(self, path: str) -> Any:
        """The answer as JSON; None when there is no such thing."""
        return self._ask("GET", path, None)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The same, with a body. Raises BadSetting when the server does not take it."""
        return self._ask("POST", path, body)

    def every(self, path: str, asked: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Everything that fits, however many pages the server makes of it."""
        offset = 0
        while page := self.post(path, {**asked, "limit": _PAGE, "offset": offset}):
            yield from page
            if len(page) < _PAGE:
                return
            offset += len(page)

    def patiently(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The answer of a server that may be restarting: it is asked again, for minutes. `body` makes it a POST."""
        give_up = time.monotonic() + PATIENCE
        while True:
            try:
                return self.get(path) if body is None else self.post(path, body)
            except Unreachable:
                if time.monotonic() > give_up:
                    raise
                time.sleep(2)

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        try:
            answer = self._client.request(method, path, json=body)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unreachable(f"No Prefect server answers at {self.server.url} ({type(error).__name__}).") from None
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise AccessRefused(
                f"The Prefect server at {self.server.url} refuses the login: set PREFECT_API_AUTH_STRING to "
                "user:password, or choose the right profile."
            )
        if answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
            raise Unreachable(f"The Prefect server at {self.server.url} answers {answer.status_code}: try again.")
        if answer.is_error:
            raise BadSetting(f"Prefect refuses this: {_reason(answer)}")
        return _json(answer, self.server.url)


def _json(answer: httpx.Response, url: str) -> Any:
    try:
        return answer.json()
    except ValueError:
        raise BadSetting(f"What answers at {url} is no Prefect API: PREFECT_API_URL ends with /api.") from None


def _reason(answer: httpx.Response) -> str:
    """What the server says, as far as it is a sentence; the rest may repeat what was sent."""
    try:
        detail = answer.json().get("detail")
    except (ValueError, AttributeError):
        detail = None
    return detail[:300] if isinstance(detail, str) else f"status {answer.status_code}."
