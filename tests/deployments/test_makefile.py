"""The Makefile and the environment that it makes: what a person types first."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from deployments import environment
from tests.support import ci_skip

ROOT = Path(__file__).resolve().parents[2]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def make(*arguments: str) -> str:
    """What make prints."""
    if shutil.which("make") is None:
        ci_skip("make is not installed")
    done = subprocess.run(["make", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def test_make_alone_lists_the_targets_with_what_they_do() -> None:
    listed = re.findall(r"^  make (\S+) +\S", make(), flags=re.MULTILINE)
    assert listed == ["help", "up", "down", "test", "test-thorough", "test-fast", "lint", "bench"]


def test_every_target_is_phony() -> None:
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, flags=re.MULTILINE))
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, flags=re.MULTILINE)
    assert phony is not None
    assert targets == set(phony.group(1).split())


def test_the_makefile_names_no_package_index() -> None:
    assert "://" not in MAKEFILE
    assert "://" not in (ROOT / "deployments" / "environment.py").read_text(encoding="utf-8")


def test_an_old_python_is_refused_in_one_sentence_that_names_a_newer_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_runs", lambda name: name == "python3.12")
    with pytest.raises(environment.Stopped) as refusal:
        environment.require_python((3, 9))
    assert str(refusal.value) == "Python 3.11 or newer is needed and this is 3.9: run `make PYTHON=python3.12`."


def test_the_oldest_python_allowed_is_what_the_project_asks_for() -> None:
    asked = re.search(r'^requires-python = ">=(\d+)\.(\d+)', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert asked is not None
    assert (int(asked[1]), int(asked[2])) == environment.OLDEST


def test_only_those_of_pips_variables_pass_that_say_how_to_reach_an_index() -> None:
    given = {"HOME": "/", "PIP_PROXY": "p", "PIP_USER": "1", "PIP_TARGET": "/x", "PYTHONPATH": "/y", "LANG": "C"}
    kept = environment._environment(given)
    assert {name: kept[name] for name in kept if name != "UV_CACHE_DIR"} == {"HOME": "/", "PIP_PROXY": "p", "LANG": "C"}


def test_a_home_that_cannot_be_written_moves_the_cache_into_the_environment() -> None:
    cache = environment._environment({"HOME": "/nonexistent"})["UV_CACHE_DIR"]
    assert Path(cache).parent == environment.VENV
