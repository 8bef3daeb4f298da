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
    KEEP,
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
POSTGRES += ("no connection left", "no lock left", "few locks", "locked table")


def postgres_faults() -> list[Fault]:
    """What PostgreSQL does to each operation."""
    found = list(_each("postgres", BACKUP, IN_BACKUP[1:4], POSTGRES))
    found += _each("postgres", SWAP, IN_RESTORE[1:], POSTGRES)
    found += _each("postgres", IN_PLACE, ("GetObject 4",), POSTGRES)
    found += _each("postgres", VERIFY, ("GetObject 4",), POSTGRES[:5])
    found += _each("postgres", CLEANUP, ("ListObjects", "DeleteObject"), POSTGRES[:6])
    for operation, place in ((BACKUP, "UploadPart 4"), (SWAP, "GetObject 4"), (IN_PLACE, "GetObject 4")):
        found += _each("postgres", operation, (place,), ("restart", "failover"))
    found += _each("postgres", BACKUP, ("CompleteMultipartUpload", "PutObject manifest"), ("failover",))
    found += _each("postgres", SWAP, ("GetObject 8",), ("failover",))
    return found + list(_each("postgres", VERIFY, ("GetObject 4",), ("failover",)))


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
#: Of the whole process, or of the whole server.
REAL_CLOCKS = ("25 h ahead", "25 h behind", "400 days ahead", "400 days behind")
WORKER_CLOCKS, SERVER_CLOCKS = ([f"{who} {clock}" for clock in REAL_CLOCKS] for who in ("worker", "server"))


def clock_faults() -> list[Fault]:
    """Zones and styles of dates nobody thinks of, and a clock that is wrong."""
    found = list(_each("clock", BACKUP, ("CreateMultipartUpload",), (*ZONES, *CLOCKS)))
    found += _each("clock", SWAP, ("HeadObject",), ZONES)
    for operation, place in ((BACKUP, "UploadPart 1"), (CLEANUP, "ListObjects"), (SWAP, "GetObject 1")):
        found += _each("clock", operation, (place,), (*WORKER_CLOCKS, *SERVER_CLOCKS))
    found += _each("clock", DELETE, ("DeleteObject",), (*WORKER_CLOCKS[::2], *SERVER_CLOCKS[1::2]))
    found += _each("clock", VERIFY, ("GetObject 1",), (*WORKER_CLOCKS[1::2], *SERVER_CLOCKS[::2]))
    return found + list(_each("clock", CLEANUP, ("ListObjects",), (*ZONES, *CLOCKS)))


def two_at_once() -> list[Fault]:
    """A second operation begins in the middle of the first."""
    found = []
    for second in (BACKUP, SWAP, VERIFY, CLEANUP, DELETE):
        found += _each("two", BACKUP, ("UploadPart 4",), (f"also {second}",))
        found += _each("two", SWAP, ("GetObject 4",), (f"also {second}",))
    found += _each("two", VERIFY, ("GetObject 4",), (f"also {VERIFY}", f"also {BACKUP}"))
    return found + list(_each("two", CLEANUP, ("DeleteObject",), (f"also {CLEANUP}", f"also {BACKUP}")))


#: Two workers: what runs, at which request, and what begins then in another process.
BESIDE = {
    (BACKUP, "UploadPart 4"): (BACKUP, SWAP, IN_PLACE, CLEANUP, DELETE, "all"),
    (SWAP, "GetObject 4"): (BACKUP, SWAP, IN_PLACE, VERIFY, CLEANUP, "all"),
    (IN_PLACE, "GetObject 4"): (IN_PLACE, BACKUP),
    (VERIFY, "GetObject 4"): (VERIFY, SWAP, DELETE),
    (CLEANUP, "DeleteObject"): (CLEANUP, DELETE, KEEP, BACKUP, f"{KEEP} and {DELETE}", "all"),
    (CLEANUP, "ListObjects"): (CLEANUP, KEEP, f"{KEEP} and {DELETE} and {CLEANUP}"),
    (DELETE, "DeleteObject"): (DELETE, KEEP, CLEANUP, f"{KEEP} and {SWAP}"),
}


def two_workers() -> list[Fault]:
    """Two or more workers do something with the same plan at once."""
    return [
        Fault(operation, place, f"beside {others}", where="workers")
        for (operation, place), each in BESIDE.items()
        for others in each
    ]


def store_kills() -> list[Fault]:
    """SIGKILL for the store itself: it comes back after a while, or before the next request."""
    places = {
        BACKUP: ("CreateMultipartUpload", "UploadPart 4", "CompleteMultipartUpload", "PutObject manifest"),
        SWAP: ("GetObject manifest", "GetObject 4", "GetObject 8"),
        IN_PLACE: ("UploadPart 4", "GetObject 4"),
        VERIFY: ("GetObject 4",),
        CLEANUP: ("ListObjects", "DeleteObject"),
        DELETE: ("DeleteObject",),
    }
    ways = ("killed store", "restarted store")
    return [fault for operation, where in places.items() for fault in _each("store's process", operation, where, ways)]


#: What a replica does, once and always, while it gets a copy, while copies go, and while it stands in.
COPYING = ("ListMultipartUploads", "CreateMultipartUpload", "UploadPart 1", "UploadPart 4", "CompleteMultipartUpload")
COPYING += ("HeadObject", "PutObject manifest", "GetObject manifest")
REPLICA_ALWAYS = ("drop", "slow", "507", "403", "web page")


def replica_faults() -> list[Fault]:
    """A replica that is down, slow, full, stale, or wrong."""
    found = []
    for place in COPYING:
        ways = ("503", "404", "stale", "short", "deaf", *(ON_THE_WAY_IN if place.startswith(("Upload", "Put")) else ()))
        found += [Fault(BACKUP, place, how, where="replica") for how in ways]
    for number, place in enumerate(COPYING):
        found += [Fault(BACKUP, place, REPLICA_ALWAYS[number % 5], times=0, where="replica")]
    for operation, place in ((CLEANUP, "DeleteObject"), (DELETE, "DeleteObject manifest"), (DELETE, "HeadObject")):
        found += [Fault(operation, place, how, times=0, where="replica") for how in ("drop", "507", "stale", "slow")]
    for place in OF_RESTORE:
        found += [Fault(SWAP, place, how, times=times, where="replica") for how, times in (("wrong", 0), ("short", 1))]
    found += [Fault(VERIFY, "GetObject 4", how, times=0, where="replica") for how in ("wrong", "drop", "stale")]
    found += _each("replica", BACKUP, ("UploadPart 4", "PutObject manifest"), ("kill before", "kill after"))
    return _thinned(found, 0.6, "replica")


LISTS = {
    "store": store_faults,
    "store's process": store_kills,
    "replica": replica_faults,
    "postgres": postgres_faults,
    "disk": disk_faults,
    "process": process_faults,
    "clock": clock_faults,
    "two": two_at_once,
    "workers": two_workers,
}
#: Which share of the faults belongs to CI: the same ones always.
CI_SHARE = {
    "store": 0.12,
    "store's process": 0.1,
    "replica": 0.08,
    "postgres": 0.12,
    "disk": 0.25,
    "process": 0.2,
    "clock": 0.12,
    "two": 0.2,
    "workers": 0.12,
}


#: Those that once broke a promise.
REGRESSIONS = {
    "backup-write_check-web_page",
    "cleanup-DeleteObject-429",
    "cleanup-DeleteObject_manifest-web_page",
    "delete-replica_DeleteObject_manifest-stale-always",
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
