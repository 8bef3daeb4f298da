"""All faults: each way to fail meets each place of each operation, or as many of them as tell something new."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from tests.faults.fault import (
    BACKUP,
    CLEANUP,
    DELETE,
    IN_PLACE,
    NEW_DATABASE,
    SWAP,
    VERIFY,
    Fault,
)

SEED = int(os.environ.get("SEED", "1"))

#: The requests of each operation.
OF_BACKUP = (
    "write check",
    "end of write check",
    "ListMultipartUploads",
    "CreateMultipartUpload",
    "probe part",
    "UploadPart 1",
    "UploadPart 4",
    "UploadPart 8",
    "ListParts",
    "CompleteMultipartUpload",
    "HeadObject",
    "GetObject 1",
    "GetObject 8",
    "PutObject manifest",
    "GetObject manifest",
)
OF_RESTORE = ("HeadObject", "GetObject manifest", "GetObject 1", "GetObject 4", "GetObject 8")
OF_CLEANUP = ("ListMultipartUploads", "ListObjects", "HeadObject", "DeleteObject", "DeleteObject manifest")
OF_DELETE = ("DeleteObject", "DeleteObject manifest")
RESTORES = (SWAP, NEW_DATABASE, IN_PLACE, VERIFY)

#: Ways of a store to fail for once, after which the operation must succeed all the same.
PASSING = (500, 503, 429, "drop", "late", "slow")
#: Ways that may be believed, or not, as long as nothing untrue comes of it.
MISLEADING = (
    507,
    "deaf",
    "short",
    "cut",
    "overlong",
    "wrong",
    "no headers",
    "no length",
    "error inside",
    "web page",
    "stale",
    "redirect",
    "skewed",
    404,
)
ON_THE_WAY_IN = ("altered", "truncated", "no etag")
#: Ways to fail that last: the operation ends, and says so.
LASTING = (503, 507, 403, "drop", "redirect", "skewed", "error inside", "web page")


def _store(operation: str, places: Sequence[str]) -> Iterator[Fault]:
    """Every place meets every way that strikes once, and in turn the ways that last."""
    for number, place in enumerate(places):
        ways = (*PASSING, *MISLEADING, *(ON_THE_WAY_IN if place.startswith(("Upload", "Put")) else ()))
        for how in ways:
            yield Fault(operation, place, str(how), ends="completed" if how in PASSING else "either")
        yield Fault(operation, place, "stall")
        for how in (LASTING[number % len(LASTING)], LASTING[(number + 3) % len(LASTING)]):
            yield Fault(operation, place, str(how), times=0)


def _thinned(faults: Sequence[Fault], share: float, name: str) -> list[Fault]:
    """A share of them, the same ones always: where operations have the same requests, not each needs all."""
    return random.Random(name).sample(faults, round(len(faults) * share))


def store_faults() -> list[Fault]:
    """What the store does to each operation."""
    shares = {SWAP: 0.3, IN_PLACE: 0.2, NEW_DATABASE: 0.06, VERIFY: 0.1}
    found = _thinned(list(_store(BACKUP, OF_BACKUP)), 0.27, BACKUP)
    for operation in RESTORES:
        found += _thinned(list(_store(operation, OF_RESTORE)), shares[operation], operation)
    found += _thinned(list(_store(IN_PLACE, OF_BACKUP)), 0.02, "safety backup")
    found += [Fault(SWAP, place, how, ends="completed") for place in OF_RESTORE[:2] for how in ("wrong", "stale")]
    found += _thinned(list(_store(CLEANUP, OF_CLEANUP)), 0.12, CLEANUP)
    return list(dict.fromkeys(found + _thinned(list(_store(DELETE, OF_DELETE)), 0.2, DELETE)))


def _each(where: str, operation: str, places: Sequence[str], ways: Sequence[str]) -> Iterator[Fault]:
    for place in places:
        for how in ways:
            yield Fault(operation, place, how, where=where)


IN_BACKUP = ("CreateMultipartUpload", "UploadPart 1", "UploadPart 4", "CompleteMultipartUpload", "PutObject manifest")
IN_RESTORE = ("GetObject manifest", "GetObject 1", "GetObject 4", "GetObject 8")
#: What happens to PostgreSQL or to the way there.
POSTGRES = ("cut", "refused connections", "stalled", "50 kB a second", "ended sessions", "ended lock")
POSTGRES += ("no connection left", "locked table")


def postgres_faults() -> list[Fault]:
    """What PostgreSQL does to each operation."""
    found = list(_each("postgres", BACKUP, IN_BACKUP[1:4], POSTGRES))
    found += _each("postgres", SWAP, IN_RESTORE[1:], POSTGRES)
    found += _each("postgres", IN_PLACE, ("GetObject 4",), POSTGRES)
    found += _each("postgres", VERIFY, ("GetObject 4",), POSTGRES[:5])
    found += _each("postgres", CLEANUP, ("ListObjects", "DeleteObject"), POSTGRES[:6])
    for operation, place in ((BACKUP, "UploadPart 4"), (SWAP, "GetObject 4"), (IN_PLACE, "GetObject 4")):
        found += _each("postgres", operation, (place,), ("restart", "failover"))
    return found


def disk_faults() -> list[Fault]:
    """Disks that fill up: the spool's and the server's. The store's is the status 507."""
    found = list(_each("disk", BACKUP, ("CreateMultipartUpload", "UploadPart 4"), ("full spool",)))
    for operation in (SWAP, IN_PLACE, VERIFY):
        found += _each("disk", operation, ("GetObject 1", "GetObject 4"), ("full spool", "full server"))
    return found


def process_faults() -> list[Fault]:
    """SIGKILL for the run itself, before or after a request was answered, and for the programs that it started."""
    both = ("kill before", "kill after")
    found = list(_each("process", BACKUP, IN_BACKUP, both))
    found += _each("process", SWAP, IN_RESTORE, both)
    found += _each("process", IN_PLACE, ("UploadPart 4", "GetObject 4", "GetObject 8"), both)
    found += _each("process", CLEANUP, ("DeleteObject", "DeleteObject manifest"), both)
    found += _each("process", DELETE, OF_DELETE, both)
    found += _each("process", BACKUP, ("UploadPart 1", "UploadPart 4"), ("kill pg_dump",))
    for operation in RESTORES:
        found += _each("process", operation, ("GetObject 1", "GetObject 4", "GetObject 8"), ("kill psql",))
    return found


ZONES = ("zone Pacific/Kiritimati", "zone America/St_Johns", "zone Antarctica/Troll")
CLOCKS = ("clock 1 h ahead", "clock 400 days behind")


def clock_faults() -> list[Fault]:
    """Zones and styles of dates nobody thinks of, and a clock that is wrong."""
    found = list(_each("clock", BACKUP, ("CreateMultipartUpload",), (*ZONES, *CLOCKS)))
    found += _each("clock", SWAP, ("HeadObject",), ZONES)
    return found + list(_each("clock", CLEANUP, ("ListObjects",), (*ZONES, *CLOCKS)))


def two_at_once() -> list[Fault]:
    """A second operation begins in the middle of the first."""
    found = []
    for second in (BACKUP, SWAP, VERIFY, CLEANUP, DELETE):
        found += _each("two", BACKUP, ("UploadPart 4",), (f"also {second}",))
        found += _each("two", SWAP, ("GetObject 4",), (f"also {second}",))
    found += _each("two", VERIFY, ("GetObject 4",), (f"also {VERIFY}", f"also {BACKUP}"))
    return found + list(_each("two", CLEANUP, ("DeleteObject",), (f"also {CLEANUP}", f"also {BACKUP}")))


LISTS = {
    "store": store_faults,
    "postgres": postgres_faults,
    "disk": disk_faults,
    "process": process_faults,
    "clock": clock_faults,
    "two": two_at_once,
}
#: Which share of the faults belongs to CI: the same ones always.
CI_SHARE = {"store": 0.14, "postgres": 0.16, "disk": 0.25, "process": 0.25, "clock": 0.25, "two": 0.25}


#: Those that once broke a promise.
REGRESSIONS = {
    "backup-write_check-web_page",
    "cleanup-DeleteObject-429",
    "cleanup-DeleteObject_manifest-web_page",
    "swap-GetObject_manifest-wrong",
}


def all_faults() -> list[Fault]:
    """Every fault of the laboratory."""
    return list({fault.name: fault for faults in LISTS.values() for fault in faults()}.values())


def parameters(where: str, *operations: str) -> list[object]:
    """For pytest: the faults of this kind, those that belong to CI with the mark `thorough`; or the one in FAULT."""
    made = {fault.name: fault for fault in LISTS[where]() if not operations or fault.operation in operations}
    wanted = os.environ.get("FAULT")
    of_ci = {fault.name for fault in _thinned(LISTS[where](), CI_SHARE[where], where)} | REGRESSIONS
    return [
        pytest.param(
            replace(fault, seed=SEED), id=fault.name, marks=[pytest.mark.thorough] if fault.name in of_ci else []
        )
        for fault in made.values()
        if wanted in (None, "", fault.name)
    ]
