"""Download links, deletions and the list of events as people run them: what they see, and what nobody may see."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import traceback
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from prefect.exceptions import PrefectHTTPStatusError

from deployments.quick_start.prefect_services import PrefectServer
from flows.backup import backup
from flows.delete_backup import delete_backup
from flows.download_backup import download_backup
from flows.list_events import list_events
from tasks.download import steps as download_link
from tasks.errors import BackupNotFound, BadSetting, DeletionRefused, Unreachable
from tasks.names import manifest_key
from tests.support import whole_story
from tests.support.flow_fixtures import WorldFactory
from tests.support.prefect_client import prefect_client
from tests.support.world import CHECKOUT, Heard, World, go

#: Where Prefect keeps what it knows, but for the artifacts, which a link is for.
KINDS = ("flow_runs", "task_runs", "logs", "events", "deployments", "flows", "variables", "block_documents")


@pytest.fixture
def world(make_world: WorldFactory) -> Iterator[World]:
    """A world with one backup."""
    made = make_world(mebibytes=0)
    made.sql("CREATE TABLE t AS SELECT i FROM generate_series(1, 1000) i")
    backup(made.plan, "tester")
    yield made


def api(server: PrefectServer, path: str, body: Any) -> httpx.Response:
    with prefect_client(server.api_url, server.password) as client:
        answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer


def artifact(server: PrefectServer, key: str) -> str:
    """What the newest artifact of this key holds."""
    newest = {"artifacts": {"key": {"any_": [key]}}, "sort": "CREATED_DESC", "limit": 1}
    return str(api(server, "/artifacts/filter", newest).json()[0]["data"])


def link_in(text: str) -> str:
    found = re.fullmatch(r"\[Download backup_[\w.-]+\]\((http.*)\)", text)
    assert found, text
    return found[1]


def lines(world: World, action: str) -> list[tuple[Any, ...]]:
    """What the audit says of an action."""
    return world.sql(
        "SELECT outcome, actor, filename, error, details FROM backup_events WHERE action = %s ORDER BY id",
        [action],
        world.catalogue_url,
    )


def test_a_link_downloads_the_backup_and_stands_in_its_artifact_alone(
    world: World, prefect_api: PrefectServer, heard: Heard
) -> None:
    [row] = world.rows()
    offer = download_backup("latest", world.plan, 30, "Ada")
    url = link_in(artifact(prefect_api, f"download-{world.plan}"))
    with httpx.Client(trust_env=False, timeout=60) as client:
        fetched = client.get(url)
    assert hashlib.sha256(fetched.content).hexdigest() == offer.sha256 == row.metadata["sha256"]
    assert row.filename in fetched.headers["content-disposition"]
    shown = artifact(prefect_api, f"after-download-{world.plan}")
    assert offer.sha256 in shown and "psql -X -q -1" in shown and "Ada" in shown
    began, done = lines(world, "download-backup")
    assert (began[0], done[0]) == ("started", "completed") and began[1:] == done[1:]
    assert done[1:4] == ("Ada", row.filename, None) and done[4]["expires_minutes"] == 30

    signature = parse_qs(urlsplit(url).query)["X-Amz-Signature"][0]
    told = {
        "result": repr(offer),
        "log": heard.text,
        "beside": shown,
        "catalogue": repr(world.sql("SELECT e::text FROM backup_events e", url=world.catalogue_url)),
        **{kind: api(prefect_api, f"/{kind}/filter", {}).text for kind in KINDS},
    }
    assert row.filename in told["log"]
    assert [where for where, text in told.items() if signature in text or "X-Amz-" in text] == []


def test_a_server_that_does_not_take_the_link_does_not_have_it_repeated(
    world: World, monkeypatch: pytest.MonkeyPatch, heard: Heard
) -> None:
    seen: list[str] = []

    def refuse(_: object, content: str) -> None:
        link = link_in(content)
        seen.append(parse_qs(urlsplit(link).query)["X-Amz-Signature"][0])
        answer = httpx.Response(
            422, json={"request_body": link}, request=httpx.Request("POST", "http://server/api/artifacts/")
        )
        raise PrefectHTTPStatusError.from_httpx_error(
            httpx.HTTPStatusError(f"refused {link}", request=answer.request, response=answer)
        )

    monkeypatch.setattr(download_link, "_fill", refuse)
    quick = download_link.offer_download.with_options(retry_delay_seconds=[0.1, 0.1, 0.1])
    monkeypatch.setattr("flows.download_backup.offer_download", quick)
    with pytest.raises(Unreachable, match=r"did not take the link to backup_.*: run this again") as failed:
        download_backup("latest", world.plan)
    story = f"{whole_story(failed.value)}{''.join(traceback.format_exception(failed.value))}{heard.text}{lines(world, 'download-backup')}"
    assert len(seen) == 4 and not [one for one in seen if one in story]
    assert lines(world, "download-backup")[-1][0] == "failed"


@pytest.mark.slow
def test_the_link_is_printed_only_for_who_asks_for_it(world: World, prefect_api: PrefectServer) -> None:
    words = [sys.executable, "-m", "flows.download_backup"]
    plain = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, check=True, timeout=120)
    assert plain.stdout == "" and "X-Amz" not in plain.stderr
    asked = subprocess.run(
        [*words, "--print-link"], cwd=CHECKOUT, capture_output=True, text=True, check=True, timeout=120
    )
    assert asked.stdout == link_in(artifact(prefect_api, f"download-{world.plan}")) + "\n"
    assert "X-Amz" not in asked.stderr


def test_what_cannot_be_downloaded_or_deleted_is_refused_in_one_sentence_and_noted(world: World) -> None:
    [row] = world.rows()
    with pytest.raises(BadSetting, match="set expires_minutes to 1 to 10080"):
        download_backup("latest", world.plan, 10_081, "Ada")
    with pytest.raises(BackupNotFound, match="has no backup 'typo'"):
        download_backup("typo", world.plan, requested_by="Ada")
    with pytest.raises(BadSetting, match="names no backup to delete"):
        delete_backup("latest", world.plan, requested_by="Bob")
    with pytest.raises(DeletionRefused, match="is the newest completed backup"):
        delete_backup(str(row.id), world.plan, "typo", "Bob")
    assert world.check_completed_are_intact() == 1
    for action, actor, asked in (
        ("download-backup", "Ada", ["latest", "typo"]),
        ("delete-backup", "Bob", ["latest", str(row.id)]),
    ):
        noted = lines(world, action)
        assert [(outcome, who) for outcome, who, *_ in noted] == [("refused", actor)] * 2
        assert [details["backup"] for *_, details in noted] == asked
        assert all(error for *_, error, _ in noted)


def test_the_newest_is_deleted_when_its_name_is_confirmed_and_once_more_is_no_error(
    world: World, prefect_api: PrefectServer
) -> None:
    [row] = world.rows()
    done = delete_backup(row.filename, world.plan, row.filename, "Bob")
    assert (done.was, done.bytes) == ("completed", row.file_size)
    assert world.objects() == {} and world.statuses() == ["deleted"]
    again = delete_backup(row.filename, world.plan, requested_by="Bob")
    assert again.was == "deleted" and "was deleted already" in again.message
    assert "was deleted already" in artifact(prefect_api, f"deleted-{world.plan}")
    assert [(outcome, who, name) for outcome, who, name, *_ in lines(world, "delete-backup")] == [
        ("completed", "Bob", row.filename)
    ] * 2


@pytest.mark.slow
def test_a_deletion_a_clean_up_and_a_backup_at_once_lose_nothing(world: World) -> None:
    for _ in range(2):
        backup(world.plan, "tester")
    newest, named, due = (row.filename for row in world.rows())
    world.sql(
        "UPDATE database_backups SET created_at = created_at - interval '30 days' WHERE filename = %s",
        [due],
        world.catalogue_url,
    )
    asked = {
        "delete": ("import flows.delete_backup", f"flows.delete_backup.delete_backup({named!r}, requested_by='Bob', "),
        "cleanup": ("import flows.cleanup", "flows.cleanup.cleanup(requested_by='Cy', "),
        "backup": ("import flows.backup", "flows.backup.backup(requested_by='Di', "),
    }
    started = {name: world._start(imports, end=f"{call}return_state=True)") for name, (imports, call) in asked.items()}
    for one in started.values():
        go(one)
    said = {name: one.communicate(timeout=180)[0] for name, one in started.items()}
    for name, text in said.items():
        assert "ended COMPLETED" in text or "wait for it to end" in text, (name, text)
    assert "ended COMPLETED" in said["backup"] and "ended COMPLETED" in said["delete"], said
    status = {row.filename: row.status for row in world.rows()}
    assert len(status) == 4 and status[newest] == "completed" and status[named] == "deleted"
    assert status[due] in ("expired", "completed") and world.check_completed_are_intact() >= 2
    keys = [row.s3_key for row in world.rows() if row.status == "completed"]
    assert sorted(world.objects()) == sorted([*keys, *map(manifest_key, keys)])


def test_the_events_are_listed_and_can_be_narrowed(world: World, prefect_api: PrefectServer) -> None:
    odd = "Ev|l <b>`x`</b>"
    download_backup("latest", world.plan, requested_by=odd)
    listed = list_events(world.plan, action="download-backup", actor="ev|L", outcome="completed")
    [line] = listed.lines
    assert (line.actor, line.action, line.outcome) == (odd, "download-backup", "completed")
    shown = artifact(prefect_api, "backup-events")
    assert line.run_id[:8] in shown and "<b>" not in shown and "Ev|l" not in shown
    everything = list_events(world.plan).lines
    assert {one.action for one in everything} >= {"backup", "download-backup"}
    assert list_events(world.plan, last=1).lines == everything[:1]
    with pytest.raises(BadSetting, match="set last to 1 to 1000"):
        list_events(last=0)
