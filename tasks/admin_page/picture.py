"""A picture of the size and the duration of a plan's backups over time: SVG, in a data: URI. Pure.

The Prefect UI draws images from such addresses and drops SVG that stands in the markdown itself. The picture has a
ground of its own, so that it can be read in the light and in the dark theme.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from tasks.admin_page.view import Point
from tasks.runs.markdown import duration, human_bytes

WIDTH, HEIGHT = 690, 236  # pixels; as wide as the column of text in the UI
_LEFT, _RIGHT = 78, 14
_SIZES = (34, 126)  # top and bottom of the upper chart
_TIMES = (156, 208)
_BLUE, _ORANGE, _RED, _GREY, _INK = "#3b82f6", "#f59e0b", "#dc2626", "#e5e7eb", "#374151"
_DAY = timedelta(days=1)


def picture(points: Sequence[Point]) -> str:
    """The picture as a data: URI; empty when there is nothing to compare yet."""
    if sum(point.size is not None for point in points) < 2:
        return ""
    return "data:image/svg+xml;base64," + base64.b64encode(svg(points).encode()).decode()


def svg(points: Sequence[Point]) -> str:
    """The picture of at least one point, oldest first."""
    start, end = points[0].at, points[-1].at
    span = max((end - start).total_seconds(), 1.0)
    slot = (WIDTH - _LEFT - _RIGHT) / max(len(points), 12)

    def x_of(at: datetime) -> float:
        room = WIDTH - _LEFT - _RIGHT - slot
        return _LEFT + slot / 2 + room * (at - start).total_seconds() / span

    largest = max((point.size or 0 for point in points), default=0) or 1
    longest = max((point.seconds or 0.0 for point in points), default=0.0) or 1.0
    return "".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
            f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="system-ui,sans-serif" font-size="11" fill="{_INK}">'
            f'<rect width="{WIDTH}" height="{HEIGHT}" rx="8" fill="#fff"/>',
            _legend(any(point.failed for point in points)),
            _grid(_SIZES, largest, human_bytes),
            _grid(_TIMES, longest, duration),
            *(_bar(point, x_of(point.at), largest, slot * 0.7) for point in points if point.size is not None),
            *(_cross(x_of(point.at)) for point in points if point.failed),
            _line(points, x_of, longest),
            *_dates(start, end, x_of),
            "</svg>",
        ]
    )


def _legend(failures: bool) -> str:
    crossed = (
        f'<tspan dx="14" fill="{_RED}" font-weight="700">✕</tspan><tspan dx="4">failed</tspan>' if failures else ""
    )
    return (
        f'<text x="{_LEFT}" y="20" font-size="12"><tspan fill="{_BLUE}">■</tspan><tspan dx="4">size</tspan>'
        f'<tspan dx="14" fill="{_ORANGE}">●</tspan><tspan dx="4">duration</tspan>{crossed}</text>'
    )


def _grid(place: tuple[int, int], most: float, text: Callable[[float], str]) -> str:
    top, bottom = place
    lines = ""
    for share in (0.0, 0.5, 1.0):
        y = bottom - (bottom - top) * share
        lines += (
            f'<path d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}" stroke="{_GREY}"/>'
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">'
            f"{text(most * share) if share else '0'}</text>"
        )
    return lines


def _bar(point: Point, x: float, most: float, width: float) -> str:
    top, bottom = _SIZES
    height = max((bottom - top) * (point.size or 0) / most, 1.0)
    return f'<path d="M{x - width / 2:.1f} {bottom}v-{height:.1f}h{width:.1f}v{height:.1f}z" fill="{_BLUE}"/>'


def _cross(x: float) -> str:
    y = _SIZES[1] + 9
    return f'<path d="M{x - 3:.1f} {y - 3}l6 6m0-6l-6 6" stroke="{_RED}" stroke-width="1.8"/>'


def _line(points: Sequence[Point], x_of: Callable[[datetime], float], most: float) -> str:
    top, bottom = _TIMES
    shown = [
        (x_of(point.at), bottom - (bottom - top) * point.seconds / most)
        for point in points
        if point.seconds is not None
    ]
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in shown)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2"/>' for x, y in shown)
    return f'<g fill="{_ORANGE}"><path d="M{path}" fill="none" stroke="{_ORANGE}" stroke-width="1.5"/>{dots}</g>'


def _dates(start: datetime, end: datetime, x_of: Callable[[datetime], float]) -> list[str]:
    """Up to five moments below the charts; days, or times of day when everything was made within two days."""
    form = "%Y-%m-%d" if end - start > 2 * _DAY else "%m-%d %H:%M"
    moments = [start + (end - start) * step / 4 for step in range(5)] if end > start else [start]
    last = len(moments) - 1
    anchors = ["start" if at == 0 else "end" if at == last else "middle" for at in range(len(moments))]
    return [
        f'<text x="{x_of(moment):.1f}" y="{_TIMES[1] + 18}" text-anchor="{anchor}">{moment:{form}}</text>'
        for moment, anchor in zip(moments, anchors, strict=True)
    ]
