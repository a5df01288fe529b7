"""Walking the plan: open what is cached, run what is not, and show the outcome."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pipelines.config import RunConfig, RuntimeConfig
from pipelines.executors import Executor, make_executor
from pipelines.ledger import Ledger, Status
from pipelines.plan import build_plan, up_to
from pipelines.progress import RichReporter, SilentReporter
from pipelines.publish import Services
from pipelines.services import make_services
from pipelines.stage import Step, Surroundings
from recsys.artifacts.artifact import Artifact
from recsys.artifacts.atomic import read_json
from recsys.errors import ConfigError
from recsys.tracking import CHAMPION


@dataclass(frozen=True)
class RunResult:
    """artifacts: step name -> its artifact.  ran: names of the steps that ran, the others were cached."""

    artifacts: dict[str, Artifact]
    ran: tuple[str, ...]
    seconds: float
    board: list[dict[str, Any]] = field(default_factory=list)

    @property
    def report(self) -> Path | None:
        return self.artifacts["evaluate"].path / "report.html" if "evaluate" in self.artifacts else None

    def to_json(self) -> dict[str, Any]:
        published = self.artifacts["publish"].manifest.metadata if "publish" in self.artifacts else {}
        return {
            "seconds": round(self.seconds, 3),
            "ran": list(self.ran),
            "artifacts": {name: str(artifact.path) for name, artifact in self.artifacts.items()},
            "board": self.board,
            "report": str(self.report) if self.report else None,
            "model": {k: published[k] for k in ("name", "version", "alias", "gate", "parity_max_difference") if k in published},
        }


def survey(config: RunConfig) -> list[Status]:
    return Ledger(config.runtime.root).survey(build_plan(config, services_of(config.runtime)))


def finished(config: RunConfig) -> dict[str, Artifact]:
    """Step name -> artifact of what is done; nothing is run. `embed.load`, `rank.load`, ... open them."""
    ledger = Ledger(config.runtime.root)
    return {status.step.name: ledger.open(status) for status in survey(config) if status.cached}


def executor_of(runtime: RuntimeConfig) -> AbstractContextManager[Executor]:
    return make_executor(
        runtime.executor,
        runtime.ray_address,
        runtime.workers,
        runtime.threads,
        cpus_per_worker=runtime.cpus_per_worker,
        gpus_per_worker=runtime.gpus_per_worker,
        no_progress_seconds=runtime.no_progress_seconds,
    )


def forget_refused(ledger: Ledger, plan: list[Step]) -> None:
    """Embedding tables with quarantined items run again, and so does what was made of them: its key would not tell."""
    stale: set[str] = set()
    for status in ledger.survey(plan):
        step = status.step
        refused = step.stage == "embed" and status.cached and ledger.open(status).manifest.metadata["quarantined"]
        if refused or stale & set(step.inputs.values()):
            stale.add(step.name)
            ledger.forget(status)


def run_plan(
    config: RunConfig,
    console: Console,
    *,
    quiet: bool = False,
    last_stage: str | None = None,
    force: Sequence[str] = (),
    retry_quarantined: bool = False,
) -> RunResult:
    """Run what is not cached. Raises the stage's own error; what was finished stays finished."""
    import torch

    if config.runtime.threads:
        torch.set_num_threads(config.runtime.threads)
    started = time.monotonic()
    root = config.runtime.root.absolute()
    ledger = Ledger(root)
    plan = build_plan(config, services_of(config.runtime))
    if last_stage:
        plan = up_to(plan, last_stage)
    _require_known(force, plan)
    reporter = SilentReporter() if quiet else RichReporter(console)
    with ledger.lock(), executor_of(config.runtime) as executor:
        surroundings = Surroundings(reporter, executor, root / "embeddings", root, retry_quarantined)
        if retry_quarantined:
            forget_refused(ledger, build_plan(config, services_of(config.runtime)))
        artifacts, ran = walk(plan, ledger, surroundings, force=force)
    board = read_json(artifacts["evaluate"].file("board.json")) if "evaluate" in artifacts else []
    return RunResult(artifacts, tuple(ran), time.monotonic() - started, board)


Attempt = Callable[[Step, Callable[[], Artifact]], Artifact]


def once(step: Step, run: Callable[[], Artifact]) -> Artifact:
    return run()


def walk(
    plan: list[Step], ledger: Ledger, surroundings: Surroundings, *, force: Sequence[str] = (), attempt: Attempt = once
) -> tuple[dict[str, Artifact], list[str]]:
    """Every step of the plan in order, opened where it is cached and run where it is not; the caller holds the lock. Gives the artifacts by
    step, and the names of those that ran.

    attempt: calls what it is given to run a step, and again after a failure if it likes: a step that failed left nothing behind.
    """
    reporter = surroundings.reporter
    artifacts: dict[str, Artifact] = {}
    ran: list[str] = []
    for status in ledger.survey(plan):
        step = status.step
        if status.cached and step.stage in force:
            ledger.forget(status)
        elif status.cached:
            artifacts[step.name] = ledger.open(status)
            reporter.say(f"[dim]· {step.name:<18} cached[/]")
            continue
        reporter.say(f"[bold]▸ {step.name:<18}[/] [dim]{status.reason}[/]")
        begun = time.monotonic()
        inputs = {role: artifacts[name] for role, name in step.inputs.items()}
        artifacts[step.name] = attempt(step, partial(ledger.run, status, inputs, surroundings))
        ran.append(step.name)
        reporter.say(f"[green]✓ {step.name:<18}[/] {time.monotonic() - begun:6.1f} s  [dim]{_gist(artifacts[step.name])}[/]")
    return artifacts, ran


def services_of(runtime: RuntimeConfig) -> Services:
    return make_services(runtime.root.absolute(), runtime.online_store)


def _require_known(stages: Sequence[str], plan: list[Step]) -> None:
    known = list(dict.fromkeys(step.stage for step in plan))
    for stage in stages:
        if stage not in known:
            raise ConfigError(f"--force {stage}: no such stage; known: {', '.join(known)}")


def _gist(artifact: Artifact) -> str:
    """A few facts of a finished step for the terminal."""
    hidden = {
        "step",
        "version",
        "config",
        "stage_seconds",
        "split_hash",
        "space_id",
        "spaces",
        "seed",
        "seconds",
        "train_seconds",
        "notes",
        "quarantine",
        "name",
    }
    facts = [
        f"{key.replace('_', ' ')} {value:,}" if isinstance(value, int | float) else f"{key.replace('_', ' ')} {value}"
        for key, value in artifact.manifest.metadata.items()
        if key not in hidden and not isinstance(value, dict | list)
    ]
    return " · ".join(facts[:6])


def show_plan(statuses: list[Status], console: Console) -> None:
    table = Table("step", "state", "why", "key")
    for status in statuses:
        table.add_row(status.step.name, "[green]cached[/]" if status.cached else "[yellow]will run[/]", status.reason, status.key[:12])
    console.print(table)


def show_result(result: RunResult, console: Console) -> None:
    """The table that ends every run: model x Recall@10, NDCG@10, cold Recall@10, seconds."""
    table = Table(title="Full-catalogue ranking, test cases, seen items masked; 95 % bootstrap intervals", title_justify="left")
    table.add_column("model")
    for column in ("Recall@10", "NDCG@10", "cold Recall@10", "seconds"):
        table.add_column(column, justify="right")
    best = max((row["ndcg@10"] for row in result.board), default=None)
    for row in result.board:
        mark = "bold green" if row["ndcg@10"] == best else ""
        cold = row.get("cold_recall@10")
        table.add_row(
            row["label"],
            f"{row['recall@10']:.4f} [dim]±{_half(row['recall@10_interval']):.4f}[/]",
            f"{row['ndcg@10']:.4f} [dim]±{_half(row['ndcg@10_interval']):.4f}[/]",
            "–" if cold is None else f"{cold:.4f}",
            f"{row['seconds']:.1f}",
            style=mark,
        )
    console.print(table)
    if "publish" in result.artifacts:
        facts = result.artifacts["publish"].manifest.metadata
        gate = f"version {facts['version']}; gate: {facts['gate']}; parity {facts['parity_max_difference']:.1e}"
        console.print(f"model   models:/{facts['name']}@{facts['alias']}  ({gate})", soft_wrap=True)
        if facts["alias"] != CHAMPION:
            console.print(f"not the champion; to look at it: [bold]recsys serve --model models:/{facts['name']}@{facts['alias']}[/]", soft_wrap=True)
    console.print(f"report  {result.report}", soft_wrap=True)
    console.print(f"{len(result.ran)} of {len(result.artifacts)} steps ran, {result.seconds:.0f} s in all", highlight=False)


def _half(interval: list[float]) -> float:
    return (interval[1] - interval[0]) / 2
