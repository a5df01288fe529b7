"""The examples of schedules start a command that exists, with a config that can be read, in the way its exit codes are meant."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from pipelines.cli import EXIT_CONFIG, EXIT_DATA, EXIT_RETRY, app
from pipelines.commands.pipeline import day_of
from pipelines.nightly_config import NightlyConfig

ROOT = Path(__file__).parents[2]
FIELD = r"(\*|[0-9]+)(/[0-9]+)?"
CRON_LINE = re.compile(rf"((?:{FIELD} ){{5}})(\w+) (.+)")


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((ROOT / "infra" / "kubernetes" / name).read_text()))


def cron_job(name: str) -> dict[str, Any]:
    job: dict[str, Any] = next(d for d in documents(name) if d["kind"] == "CronJob")
    assert job["apiVersion"] == "batch/v1" and job["spec"]["concurrencyPolicy"] == "Forbid"
    assert re.fullmatch(rf"({FIELD} ){{4}}{FIELD}", job["spec"]["schedule"])
    spec: dict[str, Any] = job["spec"]["jobTemplate"]["spec"]
    return spec


def commands() -> list[list[str]]:
    lines = [line for line in (ROOT / "infra" / "cron" / "recsys-nightly").read_text().splitlines() if line and not re.match(r"#|\w+=", line)]
    found = []
    for line in lines:
        match = CRON_LINE.fullmatch(line)
        assert match is not None, line
        found.append(shlex.split(match[5].partition(" && ")[2].partition(" >>")[0]))
    found.append(cron_job("cronjob.yaml")["template"]["spec"]["containers"][0]["command"])
    ray_job = yaml.safe_load(next(d for d in documents("nightly.yaml") if d["kind"] == "ConfigMap")["data"]["rayjob.yaml"])
    assert ray_job["kind"] == "RayJob" and ray_job["apiVersion"] == "ray.io/v1"
    return [*found, shlex.split(ray_job["spec"]["entrypoint"])]


@pytest.mark.parametrize("command", commands(), ids=lambda command: command[0])
def test_the_command_and_its_config_can_be_read(command: list[str]) -> None:
    program, *path, config, _, day = command[:6]
    assert Path(program).name == "recsys" and path == ["pipeline", "nightly"]
    nightly = typer.main.get_command(app).commands["pipeline"].commands["nightly"]  # type: ignore[attr-defined]
    given = nightly.make_context("nightly", command[3:]).params
    assert (str(given["config"]), given["as_of"], given["dry_run"]) == (config, day, False) and day_of(day)
    if (ROOT / config).is_file():
        NightlyConfig.read(ROOT / config, given["overrides"])
    else:
        assert config == "/etc/recsys/nightly.yaml"


def test_a_pod_is_tried_again_unless_it_cannot_succeed() -> None:
    spec = cron_job("cronjob.yaml")
    pod = spec["template"]["spec"]
    (rule,) = spec["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob" and set(rule["onExitCodes"]["values"]) == {EXIT_CONFIG, EXIT_DATA} and EXIT_RETRY not in rule["onExitCodes"]["values"]
    assert rule["onExitCodes"]["containerName"] == pod["containers"][0]["name"]
    assert pod["restartPolicy"] == "Never"  # Kubernetes takes a failure policy with this alone
    assert {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def test_a_night_has_more_time_than_its_stages() -> None:
    config = NightlyConfig.read(ROOT / "experiments/configs/ml-100k/nightly.yaml")
    assert cron_job("cronjob.yaml")["activeDeadlineSeconds"] > config.attempts.timeout
