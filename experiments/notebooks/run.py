"""Execute the notebooks, or keep the `.ipynb` in step with the `.py` that they are written in (jupytext, percent format).

`python experiments/notebooks/run.py` executes all from a finished `make run`, each in a kernel of its own; the executed copies, with their plots, go to
`.recsys/notebooks/`. `--sync` writes the `.ipynb`, `--check` says whether they are in step. Outputs never enter the `.ipynb` of the repository.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError
from nbformat import NotebookNode

FOLDER = Path(__file__).resolve().parent
EXECUTED = FOLDER.parents[1] / ".recsys" / "notebooks"
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
SECONDS = 180
"""Of one notebook, from its first cell to its last."""


def sources(folder: Path, names: Sequence[str] = ()) -> list[Path]:
    """The notebooks' sources, in order: those that begin with a number. names: beginnings of their names; none: all. Raises SystemExit: no such notebook."""
    found = sorted(path for path in folder.glob("[0-9]*.py") if not names or path.name.startswith(tuple(names)))
    if not found:
        raise SystemExit(f"{folder}: no notebook {' or '.join(names)}")
    return found


def notebook_of(source: Path) -> NotebookNode:
    """Without outputs; the ids of its cells are their numbers, so that differences stay small."""
    made = jupytext.read(source)
    for number, cell in enumerate(made.cells):
        cell["id"] = f"cell-{number}"
        cell["metadata"] = {}
    made.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}, "language_info": {"name": "python"}}
    made.nbformat, made.nbformat_minor = 4, 5
    return made


def text_of(source: Path) -> str:
    return nbformat.writes(notebook_of(source)) + "\n"


def sync(folder: Path) -> list[Path]:
    """Write what is not in step; returns what was written."""
    written = out_of_step(folder)
    for path in written:
        path.write_text(text_of(path.with_suffix(".py")), encoding="utf-8")
    return written


def out_of_step(folder: Path) -> list[Path]:
    """The `.ipynb` that are missing or differ from their sources."""
    pairs = [(source.with_suffix(".ipynb"), source) for source in sources(folder)]
    return [path for path, source in pairs if not path.is_file() or path.read_text(encoding="utf-8") != text_of(source)]


def execute(source: Path, target: Path, *, seconds: int = SECONDS, on_cell: Callable[[int, int], None] = lambda number, count: None) -> str | None:
    """Run it in its own folder, in a new kernel, and write `target/<name>.ipynb`, as far as it got.

    on_cell: called with the number of the cell that begins and how many there are.  Returns what went wrong, with the cell, or None.
    """
    made = notebook_of(source)
    current, end = 0, 0.0

    def started(cell: NotebookNode, cell_index: int) -> None:
        nonlocal current, end
        current, end = cell_index, end or time.monotonic() + seconds
        on_cell(cell_index, len(made.cells))

    # Commands of the environment, such as `recsys`, are found by cells of bash.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.prefix) / "bin"), os.environ.get("PATH", "")])
    client = NotebookClient(
        made,
        kernel_name="python3",
        startup_timeout=SECONDS,
        resources={"metadata": {"path": str(source.parent)}},
        timeout_func=lambda cell: max(1, int(end - time.monotonic())),
        on_cell_start=started,
    )
    wrong = None
    try:
        client.execute()
    except CellTimeoutError:
        wrong = f"not finished after the notebook's {seconds} s"
    except (CellExecutionError, RuntimeError) as error:  # RuntimeError: a kernel that died, or never began
        wrong = f"{type(error).__name__}: {COLOUR.sub('', str(error)).strip().splitlines()[-1]}"
    target.mkdir(parents=True, exist_ok=True)
    nbformat.write(made, target / f"{source.stem}.ipynb")
    if wrong is None:
        return None
    first = next((line for line in made.cells[current].source.splitlines() if line.strip()), "")
    return f"{source.name}: cell {current}, which begins with {first!r}: {wrong}"


def _show(number: int, count: int) -> None:
    """A line that the next one replaces."""
    print(f"  cell {number + 1} of {count}", end="\r", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NUMBER", help="only these, by the beginning of their names")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--sync", action="store_true", help="write the .ipynb from the .py")
    parser.add_argument("--check", action="store_true", help="fail if an .ipynb is not in step with its .py")
    options = parser.parse_args(arguments)
    if options.sync or options.check:
        paths = sync(options.folder) if options.sync else out_of_step(options.folder)
        for path in paths:
            print(f"{'wrote' if options.sync else 'not in step, run --sync:'} {path.name}")
        return int(options.check and bool(paths))
    failures = []
    for source in sources(options.folder, options.names):
        started = time.monotonic()
        print(f"▸ {source.name}", flush=True)
        wrong = execute(source, EXECUTED, on_cell=_show if sys.stdout.isatty() else lambda number, count: None)
        print(f"{'✗' if wrong else '✓'} {source.name:<40} {time.monotonic() - started:6.1f} s", flush=True)
        failures += [wrong] if wrong else []
    print(f"executed copies: {EXECUTED}")
    for wrong in failures:
        print(wrong, file=sys.stderr)
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
