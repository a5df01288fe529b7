"""Progress bars with a rate and the time that remains; silent where the output is read by a program."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

if TYPE_CHECKING:
    from recsys.training.loop import Progress as EpochProgress

Advance = Callable[[int, int, str], None]
"""(done, total, note): `done` and `total` in units of the task; `note` is shown at the end of the line."""


class Reporter(Protocol):
    def task(self, label: str, unit: str) -> _TaskContext: ...
    def say(self, message: str) -> None: ...


class _TaskContext(Protocol):
    def __enter__(self) -> Advance: ...
    def __exit__(self, *details: object) -> bool | None: ...


class _Rate(TextColumn):
    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.1f} {task.fields['unit']}/s" if speed else "", style="cyan")


class RichReporter:
    """Bars on a terminal; plain lines at the start and end of each task elsewhere."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def say(self, message: str) -> None:
        self.console.print(message)

    @contextmanager
    def task(self, label: str, unit: str) -> Iterator[Advance]:
        columns = (
            SpinnerColumn(),
            TextColumn("  {task.description:<26}"),
            BarColumn(24),
            MofNCompleteColumn(),
            _Rate(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(label, total=None, unit=unit, note="")

            def advance(done: int, total: int, note: str = "") -> None:
                progress.update(task, completed=done, total=total, note=note)

            yield advance


class SilentReporter:
    def say(self, message: str) -> None:
        pass

    @contextmanager
    def task(self, label: str, unit: str) -> Iterator[Advance]:
        yield lambda done, total, note="": None


@contextmanager
def epochs_told(label: str) -> Iterator[EpochProgress]:
    """A bar of epochs with the numbers of the last one; lines where the output is a file, in which a bar says nothing."""
    console = Console(stderr=True)
    with RichReporter(console).task(label, "epochs") as advance:

        def progress(done: int, total: int, numbers: Mapping[str, float]) -> None:
            note = " ".join(f"{key} {value:.4f}" for key, value in numbers.items() if key != "epoch")
            advance(done, total, note)
            if not console.is_terminal:
                console.print(f"  {label} epoch {done}/{total} {note}", soft_wrap=True)

        yield progress
