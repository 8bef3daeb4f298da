"""Every `backups …` that a document tells people to type is a command with these options; none of them is run here."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest

from deployments.command_line.main import command
from tests.documents.test_documents import CHECKOUT, DOCUMENTS, in_code

#: At the beginning of a line, after a variable, or as what a shell is to read.
_COMMAND = re.compile(r"(?:[A-Z_]+=\S+ \S+ |source <\()?(backups (?:--help|[a-z]).*?)\)?\s*(?:#.*)?$")


def told() -> Iterator[tuple[str, str]]:
    """Each command, with the document in which it stands."""
    for document in DOCUMENTS:
        for line in in_code(document.read_text()).splitlines():
            if words := _COMMAND.match(line):
                yield document.name, words[1]


TOLD = sorted(set(told()))


def test_commands_are_found_where_they_are_known_to_be() -> None:
    assert ("README.md", "backups list") in TOLD and ("restore.md", "backups restore --here") in TOLD
    assert len(TOLD) > 30


@pytest.mark.parametrize(("document", "line"), TOLD)
def test_a_command_of_a_document_is_one_of_the_program(document: str, line: str) -> None:
    words = shlex.split(line.partition(" > ")[0].replace("…", "x"))[1:]
    called, bound, *_ = command().parse_args(words, print_error=False, exit_on_error=False)
    assert called is not None and bound is not None


def test_every_command_is_told_of_on_the_page_of_deployments() -> None:
    page = (CHECKOUT / "docs" / "deployments.md").read_text()
    app = command()
    names = {name for name in app if not name.startswith("-")}
    assert {name for name in names if f"backups {name}" not in page} == set()
