"""`python -m benchmarks [training] [embedding]`: run, print, and write benchmarks/results."""

from __future__ import annotations

import importlib
import json
import os
import platform
import sys
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

NAMES = ("training", "embedding")
RESULTS = Path(__file__).parent / "results"


def main(names: list[str]) -> None:
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        sys.exit(f"unknown benchmark {unknown[0]!r}; known: {', '.join(NAMES)}")
    console = Console()
    RESULTS.mkdir(exist_ok=True)
    for name in names or NAMES:
        started = time.perf_counter()
        with console.status(f"benchmark {name}: takes a few minutes, leave the machine alone"):
            figures = importlib.import_module(f"benchmarks.{name}").run()
        figures |= {
            "torch": torch.__version__,
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            "benchmark_seconds": round(time.perf_counter() - started, 1),
        }
        (RESULTS / f"{name}.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
        table = Table("figure", "value", title=name)
        for key, value in figures.items():
            table.add_row(key.replace("_", " "), str(value))
        console.print(table)
    _write_markdown()


def _write_markdown() -> None:
    lines = ["# Measured", "", "Made by `make bench`; one run, one machine. Seconds are wall-clock.", ""]
    for file in sorted(RESULTS.glob("*.json")):
        figures = json.loads(file.read_text(encoding="utf-8"))
        lines += [f"## {file.stem}", "", "| figure | value |", "|---|---|", *(f"| {key.replace('_', ' ')} | {value} |" for key, value in figures.items()), ""]
    (RESULTS / "README.md").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
