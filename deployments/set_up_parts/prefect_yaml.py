"""What prefect.yaml lists: the one place that names the deployments.

Prefect itself ignores keys that it does not know; here they are refused.
"""

from __future__ import annotations

import difflib
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import yaml
from prefect.utilities.templating import apply_values
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from tasks.errors import BadSetting

DEPLOYMENT_FILE = Path(__file__).parents[2] / "prefect.yaml"
#: What `prefect deploy` takes and the set-up does not.
_FOREIGN = ("build", "push", "triggers", "sla", "schedule", "version_type", "replaces")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ListedSchedule(_Strict):
    """A schedule; its slug says which one it is when the set-up runs again."""

    slug: str
    cron: str | None = None
    interval: Annotated[timedelta, Field(gt=timedelta())] | None = None
    rrule: str | None = None
    timezone: str = "UTC"
    anchor_date: datetime = datetime(2020, 1, 1, tzinfo=UTC)
    day_or: bool | None = None
    active: bool = True
    parameters: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _is_one_kind(self) -> ListedSchedule:
        if sum(kind is not None for kind in (self.cron, self.interval, self.rrule)) != 1:
            raise ValueError("give it one of cron, interval and rrule")
        return self


class ListedPool(_Strict):
    """A work pool, and what the deployment sets of its job template."""

    name: str
    work_queue_name: str | None = None
    job_variables: dict[str, Any] = Field(default_factory=dict)


def _with_different_slugs(schedules: list[ListedSchedule]) -> list[ListedSchedule]:
    slugs = [schedule.slug for schedule in schedules]
    if len(set(slugs)) < len(slugs):
        raise ValueError("several schedules have the same slug")
    return schedules


class ListedDeployment(_Strict):
    """One entry of prefect.yaml."""

    name: str
    entrypoint: str
    work_pool: ListedPool
    flow_name: str | None = None
    description: str | None = None
    tags: list[str] = Field(default_factory=list)
    version: str | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    schedules: Annotated[list[ListedSchedule], AfterValidator(_with_different_slugs)] = Field(default_factory=list)
    paused: bool = False
    concurrency_limit: Any = None
    enforce_parameter_schema: bool = True
    pull: list[Any] | None = None

    @property
    def full_name(self) -> str:
        """`<flow>/<deployment>`; the flow is named like its function."""
        return f"{self.entrypoint.rpartition(':')[2].replace('_', '-')}/{self.name}"


class _PrefectFile(_Strict):
    deployments: list[ListedDeployment]
    name: str | None = None
    prefect_version: Any = Field(default=None, alias="prefect-version")
    definitions: Any = None
    pull: list[Any] | None = None


_KNOWN = {
    name
    for kind in (_PrefectFile, ListedDeployment, ListedPool, ListedSchedule)
    for name, field in kind.model_fields.items()
}


def listed_deployments(text: str | None = None) -> list[ListedDeployment]:
    """The entries of prefect.yaml (or of `text`), each with the pull steps of the whole file when it has none.

    Raises BadSetting, with a sentence for each, when it has keys that nobody reads or lacks some that are needed.
    """
    content = _content(text)
    plain = json.loads(json.dumps(content, default=str))  # Prefect's templates know no times
    try:
        file = _PrefectFile.model_validate(apply_values(plain, dict(os.environ), remove_notset=False))
    except ValidationError as error:
        raise BadSetting(" ".join(_sentence(one, content) for one in error.errors(include_url=False))) from None
    names = [entry.full_name for entry in file.deployments]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BadSetting(f"prefect.yaml lists {', '.join(twice)} more than once.")
    return [entry.model_copy(update={"pull": entry.pull or file.pull}) for entry in file.deployments]


def _content(text: str | None) -> dict[str, Any]:
    try:
        content = yaml.safe_load(DEPLOYMENT_FILE.read_text(encoding="utf-8") if text is None else text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        raise BadSetting(f"prefect.yaml is no YAML{f', in line {where.line + 1}' if where else ''}.") from None
    if not isinstance(content, dict) or not isinstance(content.get("deployments"), list):
        raise BadSetting("prefect.yaml lists no deployments.")
    return content


def _sentence(error: Any, content: dict[str, Any]) -> str:
    """One error of pydantic, with the place that a person finds."""
    *place, key = error["loc"]
    where = ["prefect.yaml"]
    if len(error["loc"]) > 1:
        entry = content["deployments"][error["loc"][1]]
        name = entry.get("entrypoint", entry.get("name", "without a name")) if isinstance(entry, dict) else "no entry"
        where += [f"deployment {error['loc'][1] + 1} ({name})", *(str(step) for step in place[2:])]
    said = f"{', '.join(where)}: "
    if error["type"] == "missing":
        return said + ("give it a slug, by which it is known again." if key == "slug" else f"it lacks {key}.")
    if error["type"] != "extra_forbidden":
        return f"{said}{key}: {error['msg'].removeprefix('Value error, ')}."
    close = difflib.get_close_matches(str(key), _KNOWN, 1)
    advice = f"did you mean {close[0]}?" if close else "see the other deployments for what may stand there."
    if key in _FOREIGN:
        advice = "the set-up does not follow it; remove it, or run prefect deploy yourself."
    return f"{said}the key {str(key)!r} is unknown: {advice}"
