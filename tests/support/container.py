"""The image, built without a container engine, and programs that run in it as a container does: alone, as its own user.

buildah builds it in a chroot, on a base that debootstrap makes. A program gets a file system that is read-only but for
/tmp and /spool, its own list of processes, the user, the environment and the entry point that the image names, and the
network of the machine. Needs root, buildah, debootstrap and util-linux.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.support.world import CHECKOUT

NEEDED = ("buildah", "debootstrap", "unshare", "chroot")
_BASE = "FROM scratch\nADD base.tar /\nRUN ln -s python3 /usr/bin/python\n"
#: $1 is the root directory, $2 the user, $3 the working directory; the command follows.
_CONTAINED = """
root=$1 user=$2 directory=$3; shift 3
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
for writable in tmp spool; do mount -t tmpfs -o mode=1777 tmpfs "$root/$writable"; done
exec chroot --userspec="$user" --groups= "$root" /usr/bin/env --chdir="$directory" -- "$@"
"""


@dataclass(frozen=True)
class Image:
    """A built image, and its files."""

    directory: Path
    """Where buildah keeps everything; may be removed afterwards."""
    name: str = "localhost/built"

    def build(self, postgres: int) -> None:
        """With the client tools and the server of one major version, from Debian's packages."""
        self.directory.mkdir(parents=True)
        self._base()
        options = {
            "PYTHON_IMAGE": "localhost/base",
            "PIP_FIND_LINKS": "/packages",
            "PIP_NO_INDEX": "1",
            "POSTGRESQL_ARCHIVE": "debian",
            "POSTGRESQL_MAJORS": str(postgres),
            "POSTGRESQL_SERVER_MAJORS": str(postgres),
        }
        arguments = [word for name, value in options.items() for word in ("--build-arg", f"{name}={value}")]
        packages = f"{self._packages()}:/packages:ro"
        dockerfile = CHECKOUT / "deployments/image/Dockerfile"
        place = ["--volume", packages, "--format", "docker", "--file", str(dockerfile), "--tag", self.name]
        self._buildah("bud", "--isolation", "chroot", *arguments, *place, str(CHECKOUT))

    def remove(self) -> None:
        """Everything that building and running has left."""
        self._buildah("rm", "--all")
        shutil.rmtree(self.directory)

    @cached_property
    def root(self) -> Path:
        """The files of the image, for programs to run in."""
        container = self._buildah("from", self.name).split()[-1]
        return Path(self._buildah("mount", container).strip())

    @cached_property
    def config(self) -> dict[str, Any]:
        """What the image says of the programs that run in it."""
        described = json.loads(self._buildah("inspect", "--type", "image", self.name))
        config: dict[str, Any] = described["Docker"]["config"]
        return config

    def command(self, words: Sequence[str]) -> list[str]:
        """What starts the program `words` in it; nothing stands for the program that it runs by itself."""
        said = [*self.config["Entrypoint"], *(words or self.config["Cmd"])]
        alone = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-euc", _CONTAINED, "sh"]
        return [*alone, str(self.root), self.config["User"], self.config["WorkingDir"], *said]

    def environment(self, given: dict[str, str]) -> dict[str, str]:
        """Of the programs in it: what the image sets, and `given`. Nothing of ours."""
        return {**dict(one.split("=", 1) for one in self.config["Env"]), "HOME": "/spool", **given}

    def run(self, *words: str, **given: str) -> subprocess.CompletedProcess[str]:
        """A program in it, to its end."""
        return subprocess.run(
            self.command(words),
            env=self.environment(given),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def _base(self) -> None:
        """Debian of this machine's release with its Python, in place of the image that Python's project offers.

        The packages come from where debootstrap looks by itself.
        """
        release = Path("/etc/os-release").read_text(encoding="utf-8")
        found = re.search(r"^VERSION_CODENAME=(\w+)$", release, re.MULTILINE)
        assert found, release
        packages = "--include=python3,python3-venv,ca-certificates"
        files = self.directory / "base"
        _said(["debootstrap", "--variant=minbase", packages, found[1], str(files)])
        _said(["tar", "--create", "--directory", str(files), "--file", str(self.directory / "base.tar"), "."])
        shutil.rmtree(files)
        (self.directory / "Base").write_text(_BASE, encoding="utf-8")
        recipe = ["--file", str(self.directory / "Base"), "--tag", "localhost/base"]
        self._buildah("bud", "--isolation", "chroot", *recipe, str(self.directory))

    def _packages(self) -> Path:
        """The packages of the image's lock, each proved by its hash; for any Python, as the base has another."""
        lock = (CHECKOUT / "deployments/image/requirements.lock").read_text(encoding="utf-8")
        (self.directory / "lock").write_text(re.sub(r" ; python_\w+ < [^\\\n]*", " ", lock), encoding="utf-8")
        download = ["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes"]
        place = ["--requirement", str(self.directory / "lock"), "--dest", str(self.directory / "packages")]
        _said([sys.executable, *download, *place])
        return self.directory / "packages"

    def _buildah(self, *words: str) -> str:
        stores = ["--root", str(self.directory / "storage"), "--runroot", str(self.directory / "run")]
        return _said(["buildah", "--storage-driver", "vfs", *stores, *words])


def _said(command: Sequence[str]) -> str:
    ran = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-3000:]
    return ran.stdout
