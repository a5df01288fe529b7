"""Files of infra/ before the linters and schemas of those who read them; each is shown something bad first, which it must refuse."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
COMPOSE, DOCKERFILE = INFRA / "compose.yaml", INFRA / "docker" / "Dockerfile"
KUBERNETES = "1.34"
"""What the pod that creates the RayJob runs (kubectl); newer ones keep these API versions."""


def complaints(*command: object) -> str:
    """Of a program of this environment; "" where it has none."""
    program, *arguments = map(str, command)
    beside = Path(sys.executable).with_name(program)
    done = subprocess.run([str(beside) if beside.exists() else program, *arguments], capture_output=True, text=True, timeout=60, cwd=ROOT)
    return "" if done.returncode == 0 else done.stdout + done.stderr or f"exit code {done.returncode}"


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def objects() -> list[dict[str, Any]]:
    """Every Kubernetes object of infra/."""
    return [document for path in sorted((INFRA / "kubernetes").glob("*.yaml")) for document in documents(path)]


def ray_job() -> dict[str, Any]:
    (inside,) = (d["data"]["rayjob.yaml"] for d in objects() if d["kind"] == "ConfigMap")
    job: dict[str, Any] = yaml.safe_load(inside)
    return job


def refusal(resource: dict[str, Any]) -> str:
    """Of the Kubernetes API's own schema, unknown keys included; "" where there is none."""
    import kubernetes_validate

    try:
        kubernetes_validate.validate(resource, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        return str(error.message)
    return ""


def test_hadolint_on_the_dockerfile(tmp_path: Path) -> None:
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM debian:latest\nRUN cd /tmp && sudo apt-get install curl\n")
    assert all(rule in complaints("hadolint", bad) for rule in ("DL3007", "DL3003", "DL3004"))
    assert complaints("hadolint", DOCKERFILE) == ""


def test_the_compose_specification(tmp_path: Path) -> None:
    document = yaml.safe_load(COMPOSE.read_text())
    document["services"]["service"]["portz"] = ["8080"]
    bad = tmp_path / "compose.yaml"
    bad.write_text(yaml.safe_dump(document))
    schema = ("check-jsonschema", "--builtin-schema", "vendor.compose-spec")
    assert "portz" in complaints(*schema, bad)
    assert complaints(*schema, COMPOSE) == ""


def test_shellcheck_on_the_scripts(tmp_path: Path) -> None:
    bad = tmp_path / "bad.sh"
    bad.write_text("#!/bin/sh\nrm -r $1/*\n")
    assert "SC2086" in complaints("shellcheck", bad)
    assert complaints("shellcheck", INFRA / "lock.sh", ROOT / ".ci" / "run") == ""


def test_yamllint_finds_no_key_twice_and_nothing_ambiguous(tmp_path: Path) -> None:
    rules = "{extends: relaxed, rules: {line-length: disable, truthy: enable, key-duplicates: enable, octal-values: enable, commas: disable}}"
    bad = tmp_path / "bad.yaml"
    bad.write_text("restart: no\nrestart: always\n")
    said = complaints("yamllint", "-s", "-d", rules, bad)
    assert "duplication of key" in said and "truthy value" in said
    assert complaints("yamllint", "-s", "-d", rules, *sorted(INFRA.rglob("*.y*ml"))) == ""


@pytest.mark.parametrize("resource", objects(), ids=lambda resource: f"{resource['kind']}-{resource['metadata']['name']}")
def test_kubernetes_objects_are_what_the_api_takes(resource: dict[str, Any]) -> None:
    assert refusal({**resource, "planted": 1})
    assert refusal(resource) == ""


def test_a_misspelt_key_deep_in_a_pod_is_refused() -> None:
    deployment = copy.deepcopy(next(d for d in objects() if d["kind"] == "Deployment"))
    deployment["spec"]["template"]["spec"]["containers"][0]["readinessProb"] = {}
    assert "readinessProb" in refusal(deployment)


def test_the_pods_of_the_ray_job() -> None:
    """KubeRay's own schema is in no registry: its pod templates are Kubernetes', the keys around them are those of KubeRay 1.5's documentation."""
    spec = ray_job()["spec"]
    cluster = spec["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        assert refusal({"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "pod"}, "template": group["template"]}) == ""
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    assert set(spec) == {"entrypoint", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "activeDeadlineSeconds", "backoffLimit", "rayClusterSpec"}
    assert set(cluster) == {"rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"}
    assert all(set(group) <= {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"} for group in groups)


def test_the_expressions_of_the_dashboard_are_promql() -> None:
    import promql_parser

    with pytest.raises(ValueError):
        promql_parser.parse("sum by (rate(recsys_requests_total[5m])")
    panels = json.loads((INFRA / "grafana" / "dashboard.json").read_text())["panels"]
    expressions = [target["expr"] for panel in panels for target in panel["targets"]]
    assert len(expressions) > 10
    for expression in expressions:
        promql_parser.parse(expression)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool, of Debian's package prometheus")
def test_promtool_on_the_config_of_prometheus(tmp_path: Path) -> None:
    config = INFRA / "prometheus" / "prometheus.yml"
    bad = tmp_path / "prometheus.yml"
    bad.write_text(config.read_text().replace("scrape_interval: 15s", "scrape_interval: soon"))
    check = ("promtool", "check", "config", "--syntax-only")
    assert "soon" in complaints(*check, bad)
    assert complaints(*check, config) == ""
