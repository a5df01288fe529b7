"""Stage `explain`: catalogue + language model -> ranked labels and an explanation of each item, kept as a table that the product shows.

`recsys explain` runs it after `ingest` under the ledger of `recsys run`. Answers are stored as they come: a killed run resumes, and
loses the prompts under way and fewer than `shard_rows` finished ones; a second run loads no model.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import polars as pl
from pydantic import Field, model_validator

from pipelines import ingest
from pipelines.board_config import BoardConfig, expanded
from pipelines.board_folders import CONFIGS
from pipelines.executors import LocalExecutor
from pipelines.ingest import IngestConfig
from pipelines.ledger import Ledger
from pipelines.progress import Reporter
from pipelines.stage import Inputs, Step, Surroundings
from recsys.artifacts.artifact import Artifact
from recsys.artifacts.atomic import read_json, write_json, write_npy
from recsys.config import Config, apply_overrides, digest_of, read_yaml
from recsys.data.catalog import ItemCatalog
from recsys.errors import ConfigError
from recsys.generation.cache import CachedGenerator, GenerationCache
from recsys.generation.generator import Generation, Generator, OnDone
from recsys.generation.likelihood import LikelihoodRanker, LikelihoodRankerConfig
from recsys.generation.opening import GeneratorConfig, load_generator
from recsys.generation.prompt import Prompt
from recsys.graph.explanations import explain, ranked_labels, read_explanations
from recsys.graph.tape_answers import ScoresFormat
from recsys.graph.tape_prompt import ExplainTask

VERSION = 1
KIND, TABLE, SCORES, RATES = "explain", "explanations.parquet", "scores.npy", "rates.json"
FILE = "explain.yaml"


class RankerConfig(Config):
    """A local model that ranks the labels by likelihood; see `recsys.generation.likelihood`."""

    model: str
    opening: str = ""
    dtype: Annotated[str, Field(pattern="^(bfloat16|float32)$")] = "bfloat16"
    batch_tokens: Annotated[int, Field(ge=1)] = 2048

    def of(self, labels: Sequence[str]) -> LikelihoodRankerConfig:
        return LikelihoodRankerConfig.parse({**self.model_dump(), "options": tuple(labels)})


class ExplainConfig(Config):
    """What the stage reads."""

    task: ExplainTask
    template: str = "{title}| ({year})|. Genres: {categories}."
    """How an item becomes the text that the model sees; see `recsys.data.catalog.render`."""
    writer: GeneratorConfig
    """Explains, and where there is no ranker names the labels too. `kind: imported` takes the answers of another model from a file."""
    ranker: RankerConfig | None = None
    """Ranks the labels: what models below some billion parameters do better than writing them."""
    sample: Annotated[int, Field(ge=1)] | None = None
    """So many items, evenly spaced over the catalogue; null: all."""
    shard_rows: Annotated[int, Field(ge=1)] = 16
    """Finished answers kept in memory at most."""

    def digest(self) -> str:
        """Without what is place and speed: generators count by their own id, which covers the bytes of a file of answers."""
        ranker = self.ranker.of(self.task.labels).generator_id if self.ranker else None
        return digest_of([self.task.model_dump(mode="json"), self.template, self.writer.generator_id, ranker, self.sample])


class ExplainFile(ExplainConfig):
    """What `recsys explain` reads: `experiments/configs/<dataset>/explain.yaml` or a file of your own."""

    dataset: str = ""
    """A data set with a board: its source is taken from there. Else give `data`."""
    data: IngestConfig | None = None
    root: Path = Path(".recsys")
    threads: Annotated[int, Field(ge=1)] | None = None
    """Threads of torch; null: all cores."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if bool(self.dataset) == (self.data is not None):
            raise ValueError("give either dataset or data")
        return self

    @classmethod
    def of_argument(cls, argument: str, overrides: list[str] | None = None, folder: Path = CONFIGS) -> Self:
        """A file, or the name of a data set that has one. Raises ConfigError: neither."""
        path = Path(argument)
        if not path.suffix and not path.is_file():
            path = folder / argument / FILE
            if not path.is_file():
                known = sorted(p.parent.name for p in folder.glob(f"*/{FILE}"))
                raise ConfigError(f"{argument}: no such file, and no {path}; data sets with one: {', '.join(known) or 'none'}")
        return cls.parse(expanded(apply_overrides(read_yaml(path), overrides or []), str(path)), source=str(path))

    def source(self) -> IngestConfig:
        return self.data if self.data is not None else BoardConfig.of_dataset(self.dataset).data

    def stage(self) -> ExplainConfig:
        return ExplainConfig(**{name: getattr(self, name) for name in ExplainConfig.model_fields})


def run(config: ExplainConfig, inputs: Inputs, folder: Path, surroundings: Surroundings) -> Mapping[str, Any]:
    ids, texts = contents_of(config, ingest.load(inputs["data"]).catalog)
    meter = _Meter()
    writer, ranker = generators_of(config, surroundings.embedding_cache.parent, meter)
    with surroundings.reporter.task(KIND, "answers") as advance:
        found = explain(config.task, ids, texts, writer, ranker=ranker, report=lambda done, total, _: advance(done, total, meter.note))
    found.table.write_parquet(folder / TABLE)
    if found.scores is not None:
        write_npy(folder / SCORES, found.scores)
    asked = {"writer": writer, **({"ranker": ranker} if ranker else {})}
    for generator in asked.values():
        if generator.misses:
            write_json(generator.cache.folder / RATES, meter.rates(generator.generator_id))
    for reason, count in found.missing.items():
        surroundings.reporter.say(f"  [yellow]{reason}[/] {count:,} items")
    return {
        "items": len(found),
        "explained": int((found.table["status"] == "ok").sum()),
        "missing": found.missing,
        "retried": found.retried,
        "prompt_tokens": found.prompt_tokens,
        "completion_tokens": found.completion_tokens,
        "computed": sum(generator.misses for generator in asked.values()),
        "cached": sum(generator.hits for generator in asked.values()),
        "generators": {name: generator.generator_id for name, generator in asked.items()},
        "seconds": round(meter.seconds, 3),
        "tokens_per_second": round(meter.tokens_per_second, 2),
        "prompt_version": config.task.version,
    }


def load(artifact: Artifact) -> pl.DataFrame:
    """A row an item; columns as `recsys.graph.explanations.SCHEMA`."""
    return read_explanations(artifact.file(TABLE))


def contents_of(config: ExplainConfig, catalog: ItemCatalog) -> tuple[list[str], list[str]]:
    """item_ids, and the text of each."""
    ids, texts = list(catalog.items.ids), catalog.texts(config.template)
    if config.sample is None or config.sample >= len(ids):
        return ids, texts
    chosen = [place * len(ids) // config.sample for place in range(config.sample)]
    return [ids[place] for place in chosen], [texts[place] for place in chosen]


def generators_of(config: ExplainConfig, root: Path, meter: _Meter) -> tuple[CachedGenerator, CachedGenerator | None]:
    """Models are loaded when the first answer is missing."""
    writer = _opened(config.writer, lambda: load_generator(config.writer), root, config.shard_rows, meter)
    if config.ranker is None:
        return writer, None
    ranker = config.ranker.of(config.task.labels)
    return writer, _opened(ranker, lambda: LikelihoodRanker.load(ranker), root, config.shard_rows, meter)


def _opened(config: Any, make: Callable[[], Generator], root: Path, shard_rows: int, meter: _Meter) -> CachedGenerator:
    cache = GenerationCache(root / "generations", config.generator_id, config.identity())
    return CachedGenerator(cache, lambda: meter.watched(make()), shard_rows=shard_rows)


def steps_of(config: ExplainFile) -> list[Step]:
    source = config.source()
    return [
        Step("ingest", ingest.VERSION, source, ingest.run, raw_digest=partial(ingest.raw_digest, source)),
        Step(KIND, VERSION, config.stage(), run, {"data": "ingest"}),
    ]


def run_steps(config: ExplainFile, reporter: Reporter, *, last: str = KIND) -> tuple[Artifact, bool]:
    """The artifact of the step `last`, and whether it was made just now."""
    import torch

    if config.threads:
        torch.set_num_threads(config.threads)
    root = config.root.absolute()
    ledger, artifacts, ran = Ledger(root), dict[str, Artifact](), False
    steps = steps_of(config)
    with ledger.lock():
        surroundings = Surroundings(reporter, LocalExecutor(), root / "embeddings", root)
        for status in ledger.survey(steps if last == KIND else steps[:1]):
            step = status.step
            reporter.say(f"{'[dim]·' if status.cached else '[bold]▸'} {step.name:<12}[/] [dim]{'cached' if status.cached else status.reason}[/]")
            ran = not status.cached
            inputs = {role: artifacts[name] for role, name in step.inputs.items()}
            artifacts[step.name] = ledger.open(status) if status.cached else ledger.run(status, inputs, surroundings)
    return artifacts[last], ran


def plan_of(config: ExplainFile, reporter: Reporter) -> list[dict[str, Any]]:
    """One entry a generator: prompts in all, cached, new, and the seconds that these take at the rate of its last run (None: there was none).

    No model is loaded. What the writer is asked depends on the labels: as long as ranks are missing, `new` of the writer is the most it can be.
    """
    data, _ = run_steps(config, reporter, last="ingest")
    _, texts = contents_of(config, ingest.load(data).catalog)
    writer, ranker = generators_of(config, config.root.absolute(), _Meter())
    shown = [text for text in texts if text.strip()]
    if ranker is None:
        return [_planned("writer", writer, [config.task.ask(text) for text in shown])]
    ranks = _planned("ranker", ranker, [config.task.ask_label(text) for text in shown])
    if ranks["new"]:
        most = {"name": "writer", "prompts": len(shown), "cached": 0, "new": len(shown)}
        return [ranks, {**most, "seconds": _seconds(writer, len(shown))}]
    form = ScoresFormat(len(config.task.labels))
    known = [ranker.cache.get(config.task.ask_label(text)) for text in shown]
    _, labels = ranked_labels(config.task, [form.parse(answer.text) if answer else None for answer in known])
    whys = [config.task.ask_why(text, found[0] if found else None) for text, found in zip(shown, labels, strict=True)]
    return [ranks, _planned("writer", writer, whys)]


def _planned(name: str, generator: CachedGenerator, prompts: Sequence[Prompt]) -> dict[str, Any]:
    distinct = dict.fromkeys(prompts)
    new = sum(generator.cache.get(prompt) is None for prompt in distinct)
    return {"name": name, "prompts": len(prompts), "cached": len(distinct) - new, "new": new, "seconds": _seconds(generator, new)}


def _seconds(generator: CachedGenerator, prompts: int) -> float | None:
    try:
        return float(read_json(generator.cache.folder / RATES)["seconds_per_prompt"]) * prompts if prompts else 0.0
    except (OSError, ValueError, KeyError):
        return None


class _Meter:
    """Time and tokens of the answers that a model gave, without those of the cache and without loading it."""

    def __init__(self) -> None:
        self._spent: dict[str, tuple[int, int, float]] = {}

    def watched(self, generator: Generator) -> Generator:
        return _Watched(generator, self)

    def add(self, generator_id: str, prompts: int, tokens: int, seconds: float) -> None:
        before = self._spent.get(generator_id, (0, 0, 0.0))
        self._spent[generator_id] = (before[0] + prompts, before[1] + tokens, before[2] + seconds)

    def rates(self, generator_id: str) -> dict[str, float]:
        prompts, tokens, seconds = self._spent.get(generator_id, (0, 0, 0.0))
        return {"prompts": prompts, "completion_tokens": tokens, "seconds": round(seconds, 3), "seconds_per_prompt": seconds / max(prompts, 1)}

    @property
    def seconds(self) -> float:
        return float(np.sum([seconds for _, _, seconds in self._spent.values()]))

    @property
    def tokens_per_second(self) -> float:
        """Completion tokens a second of those generators that write any."""
        writing = [(tokens, seconds) for _, tokens, seconds in self._spent.values() if tokens]
        return sum(tokens for tokens, _ in writing) / max(sum(seconds for _, seconds in writing), 1e-9)

    @property
    def note(self) -> str:
        return f"{self.tokens_per_second:,.0f} tokens/s" if self.tokens_per_second else ""


class _Watched:
    """A Generator that tells the meter after each answer."""

    def __init__(self, generator: Generator, meter: _Meter) -> None:
        self._generator, self._meter = generator, meter

    @property
    def generator_id(self) -> str:
        return self._generator.generator_id

    def generate(self, prompts: Sequence[Prompt], *, on_done: OnDone | None = None) -> list[Generation]:
        last = time.perf_counter()

        def told(number: int, generation: Generation) -> None:
            nonlocal last
            now = time.perf_counter()
            self._meter.add(self.generator_id, 1, generation.completion_tokens, now - last)
            last = now
            if on_done is not None:
                on_done(number, generation)

        return self._generator.generate(prompts, on_done=told)
