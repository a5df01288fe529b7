"""Signals by configuration -> embedding tables of a split. Nothing is embedded or tuned twice: the cache of vectors is that of `recsys run`,
and so are the artifacts that it, a board of embeddings or `recsys fine-tune` have finished. What is missing is made in a ledger of
its own, for the other one is locked for as long as one of them is at work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from pipelines import embed, fine_tune, graph, ingest, neighbours, split
from pipelines.executors import LocalExecutor
from pipelines.ingest import IngestConfig
from pipelines.item_tables import made_table, post_processed
from pipelines.ledger import Ledger
from pipelines.neighbours_config import NeighboursConfig
from pipelines.progress import Reporter
from pipelines.signal_config import EncoderSignal, GraphTraining, MadeSignal, TableSignal, TunedSignal
from pipelines.stage import Step, Surroundings
from recsys.artifacts.artifact import Artifact
from recsys.data.catalog import ItemCatalog
from recsys.data.split import Split, SplitConfig
from recsys.embeddings.configs import IMAGE, parse_encoder, reads
from recsys.embeddings.image_source import ImageSourceConfig
from recsys.embeddings.limits import LimitsConfig
from recsys.embeddings.table import EmbeddingTable
from recsys.errors import ConfigError, RetryableError
from recsys.graph.edges import Edges

ROOT = Path(".recsys")
OWN = "boards/signals"
"""Below the root: the ledger of what boards made for themselves."""
Signals = Mapping[str, EncoderSignal | TunedSignal | GraphTraining | MadeSignal | TableSignal]


class SignalTables:
    """Of one data set and split. images, limits: what encoders are given of the items."""

    def __init__(
        self,
        data: IngestConfig,
        split_config: SplitConfig,
        reporter: Reporter,
        *,
        limits: LimitsConfig | None = None,
        images: ImageSourceConfig | None = None,
        root: Path = ROOT,
    ) -> None:
        self._data, self._split, self._reporter = data, split_config, reporter
        self._limits, self._images, self._own = limits or LimitsConfig(), images or ImageSourceConfig(), Ledger(root / OWN)
        self._shared = Ledger(root)

    def make(self, signals: Signals, data_split: Split) -> dict[str, EmbeddingTable]:
        """Signal -> vectors of all of `data_split.items`; what is missing is computed, and may be asked for again if that was interrupted.

        Raises:
            SpaceMismatchError: a table of another space than its signal states, or fitted on another split.
            UnknownIdError: a table that lacks items.  ArtifactError: no table at the path of a signal.
        """
        steps = self._steps(signals)
        artifacts = self._artifacts(steps)
        catalog = partial(self._catalog, artifacts.get("ingest"))
        tables = {}
        for name, signal in signals.items():
            table = self._table(name, signal, data_split, artifacts, catalog)
            aligned = EmbeddingTable(table.aligned_to(data_split.items), data_split.items, table.space)
            tables[name] = post_processed(signal.post, aligned, data_split)
        return tables

    def imagined(self, name: str, config: NeighboursConfig) -> Edges:
        """What a language model wrote beside the thin items of the split, as edges of its items; made where it is missing."""
        base = {"data": "ingest", "split": f"split:{self._split.protocol}"}
        return neighbours.load(self._artifacts({**self._first(base), **self._neighbours(name, config, base)})[f"{name}/neighbours"])

    def _table(self, name: str, signal: object, data_split: Split, artifacts: Mapping[str, Artifact], catalog: Callable[[], ItemCatalog]) -> EmbeddingTable:
        if isinstance(signal, MadeSignal):
            return made_table(signal.made, data_split, catalog)
        if isinstance(signal, TableSignal):
            table = EmbeddingTable.load(signal.path)
            table.require_space(signal.space_id)
            return table
        artifact = artifacts[name]
        return EmbeddingTable.load(artifact.path / fine_tune.TABLE if isinstance(signal, TunedSignal) else artifact.path)

    def _catalog(self, artifact: Artifact | None) -> ItemCatalog:
        if artifact is not None:
            return ingest.load(artifact).catalog
        from recsys.data.validation import clean

        return clean(self._data.source.read_interactions(), self._data.source.read_items(), self._data.validation).catalog

    def _steps(self, signals: Signals) -> dict[str, Step]:
        """Role -> step, in an order that respects their inputs; empty where no signal needs one."""
        base = {"data": "ingest", "split": f"split:{self._split.protocol}"}
        steps: dict[str, Step] = {}
        for name, signal in signals.items():
            if isinstance(signal, EncoderSignal):
                steps[name] = self._embed(name, signal)
            elif isinstance(signal, TunedSignal):
                steps[name] = fine_tune.adapter_step(signal.adapter, base)
            elif isinstance(signal, GraphTraining):
                read = {f"table:{text}": self._embed(text, encoder) for text, encoder in signal.texts.items()}
                if signal.neighbours is not None:
                    steps |= self._neighbours(name, signal.neighbours, base)
                    read["neighbours"] = steps[f"{name}/neighbours"]
                steps |= {f"{name}/{role}": step for role, step in read.items()}
                steps[name] = self._graph(name, signal, {**base, **{role: step.name for role, step in read.items()}})
        return {**self._first(base), **steps} if steps else {}

    def _first(self, base: Mapping[str, str]) -> dict[str, Step]:
        return {
            "ingest": Step("ingest", ingest.VERSION, self._data, ingest.run, raw_digest=partial(ingest.raw_digest, self._data)),
            "split": Step(base["split"], split.VERSION, self._split, split.run, {"data": "ingest"}),
        }

    def _embed(self, name: str, signal: EncoderSignal) -> Step:
        encoder = parse_encoder({**signal.encoder.model_dump(mode="json"), "name": name}, source=f"signal {name}")
        own = embed.EmbedConfig(encoder=encoder, limits=self._limits, images=self._images)
        pictures = partial(embed.pictures_digest, self._data, self._images) if IMAGE in reads(encoder) else None
        return Step(f"embed:{name}", embed.VERSION, own, embed.run, {"data": "ingest"}, raw_digest=pictures)

    def _graph(self, name: str, signal: GraphTraining, inputs: Mapping[str, str]) -> Step:
        own = graph.GraphStageConfig(signal=graph.GraphSignal(name=name, build=signal.build, encoder=signal.settings), seed=signal.seed)
        knowledge = partial(graph.knowledge_digest, signal.build) if signal.build.knowledge is not None else None
        return Step(f"graph:{name}:{self._split.protocol}", graph.VERSION, own, graph.run, inputs, raw_digest=knowledge)

    def _neighbours(self, name: str, config: NeighboursConfig, base: Mapping[str, str]) -> dict[str, Step]:
        """The step and the vectors that it reads."""
        table = self._embed(config.encoder.name, EncoderSignal(kind="encoder", encoder=config.encoder))
        own = Step(f"neighbours:{name}:{self._split.protocol}", neighbours.VERSION, config, neighbours.run, {**base, "table": table.name})
        return {f"{name}/items": table, f"{name}/neighbours": own}

    def _artifacts(self, steps: Mapping[str, Step]) -> dict[str, Artifact]:
        """Role -> artifact."""
        plan = _distinct(steps.values())
        done = self._finished(plan)
        if len(done) < len(plan):
            with self._lock():
                done = self._finished(plan)
                root = self._shared.root
                surroundings = Surroundings(self._reporter, LocalExecutor(), root / "embeddings", root)
                for status in self._own.survey(plan):
                    step = status.step
                    if step.name not in done:
                        self._reporter.say(f"[bold]▸ {step.name}[/] [dim]{status.reason}[/]")
                        inputs = {role: done[name] for role, name in step.inputs.items()}
                        done[step.name] = self._own.run(status, inputs, surroundings)
        return {role: done[step.name] for role, step in steps.items()}

    def _finished(self, plan: list[Step]) -> dict[str, Artifact]:
        """Step -> artifact, of either ledger: a key is the same in both."""
        return {status.step.name: ledger.open(status) for ledger in (self._own, self._shared) for status in ledger.survey(plan) if status.cached}

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Waits for its turn: another training may make its signals just now."""
        told = False
        while True:
            try:
                lock = self._own.lock()
                lock.__enter__()
                break
            except RetryableError:
                if not told:
                    self._reporter.say(f"[dim]waiting for another run at work in {self._own.root}[/]")
                told = True
                time.sleep(2)
        try:
            yield
        finally:
            lock.__exit__(None, None, None)


def _distinct(steps: Iterable[Step]) -> list[Step]:
    """Two signals may be of one adapter, or a graph read what is a signal too. Raises ConfigError: one name for two encoders."""
    distinct: dict[str, Step] = {}
    for step in steps:
        if distinct.setdefault(step.name, step).config != step.config:
            raise ConfigError(f"{step.name} stands for two configurations, of a signal and of a text that a graph reads; give one another name")
    return list(distinct.values())
