"""What is kept with the page for the next one: where the records of plans come from, and their kept databases. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

from tasks.admin_page.view import PlanView
from tasks.restore.kept_databases import Kept

_NOTE = "source of plan "
_KEPT_NOTE = "kept database: "


def with_earlier_sources(views: Iterable[PlanView], noted: Mapping[str, str]) -> tuple[PlanView, ...]:
    """The views with `earlier_source` filled in: what a plan without records backed up when it had some. Pure.

    `noted` is what `sources_with_backups` returned when the page was last written.
    """
    return tuple(
        replace(view, earlier_source=earlier) if (earlier := _earlier_source(view, noted)) else view for view in views
    )


def sources_with_backups(views: Iterable[PlanView], noted: Mapping[str, str]) -> dict[str, str]:
    """What to keep with the page: for each plan the source of its records, or what was noted before. Pure."""
    sources = {_note_of(view.name): view.source for view in views if view.source and _has_records(view)}
    return {name: text for name, text in noted.items() if name.startswith(_NOTE)} | sources


def kept_notes(views: Iterable[PlanView]) -> dict[str, str]:
    """What to keep with the page of the kept databases, for `gather`. Pure."""
    return {
        f"{_KEPT_NOTE}{view.name}/{place:03}": json.dumps({**vars(kept), "at": kept.at.isoformat(), "comment": None})
        for view in views
        for place, kept in enumerate(view.kept)
    }


def noted_kept(plan: str, noted: Mapping[str, str]) -> list[Kept]:
    """The kept databases of a plan as `kept_notes` has noted them. Pure."""
    found = []
    for name in sorted(name for name in noted if name.startswith(f"{_KEPT_NOTE}{plan}/")):
        with suppress(ValueError, TypeError, KeyError):  # one that was cut off
            facts = json.loads(noted[name])
            found.append(Kept(**{**facts, "at": datetime.fromisoformat(facts["at"])}))
    return found


def kept_plan(note: str) -> str:
    """The plan of which a note says a kept database."""
    return note.removeprefix(_KEPT_NOTE).rpartition("/")[0] if note.startswith(_KEPT_NOTE) else ""


def _earlier_source(view: PlanView, noted: Mapping[str, str]) -> str:
    earlier = noted.get(_note_of(view.name), "")
    is_empty = view.reading is not None and not _has_records(view)
    return earlier if is_empty and earlier != view.source else ""


def _has_records(view: PlanView) -> bool:
    return view.reading is not None and view.reading.statistics.recorded > 0


def _note_of(plan: str) -> str:
    return f"{_NOTE}{plan}"
