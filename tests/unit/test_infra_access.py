"""Nothing of infra/ answers beyond loopback without a token, and no file holds one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.commands.serve import TOKEN_VARIABLE
from pipelines.config import RunConfig
from recsys.errors import ConfigError, RetryableError

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"


def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((INFRA / "compose.yaml").read_text())
    return document


def image_command() -> list[str]:
    found: list[str] = json.loads(re.findall(r"^CMD (\[.+\])$", (INFRA / "docker" / "Dockerfile").read_text(), flags=re.MULTILINE)[-1])
    return found


def test_the_image_does_not_start_without_a_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program, *arguments = image_command()
    assert program == "recsys" and "--allow-remote" not in arguments
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    refused = CliRunner().invoke(app, arguments)
    assert isinstance(refused.exception, ConfigError) and "not loopback and no token is set" in str(refused.exception)
    monkeypatch.setenv(TOKEN_VARIABLE, "short")
    assert isinstance(CliRunner().invoke(app, arguments).exception, ConfigError)
    # With one it goes on, to the registry that is not there.
    monkeypatch.setenv(TOKEN_VARIABLE, "a token of sixteen")
    assert isinstance(CliRunner().invoke(app, arguments).exception, RetryableError)


def test_nothing_leaves_it_to_a_proxy_that_is_not_there() -> None:
    files = [path for path in INFRA.rglob("*") if path.is_file() and path.suffix != ".md" and "__pycache__" not in path.parts]
    assert files and not [path.name for path in files if b"allow-remote" in path.read_bytes()]


def test_compose_takes_the_token_from_the_environment_and_hands_it_to_prometheus() -> None:
    services = compose()["services"]
    assert services["service"]["environment"][TOKEN_VARIABLE].startswith("${RECSYS_TOKEN:?")
    assert "command" not in services["service"]  # the image's
    secret = compose()["secrets"]["token"]
    assert secret == {"environment": TOKEN_VARIABLE} and services["prometheus"]["secrets"] == ["token"]
    (scrape,) = yaml.safe_load((INFRA / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    assert scrape["authorization"]["credentials_file"] == "/run/secrets/token"
    target = scrape["static_configs"][0]["targets"][0]
    assert target.split(":")[0] in services and target.split(":")[1] in image_command()


def test_pods_of_the_service_take_the_token_from_a_secret() -> None:
    documents = list(yaml.safe_load_all((INFRA / "kubernetes" / "service.yaml").read_text()))
    (container,) = next(d for d in documents if d["kind"] == "Deployment")["spec"]["template"]["spec"]["containers"]
    token = next(entry for entry in container["env"] if entry["name"] == TOKEN_VARIABLE)
    assert token == {"name": TOKEN_VARIABLE, "valueFrom": {"secretKeyRef": {"name": "recsys-token", "key": "token"}}}
    assert "command" not in container and "args" not in container
    assert not [d for d in documents if d["kind"] == "Secret"]
    probes = {container[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert probes == {"/healthz", "/readyz"}


def test_the_job_of_compose_publishes_where_the_service_looks() -> None:
    services = compose()["services"]
    program, verb, config, *options = services["train"]["command"]
    assert (program, verb) == ("recsys", "run")
    run = RunConfig.read(ROOT / config, [option.removeprefix("--set=") for option in options])
    store = run.runtime.online_store
    assert store.kind == "redis" and store.connection_string.split(":")[0] in services
    registry = services["service"]["environment"]["RECSYS_TRACKING_URI"]
    assert registry == services["train"]["environment"]["RECSYS_TRACKING_URI"] == "http://mlflow:5000"
    server = services["mlflow"]["command"]
    assert "--port=5000" in server and next(o for o in server if o.startswith("--allowed-hosts=")).partition("=")[2].split(",")[0] == "mlflow:5000"
