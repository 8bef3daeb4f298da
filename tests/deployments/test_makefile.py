"""The Makefile and the environment that it makes: what a person types first."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support import ci_skip

ROOT = Path(__file__).resolve().parents[2]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
SCRIPT = ROOT / "deployments" / "environment.sh"


class Checkout:
    """A folder with an awkward name, the script, and a lock of one tiny package, which lies in a folder beside it."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / 'it\'s a "quick" $start'
        (self.root / "deployments").mkdir(parents=True)
        shutil.copy(SCRIPT, self.root / "deployments")
        self.venv = self.root / ".venv"
        wheel = directory / "tiny-1-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("tiny.py", "")
            archive.writestr("tiny-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1\n")
            archive.writestr("tiny-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr("tiny-1.dist-info/RECORD", "")
        self.lock(hashlib.sha256(wheel.read_bytes()).hexdigest())
        elsewhere = {"PIP_TARGET": str(directory / "elsewhere"), "PYTHONPATH": "/nonexistent", "PIP_DRY_RUN": "1"}
        self.variables = {
            "PIP_FIND_LINKS": str(directory),
            "PIP_NO_INDEX": "1",
            "PIP_CONFIG_FILE": os.devnull,
            **elsewhere,
        }

    def lock(self, digest: str) -> None:
        (self.root / "requirements.lock").write_text(f"tiny==1 --hash=sha256:{digest}\n")

    def run(self, python: str = sys.executable, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **self.variables, "PYTHON": python, **variables}
        words = ["sh", str(self.root / "deployments" / "environment.sh")]
        return subprocess.run(words, env=environment, capture_output=True, text=True, check=False)

    def ask(self, program: str, **variables: str) -> str:
        """What the environment's Python prints."""
        words = [self.venv / "bin" / "python", "-c", program]
        environment = {"PATH": os.environ["PATH"], **variables}
        return subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout.strip()

    def python(self, program: str) -> str:
        """A program of the shell that stands in for Python."""
        path = self.root.parent / "python-that-differs"
        path.write_text(f"#!/bin/sh\n{program}\n")
        path.chmod(0o755)
        return str(path)


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """Its environment is whole."""
    checkout = Checkout(tmp_path_factory.mktemp("made"))
    done = checkout.run()
    assert (done.returncode, done.stderr) == (0, "")
    return checkout


def make(*arguments: str) -> str:
    """What make prints."""
    if shutil.which("make") is None:
        ci_skip("make is not installed")
    done = subprocess.run(["make", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def test_make_alone_lists_the_targets_with_what_they_do() -> None:
    listed = re.findall(r"^  make (\S+) +\S", make(), flags=re.MULTILINE)
    targets = "help up down test test-thorough test-fast test-image faults soak coverage mutation sbom audit lint bench"
    assert listed == targets.split()


def test_every_target_is_phony() -> None:
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, flags=re.MULTILINE))
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, flags=re.MULTILINE)
    assert phony is not None
    assert targets == set(phony.group(1).split())


def test_the_makefile_names_no_package_index() -> None:
    assert "://" not in MAKEFILE
    assert "://" not in SCRIPT.read_text(encoding="utf-8")


def test_the_oldest_python_allowed_is_what_the_project_asks_for() -> None:
    asked = re.search(r'^requires-python = ">=(\d+)\.(\d+)', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert asked is not None
    assert f"sys.version_info < ({asked[1]}, {asked[2]})" in SCRIPT.read_text(encoding="utf-8")


def test_an_old_python_is_refused_in_one_sentence_that_names_a_newer_one(checkout: Checkout) -> None:
    old = checkout.python('case "$*" in *exit*) exit 1 ;; esac; printf 3.9')
    newer = Path(checkout.python("exit 0"))
    places = newer.with_name("places")
    places.mkdir()
    newer.rename(places / "python3.14")
    old = checkout.python('case "$*" in *exit*) exit 1 ;; esac; printf 3.9')
    done = checkout.run(old, PATH=f"{places}:{os.environ['PATH']}")
    assert done.returncode == 1
    assert done.stderr == "Python 3.11 or newer is needed and this is 3.9: run `make PYTHON=python3.14`.\n"
    assert not checkout.venv.exists()


def test_without_python_one_sentence_says_so(checkout: Checkout) -> None:
    done = checkout.run("python-that-is-missing")
    assert done.returncode == 1
    assert done.stderr == "python-that-is-missing is not installed or does not run: install Python 3.11 or newer.\n"


def test_where_debian_has_split_off_venv_the_package_is_named(checkout: Checkout) -> None:
    done = checkout.run(checkout.python(f'case "$*" in *ensurepip*) exit 1 ;; esac; exec "{sys.executable}" "$@"'))
    assert done.returncode == 1
    assert f"install the package python{sys.version_info[0]}.{sys.version_info[1]}-venv.\n" in done.stderr


def test_a_venv_that_fails_is_told_in_one_sentence(checkout: Checkout) -> None:
    checkout.venv.write_text("a file is in the way")
    done = checkout.run()
    assert done.returncode == 1
    assert re.fullmatch(r"Python cannot create a virtual environment \(.+\)\.\n", done.stderr)


def test_the_command_runs_the_code_of_its_checkout_from_anywhere_and_through_a_link(made: Checkout) -> None:
    package = made.root / "deployments" / "command_line"
    package.mkdir()
    (package / "main.py").write_text("import sys\ndef main():\n    print(__file__, sys.argv[1:])\n    return 3\n")
    elsewhere = made.root.parent / "a link"
    elsewhere.symlink_to(made.venv / "bin" / "backups")
    (made.root.parent / "deployments").mkdir()  # what lies in the current directory is not taken
    (made.root.parent / "deployments" / "__init__.py").write_text("raise SystemExit(4)")
    for program in (elsewhere, made.venv / "bin" / "backups"):
        done = subprocess.run(
            [program, "list", "--plan", "a b"], cwd=made.root.parent, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (3, f"{package / 'main.py'} ['list', '--plan', 'a b']\n"), done.stderr


def test_prefect_of_the_environment_finds_the_home_of_its_checkout_unless_another_is_named(made: Checkout) -> None:
    program = "import os, tiny; print(os.environ['PREFECT_HOME'])"
    state = made.root / ".state"
    for _ in range(2):
        assert made.ask(program) == str(state / "prefect")
        assert state.stat().st_mode & 0o777 == 0o700, "Prefect makes its home, but not the folder around it"
    state.rmdir()
    assert made.ask(program, PREFECT_HOME="/mine") == "/mine"
    assert not state.exists()
    state.touch()
    assert made.ask(program) == str(state / "prefect"), "a folder that cannot be made is left to Prefect's own message"
    state.unlink()


def test_a_second_call_says_and_does_nothing(made: Checkout) -> None:
    before = (made.venv / "pyvenv.cfg").stat().st_mtime_ns
    done = made.run()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (made.venv / "pyvenv.cfg").stat().st_mtime_ns == before


def test_packages_with_another_hash_are_refused_and_tried_again_by_the_next_call(made: Checkout) -> None:
    good = (made.root / "requirements.lock").read_text()
    made.ask("import subprocess, sys; subprocess.run([sys.executable, '-m', 'pip', 'uninstall', '-qy', 'tiny'])")
    made.lock("0" * 64)
    for _ in range(2):
        done = made.run()
        assert done.returncode == 1
        assert re.fullmatch(r"The packages could not be installed: .+ \(.+\)\.\n", done.stderr)
        assert "Creating" not in done.stdout
    (made.root / "requirements.lock").write_text(good)
    (made.venv / "requirements.lock").unlink()
    assert made.run().returncode == 0
    made.ask("import tiny")


@pytest.mark.slow
@pytest.mark.parametrize("left", ["", "another folder, another Python"])
def test_an_environment_that_is_half_made_or_made_for_something_else_is_made_anew(made: Checkout, left: str) -> None:
    (made.venv / "made-for").write_text(left)
    (made.venv / "bin" / "left-over").touch()
    assert "Creating the virtual environment" in made.run().stdout
    assert not (made.venv / "bin" / "left-over").exists()
    made.ask("import tiny")


@pytest.mark.parametrize("name", ["deployments.up", "deployments.down"])
def test_make_up_imports_prefect_only_when_its_server_is_known(name: str) -> None:
    """Prefect decides on import which server it talks to."""
    program = f"import sys, {name}; sys.exit('prefect' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0
