"""What a fault is: which operation it strikes, at which request to the store, how, and how often."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.support.faulty_store import Request

#: Bytes of a part in the laboratory, and the number of the backup's last part.
PART, LAST = 1 << 17, 8
MANIFEST = ".manifest.json"

BACKUP, SWAP, NEW_DATABASE, IN_PLACE, VERIFY, CLEANUP, DELETE, KEEP = OPERATIONS = (
    "backup",
    "swap",
    "new_database",
    "in_place",
    "verify",
    "cleanup",
    "delete",
    "keep",
)


def _part(number: int) -> Callable[[Request], bool]:
    return lambda request: request.part == number and not request.is_check


def _range(number: int) -> Callable[[Request], bool]:
    """A request for a part of the stored file; parts are counted from 1."""
    return lambda request: request.method == "GET" and request.start == (number - 1) * PART


def _is(method: str, manifest: bool) -> Callable[[Request], bool]:
    return lambda request: (
        request.method == method
        and request.key.endswith(MANIFEST) is manifest
        and ".sql" in request.key
        and not request.query
        and request.start < 0
    )


#: Which requests a name means. They are the clock of the laboratory: whatever strikes, it does so at one of them.
PLACES: dict[str, Callable[[Request], bool]] = {
    "write check": lambda request: request.begins_upload and request.is_check,
    "end of write check": lambda request: request.method == "DELETE" and request.is_check,
    "probe part": lambda request: request.method == "PUT" and request.is_check,
    "ListMultipartUploads": lambda request: request.method == "GET" and "uploads" in request.query,
    "CreateMultipartUpload": lambda request: request.begins_upload and not request.is_check,
    "UploadPart 1": _part(1),
    "UploadPart 4": _part(4),
    "UploadPart 8": _part(LAST),
    "ListParts": lambda request: request.method == "GET" and "uploadId" in request.query,
    "CompleteMultipartUpload": lambda request: request.completes_upload,
    "HeadObject": _is("HEAD", manifest=False),
    "GetObject 1": _range(1),
    "GetObject 4": _range(4),
    "GetObject 8": _range(LAST),
    "PutObject manifest": _is("PUT", manifest=True),
    "GetObject manifest": _is("GET", manifest=True),
    "ListObjects": lambda request: "list-type" in request.query,
    "DeleteObject": _is("DELETE", manifest=False),
    "DeleteObject manifest": _is("DELETE", manifest=True),
}


@dataclass(frozen=True)
class Fault:
    """One fault. `times` is how many requests it strikes, 0 all of them; `seed` is what is random about it."""

    operation: str
    place: str
    how: str
    times: int = 1
    seed: int = 1
    where: str = "store"
    """What fails: store, replica, postgres, process, disk, clock, or two at once."""
    ends: str = "either"
    """How the run must end: `completed`, `failed`, or `either` where both are right."""

    @property
    def name(self) -> str:
        """As `FAULT=` takes it."""
        often = {1: "", 0: "-always"}.get(self.times, f"-{self.times}-times")
        place = f"replica {self.place}" if self.where == "replica" else self.place
        return f"{self.operation}-{place}-{self.how}{often}".replace(" ", "_")

    @property
    def others(self) -> tuple[str, ...]:
        """The operations that begin beside it: `also` in the same process, `beside` each in one of its own."""
        kind, _, what = self.how.partition(" ")
        if kind not in ("also", "beside"):
            return ()
        return (BACKUP, SWAP, VERIFY, CLEANUP, DELETE, KEEP) if what == "all" else tuple(what.split(" and "))

    def strikes(self, request: Request) -> bool:
        """Whether this is a request at which it strikes."""
        return PLACES[self.place](request)
