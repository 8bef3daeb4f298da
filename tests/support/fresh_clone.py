"""A fresh clone of this project, with an empty home, as a newcomer or somebody on a bad day has it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

CHECKOUT = Path(__file__).parents[2]
#: All that a command in the clone gets of the environment of the tests, beside the settings of pip.
_KEPT = ("PATH", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "UV_INDEX_URL", "UV_DEFAULT_INDEX", "CI")


@dataclass(frozen=True)
class Clone:
    """A fresh clone with the commands that a user types in it."""

    directory: Path
    home: Path

    @property
    def state(self) -> Path:
        """Where the clone's services keep everything."""
        return self.directory / ".state"

    def run(self, *words: str, seconds: float = 900) -> subprocess.CompletedProcess[str]:
        """Runs a command in the clone. Raises subprocess.TimeoutExpired after `seconds`."""
        environment = {name: os.environ[name] for name in os.environ if name in _KEPT or name.startswith("PIP_")}
        return subprocess.run(
            words,
            cwd=self.directory,
            env={**environment, "HOME": str(self.home), "PYTHON": sys.executable},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def activated(self, command: str, seconds: float = 900) -> subprocess.CompletedProcess[str]:
        """Runs a command of a shell in which the virtual environment is active; see `run`."""
        return self.run("bash", "-c", f"source .venv/bin/activate && {command}", seconds=seconds)

    def processes(self) -> list[str]:
        """Command lines of everything alive that belongs to this clone."""
        found = []
        for process in psutil.process_iter(["cmdline", "environ", "cwd"]):
            everything = json.dumps([process.info["cmdline"], process.info["cwd"], process.info["environ"]])
            if str(self.directory) in everything and process.pid != os.getpid():
                found.append(" ".join(process.info["cmdline"] or []))
        return found


def fresh_clone(directory: Path) -> Clone:
    """A clone in `directory`, without a virtual environment.

    It has what the work tree has, so that a test before a commit tests what will be committed.
    """
    clone = Clone(directory / "clone", directory / "home")
    clone.home.mkdir()
    subprocess.run(["git", "clone", "-q", str(CHECKOUT), str(clone.directory)], check=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--modified", "--others", "--exclude-standard"],
        cwd=CHECKOUT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        copy = clone.directory / name
        if (CHECKOUT / name).is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(CHECKOUT / name, copy)
        else:
            copy.unlink(missing_ok=True)
    return clone
