"""Keeps the admin page, the artifact `backups`, as things are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prefect import task

from tasks.steps import STEP


@task(name="publish", **STEP)
def publish_backups() -> None:
    """The admin page shows every plan's backups as they are now. Never fails a run: what is wrong is in its log."""


@contextmanager
def admin_page_follows() -> Iterator[None]:
    """Rewrites the admin page once the `with` block has ended, however it ended."""
    try:
        yield
    finally:
        publish_backups()
