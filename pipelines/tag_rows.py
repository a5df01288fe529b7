"""The rows of a board of node classification. A row with one seed is a cell: it is computed once, and kept under a key of all that can move it."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from pipelines.tag_config import ShotVariant, TagBoardConfig
from pipelines.tag_materials import TagMaterials
from recsys.config import apply_overrides
from recsys.graph.node_classifier import NodeClassifierConfig, accuracy, classify
from recsys.graph.node_features import NodeFeatures, Ranks, Vectors
from recsys.graph.node_generation import Samples, enlarged
from recsys.graph.node_split import NodeSplit, PublicSplit, ShareSplit, ShotSplit, split_nodes
from recsys.graph.sample_filter import class_prototypes, filter_samples
from recsys.graph.tape import TapeConfig, run_tape, with_head
from recsys.types import FloatArray, IntArray

ALONE, LLM = "accuracy", "llm"
"""Values of a row: of a single classifier; of the labels that the language model ranked first, without any network."""
TEXT, EXPLANATION, PREDICTION = "text", "explanation", "prediction"
Split = PublicSplit | ShareSplit | ShotSplit
Cell = dict[str, Any]
"""values: name -> {"validation", "test": accuracies, "right": see `unpacked`}.  facts: whatever else there is to tell."""


@dataclass(frozen=True)
class ClassRow:
    """One kind of features, one network."""

    GROUP: ClassVar[str] = "classes"
    name: str
    split_name: str
    split: Split
    features: str
    network: str
    config: NodeClassifierConfig
    seeds: int

    @property
    def shown(self) -> dict[str, str]:
        return {"split": self.split_name, "features": self.features, "network": self.network}

    def inputs(self, materials: TagMaterials) -> list[Any]:
        """What decides a cell, beside the graph, the split and the seed."""
        return [self.config.model_dump(mode="json"), materials.features(self.features).id]

    def measure(self, materials: TagMaterials, seed: int) -> Cell:
        graph, split = materials.graph, split_nodes(self.split, materials.graph, seed)
        vectors = Vectors(materials.features(self.features).values)
        found = classify(self.config, vectors, graph.edge_index, graph.labels, split, graph.n_classes, seed=seed)
        facts = {"parameters": found.parameters, "best_epoch": found.best_epoch, "epochs": found.epochs}
        return {"values": {ALONE: judged(found.logits, graph.labels, split)}, "facts": facts}


@dataclass(frozen=True)
class TrialRow:
    """A `ClassRow` with other settings, judged on validation alone."""

    GROUP: ClassVar[str] = "trials"
    row: ClassRow
    overrides: tuple[str, ...]
    seeds: int

    @property
    def name(self) -> str:
        return f"trial-{self.row.name}-{' '.join(self.overrides) or 'as it is'}"

    @property
    def split(self) -> Split:
        return self.row.split

    @property
    def shown(self) -> dict[str, str]:
        return {"row": self.row.name, "overrides": " ".join(self.overrides)}

    @property
    def config(self) -> NodeClassifierConfig:
        return NodeClassifierConfig.parse(apply_overrides(self.row.config.model_dump(mode="json"), list(self.overrides)), source=self.name)

    def inputs(self, materials: TagMaterials) -> list[Any]:
        return [self.config.model_dump(mode="json"), materials.features(self.row.features).id]

    def measure(self, materials: TagMaterials, seed: int) -> Cell:
        graph, split = materials.graph, split_nodes(self.split, materials.graph, seed)
        vectors = Vectors(materials.features(self.row.features).values)
        found = classify(self.config, vectors, graph.edge_index, graph.labels, split, graph.n_classes, seed=seed)
        return {"values": {ALONE: {"validation": found.validation}}, "facts": {}}


@dataclass(frozen=True)
class TapeRow:
    """Three kinds of features, a network each, and their fusions."""

    GROUP: ClassVar[str] = "tape"
    name: str
    split_name: str
    split: Split
    network: str
    config: NodeClassifierConfig
    seeds: int

    @property
    def shown(self) -> dict[str, str]:
        return {"split": self.split_name, "network": self.network}

    def inputs(self, materials: TagMaterials) -> list[Any]:
        tape = materials.config.tape
        assert tape is not None
        own = tape.model_dump(mode="json", include={"head", "gate", "width"})
        return [self.config.model_dump(mode="json"), own, materials.features(tape.features).id, materials.explanations_id]

    def measure(self, materials: TagMaterials, seed: int) -> Cell:
        tape, graph = materials.config.tape, materials.graph
        assert tape is not None
        split = split_nodes(self.split, graph, seed)
        told, task = materials.explanations, materials.config.explain_task()
        encoder = materials.encoded(tape.features)
        vectors = {TEXT: Vectors(encoder.values), EXPLANATION: Vectors(encoder.values_of(told.table["explanation"].to_list()))}
        if tape.head is not None:
            vectors = {kind: with_head(tape.head, own, graph.labels, split, graph.n_classes, seed=seed) for kind, own in vectors.items()}
        ranks = told.ranks(task.labels, min(task.top, graph.n_classes))
        kinds: dict[str, NodeFeatures] = {**vectors, PREDICTION: Ranks(ranks, graph.n_classes, tape.width)}
        config = TapeConfig(classifier=self.config, gate=tape.gate)
        found = run_tape(config, kinds, graph.edge_index, graph.labels, split, graph.n_classes, seed=seed)
        values = {kind: judged(logits, graph.labels, split) for kind, logits in found.logits.items()}
        # Row c + 1 of the identity names class c; row 0, of no label, names none of them and is wrong.
        first = np.eye(graph.n_classes + 1, dtype=np.float32)[ranks[:, 0] + 1]
        facts = {
            "shares": {kind: round(share, 4) for kind, share in found.shares.items()},
            "nodes": int(graph.has_text.sum()),
            "explained": int((told.table["explanation"] != "").sum()),
            "ranked": int((ranks[:, 0] >= 0).sum()),
            "retried": told.retried,
            "missing": told.missing,
        }
        return {"values": {**values, LLM: judged(first, graph.labels + 1, split)}, "facts": facts}


@dataclass(frozen=True)
class ShotRow:
    """k labelled nodes a class, and what a variant adds to them."""

    GROUP: ClassVar[str] = "shots"
    name: str
    k: int
    split: ShotSplit
    variant_name: str
    variant: ShotVariant
    seeds: int

    @property
    def shown(self) -> dict[str, Any]:
        return {"k": self.k, "variant": self.variant_name, "label": self.variant.label}

    def inputs(self, materials: TagMaterials) -> list[Any]:
        shots, variant = materials.config.shots, self.variant
        assert shots is not None
        own = [shots.network.model_dump(mode="json"), materials.features(shots.features).id, variant.adds]
        if variant.adds == "nothing":
            return own
        own += [variant.weight] if variant.weight != 1 else []
        own += [variant.link.model_dump(mode="json"), shots.predictor.model_dump(mode="json")] if variant.link else []
        if variant.adds == "names":
            return [*own, materials.config.words]
        chosen = variant.model_dump(mode="json", include={"samples", "filter"})
        return [*own, chosen, materials.config.words, materials.samples_id(variant)]

    def measure(self, materials: TagMaterials, seed: int) -> Cell:
        shots, graph = materials.config.shots, materials.graph
        assert shots is not None
        split, encoder, facts = split_nodes(self.split, graph, seed), materials.encoded(shots.features), dict[str, Any]()
        values, edges, labels, larger = encoder.values, graph.edge_index, graph.labels, split
        if self.variant.adds != "nothing":
            values, edges, labels, larger = self._enlarged(materials, split, seed, facts)
        weights = np.where(larger.train < len(graph), 1, self.variant.weight).astype(np.float32) if self.variant.weight != 1 else None
        found = classify(shots.network, Vectors(values), edges, labels, larger, graph.n_classes, seed=seed, weights=weights)
        return {"values": {ALONE: judged(found.logits, graph.labels, split)}, "facts": facts}

    def _enlarged(self, materials: TagMaterials, split: NodeSplit, seed: int, facts: dict[str, Any]) -> tuple[FloatArray, Tensor, IntArray, NodeSplit]:
        shots, graph, variant = materials.config.shots, materials.graph, self.variant
        assert shots is not None
        encoder, words = materials.encoded(shots.features), materials.config.words
        samples = Samples(words, np.arange(len(words), dtype=np.int64), {})
        if variant.adds != "names":
            written = self._written(materials, split, seed, facts)
            samples = written if variant.adds == "samples" else Samples(samples.texts + written.texts, np.concatenate([samples.labels, written.labels]), {})
        links = np.zeros((2, 0), dtype=np.int64)
        if variant.link is not None:
            predictor = materials.predictor(seed)
            links = predictor.link(variant.link, encoder.raw_of(samples.texts), encoder.raw)
            facts |= {"auc": round(predictor.auc, 4)}
        facts |= {"added": len(samples), "edges": int(links.shape[1])}
        graph, split = enlarged(graph, split, samples, links)
        return np.concatenate([encoder.values, encoder.values_of(samples.texts)]), graph.edge_index, graph.labels, split

    def _written(self, materials: TagMaterials, split: NodeSplit, seed: int, facts: dict[str, Any]) -> Samples:
        shots, graph, variant = materials.config.shots, materials.graph, self.variant
        assert shots is not None
        encoder, words = materials.encoded(shots.features), materials.config.words
        samples = materials.samples(seed, variant)
        facts |= {"written": len(samples), "retried": samples.retried, "missing": dict(samples.missing)}
        if variant.filter is None:
            return samples
        prototypes = class_prototypes(encoder.raw_of(words), encoder.raw, graph.labels, split.train)
        found = filter_samples(variant.filter, encoder.raw_of(samples.texts), samples.labels, prototypes, encoder.raw)
        facts |= {"dropped": found.dropped}
        return samples.take(found.kept)


Row = ClassRow | TapeRow | ShotRow | TrialRow


def rows_of(config: TagBoardConfig) -> list[Row]:
    """All of a board, in the order in which they are computed."""
    rows: list[Row] = list(_class_rows(config))
    if (shots := config.shots) is not None:
        rows += [
            ShotRow(f"{k}shot-{name}", k, ShotSplit(k=k, validation=shots.validation, test=shots.test), name, variant, variant.seeds or config.seeds)
            for name, variant in shots.variants.items()
            for k in shots.ks
        ]
    if (tape := config.tape) is not None:
        rows += [
            TapeRow(f"{split}-tape-{network}", split, config.splits[split], network, config.networks[split][network], config.seeds)
            for split in tape.splits
            for network in tape.networks
        ]
    return rows


def trials_of(config: TagBoardConfig) -> list[TrialRow]:
    """Raises ValueError: of a row that is not there."""
    rows = {row.name: row for row in _class_rows(config)}
    if unknown := [name for name in config.trials if name not in rows]:
        raise ValueError(f"trials: no row {', '.join(unknown)}; there are: {', '.join(rows)}")
    return [TrialRow(rows[name], overrides, config.trial_seeds) for name, trials in config.trials.items() for overrides in trials]


def judged(logits: FloatArray, labels: IntArray, split: NodeSplit) -> dict[str, Any]:
    right = logits[split.test].argmax(axis=1) == labels[split.test]
    return {
        "validation": accuracy(logits, labels, split.validation),
        "test": accuracy(logits, labels, split.test),
        "right": base64.b64encode(np.packbits(right).tobytes()).decode(),
    }


def unpacked(right: str, count: int) -> FloatArray:
    """float32 (count,): 1 where the test node, in the order of the split, was classified rightly."""
    return np.unpackbits(np.frombuffer(base64.b64decode(right), dtype=np.uint8), count=count).astype(np.float32)


def _class_rows(config: TagBoardConfig) -> Iterator[ClassRow]:
    for split, networks in config.networks.items():
        for features in config.features:
            for network, settings in networks.items():
                yield ClassRow(f"{split}-{features}-{network}", split, config.splits[split], features, network, settings, config.seeds)
