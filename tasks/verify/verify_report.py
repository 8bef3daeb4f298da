"""The result of a verify run as markdown for people. Pure."""

from __future__ import annotations

from tasks.restore.restore_report import count_table, notes
from tasks.runs.markdown import cell, facts, human_bytes
from tasks.verify.subject import Subject
from tasks.verify.verdict import Fault, Verified


def verified_report(done: Verified, recorded: bool) -> str:
    """A backup that has passed: what was proved, and the rows of every table."""
    speed = done.plain_size / max(done.restore_seconds, 0.001) / 1e6
    values = {
        "Backup": f"`{done.filename}` of {done.created_at:%Y-%m-%d %H:%M:%S} UTC, {human_bytes(done.size)}",
        "Verified": f"{done.at:%Y-%m-%d %H:%M:%S} UTC" + ("" if recorded else ", which could not be recorded"),
        "Rows": f"{done.rows:,} in {len(done.tables):,} tables, all as backed up",
        "Large objects": f"{done.large_objects:,}, all as backed up",
        "Restore": f"{done.restore_seconds:.1f} s for {human_bytes(done.plain_size)} of SQL ({speed:.0f} MB/s)",
        "Duration": f"{done.seconds:.1f} s",
    }
    proofs = "".join(f"- {proof}\n" for proof in proved(done))
    return (
        f"# Verified\n\n{facts(values)}{notes(done.warnings)}\nWhat was proved:\n\n{proofs}\n{count_table(done.tables)}"
    )


def proved(done: Verified) -> list[str]:
    """What is proved of a backup that has passed, one sentence each."""
    recorded = done.backup_id is not None
    major = done.server_version // 10_000
    return [
        "The manifest is the one that the catalogue recorded."
        if recorded
        else "The manifest is whole; the catalogue could not say whether it is the recorded one.",
        f"Every part in bucket {cell(done.bucket)} has the SHA-256 of the manifest.",
        *([f"The file decodes ({done.decoded}) without an error."] if done.decoded else []),
        "The SQL has the size and the SHA-256 of what pg_dump wrote, to its last line.",
        f"psql {cell(done.psql_version)} ran all of it on PostgreSQL {major} without an error, as one transaction.",
        "Every table has the rows that were backed up.",
        "It was restored into a scratch database of this run alone; the live database was not touched.",
    ]


def unverified_report(subject: Subject, fault: Fault, reason: str) -> str:
    """A verify run that did not prove its backup."""
    earlier = f"{subject.verified_at:%Y-%m-%d %H:%M:%S} UTC" if subject.verified_at else ""
    if fault == "backup":
        title, advice = "Not verified", "Do not rely on this backup: make a new one, and verify that."
        advice += f" That it was verified at {earlier} no longer holds." if earlier else ""
    else:
        title, advice = "Could not be verified", "Correct what is named above, then run verify-backup again."
        advice += f" It was last verified at {earlier}." if earlier else ""
    return f"# {title}: {cell(subject.name)}\n\n{cell(reason)}\n\n{advice}\n"
