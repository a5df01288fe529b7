"""The graph of stages of one run, in an order that respects it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from pipelines import embed, evaluate, explain, graph, ingest, publish, rank, split
from pipelines.config import ModelConfig, RunConfig
from pipelines.explain import ExplainConfig
from pipelines.publish import Services
from pipelines.rank import RankConfig
from pipelines.stage import Step
from recsys.data.split import SplitConfig
from recsys.embeddings.configs import IMAGE, EncoderConfig, reads
from recsys.errors import ConfigError


def build_plan(config: RunConfig, services: Services) -> list[Step]:
    """Every step of the run. A step reads only what its `inputs` name."""
    data = {"data": "ingest"}
    steps = [
        Step("ingest", ingest.VERSION, config.data, ingest.run, raw_digest=partial(ingest.raw_digest, config.data)),
        Step("split:warm", split.VERSION, SplitConfig(), split.run, data),
    ]
    boards = ["warm"]
    if config.cold.enabled:
        held_out = SplitConfig(protocol="held_out_items", held_out_share=config.cold.held_out_share, seed=config.cold.seed)
        steps.append(Step("split:cold", split.VERSION, held_out, split.run, data))
        boards.append("cold")
    steps += [embedding_step(config, encoder, data) for encoder in config.embed]
    tables = {f"table:{encoder.name}": f"embed:{encoder.name}" for encoder in config.embed}
    for board in boards:
        of_split = {"split": f"split:{board}"}
        steps.append(Step(f"backbone:{board}", rank.VERSION, RankConfig(model=config.backbone, seed=config.seed), rank.run, of_split))
        steps += [graph_step(config, signal, board, {**data, **of_split, **tables}) for signal in config.graph]
        graphs = {f"table:{signal.name}": f"graph:{signal.name}:{board}" for signal in config.graph}
        steps.append(Step(f"rank:{board}", rank.VERSION, RankConfig(model=config.rank, seed=config.seed), rank.run, {**of_split, **tables, **graphs}))
    trained = {f"{stage}:{board}": f"{stage}:{board}" for board in boards for stage in ("split", "backbone", "rank")}
    trained |= {name: name for board in boards for name in (f"graph:{signal.name}:{board}" for signal in config.graph)}
    steps.append(Step("evaluate", evaluate.VERSION, config.evaluate, evaluate.run, {**data, **tables, **trained}))
    finished = {**data, **tables, "split": "split:warm", "rank": "rank:warm", "evaluation": "evaluate"}
    if config.explain is not None:
        steps.append(explanation_step(config.explain, data))
        finished[publish.REASONS] = explain.KIND
    release = publish.ReleaseConfig(name=config.name, encoders=config.embed, publish=config.publish)
    steps.append(Step("publish", publish.VERSION, release, partial(publish.run, services=services), finished))
    return steps


def embedding_step(config: ModelConfig, encoder: EncoderConfig, inputs: Mapping[str, str]) -> Step:
    own = embed.EmbedConfig(encoder=encoder, limits=config.limits, images=config.images)
    pictures = partial(embed.pictures_digest, config.data, config.images) if IMAGE in reads(encoder) else None
    return Step(f"embed:{encoder.name}", embed.VERSION, own, embed.run, inputs, raw_digest=pictures)


def graph_step(config: ModelConfig, signal: graph.GraphSignal, board: str, inputs: Mapping[str, str]) -> Step:
    own = graph.GraphStageConfig(signal=signal, seed=config.seed)
    knowledge = partial(graph.knowledge_digest, signal.build) if signal.build.knowledge is not None else None
    return Step(f"graph:{signal.name}:{board}", graph.VERSION, own, graph.run, inputs, raw_digest=knowledge)


def explanation_step(config: ExplainConfig, inputs: Mapping[str, str]) -> Step:
    return Step(explain.KIND, explain.VERSION, config, explain.run, inputs)


def up_to(plan: list[Step], stage: str) -> list[Step]:
    """The steps of `stage` and all that they need, in order. Raises ConfigError: the plan has none of it."""
    wanted = {step.name for step in plan if step.stage == stage}
    if not wanted:
        raise ConfigError(f"nothing to run: this config has no step {stage!r}; name what it is to make under `{stage}:`")
    for step in reversed(plan):
        if step.name in wanted:
            wanted |= set(step.inputs.values())
    return [step for step in plan if step.name in wanted]
