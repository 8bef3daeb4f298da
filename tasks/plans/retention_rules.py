"""The retention rules of a plan: how long its backups are kept."""

from __future__ import annotations

from dataclasses import dataclass, fields

from tasks.errors import BadSetting


@dataclass(frozen=True)
class Policy:
    """How long the backups of a plan stay; a backup stays if any rule keeps it.

    `days` counts periods of 24 hours. `keep_last` counts backups; `daily` to `yearly` count days, ISO weeks,
    months and years (UTC) that have a backup, of each of which the newest stays. A backup that lost more than
    `collapse_percent` of its size or tables halts removal; 0 never halts. A backup of another type than `full` (one
    made ahead of a restore, say) stays `other_days`, whatever else is said. Raises BadSetting.
    """

    days: int = 7
    keep_last: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    collapse_percent: int = 50
    other_days: int = 3

    def __post_init__(self) -> None:
        if self.days <= 0:
            raise BadSetting(f"Retention: days is {self.days}; set it to 1 or more.")
        if self.days > 36_500:
            raise BadSetting(f"Retention: days is {self.days}; set it to 36500 or fewer.")
        for name in (field.name for field in fields(self)):
            if getattr(self, name) < 0:
                raise BadSetting(f"Retention: {name} is {getattr(self, name)}; set it to 0 or more.")
        if self.collapse_percent >= 100:
            raise BadSetting(f"Retention: collapse_percent is {self.collapse_percent}; set it to 0 to 99.")
