"""What docs/troubleshooting.md explains is what the code says."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError, EndpointConnectionError

from tasks.errors import BackupSystemError
from tasks.health.prefect_server import Pool, PrefectFacts, Scheduled, Worker, schedule_line, worker_line
from tasks.postgres.tools import Tool, choose
from tasks.storage import s3_errors as storage_errors
from tasks.storage.backup_values import Part
from tasks.storage.s3_errors import sentences
from tasks.stored_backups.backup_files import confirm
from tests.documents.test_documents import tables

CHECKOUT = Path(__file__).parents[2]
PAGE = (CHECKOUT / "docs" / "troubleshooting.md").read_text()
NOW = datetime(2026, 3, 1, 2, tzinfo=UTC)


def messages(text: str) -> list[str]:
    """The messages in the first columns of the tables of a text; `…` in them stands for what differs."""
    cells = [row["message"] for table in tables(text) for row in table if "message" in row]
    return [one for cell in cells for found in re.findall(r"``(.+?)``|`([^`]+)`", cell) for one in found if one]


def section(title: str) -> str:
    """The text below a heading of the third level, up to the next heading."""
    [found] = re.findall(rf"^### {re.escape(title)}\n(.*?)(?=^##+ |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


# --- the common problems: the code is brought to say it


def said(act: Callable[[], Any]) -> str:
    with pytest.raises(BackupSystemError) as error:
        act()
    return str(error.value)


def pg_dump_not_found() -> list[str]:
    old = [Tool("/usr/bin/pg_dump", (15, 18))]
    return [said(lambda: choose([], 17, "17.2")), said(lambda: choose(old, 17, "17.2"))]


def store_says(error: Exception) -> str:
    def ask() -> None:
        with sentences("main-bucket", "https://s3.example.org", "", "", 0):
            raise error

    return said(ask)


def refusal(code: str, status: int) -> ClientError:
    answer: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "UploadPart")


class ShortStore:
    def size(self, key: str) -> int:
        return 640


def an_upload_fails() -> list[str]:
    nowhere: dict[str, Any] = {"endpoint_url": "https://s3.example.org"}
    return [
        store_says(refusal("AccessDenied", 403)),
        store_says(refusal("NoSuchBucket", 404)),
        store_says(EndpointConnectionError(**nowhere)),
        store_says(ConnectionClosedError(**nowhere)),
        said(lambda: confirm(ShortStore(), "shop/backup.sql", [Part(1, 812, "0" * 64)])),  # type: ignore[arg-type]
    ]


def a_schedule_does_not_run() -> list[str]:
    def due(_: datetime) -> datetime:
        return NOW + timedelta(hours=1)

    daily = Scheduled("backup/daily", False, 1, due(NOW), NOW, due)
    silent = Worker("w-1", NOW - timedelta(hours=2), timedelta(seconds=30))
    alive = replace(silent, heard_at=NOW)

    def facts(scheduled: Sequence[Scheduled] = (), *pools: Pool) -> PrefectFacts:
        return PrefectFacts(tuple(scheduled), pools, False, (), ())

    lines = [
        schedule_line("crm", facts(), NOW),
        schedule_line("crm", facts([replace(daily, is_paused=True)]), NOW),
        schedule_line("crm", facts([replace(daily, next_run=None)]), NOW),
        worker_line(facts([], Pool("backups")), NOW),
        worker_line(facts([], Pool("backups", workers=(silent,))), NOW),
        worker_line(facts([], Pool("backups", workers=(alive,), late=3)), NOW),
    ]
    return [line.what for line in lines]


@pytest.mark.parametrize(
    ("title", "produced"),
    [
        ("pg_dump not found", pg_dump_not_found),
        ("An upload fails", an_upload_fails),
        ("A schedule does not run", a_schedule_does_not_run),
    ],
)
def test_the_messages_of_a_common_problem_are_those_that_the_code_gives(
    title: str, produced: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_errors, "resolves", lambda host: False)
    explained = messages(section(title))
    patterns = [".*".join(re.escape(piece.strip()) for piece in message.split("…")) for message in explained]
    given = produced()
    for message in given:
        assert any(re.search(pattern, message) for pattern in patterns), f"not explained: {message}"
    for pattern, message in zip(patterns, explained, strict=True):
        assert any(re.search(pattern, one) for one in given), f"nobody says: {message}"


def test_the_four_common_problems_have_a_section_each() -> None:
    for title in ("pg_dump not found", "An upload fails", "A restore fails", "A schedule does not run"):
        assert len(messages(section(title))) >= 2, title


# --- the whole page: the words are those of the program

#: So many words in a row cannot be there by chance; fewer are what a program puts in, such as the name of a tool.
ROW = 3


def texts() -> Iterator[str]:
    """Every text in the program, with a gap for each value that is put in."""
    yield re.sub(r"\$\w+|\$\(", " … ", (CHECKOUT / "deployments" / "environment.sh").read_text(encoding="utf-8"))
    for top in ("tasks", "deployments", "flows"):
        for file in sorted((CHECKOUT / top).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.JoinedStr):
                    yield "".join(str(one.value) if isinstance(one, ast.Constant) else " … " for one in node.values)
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value


def words(text: str) -> list[str]:
    return re.findall(r"[\w'’-]+|…", text)


def rows_of_words(text: str, length: int) -> set[tuple[str, ...]]:
    found = words(text)
    rows = {tuple(found[at : at + length]) for at in range(len(found) - length + 1)}
    return {row for row in rows if "…" not in row}


@functools.cache
def program() -> dict[int, set[tuple[str, ...]]]:
    """All rows of so many words in the program."""
    said = list(texts())
    return {length: {row for text in said for row in rows_of_words(text, length)} for length in (1, 2, ROW)}


def known_share(message: str) -> float:
    """How much of a message stands in the program, by rows of words; short pieces count by what there is of them."""
    pieces = [piece for piece in message.split("…") if words(piece)]
    rows = [row for piece in pieces for row in rows_of_words(piece, min(ROW, len(words(piece))))]
    return sum(row in program()[len(row)] for row in rows) / len(rows)


@pytest.mark.parametrize("message", sorted(set(messages(PAGE))), ids=lambda message: message[:60])
def test_a_message_that_is_explained_is_in_the_words_of_the_program(message: str) -> None:
    assert known_share(message) >= 0.5


def test_a_message_that_nobody_gives_is_noticed() -> None:
    assert known_share("The moon is … and the server needs more of it: try another night.") < 0.5
    assert known_share("There is no plan called … here: make one by hand.") < 0.5
