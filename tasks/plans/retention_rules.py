"""The retention rules of a plan: how long its backups are kept."""

from __future__ import annotations

from dataclasses import dataclass, fields

from tasks.errors import BadSetting


@dataclass(frozen=True)
class Policy:
    """How long the backups of a plan are kept. A backup is kept if any rule keeps it.

    `days` are periods of 24 hours. `keep_last` is a number of backups. `daily`, `weekly`, `monthly` and `yearly` are
    numbers of days, ISO weeks, months and years (UTC) that have a backup: the newest backup of each is kept. Nothing
    is removed while the newest backup is smaller than the one before it by more than `collapse_percent`, in size or in
    tables; 0 does not compare. `other_days` alone counts for a backup of another type than `full`, such as the safety
    backup of a restore. Raises BadSetting.
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
