"""The client tool is the server's own major version, else the nearest newer one, never an older one."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import ToolMissing
from tasks.postgres import tools
from tasks.postgres.tools import Tool, choose, parse_version

VERSIONS = st.tuples(st.integers(10, 30), st.integers(0, 30))


def _tools(*majors: int) -> list[Tool]:
    return [Tool(f"/usr/lib/postgresql/{major}/bin/pg_dump", (major, 3)) for major in majors]


@pytest.mark.parametrize(
    ("installed", "server", "chosen"),
    [
        ((15,), 15, 15),
        ((18, 16, 15), 15, 15),
        ((18, 16), 15, 16),
        ((16, 18), 17, 18),
        ((14, 18), 15, 18),
        ((9, 10), 10, 10),
    ],
)
def test_own_major_first_then_the_nearest_newer(installed: tuple[int, ...], server: int, chosen: int) -> None:
    assert choose(_tools(*installed), server, f"{server}.1").major == chosen


def test_among_equals_the_first_place_wins() -> None:
    mine, other = Tool("/mine/pg_dump", (15, 2)), Tool("/other/pg_dump", (15, 9))
    assert choose([mine, other], 15, "15.9") is mine


@given(st.lists(VERSIONS, max_size=8), st.integers(10, 30))
def test_an_older_tool_is_never_chosen_and_a_fitting_one_never_missed(
    versions: list[tuple[int, int]], server: int
) -> None:
    at_hand = [Tool(f"/{number}/pg_dump", version) for number, version in enumerate(versions)]
    try:
        chosen = choose(at_hand, server, f"{server}.0")
    except ToolMissing:
        assert all(major < server for major, _ in versions)
        return
    assert chosen.major >= server
    assert not [major for major, _ in versions if server <= major < chosen.major]


def test_without_a_suitable_tool_one_sentence_names_versions_places_and_packages() -> None:
    with pytest.raises(ToolMissing) as missing:
        choose(_tools(14, 13), 17, "17.2 (Ubuntu 17.2-1)")
    said = str(missing.value)
    for named in (
        "17.2 (Ubuntu 17.2-1)",
        "14.3 at /usr/lib/postgresql/14/bin/pg_dump",
        "13.3",
        "postgresql-client-17",
        "postgresql17",
        "postgresql@17",
    ):
        assert named in said
    assert "\n" not in said


def test_without_any_tool_the_sentence_says_so() -> None:
    with pytest.raises(ToolMissing, match="installed: none"):
        choose([], 15, "15.1")


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", (15, 18)),
        ("pg_dump (PostgreSQL) 18.1\n", (18, 1)),
        ("pg_dump (PostgreSQL) 19devel", (19,)),
        ("pg_dump (PostgreSQL) 18beta2", (18,)),
        ("pg_dump (PostgreSQL) 9.6.24", (9, 6, 24)),
        ("pg_dump 15.18", ()),
        ("", ()),
    ],
)
def test_versions_are_read_as_the_programs_write_them(text: str, version: tuple[int, ...]) -> None:
    assert parse_version(text) == version


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine on which only what a test puts below this directory is installed."""
    monkeypatch.setattr(tools, "USUAL_PLACES", (f"{tmp_path}/usual/*/bin",))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    return tmp_path


def _install(directory: Path, version: str, mode: int = 0o755) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    program = directory / "pg_dump"
    program.write_text(f"#!/bin/sh\necho 'pg_dump (PostgreSQL) {version}'\n")
    program.chmod(mode)
    return program


def test_the_configured_directory_comes_before_path_and_path_before_the_usual_places(nowhere: Path) -> None:
    usual = _install(nowhere / "usual" / "15" / "bin", "15.1")
    on_path = _install(nowhere / "path", "15.2")
    named = _install(nowhere / "na med $'\"💾", "15.3")
    found = tools.installed("pg_dump", str(named.parent))
    assert [tool.path for tool in found] == [str(named), str(on_path), str(usual)]
    assert choose(found, 15, "15.1").path == str(named)


def test_a_configured_directory_without_a_suitable_tool_does_not_hide_the_others(nowhere: Path) -> None:
    _install(nowhere / "old", "13.9")
    usual = _install(nowhere / "usual" / "16" / "bin", "16.4")
    assert choose(tools.installed("pg_dump", str(nowhere / "old")), 16, "16.4").path == str(usual)


@pytest.mark.parametrize("directory", ["missing", "a-file/bin"])
def test_a_configured_directory_that_is_not_there_is_passed_over(nowhere: Path, directory: str) -> None:
    (nowhere / "a-file").touch()
    assert tools.installed("pg_dump", str(nowhere / directory)) == []


def test_what_cannot_be_run_or_is_no_pg_dump_is_passed_over(nowhere: Path) -> None:
    _install(nowhere / "usual" / "15" / "bin", "15.1", mode=0o644)
    broken = _install(nowhere / "usual" / "16" / "bin", "16.1")
    broken.write_text("#!/no/such/interpreter\n")
    other = _install(nowhere / "usual" / "17" / "bin", "17.1")
    other.write_text("#!/bin/sh\nprintf '\\377 no version'\n")
    (nowhere / "usual" / "18" / "bin" / "pg_dump").mkdir(parents=True)
    assert tools.installed("pg_dump") == []


def test_a_program_that_is_only_asked_for_its_version_gets_no_secret(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:mArKeR-6174@h/d")
    program = _install(nowhere / "usual" / "15" / "bin", "15.1")
    program.write_text(f"{program.read_text()}export -p > '{nowhere}/seen'\n")
    assert [tool.version for tool in tools.installed("pg_dump")] == [(15, 1)]
    assert "PATH" in (nowhere / "seen").read_text() and "mArKeR" not in (nowhere / "seen").read_text()


def test_one_program_under_two_names_is_listed_once(nowhere: Path) -> None:
    real = _install(nowhere / "usual" / "15" / "bin", "15.1")
    (nowhere / "path").mkdir()
    (nowhere / "path" / "pg_dump").symlink_to(real)
    assert len(tools.installed("pg_dump")) == 1


def test_debians_wrapper_which_picks_versions_by_itself_is_passed_over(nowhere: Path) -> None:
    wrapper = _install(nowhere / "share", "15.1").rename(nowhere / "share" / "pg_wrapper")
    (nowhere / "path").mkdir()
    (nowhere / "path" / "pg_dump").symlink_to(wrapper)
    assert tools.installed("pg_dump") == []


def test_a_directory_on_path_that_this_user_may_not_read_is_passed_over(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _install(nowhere / "secret", "15.1")
    (nowhere / "secret").chmod(0)
    usual = _install(nowhere / "usual" / "16" / "bin", "16.4")
    monkeypatch.setenv("PATH", str(nowhere / "secret"))
    for directory in (nowhere, *nowhere.parents):
        if Path(tempfile.gettempdir()) in directory.parents:  # pytest makes these for one user
            directory.chmod(0o755)
    with another_user():
        assert [tool.path for tool in tools.installed("pg_dump")] == [str(usual)]


@contextlib.contextmanager
def another_user() -> Iterator[None]:
    """No rights of root for the length of the block."""
    if os.getuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
