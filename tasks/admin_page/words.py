"""How the admin page writes times, durations and shares. Pure."""

from __future__ import annotations

from datetime import UTC, datetime

#: A space at which no line is broken.
NARROW = "\N{NO-BREAK SPACE}"
#: Stands where there is nothing to say.
NONE = "–"


def moment(at: datetime | None, seconds: bool = False) -> str:
    """`2026-03-01 02:00`, in UTC."""
    return NONE if at is None else f"{at.astimezone(UTC):{'%Y-%m-%d %H:%M:%S' if seconds else '%Y-%m-%d %H:%M'}}"


def duration(seconds: float | None) -> str:
    """`0.8 s`, `12 s`, `3 min 5 s`, `2 h 10 min`."""
    if seconds is None:
        return NONE
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def percent(part: float, whole: float) -> str:
    """`97 %`; never 100 % or 0 % of what is only nearly so."""
    if not whole:
        return NONE
    share = 100 * part / whole
    if 99 <= share < 100 or 0 < share < 1:
        return f"{min(max(share, 0.1), 99.9):.1f} %"
    return f"{share:.0f} %"


def growth(before: int | None, after: int | None) -> str:
    """`+3.4 %`; `–` when there is nothing to compare."""
    if not before or after is None:
        return NONE
    change = 100 * (after - before) / before
    return f"×{after / before:.0f}" if change >= 1000 else f"{change:+.1f} %"


def whole(text: str) -> str:
    """`text` so that no line is broken at its spaces."""
    return text.replace(" ", NARROW)
