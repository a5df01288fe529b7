"""`python -m benchmarks [NAME ...] [--threads 2] [--small]`: run, print, and write benchmarks/results.

Without a name all run. `--small` runs each on tiny data in a minute or two, to see that everything works, and keeps nothing.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks._markdown import markdown
from benchmarks._progress import say
from recsys.artifacts.atomic import write_bytes

NAMES = ("training", "evaluation", "scoring", "item_item", "scaling", "graph", "embedding", "generation", "explain", "engine", "chaos", "serving")
RESULTS = Path(__file__).parent / "results"


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Timings side by side with peers.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; none is all")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--small", action="store_true", help="tiny data, to see that everything works; keeps nothing")
    chosen = parser.parse_args(arguments)
    unknown = [name for name in chosen.names if name not in NAMES]
    if unknown:
        sys.exit(f"unknown benchmark {unknown[0]!r}; known: {', '.join(NAMES)}")
    names = chosen.names or list(NAMES)
    if chosen.small:
        with tempfile.TemporaryDirectory() as temporary:
            _run(names, Path(temporary), small=True, threads=chosen.threads)
    else:
        _run(names, RESULTS, small=False, threads=chosen.threads)


def _run(names: list[str], folder: Path, *, small: bool, threads: int) -> None:
    folder.mkdir(exist_ok=True)
    for name in names:
        say(f"benchmark {name}: leave the machine alone")
        started = time.perf_counter()
        module = importlib.import_module(f"benchmarks.{name}")
        figures = module.run(small=small, threads=threads)
        figures |= {
            "torch": torch.__version__,
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            "benchmark_seconds": round(time.perf_counter() - started, 1),
        }
        write_bytes(folder / f"{name}.json", (json.dumps(figures, indent=2) + "\n").encode())
        if hasattr(module, "picture"):
            module.picture(figures, folder / f"{name}.png")
        print(_section(folder / f"{name}.json", figures))
    write_bytes(folder / "README.md", _page(folder).encode())


def _page(folder: Path) -> str:
    sections = [_section(file, json.loads(file.read_text(encoding="utf-8"))) for file in sorted(folder.glob("*.json"))]
    return "# Measured\n\nMade by `make bench`; one run, one machine. Seconds are wall-clock.\n\n" + "\n".join(sections)


def _section(file: Path, figures: dict[str, Any]) -> str:
    picture = file.with_suffix(".png")
    return markdown(file.stem, figures, picture.name if picture.is_file() else None)


if __name__ == "__main__":
    main(sys.argv[1:])
