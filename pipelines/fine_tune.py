"""Stage `adapter`: a text encoder fine-tuned on what the training interactions bring together -> an adapter artifact.

`recsys fine-tune CONFIG` runs it after `ingest` and `split`, under the same ledger as `recsys run`: what is done is not done
again, and a killed training resumes.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from pydantic import Field, model_validator

from pipelines import ingest, split
from pipelines.adapter_config import AdapterConfig
from pipelines.board_config import BoardConfig, expanded
from pipelines.executors import LocalExecutor
from pipelines.ingest import IngestConfig
from pipelines.ledger import Ledger
from pipelines.progress import Reporter
from pipelines.stage import Inputs, Step, Surroundings
from pipelines.training_figures import training_figures
from recsys.artifacts.artifact import Artifact
from recsys.artifacts.atomic import write_json
from recsys.config import apply_overrides, read_yaml
from recsys.data.split import SplitConfig
from recsys.embeddings.adapter import KIND, adapted, save_adapter
from recsys.embeddings.content import of_texts
from recsys.embeddings.fine_tuning import fine_tune
from recsys.embeddings.pair_training import Validation
from recsys.embeddings.table import EmbeddingTable

VERSION = 1
TABLE = "table"
"""Folder of the artifact with the vectors of all items: they were at hand."""


class FineTuneConfig(AdapterConfig):
    """What `recsys fine-tune` reads."""

    dataset: str = ""
    """A data set with a board: its source is taken from there. Else give `data`."""
    data: IngestConfig | None = None
    split: SplitConfig = SplitConfig(protocol="held_out_items")
    """The adapter belongs to this split: no other can judge it."""
    root: Path = Path(".recsys")
    """Artifacts, caches and tracking; as `runtime.root` of `recsys run`."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """Threads of torch; null: all cores."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if bool(self.dataset) == (self.data is not None):
            raise ValueError("give either dataset or data")
        return self

    @classmethod
    def of_file(cls, path: Path, overrides: list[str] | None = None) -> Self:
        """`$RECSYS_DATA` in paths stands for the folder of the data sets."""
        return cls.parse(expanded(apply_overrides(read_yaml(path), overrides or []), str(path)), source=str(path))

    def source(self) -> IngestConfig:
        """Raises ConfigError: no such board, or RECSYS_DATA is needed and not set."""
        return self.data if self.data is not None else BoardConfig.of_dataset(self.dataset).data


def run(config: AdapterConfig, inputs: Inputs, folder: Path, surroundings: Surroundings) -> Mapping[str, Any]:
    from recsys.evaluation.item_embeddings import RetrievalSample

    tuning = config.fine_tuning
    data_split, catalog = split.load(inputs["split"]), ingest.load(inputs["data"]).catalog
    contents = of_texts(catalog.texts(tuning.encoder.template))
    validation = None
    if tuning.validation == "retrieval":
        sample = RetrievalSample(data_split, config.validation_cases, config.seed, np.array([bool(content) for content in contents]))
        validation = Validation(sample.items, sample.measure)
    with surroundings.reporter.task(f"fine-tune {tuning.encoder.name}", "") as advance:

        def told(epoch: int, epochs: int, numbers: Mapping[str, float]) -> None:
            surroundings.reporter.say(f"  epoch {epoch}/{epochs} " + " ".join(f"{k} {v:.4f}" for k, v in numbers.items() if k != "epoch"))

        tuned = fine_tune(
            tuning,
            data_split,
            contents,
            seed=config.seed,
            states=surroundings.embedding_cache.parent / "states",
            checkpoint=surroundings.scratch,
            validation=validation,
            progress=told,
            advance=advance,
        )
    facts = save_adapter(folder, tuned.trained, tuning.tuning, tuning.layers, base=tuned.base.revision, split=data_split.digest)
    space = adapted(tuned.base, folder, tuning.tuning, tuning.layers, data_split.digest)
    EmbeddingTable(tuned.vectors, data_split.items, space).save(folder / TABLE)
    write_json(folder / "history.json", tuned.history)
    return {
        **facts,
        "encoder": tuning.encoder.name,
        "seed": config.seed,
        "figures": training_figures(tuned),
    }


def plan_of(config: FineTuneConfig) -> list[Step]:
    source = config.source()
    own = AdapterConfig(**{name: getattr(config, name) for name in AdapterConfig.model_fields})
    return [
        Step("ingest", ingest.VERSION, source, ingest.run, raw_digest=partial(ingest.raw_digest, source)),
        Step(f"split:{config.split.protocol}", split.VERSION, config.split, split.run, {"data": "ingest"}),
        adapter_step(own, {"data": "ingest", "split": f"split:{config.split.protocol}"}),
    ]


def adapter_step(config: AdapterConfig, inputs: Mapping[str, str]) -> Step:
    """The same for `recsys fine-tune` and for a board of embeddings: what one has trained, the other finds."""
    return Step(f"{KIND}:{config.fine_tuning.encoder.name}-{config.digest()[:8]}", VERSION, config, run, inputs)


def run_steps(config: FineTuneConfig, reporter: Reporter) -> tuple[Artifact, bool]:
    """The adapter, and whether it was trained just now."""
    import torch

    if config.threads:
        torch.set_num_threads(config.threads)
    root = config.root.absolute()
    ledger, artifacts, ran = Ledger(root), dict[str, Artifact](), False
    with ledger.lock():
        surroundings = Surroundings(reporter, LocalExecutor(), root / "embeddings", root)
        for status in ledger.survey(plan_of(config)):
            step = status.step
            reporter.say(f"{'[dim]·' if status.cached else '[bold]▸'} {step.name:<24}[/] [dim]{'cached' if status.cached else status.reason}[/]")
            ran = not status.cached
            inputs = {role: artifacts[name] for role, name in step.inputs.items()}
            artifacts[step.name] = ledger.open(status) if status.cached else ledger.run(status, inputs, surroundings)
    return artifacts[step.name], ran
