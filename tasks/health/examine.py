"""Asks database, catalogue, buckets, Prefect and this machine at the same time, each with a deadline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from tasks.catalogue.rows import Record
from tasks.health.backups import (
    Records,
    Sound,
    ask_catalogue,
    catalogue_lines,
    dead_uploads,
    find_sound,
    last_backup_line,
    no_backup_line,
    upload_line,
    verification_line,
)
from tasks.health.bucket import Tried, bucket_line, store_line, try_bucket
from tasks.health.database import DatabaseFacts, ask_database, ask_kept, database_line, kept_line
from tasks.health.lines import Line
from tasks.health.machine import AtHand, at_hand, clock_line, signature_lines, spool_line, tool_lines
from tasks.health.prefect_server import PrefectFacts, prefect_lines
from tasks.names import object_key
from tasks.plans.plan import Plan
from tasks.restore.kept_databases import Kept as KeptDatabase
from tasks.runs.at_once import Answer, Deadline, answer, begin
from tasks.storage.s3 import Storage
from tasks.stored_backups.store_facts import Kept, kept_facts

#: The deadline of each of the two rounds; the second follows up what the first has found. Longer than the time-outs of
#: connections, so that their error messages arrive.
SECONDS = 20.0


@dataclass(frozen=True)
class _Place:
    """A bucket that holds backups of the plan."""

    check: str
    storage: Storage
    prefix: str


@dataclass(frozen=True)
class _Answers:
    """The answers of the first round."""

    database: Answer[DatabaseFacts]
    catalogue: Answer[Records]
    buckets: list[tuple[_Place, Answer[Tried]]]
    """The plan's own first."""
    stores: list[tuple[_Place, Answer[Kept | None]]]
    tools: Answer[AtHand]
    kept: Answer[list[KeptDatabase]]
    prefect: Answer[PrefectFacts]


@dataclass(frozen=True)
class Examined:
    """The lines of a plan, and what the catalogue has of it as far as that is known."""

    lines: tuple[Line, ...]
    records: Records | None
    good: Record | None
    """The newest backup that is whole in the bucket; while the bucket does not answer, the newest that is recorded."""


def examine(
    plan: Plan, ask_prefect: Callable[[], PrefectFacts], clock: Callable[[], datetime], seconds: float = SECONDS
) -> Examined:
    """A line for each check; no check stops another, and all of them end within twice `seconds`.

    Nothing is changed except for the probe in each bucket, which is deleted again. `ask_prefect` may raise any of our
    errors.
    """
    answers = _first_round(plan, ask_prefect, clock, Deadline(seconds))
    stored, good = _second_round(plan, answers, clock(), Deadline(seconds))
    now, server = clock(), answers.database.value
    lines = (
        database_line(answers.database),
        *catalogue_lines(answers.catalogue),
        *(bucket_line(place.check, place.storage.bucket, tried) for place, tried in answers.buckets),
        *(store_line(place.storage.bucket, kept) for place, kept in answers.stores),
        *stored,
        *prefect_lines(plan.name, answers.prefect, now, restore_only=plan.restore_only),
        *tool_lines(answers.tools, (server.major, server.version) if server else None),
        *signature_lines(plan.keys),
        kept_line(answers.kept, now, plan.kept_days),
        clock_line(_ahead(answers)),
    )
    return Examined(lines, answers.catalogue.value, good)


def _first_round(
    plan: Plan, ask_prefect: Callable[[], PrefectFacts], clock: Callable[[], datetime], deadline: Deadline
) -> _Answers:
    def tried_in(place: _Place) -> Callable[[], Tried]:
        return lambda: try_bucket(place.storage, place.prefix, clock)

    def known_of(place: _Place) -> Callable[[], Kept | None]:
        return lambda: kept_facts(plan.catalogue, place.storage, place.prefix, clock())

    prefect = begin(ask_prefect)
    database = begin(lambda: ask_database(plan, clock))
    catalogue = begin(lambda: ask_catalogue(plan.catalogue, plan.name, plan.storage.bucket))
    buckets = [(place, begin(tried_in(place))) for place in _places(plan)]
    stores = [(place, begin(known_of(place))) for place in _places(plan)]
    tools = begin(lambda: at_hand(plan.tools_directory))
    kept = begin(lambda: ask_kept(plan))
    server = f"The database server of {plan.database.place}"
    return _Answers(
        database=answer(database, deadline, server),
        catalogue=answer(catalogue, deadline, f"The catalogue at {plan.catalogue.dsn.place}"),
        buckets=[
            (place, answer(work, deadline, f"The store of bucket {place.storage.bucket}")) for place, work in buckets
        ],
        stores=[
            (place, answer(work, deadline, f"The catalogue at {plan.catalogue.dsn.place}")) for place, work in stores
        ],
        tools=answer(tools, deadline, "A client program"),
        kept=answer(kept, deadline, server),
        prefect=answer(prefect, deadline, "The Prefect server"),
    )


def _second_round(plan: Plan, answers: _Answers, now: datetime, deadline: Deadline) -> tuple[list[Line], Record | None]:
    """What needs the answers: whether the bucket has what was recorded, and the spool the room that a backup needs.

    The record is that of the newest good backup.
    """
    records, facts, expected = answers.catalogue.value, answers.prefect.value, answers.database.value
    _, bucket = answers.buckets[0]
    spool = begin(lambda: spool_line(plan, expected.expected_size if expected else None))
    in_bucket: Answer[Sound] = Answer(None, bucket.problem)
    uploads: Answer[list[str]] = Answer(None, "bucket and catalogue must both answer.")
    if records is not None and bucket.value is not None:
        sound = begin(lambda: find_sound(plan.storage, records.newest))
        open_ones = begin(lambda: dead_uploads(plan, now))
        in_bucket = answer(sound, deadline, "The store")
        uploads = answer(open_ones, deadline, "The store")
    due_after = facts.due_after if facts else _never
    made_at = min((deployment.made_at for deployment in facts.active), default=None) if facts else None
    room = answer(spool, deadline, f"The disk of {plan.spool_directory}")
    lines = [
        *(
            [no_backup_line(answers.catalogue)]
            if plan.restore_only
            else [
                last_backup_line(answers.catalogue, in_bucket, due_after, made_at, now, plan.grace),
                verification_line(answers.catalogue, bool(facts and facts.verifies), now),
            ]
        ),
        upload_line(uploads),
        room.value or Line("Spool", "failed", room.problem, "See whether its file system still answers."),
    ]
    recorded = next(iter(records.newest), None) if records else None
    return lines, in_bucket.value.backup if in_bucket.value else recorded


def _places(plan: Plan) -> list[_Place]:
    replicas = [
        _Place(f"Replica {replica.storage.bucket}", replica.storage, object_key(replica.folder, plan.name, ""))
        for replica in plan.replicas
    ]
    return [_Place("Bucket", plan.storage, plan.prefix), *replicas]


def _ahead(answers: _Answers) -> dict[str, timedelta]:
    """How far the clock of each server is ahead of ours."""
    ahead = {"the database server": answers.database.value.ahead} if answers.database.value else {}
    for place, tried in answers.buckets:
        if tried.value is not None and tried.value.ahead is not None:
            ahead[f"the store of {place.storage.bucket}"] = tried.value.ahead
    return ahead


def _never(_: datetime) -> None:
    return None
