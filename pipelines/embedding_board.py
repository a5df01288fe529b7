"""The board of embeddings of a data set: each line is embedded (or fine-tuned) and measured once, under the ledger of `recsys run`.

`experiments/boards/<dataset>/embeddings.json` and `.md` are made of what is finished. A killed run resumes by the same command.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipelines import concat, embed, fine_tune, ingest, measure_embedding, split, train_joint
from pipelines.embedding_rows import ConcatRow, EmbeddingBoardConfig, Entry, JointRow, MadeRow, TunedRow
from pipelines.executors import LocalExecutor
from pipelines.ledger import Ledger
from pipelines.measure_embedding import MeasureConfig
from pipelines.progress import Reporter
from pipelines.stage import Step, Surroundings
from recsys.artifacts.artifact import Artifact
from recsys.artifacts.atomic import write_bytes, write_json
from recsys.embeddings.configs import IMAGE, EncoderConfig, reads
from recsys.errors import ConfigError
from recsys.evaluation.embedding_board import EmbeddingLine, Question, board_document, markdown

ROOT = Path(".recsys")


@dataclass(frozen=True)
class Plan:
    """steps: all, in an order that respects their inputs.  measures: line -> names of its `measure` steps, one a seed."""

    steps: list[Step]
    measures: Mapping[str, tuple[str, ...]]

    def needed(self, lines: Sequence[str]) -> set[str]:
        """Names of the steps of these lines, with all that they need."""
        wanted = {name for line in lines for name in self.measures[line]}
        for step in reversed(self.steps):
            if step.name in wanted:
                wanted |= set(step.inputs.values())
        return wanted


def plan_of(config: EmbeddingBoardConfig) -> Plan:
    source, base = config.source(), {"data": "ingest", "split": f"split:{config.split.protocol}"}
    steps = {
        "ingest": Step("ingest", ingest.VERSION, source, ingest.run, raw_digest=partial(ingest.raw_digest, source)),
        base["split"]: Step(base["split"], split.VERSION, config.split, split.run, {"data": "ingest"}),
    }
    entries = {entry.name: entry for entry in config.entries()}
    measures = {}
    for entry in entries.values():
        names = []
        for seed in entry.seeds:
            made = entry.source.made.model_copy(update={"seed": seed}) if isinstance(entry.source, MadeRow) else None
            table = _table(config, entries, entry, seed, base, steps)
            names.append(f"measure:{entry.name}" + (f"-seed{seed}" if len(entry.seeds) > 1 else ""))
            folder = train_joint.folder_of(entry.picture) if isinstance(entry.source, JointRow) else ""
            measured = MeasureConfig(made=made, post=entry.post, folder=folder)
            steps[names[-1]] = Step(names[-1], measure_embedding.VERSION, measured, measure_embedding.run, {**base, **({"table": table} if table else {})})
        measures[entry.name] = tuple(names)
    return Plan(list(steps.values()), measures)


def _table(config: EmbeddingBoardConfig, entries: Mapping[str, Entry], entry: Entry, seed: int, base: Mapping[str, str], steps: dict[str, Step]) -> str | None:
    """Name of the step that makes the table of a line, put into `steps` with what it needs; None where the stage `measure` makes it."""
    source = entry.source
    if isinstance(source, TunedRow):
        return _put(steps, fine_tune.adapter_step(source.adapter.model_copy(update={"seed": seed}), base))
    if isinstance(source, JointRow):
        images = _put(steps, _embed(config, source.adapter.joint_training.encoder.image))
        return _put(steps, train_joint.joint_step(source.adapter.model_copy(update={"seed": seed}), {**base, "images": images}))
    if isinstance(source, ConcatRow):
        parts = [entries[name] for name in source.parts]
        made = [part.source.made if isinstance(part.source, MadeRow) else None for part in parts]
        inputs = {str(number): str(_table(config, entries, part, 0, base, steps)) for number, part in enumerate(parts) if made[number] is None}
        own = concat.ConcatConfig(parts=tuple(MeasureConfig(made=m, post=part.post) for m, part in zip(made, parts, strict=True)), weights=source.weights)
        catalog = {"data": base["data"]} if any(made) else {}
        return _put(steps, Step(f"concat:{entry.name}", concat.VERSION, own, concat.run, {"split": base["split"], **catalog, **inputs}))
    return _put(steps, _embed(config, entry.encoder)) if entry.encoder is not None else None


def _put(steps: dict[str, Step], step: Step) -> str:
    """Raises ConfigError: another step has its name."""
    if steps.setdefault(step.name, step).config != step.config:
        raise ConfigError(f"two encoders of this board are called {step.name.partition(':')[2]!r} and differ; give one another name")
    return step.name


def run_board(
    config: EmbeddingBoardConfig, reporter: Reporter, folder: Path, *, lines: Sequence[str] = (), root: Path = ROOT, finished_only: bool = False
) -> dict[str, Any]:
    """Fill the lines that `lines` begin (empty: all), then write the board of all finished ones. Returns its document.

    finished_only: run nothing.

    Raises:
        ConfigError: no line begins so, or the line that all are compared with is not finished.
    """
    plan, entries = plan_of(config), config.entries()
    chosen = [entry.name for entry in entries if not lines or any(entry.name == line or entry.name.startswith(f"{line}-") for line in lines)]
    if not chosen:
        raise ConfigError(f"no line is called {', '.join(lines)} or begins with it; there are: {', '.join(entry.name for entry in entries)}")
    ledger = Ledger(root.absolute())
    if not finished_only:
        _fill(plan, plan.needed([config.against, *chosen]), ledger, reporter)
    found = {status.step.name: ledger.open(status) for status in ledger.survey(plan.steps) if status.cached and status.step.stage == "measure"}
    done = {entry.name: [found[name] for name in plan.measures[entry.name]] for entry in entries if all(n in found for n in plan.measures[entry.name])}
    if config.against not in done:
        raise ConfigError(f"the line {config.against!r}, which all are compared with, is not finished; run: recsys embedding-board {config.dataset}")
    document = board_document(
        [_line(entry, done[entry.name]) for entry in entries if entry.name in done],
        config.against,
        dataset=config.dataset,
        split_hash=done[config.against][0].manifest.metadata["split_hash"],
        protocol=config.split.protocol,
        questions=[Question(question.asks, question.line, question.than) for question in config.questions],
    )
    write_json(folder / "embeddings.json", document)
    write_bytes(folder / "embeddings.md", markdown(document).encode())
    return document


def _fill(plan: Plan, needed: set[str], ledger: Ledger, reporter: Reporter) -> None:
    artifacts: dict[str, Artifact] = {}
    with ledger.lock():
        surroundings = Surroundings(reporter, LocalExecutor(), ledger.root / "embeddings", ledger.root)
        for status in ledger.survey([step for step in plan.steps if step.name in needed]):
            step = status.step
            if status.cached:
                artifacts[step.name] = ledger.open(status)
                continue
            reporter.say(f"[bold]▸ {step.name}[/] [dim]{status.reason}[/]")
            artifacts[step.name] = ledger.run(status, {role: artifacts[name] for role, name in step.inputs.items()}, surroundings)
            if step.stage == "measure":
                means = artifacts[step.name].manifest.metadata["means"]
                reporter.say("  " + "  ".join(f"{name} {means[name]:.4f}" for name in means if name.endswith("recall@10")))


def _embed(config: EmbeddingBoardConfig, encoder: EncoderConfig) -> Step:
    own = embed.EmbedConfig(encoder=encoder, limits=config.limits, images=config.images)
    pictures = partial(embed.pictures_digest, config.source(), config.images) if IMAGE in reads(encoder) else None
    return Step(f"embed:{encoder.name}", embed.VERSION, own, embed.run, {"data": "ingest"}, raw_digest=pictures)


def _line(entry: Entry, artifacts: Sequence[Artifact]) -> EmbeddingLine:
    values = [measure_embedding.load(artifact) for artifact in artifacts]
    facts = artifacts[0].manifest.metadata
    return EmbeddingLine(
        name=entry.name,
        label=entry.label,
        values={metric: np.mean([v[metric] for v in values], axis=0) for metric in values[0]},
        by_seed={metric: [float(v[metric].mean()) for v in values] for metric in values[0]},
        dim=int(facts["space"]["dim"]),
        space_ids=[a.manifest.metadata["space_id"] for a in artifacts],
        trained=entry.trained,
        without_vector=int(facts["items_without_vector"]),
    )
