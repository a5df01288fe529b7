"""The plan of one night: the stages of `recsys run`, with the checks before them and a contest in place of the board."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from pathlib import Path

from pipelines import contest, explain, ingest, inspection, publish, rank, window
from pipelines.contest import Champion, ContestConfig
from pipelines.ingest import IngestConfig
from pipelines.inspection_config import InspectConfig, VectorConfig
from pipelines.nightly_config import NightlyConfig
from pipelines.plan import embedding_step, explanation_step, graph_step
from pipelines.publish import Services
from pipelines.rank import RankConfig
from pipelines.stage import Step
from pipelines.window import WindowConfig
from recsys.artifacts.artifact import Artifact
from recsys.config import digest_of
from recsys.data.sources.daily import DailySource
from recsys.heads.fusion import FusedRanker
from recsys.serving.bundle import load_bundle


def window_start(config: NightlyConfig, day: date) -> int:
    """Unix seconds of the first moment of the newest window; days are those of UTC."""
    return int(datetime.combine(day - timedelta(days=config.window.days - 1), time(), UTC).timestamp())


def night_plan(config: NightlyConfig, day: date, services: Services, champion: Champion | None, earlier: Mapping[str, Artifact]) -> list[Step]:
    """champion: the version to beat, None for a first one.  earlier: "data" and "table:..." of the night before, for the checks of vectors."""
    source, start = as_of(config.data, day), window_start(config, day)
    assert isinstance(source.source, DailySource)
    data = {"data": "ingest"}
    inspected = InspectConfig(source=source.source, validation=source.validation, day=day, limits=config.checks)
    digest = partial(ingest.raw_digest, source)
    steps = [
        Step("inspect", inspection.VERSION, inspected, inspection.run, raw_digest=digest),
        Step("ingest", ingest.VERSION, source, ingest.run, raw_digest=digest),
        Step("split:window", window.VERSION, WindowConfig(start=start, validation_share=config.window.validation_share), window.run, data),
    ]
    own = config.model_copy(update={"data": source})
    steps += [embedding_step(own, encoder, data) for encoder in config.embed]
    tables = {f"table:{encoder.name}": f"embed:{encoder.name}" for encoder in config.embed}
    if tables:
        compared = digest_of({role: artifact.key for role, artifact in earlier.items()})
        checks = partial(inspection.run_vectors, earlier=earlier)
        steps.append(Step("inspect:vectors", inspection.VERSION, VectorConfig(limits=config.checks), checks, {**data, **tables}, raw_digest=lambda: compared))
    split = {"split": "split:window"}
    steps += [graph_step(own, signal, "window", {**data, **split, **tables}) for signal in config.graph]
    graphs = {f"table:{signal.name}": f"graph:{signal.name}:window" for signal in config.graph}
    warm = champion if config.warm_start else None
    training = partial(rank.run, start=partial(_ranker, warm.bundle)) if warm else rank.run
    trained = RankConfig(model=config.rank, seed=config.seed)
    steps.append(Step("rank:window", rank.VERSION, trained, training, {**split, **tables, **graphs}, raw_digest=(lambda: warm.identity) if warm else None))
    judged = ContestConfig(**config.contest.model_dump(), start=start)
    identity = champion.identity if champion else "none"
    between = partial(contest.run, champion=champion)
    ranked = {**data, **split, **tables, **graphs, "rank": "rank:window"}
    steps.append(Step("evaluate:contest", contest.VERSION, judged, between, ranked, raw_digest=lambda: identity))
    release = publish.ReleaseConfig(name=config.name, encoders=config.embed, publish=config.publish)
    finished = {**data, **tables, **split, "rank": "rank:window", "evaluation": "evaluate:contest", "inspection": "inspect"}
    if tables:
        finished["inspection:vectors"] = "inspect:vectors"
    if config.explain is not None:
        steps.append(explanation_step(config.explain, data))
        finished[publish.REASONS] = explain.KIND
    steps.append(Step("publish", publish.VERSION, release, partial(publish.run, services=services), finished))
    return steps


def as_of(data: IngestConfig, day: date) -> IngestConfig:
    """The same, ending with `day`."""
    return data.model_copy(update={"source": data.source.model_copy(update={"through": day})})


def tables_of(artifacts: Mapping[str, Artifact]) -> dict[str, Artifact]:
    """What the next night compares with: step -> artifact, as roles."""
    return {"data": artifacts["ingest"]} | {f"table:{name.partition(':')[2]}": a for name, a in artifacts.items() if name.startswith("embed:")}


def _ranker(bundle: Callable[[], Path]) -> FusedRanker:
    ranker = load_bundle(bundle()).ranker
    assert isinstance(ranker, FusedRanker)
    return ranker
