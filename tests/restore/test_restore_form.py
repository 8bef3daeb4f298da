"""The forms of the Prefect UI say first what Submit does, how it is taken back, and for which mode each field is."""

from __future__ import annotations

import pytest
from prefect.utilities.callables import parameter_schema

from flows.restore import restore
from flows.undo_restore import undo_restore
from flows.verify_backup import verify_backup


@pytest.mark.parametrize("flow", [restore, undo_restore, verify_backup], ids=lambda flow: flow.name)
def test_the_first_sentence_says_what_submit_does(flow: object) -> None:
    assert str(flow.description).startswith("Submit ")  # type: ignore[attr-defined]


def test_the_form_of_restore_says_what_is_replaced_and_how_it_is_taken_back() -> None:
    first, _, rest = str(restore.description).partition("\n")
    assert "replaces the live database" in first and "kept for three days" in first
    assert "undo-restore/undo-last-restore" in rest.split("Args:")[0]


@pytest.mark.parametrize(
    ("field", "mode"),
    [
        ("target", "new_database"),
        ("tables", "Only for new_database and in_place"),
        ("confirm", "For in_place, and for swap with into"),
        ("create_missing_roles", "every mode"),
        ("analyze", "For swap and new_database"),
        ("drop_dependents", "Only for in_place with tables"),
        ("schemas", "Only for new_database"),
    ],
)
def test_each_field_says_for_which_mode_it_is(field: str, mode: str) -> None:
    assert mode in parameter_schema(restore.fn).properties[field]["description"]
