"""A dump that somebody forged runs nothing on the machine that restores it, and leaves the live database alone."""

from __future__ import annotations

import tracemalloc
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.backup.dump_syntax import simple_pattern
from tasks.errors import BackupDamaged, BackupSystemError
from tasks.postgres.child_processes import Child
from tasks.postgres.locks import verify_lock
from tasks.restore import dump_reader, psql_session
from tasks.restore.compare import compare_run
from tasks.restore.dump_statements import ENTRY_LINE, LEFT_OUT
from tasks.verify.subject import examine, identify, no_scratch_left
from tests.conftest import BIN_DIRECTORIES
from tests.support.forged import forge, with_entry
from tests.support.scene import Scene, SceneFactory, in_words, now

pytestmark = pytest.mark.parametrize(
    "postgres_server", list(BIN_DIRECTORIES), indirect=True, ids=lambda major: f"pg{major}"
)
CONTENT = "CREATE TABLE public.t (a text); INSERT INTO public.t VALUES ('x'); CREATE TABLE public.u (b int)"
#: While rows are copied, strings begin to have escapes, so that for psql the string of COMMENT ends early.
SWITCHES = """
CREATE FUNCTION public.switches() RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
PERFORM set_config('standard_conforming_strings', 'off', false); RETURN true; END $$;
CREATE TABLE public.t (a text CHECK (public.switches()));
INSERT INTO public.t VALUES ('x'); CREATE TABLE public.u (b int)
"""
ATTACKS = {
    "copy in small letters": b"copy public.t from stdin;\nit's\n\\.\n\\! touch MARKER\n--';\n",
    "strings with escapes": b"set standard_conforming_strings = off;\nCOMMENT ON TABLE public.t IS 'a\\' || '\n\\! touch MARKER\n';",
    "another encoding": b"SET client_encoding = 'SJIS';\nCOMMENT ON TABLE public.t IS 'x\x83'; COMMENT ON TABLE public.u IS '\n\\! touch MARKER\n';",
    "the end of the transaction": b"COMMIT ;\nCREATE TABLE public.left_behind (i int);\n",
    "an end of data that psql alone sees": b"COPY public.t (a) FROM stdin;\n1\n\\.\r\n\\! touch MARKER\n\\.\n",
    "a comment that ends early": b"-- Name: x\r\\! touch MARKER; Type: TABLE; Schema: public; Owner: o\n",
    "a line that ends early": b"COMMENT ON TABLE public.t IS 'a\0';\nCOMMENT ON TABLE public.u IS '\n\\! touch MARKER\n';",
    "a switch while rows are copied": b"COMMENT ON TABLE public.u IS 'abc\\'' \\! touch MARKER\n';",
}
ROUTES = ("swap", "new_database", "in_place", "tables", "tables in a new database", "drill")


def attacked(scene: SceneFactory, attack: str, marker: Path) -> tuple[Scene, str]:
    """A plan whose bucket holds a forged backup and whose catalogue is lost; and the name of the backup."""
    one = scene()
    one.sql(SWITCHES if "switch" in attack else CONTENT)
    backup = one.back_up()
    text = with_entry(one.stored(backup)[0], ATTACKS[attack].replace(b"MARKER", str(marker).encode()))
    return forge(one, backup, text), backup.filename


def restore(one: Scene, filename: str, route: str) -> None:
    if route == "drill":
        subject = identify(one.plan, filename, str(uuid.uuid4()), "tester", now())
        with verify_lock(one.plan.database, "run"):
            run = examine(one.plan, subject, lambda _: None)
            with no_scratch_left(one.plan, run, pytest.fail):
                compare_run(one.plan, run, one.load(run))
        return
    new = f"{one.name}_new" if "new" in route else ""
    tables = ("public.t",) if "tables" in route else ()
    mode = "new_database" if new else "in_place" if route != "swap" else "swap"
    one.restore(filename, mode=mode, target=new, tables=tables, drop_dependents=route == "tables")


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("attack", ATTACKS)
def test_no_spelling_gets_a_command_to_the_shell_or_a_change_into_the_live_database(
    scene: SceneFactory, tmp_path: Path, attack: str, route: str
) -> None:
    marker = tmp_path / "marker"
    one, filename = attacked(scene, attack, marker)
    before = one.dumped_whole()
    with pytest.raises(BackupDamaged) as refused:
        restore(one, filename, route)
    in_words(rf"^{filename}: ", refused.value)
    assert not marker.exists()
    assert one.dumped_whole() == before
    assert one.left_behind() == []
    assert f"{one.name}_new" not in one.databases()


@pytest.mark.parametrize(
    ("attack", "route"),
    [
        ("copy in small letters", "swap"),
        ("copy in small letters", "in_place"),
        ("strings with escapes", "swap"),
        ("strings with escapes", "in_place"),
        ("a switch while rows are copied", "in_place"),  # into a scratch, comments go through another session than rows
    ],
)
def test_psql_itself_refuses_commands_that_the_reader_does_not_see(
    scene: SceneFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attack: str, route: str
) -> None:
    marker = tmp_path / "marker"
    one, filename = attacked(scene, attack, marker)
    before = one.dumped_whole()
    reads_everything(monkeypatch)
    with pytest.raises(BackupDamaged):
        restore(one, filename, route)
    assert not marker.exists()
    assert one.dumped_whole() == before
    assert one.left_behind() == []


@pytest.mark.parametrize("attack", ["copy in small letters", "strings with escapes"])
def test_without_our_brackets_and_our_reader_the_attacks_succeed(
    scene: SceneFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attack: str
) -> None:
    marker = tmp_path / "marker"
    one, filename = attacked(scene, attack, marker)
    reads_everything(monkeypatch)
    monkeypatch.setattr(psql_session.PsqlSession, "_bracket", lambda *_: "")
    monkeypatch.setattr(psql_session, "_LOOKS_EVERY", 0.5)
    monkeypatch.setattr(psql_session, "LONGEST_SILENCE", 1.0)
    with pytest.raises(BackupSystemError):
        restore(one, filename, "in_place")
    assert marker.exists()


def test_each_psql_has_a_key_of_its_own_and_no_dump_can_end_the_brackets(
    scene: SceneFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys: list[str] = []
    bracket: Callable[..., str] = psql_session.PsqlSession._bracket

    def noted(self: psql_session.PsqlSession, command: str) -> str:
        keys.append(f"{command} {self._key}")
        return bracket(self, command)

    one = scene()
    one.sql(CONTENT)
    one.back_up()
    monkeypatch.setattr(psql_session.PsqlSession, "_bracket", noted)
    one.restore(mode="in_place")
    one.restore(mode="swap")
    opened = [key.split(" ")[1] for key in keys if key.startswith("restrict ")]
    closed = [key.split(" ")[1] for key in keys if key.startswith("unrestrict ")]
    assert len(opened) == len(set(opened)) >= 2 and set(closed) <= set(opened) and len(closed) >= 2
    assert all(len(key) >= 32 for key in opened)


def reads_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader takes whatever a statement may be, and asks nobody whether psql sees the same."""
    reader = dump_reader._Scanner
    monkeypatch.setattr(reader, "simple", simple_pattern(statements=LEFT_OUT, comments=ENTRY_LINE))
    monkeypatch.setattr(reader, "_check_statement", lambda *_: None)
    monkeypatch.setattr(psql_session, "_READS_AS", "'on UTF8'")


@pytest.mark.parametrize(
    "endless",
    [
        b"COMMENT ON TABLE public.t IS 'x",
        b"COPY public.t (a) FROM stdin;\n1\n",
        b"CREATE FUNCTION public.f() BEGIN ATOMIC\n",
    ],
)
@pytest.mark.parametrize("route", ["swap", "in_place"])
def test_a_psql_that_waits_for_an_end_that_never_comes_is_ended(
    scene: SceneFactory, monkeypatch: pytest.MonkeyPatch, endless: bytes, route: str
) -> None:
    one = scene()
    one.sql(CONTENT)
    one.back_up()
    before = one.dumped_whole()
    run_all = psql_session.PsqlSession.run_all
    # After the rows of the table: there it is the first time that nothing but the question is sent.
    monkeypatch.setattr(
        psql_session.PsqlSession, "run_all", lambda self, texts: run_all(self, texts or [b"\n" + endless])
    )
    monkeypatch.setattr(psql_session, "_LOOKS_EVERY", 0.5)
    monkeypatch.setattr(psql_session, "LONGEST_SILENCE", 2.0)
    with pytest.raises(BackupDamaged, match="psql has had all of the dump so far and waits for more"):
        one.restore(mode=route)
    assert one.dumped_whole() == before
    assert one.left_behind() == []


def test_a_server_that_works_longer_than_that_is_waited_for(
    scene: SceneFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = scene()
    one.sql(
        "CREATE FUNCTION public.slow() RETURNS bool LANGUAGE sql AS 'SELECT pg_sleep(4) IS NOT NULL';"
        "CREATE TABLE public.t (a text CHECK (public.slow())); INSERT INTO public.t VALUES ('x')"
    )
    one.back_up()
    monkeypatch.setattr(psql_session, "_LOOKS_EVERY", 0.5)
    monkeypatch.setattr(psql_session, "LONGEST_SILENCE", 1.0)
    one.restore(mode="swap")
    assert one.sql("SELECT a FROM public.t") == [("x",)]


@pytest.mark.parametrize("codec", ["zstd", "gzip"])
@pytest.mark.parametrize("route", ["swap", "in_place"])
def test_no_byte_beyond_the_size_in_the_manifest_reaches_psql(
    scene: SceneFactory, monkeypatch: pytest.MonkeyPatch, codec: str, route: str
) -> None:
    one = scene(codec=codec)
    one.sql(CONTENT + "; INSERT INTO public.t SELECT repeat('x', 1000) FROM generate_series(1, 9000)")
    backup = one.back_up()
    before, size, sent = one.dumped_whole(), 0, 0

    def shrink(manifest: dict[str, Any]) -> None:
        nonlocal size
        size = manifest["plain"]["size"] = manifest["tables"][-1]["end"] + 10
        manifest["sections"][0]["end"] = size

    def count(self: Child, data: bytes | memoryview) -> None:
        nonlocal sent
        sent += len(data) if b"x" * 1000 in bytes(data) else 0
        send(self, data)

    send = Child.send
    monkeypatch.setattr(Child, "send", count)
    one.rewrite(backup, shrink)
    with pytest.raises(BackupDamaged, match=rf"longer than the {size} bytes that the field plain\.size"):
        one.without_catalogue().restore(backup.filename, mode=route)
    assert sent < size
    assert one.dumped_whole() == before and one.left_behind() == []


def test_a_manifest_that_is_too_large_is_refused_unread(scene: SceneFactory) -> None:
    one = scene()
    one.sql(CONTENT)
    backup = one.back_up()
    one.store(backup, its_manifest=b" " * ((64 << 20) + 1))
    tracemalloc.start()
    try:
        for scene_ in (one, one.without_catalogue()):
            with pytest.raises(BackupDamaged, match="is larger than 64 MiB, and no manifest is"):
                scene_.validated(backup.filename)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
