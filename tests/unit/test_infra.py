"""What stands in infra/ and .ci/ names things that exist."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import yaml

from recsys.serving.middleware import Metrics

ROOT = Path(__file__).parents[2]


def test_the_dashboard_asks_for_metrics_that_the_service_has() -> None:
    exported = {sample for family in Metrics().registry.collect() for sample in (family.name, f"{family.name}_total", f"{family.name}_bucket")}
    text = (ROOT / "infra" / "grafana" / "dashboard.json").read_text()
    asked = {name for panel in json.loads(text)["panels"] for target in panel["targets"] for name in re.findall(r"recsys_\w+", target["expr"])}
    assert asked and asked <= exported


@pytest.mark.parametrize("path", sorted((ROOT / "infra").rglob("*.y*ml")), ids=lambda path: path.name)
def test_yaml_is_readable(path: Path) -> None:
    for document in yaml.safe_load_all(path.read_text()):
        assert isinstance(document, dict)
        for embedded in document.get("data", {}).values() if document.get("kind") == "ConfigMap" else ():
            assert yaml.safe_load(embedded)["spec"]["rayClusterSpec"]["rayVersion"] in (ROOT / "requirements.lock").read_text()


def test_ports_of_the_compose_file_stay_on_loopback() -> None:
    services = yaml.safe_load((ROOT / "infra" / "compose.yaml").read_text())["services"]
    assert all(port.startswith("127.0.0.1:") for service in services.values() for port in service.get("ports", ()))


def test_the_image_copies_what_exists() -> None:
    copies = re.findall(r"^COPY (.+) \S+$", (ROOT / "infra" / "docker" / "Dockerfile").read_text(), flags=re.MULTILINE)
    assert copies and all((ROOT / source).exists() for line in copies for source in line.split())


def test_ci_runs_the_test_command_of_the_readme() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK) and shutil.which("bash")
    assert re.search(r"^make test$", script.read_text(), flags=re.MULTILINE)
