"""What the rows of a board of node classification are made of: the graph, vectors, a language model's answers. Each is made when first asked for."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from pipelines.progress import Reporter
from pipelines.tag_config import EncoderFeatures, ShotVariant, TagBoardConfig
from pipelines.tag_features import EncodedVectors, TfidfVectors
from recsys.config import digest_of
from recsys.errors import ConfigError
from recsys.generation.cache import CachedGenerator, GenerationCache
from recsys.generation.generator import Generation, Generator, OnDone
from recsys.generation.likelihood import LikelihoodRanker
from recsys.generation.opening import load_generator
from recsys.generation.progress import Progress
from recsys.generation.prompt import Prompt
from recsys.graph.edge_predictor import EdgePredictor
from recsys.graph.explanations import Explanations, explain
from recsys.graph.node_generation import Samples, write_samples
from recsys.graph.node_split import ShotSplit, split_nodes
from recsys.graph.text_graph import TextGraph


class TagMaterials:
    """costs: name -> answers or texts, tokens and seconds that were computed, over all runs of the board; what the caches gave is not among them."""

    def __init__(self, config: TagBoardConfig, root: Path, reporter: Reporter, costs: dict[str, Any]) -> None:
        self.config, self.costs = config, costs
        self._root, self._reporter = root, reporter
        self._features: dict[str, TfidfVectors | EncodedVectors] = {}
        self._samples: dict[tuple[int, str], Samples] = {}
        self._predictors: dict[int, EdgePredictor] = {}

    @cached_property
    def graph(self) -> TextGraph:
        """Raises ConfigError: other classes than the config's. DataError: see `TextGraph.read`."""
        found = TextGraph.read(self.config.folder)
        if found.classes != tuple(self.config.classes):
            raise ConfigError(
                f"{self.config.dataset}: classes of the graph are {', '.join(found.classes)}, those of the config {', '.join(self.config.classes)}"
            )
        return found

    def features(self, name: str) -> TfidfVectors | EncodedVectors:
        if name not in self._features:
            config = self.config.features[name]
            self._features[name] = (
                EncodedVectors(config, self.graph, self._root, self._reporter, self.costs, self.config.batch)
                if isinstance(config, EncoderFeatures)
                else TfidfVectors(config, self.graph)
            )
        return self._features[name]

    def encoded(self, name: str) -> EncodedVectors:
        found = self.features(name)
        assert isinstance(found, EncodedVectors)
        return found

    @cached_property
    def explanations(self) -> Explanations:
        """Of all nodes with a text. No label of any node is read."""
        writer, ranker = self._tape_generators
        with self._reporter.task("explain", "answers") as advance:
            return explain(
                self.config.explain_task(), [str(node) for node in range(len(self.graph))], self.graph.texts, writer,
                ranker=ranker, report=lambda done, total, tokens: advance(done, total, f"{tokens:,} tokens"),
            )  # fmt: skip

    @cached_property
    def explanations_id(self) -> str:
        writer, ranker = self._tape_generators
        return digest_of([self.config.explain_task().model_dump(mode="json"), writer.generator_id, ranker.generator_id if ranker else None])

    def samples(self, seed: int, variant: ShotVariant) -> Samples:
        """Texts of each class; the examples in their prompts are the nodes of one shot of this seed."""
        kept = (seed, self.samples_id(variant))
        if kept not in self._samples:
            shots = self.config.shots
            assert shots is not None
            train = split_nodes(ShotSplit(k=1, validation=shots.validation, test=shots.test), self.graph, seed).train
            task = self.config.writing_task(variant)
            with self._reporter.task(f"write, seed {seed}", "texts") as advance:
                told = Progress(task.samples * len(task.classes), lambda done, total, tokens: advance(done, total, f"{tokens:,} tokens"))
                self._samples[kept] = write_samples(task, self.graph, train, self._sample_writers[task.style], on_done=told)
        return self._samples[kept]

    def samples_id(self, variant: ShotVariant) -> str:
        task = self.config.writing_task(variant)
        return digest_of([task.model_dump(mode="json"), self._sample_writers[task.style].generator_id])

    def predictor(self, seed: int) -> EdgePredictor:
        if seed not in self._predictors:
            shots = self.config.shots
            assert shots is not None
            self._predictors[seed] = EdgePredictor.fit(shots.predictor, self.encoded(shots.features).raw, self.graph.edges, seed=seed)
        return self._predictors[seed]

    @cached_property
    def _tape_generators(self) -> tuple[CachedGenerator, CachedGenerator | None]:
        assert self.config.tape is not None
        writer, ranker = self.config.tape.writer, self.config.ranker()
        return (
            self._cached(writer, "explanations", lambda: load_generator(writer)),
            self._cached(ranker, "ranked labels", lambda: LikelihoodRanker.load(ranker)) if ranker else None,
        )

    @cached_property
    def _sample_writers(self) -> dict[str, CachedGenerator]:
        """By the style of the prompt."""
        shots = self.config.shots
        assert shots is not None
        writers = {"request": shots.writer, "continue": shots.list_writer or shots.writer}
        return {style: self._cached(writer, "generated texts", partial(load_generator, writer)) for style, writer in writers.items()}

    def _cached(self, config: Any, name: str, load: Any) -> CachedGenerator:
        cache = GenerationCache(self._root / "generations", config.generator_id, config.identity())
        return CachedGenerator(cache, lambda: _Metered(load(), name, self.costs), shard_rows=self.config.batch)


class _Metered:
    """A Generator that notes answers, tokens and seconds as they come."""

    def __init__(self, generator: Generator, name: str, costs: dict[str, Any]) -> None:
        self._generator = generator
        self._cost = costs.setdefault(name, {"answers": 0, "prompt_tokens": 0, "completion_tokens": 0, "seconds": 0.0})

    @property
    def generator_id(self) -> str:
        return self._generator.generator_id

    def generate(self, prompts: Sequence[Prompt], *, on_done: OnDone | None = None) -> list[Generation]:
        last = time.perf_counter()

        def told(number: int, generation: Generation) -> None:
            nonlocal last
            now = time.perf_counter()
            cost = self._cost
            cost["answers"] += 1
            cost["prompt_tokens"] += generation.prompt_tokens
            cost["completion_tokens"] += generation.completion_tokens
            cost["seconds"] = round(cost["seconds"] + now - last, 2)
            last = now
            if on_done is not None:
                on_done(number, generation)

        return self._generator.generate(prompts, on_done=told)
