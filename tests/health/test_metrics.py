"""The metrics of a plan: what a parser of Prometheus's own reads of them, and what becomes of a file that cannot be written."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tasks.health import metrics
from tasks.health.examine import examine
from tasks.health.metrics import METRICS, Figures, metrics_lines, metrics_text
from tasks.health.steps import _figures
from tasks.restore.last_restore import LastRestore
from tests.health.conftest import Patient, now, well
from tests.support.recorded import a_record
from tests.support.world import CHECKOUT

AT = datetime(2026, 3, 1, 2, tzinfo=UTC)
FULL = Figures(
    AT + timedelta(hours=1),
    failed=1,
    warnings=2,
    good=replace(a_record("backup_x.sql", AT, 10**9, 100), completed_at=AT + timedelta(seconds=75), file_size=4321),
    verified_at=AT - timedelta(days=1),
    last_restore=LastRestore("restore", AT, 12.5, 4321),
)
PAGE = (CHECKOUT / "docs" / "health.md").read_text(encoding="utf-8")


def read(text: bytes) -> dict[str, tuple[dict[str, str], float]]:
    """Labels and value of each metric, by Prometheus's own parser."""
    families = list(text_string_to_metric_families(text.decode()))
    assert all(family.type == "gauge" and family.documentation for family in families)
    return {sample.name: (sample.labels, sample.value) for family in families for sample in family.samples}


def test_every_figure_is_there_under_its_name_and_plan() -> None:
    found = read(metrics_text("shop", FULL))
    assert {name: value for name, (_, value) in found.items()} == {
        "database_backup_last_success_timestamp_seconds": AT.timestamp(),
        "database_backup_last_size_bytes": 4321,
        "database_backup_last_duration_seconds": 75,
        "database_backup_last_restore_seconds": 12.5,
        "database_backup_last_verified_timestamp_seconds": (AT - timedelta(days=1)).timestamp(),
        "database_backup_health_failed_checks": 1,
        "database_backup_health_warnings": 2,
        "database_backup_health_timestamp_seconds": (AT + timedelta(hours=1)).timestamp(),
    }
    assert {tuple(labels.items()) for labels, _ in found.values()} == {(("plan", "shop"),)}


def test_what_is_not_known_is_left_out() -> None:
    assert read(metrics_text("shop", Figures(AT, 0, 0))).keys() == {name for name in METRICS if "health" in name}


def test_a_label_is_escaped_as_the_format_wants_it() -> None:
    odd = 'a"b\\c\nd} 1'
    assert {labels["plan"] for labels, _ in read(metrics_text(odd, FULL)).values()} == {odd}


def test_the_file_is_replaced_as_a_whole_and_everybody_may_read_it(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        [line] = metrics_lines(str(tmp_path), "shop", Figures(AT, 0, 0))
        first = (tmp_path / "database_backup_shop.prom").stat().st_ino
        [line] = metrics_lines(str(tmp_path), "shop", FULL)
    finally:
        os.umask(before)
    [file] = tmp_path.iterdir()
    assert (line.status, line.what) == ("ok", f"Written to {file}.")
    assert file.stat().st_mode & 0o777 == 0o644 and file.stat().st_ino != first
    assert read(file.read_bytes()).keys() == METRICS.keys()


def test_without_a_directory_there_is_no_line_and_no_file() -> None:
    assert metrics_lines("", "shop", FULL) == []


@pytest.mark.parametrize("directory", ["missing", "file", "relative"])
def test_a_file_that_cannot_be_written_is_a_warning(tmp_path: Path, directory: str) -> None:
    (tmp_path / "file").write_text("in the way")
    place = directory if directory == "relative" else str(tmp_path / directory)
    [line] = metrics_lines(place, "shop", FULL)
    assert line.status == "warning" and place in line.what and line.to_do
    assert not Path("relative").exists()


def test_a_disk_that_fills_leaves_the_file_before_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics_lines(str(tmp_path), "shop", FULL)
    before = (tmp_path / "database_backup_shop.prom").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(metrics.os, "fchmod", full)
    [line] = metrics_lines(str(tmp_path), "shop", Figures(AT, 9, 9))
    assert line.status == "warning" and "No space left on device." in line.what
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [before]


def test_the_figures_are_those_of_the_backup_that_is_whole_in_the_bucket(patient: Patient) -> None:
    patient.scene.back_up()
    examined = examine(patient.plan, well, now)
    assert examined.good is not None
    found = read(metrics_text("shop", _figures(examined)))
    stored = patient.plan.storage.size(examined.good.s3_key)
    assert found["database_backup_last_size_bytes"][1] == stored
    assert abs(now().timestamp() - found["database_backup_last_success_timestamp_seconds"][1]) < 600
    assert "database_backup_last_verified_timestamp_seconds" not in found
    patient.plan.storage.delete(examined.good.s3_key)
    gone = read(metrics_text("shop", _figures(examine(patient.plan, well, now))))
    assert "database_backup_last_size_bytes" not in gone and gone["database_backup_health_failed_checks"][1] >= 1


def test_a_secret_of_the_plan_is_in_no_metric(patient: Patient) -> None:
    patient.scene.back_up()
    text = metrics_text(patient.plan.name, _figures(examine(patient.plan, well, now))).decode()
    assert not [value for value in patient.plan.database.parameters.values() if len(value) > 5 and value in text]


def test_the_page_names_every_metric_and_its_rules_ask_for_no_other() -> None:
    told = set(re.findall(r"(?m)^\| `(database_backup_\w+)`", PAGE))
    assert told == METRICS.keys()
    [block] = re.findall(r"(?ms)^```yaml\n(.*?)^```$", PAGE)
    rules = [rule for group in yaml.safe_load(block)["groups"] for rule in group["rules"]]
    for rule in rules:
        assert set(re.findall(r"database_backup_\w+", rule["expr"])) <= METRICS.keys() and rule["annotations"]
    assert len(rules) == 3
