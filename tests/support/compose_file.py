"""deployments/compose.yaml acted out without containers: its commands and its environment, as processes of this machine."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CHECKOUT = Path(__file__).parents[2]
DEPLOYMENTS = CHECKOUT / "deployments"


@dataclass(frozen=True)
class ComposeFile:
    """The services, with `variables` filled in.

    `addresses` takes the place of what containers call each other: of a whole value, or of a `host:port` in one.
    """

    variables: Mapping[str, str]
    addresses: Mapping[str, str]

    def command(self, service: str) -> list[str]:
        """What the service runs, by this Python."""
        words = [str(word) for word in self._services[service]["command"]]
        return [sys.executable, *(["-m", "prefect"] if words[0] == "prefect" else []), *words[1:]]

    def health_check(self, service: str) -> list[str]:
        """What Compose runs to see whether the service is well, by this Python."""
        return [sys.executable, *map(self._filled, self._services[service]["healthcheck"]["test"][2:])]

    def environment(self, service: str, home: Path) -> dict[str, str]:
        """All that the service is told: by the image, the compose file, and nothing of this machine but its paths."""
        here = {
            name: os.environ[name] for name in ("PATH", "HOME", "LANG", "no_proxy", "NO_PROXY") if name in os.environ
        }
        given = {**self._of_the_image(), **self._services[service].get("environment", {})}
        filled = {name: self._filled(str(value)) for name, value in given.items() if name != "PATH"}
        places = {"PREFECT_HOME": home, "PREFECT_SERVER_UI_STATIC_DIRECTORY": home / "ui", "TMPDIR": home / "spool"}
        (home / "spool").mkdir(parents=True, exist_ok=True)
        return {**here, **filled, **{name: str(place) for name, place in places.items()}, "PYTHONPATH": str(CHECKOUT)}

    @property
    def _services(self) -> dict[str, Any]:
        loaded: dict[str, Any] = yaml.safe_load((DEPLOYMENTS / "compose.yaml").read_text())["services"]
        return loaded

    def _of_the_image(self) -> dict[str, str]:
        [block] = re.findall(r"^ENV (PATH=(?:.*\\\n)*.*)$", (DEPLOYMENTS / "image" / "Dockerfile").read_text(), re.M)
        return dict(word.split("=", 1) for word in block.replace("\\\n", " ").split())

    def _filled(self, text: str) -> str:
        """`${NAME:-default}` and `${NAME:?what to do}` as Compose fills them in, then other addresses."""

        def value(found: re.Match[str]) -> str:
            name, default = found[1], found[2]
            return self.variables[name] if name in self.variables or default is None else default

        filled = re.sub(r"\$\{(\w+)(?::-([^}]*)|:\?[^}]*)?\}", value, text)
        if filled in self.addresses:
            return self.addresses[filled]
        for name in (name for name in self.addresses if ":" in name):
            filled = filled.replace(name, self.addresses[name])
        return filled
