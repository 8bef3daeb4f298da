"""`python3 -m deployments.environment [--dev]`: the virtual environment `.venv`, filled from the lock.

It needs nothing but the standard library, and reads well enough on an old Python to say which one is wanted.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

OLDEST = (3, 11)
CHECKOUT = Path(__file__).resolve().parents[1]
VENV = CHECKOUT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "installed.json"
UV = "uv==0.13.9"
#: Of pip's variables, those that say how to reach an index; any other could redirect the install.
PIP_SETTINGS_KEPT = {
    "PIP_CACHE_DIR",
    "PIP_CERT",
    "PIP_CLIENT_CERT",
    "PIP_CONFIG_FILE",
    "PIP_DEFAULT_TIMEOUT",
    "PIP_EXTRA_INDEX_URL",
    "PIP_FIND_LINKS",
    "PIP_INDEX_URL",
    "PIP_KEYRING_PROVIDER",
    "PIP_NO_INDEX",
    "PIP_PROXY",
    "PIP_RETRIES",
    "PIP_TRUSTED_HOST",
}
FOREIGN = (
    "PYTHONHOME",
    "PYTHONPATH",
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "UV_SYSTEM_PYTHON",
    "UV_TARGET",
    "UV_PREFIX",
)


class Stopped(Exception):
    """The environment could not be made; the text says why in one sentence."""


def main() -> int:
    """0 when `.venv` holds what the lock says, else 1 and one sentence on stderr."""
    parser = argparse.ArgumentParser(prog="python3 -m deployments.environment", description="Make or refresh .venv.")
    parser.add_argument("--dev", action="store_true", help="with what the tests and checks need")
    lock = CHECKOUT / ("requirements-dev.lock" if parser.parse_args().dev else "requirements.lock")
    try:
        require_python(sys.version_info[:2])
        ensure(lock)
    except Stopped as reason:
        print(reason, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{error.filename or VENV} cannot be written: {error.strerror}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted: the same command goes on from here.", file=sys.stderr)
        return 130
    return 0


def require_python(version: tuple[int, ...]) -> None:
    """Raises Stopped when `version` is too old, naming a newer Python of this machine if there is one."""
    if version >= OLDEST:
        return
    newer = next((name for name in ("python3.13", "python3.12", "python3.11") if _runs(name)), "")
    remedy = f"run `make PYTHON={newer}`" if newer else "install a newer one"
    raise Stopped("Python {}.{} or newer is needed and this is {}.{}: {}.".format(*OLDEST, *version[:2], remedy))


def ensure(lock: Path) -> None:
    """`.venv` belongs to this checkout and holds what `lock` lists; quick when nothing has to be done."""
    wanted = {
        "checkout": str(CHECKOUT),
        "python": sys.version,
        lock.name: hashlib.sha256(lock.read_bytes()).hexdigest(),
    }
    stamp = _stamp()
    if wanted.items() <= stamp.items():
        return
    same_place = all(stamp.get(name) == wanted[name] for name in ("checkout", "python"))
    if not (same_place and PYTHON.exists()):
        say("Creating the virtual environment .venv with Python {}.{}.{} …".format(*sys.version_info[:3]))
        stamp = {}
        _create()
    say(f"Installing the packages of {lock.name} …")
    _install(lock)
    _write_default_home()
    STAMP.write_text(json.dumps({**stamp, **wanted}, indent=1), encoding="utf-8")


def say(line: str) -> None:
    print(line, flush=True)


def _create() -> None:
    done = _run([sys.executable, "-m", "venv", "--clear", str(VENV)])
    if done.returncode != 0:
        raise Stopped(
            "Python cannot create a virtual environment ({}): on Debian and Ubuntu, install the package "
            "python{}.{}-venv.".format(_last_line(done), *sys.version_info[:2])
        )


def _install(lock: Path) -> None:
    """By uv, in seconds; by pip, in minutes, where only pip is set up to reach an index."""
    pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    hashed = ["--require-hashes", "-r", str(lock)]
    done = _run([*pip, UV])
    if done.returncode == 0:
        uv = [str(VENV / "bin" / "uv"), "pip", "install", "--quiet", "--python", str(PYTHON)]
        done = _run([*uv, *hashed])
        if done.returncode != 0:
            say(f"uv could not ({_last_line(done)}); trying pip, which takes some minutes …")
            done = _run([*pip, *hashed])
    if done.returncode != 0:
        raise Stopped(
            f"The packages could not be installed: check the network and the disk, then try again ({_last_line(done)})."
        )


def _write_default_home() -> None:
    """Prefect started from `.venv` finds this checkout's server, unless PREFECT_HOME says otherwise."""
    asked = _run([str(PYTHON), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"])
    home = str(CHECKOUT / ".state" / "prefect")
    line = f'import os; os.environ.setdefault("PREFECT_HOME", {home!a})\n'
    (Path(asked.stdout.strip()) / "database_backup_system.pth").write_text(line, encoding="ascii")


def _run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments,
        env=_environment(os.environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )


def _environment(given: os._Environ[str] | dict[str, str]) -> dict[str, str]:
    environment = {
        name: value
        for name, value in given.items()
        if name not in FOREIGN and (name in PIP_SETTINGS_KEPT or not name.startswith("PIP_"))
    }
    home = Path(environment.get("HOME") or "/nonexistent")
    if not os.access(str(home), os.W_OK):
        environment["UV_CACHE_DIR"] = environment.get("UV_CACHE_DIR") or str(VENV / ".cache")
    return environment


def _runs(python: str) -> bool:
    return shutil.which(python) is not None and _run([python, "--version"]).returncode == 0


def _stamp() -> dict[str, str]:
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = (done.stderr + done.stdout).strip().splitlines()
    return lines[-1].strip().rstrip(".") if lines else f"exit code {done.returncode}"


if __name__ == "__main__":
    sys.exit(main())
