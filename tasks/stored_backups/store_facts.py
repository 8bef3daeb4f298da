"""What is known of a store: asked once, and kept in the audit of the catalogue for a week.

Facts are those of an endpoint, a bucket and a folder: another one is asked anew.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from tasks.catalogue.catalogue import Catalogue
from tasks.catalogue.rows import Event
from tasks.storage.probe import StoreFacts, probe
from tasks.storage.s3 import Storage

ACTION = "probe-storage"
#: A store may be changed, and so may the rules of a bucket.
KEPT_FOR = timedelta(days=7)
_NEWEST = """
    SELECT at, details->'facts' AS facts FROM backup_events
     WHERE action = 'probe-storage' AND outcome = 'completed' AND at > %s
       AND details->>'endpoint' = %s AND details->>'bucket' = %s AND details->>'prefix' = %s
     ORDER BY at DESC, id DESC LIMIT 1
"""


@dataclass(frozen=True)
class Kept:
    """Facts, and when they were found out."""

    facts: StoreFacts
    at: datetime


def kept_facts(catalogue: Catalogue, storage: Storage, prefix: str, now: datetime) -> Kept | None:
    """What is known of the store; None when nothing is, or for too long."""
    with catalogue.cursor() as cursor:
        cursor.execute(_NEWEST, [now - KEPT_FOR, storage.endpoint, storage.bucket, prefix])
        row = cursor.fetchone()
    facts = StoreFacts.of(row["facts"]) if row and isinstance(row["facts"], dict) else None
    return Kept(facts, row["at"]) if row and facts else None


def known_facts(
    catalogue: Catalogue, plan: str, storage: Storage, prefix: str, run_id: str, now: datetime
) -> StoreFacts:
    """What the store of a plan does: as it is known, else the store is asked. The storage makes use of it."""
    kept = kept_facts(catalogue, storage, prefix, now)
    if kept:
        storage.adopt(kept.facts.proofs)
        return kept.facts
    facts = probe(storage, prefix)
    place = {"endpoint": storage.endpoint, "bucket": storage.bucket, "prefix": prefix}
    catalogue.note(Event(ACTION, "completed", plan, "system", run_id, details={**place, "facts": asdict(facts)}))
    return facts
