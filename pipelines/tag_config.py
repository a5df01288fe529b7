"""What stands on a board of node classification: `experiments/configs/<dataset>/board.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from pipelines.board_config import expanded
from pipelines.board_folders import CONFIGS
from recsys.config import Config, apply_overrides, read_yaml
from recsys.embeddings.post import PostConfig
from recsys.embeddings.text import TextEncoderConfig
from recsys.errors import ConfigError
from recsys.generation.likelihood import LikelihoodRankerConfig
from recsys.generation.opening import GeneratorConfig
from recsys.graph.edge_predictor import EdgePredictorConfig, LinkConfig
from recsys.graph.logit_fusion import GateConfig
from recsys.graph.node_classifier import NodeClassifierConfig
from recsys.graph.node_generation import WritingTask
from recsys.graph.node_split import NodeSplitConfig
from recsys.graph.out_of_fold import HeadConfig
from recsys.graph.sample_filter import SampleFilterConfig
from recsys.graph.tape_prompt import ExplainTask

FILE = "board.yaml"
Name = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]


class TfidfFeatures(Config):
    """Words by TF-IDF, rows of length 1. Counted over all texts of the graph; no label is read."""

    kind: Literal["tfidf"]
    label: str
    words: Annotated[int, Field(ge=1)] = 2000
    """The most frequent ones, without English stop words."""


class EncoderFeatures(Config):
    """A frozen encoder of texts."""

    kind: Literal["encoder"]
    label: str
    encoder: TextEncoderConfig
    """`name` may be left out."""
    max_chars: Annotated[int, Field(ge=1)] | None = None
    """Of a text; the rest is cut. Null: all of it is read."""
    post: PostConfig | None = None
    """Fitted on all texts of the graph; no label is read."""
    unit_variance: bool = False
    """Rows of length sqrt(d) in place of 1."""

    @field_validator("encoder", mode="before")
    @classmethod
    def _named(cls, values: Any) -> Any:
        return {"name": "texts", **values} if isinstance(values, dict) else values


FeatureConfig = Annotated[TfidfFeatures | EncoderFeatures, Field(discriminator="kind")]


class TapeBoardConfig(Config):
    """TAPE's rows: `features` reads the texts and the explanations, the labels that the model ranks are learned vectors."""

    features: str
    splits: tuple[str, ...]
    networks: tuple[str, ...]
    """Of those of each split, with the same settings."""
    head: HeadConfig | None = HeadConfig()
    """Out-of-fold probabilities beside text and explanation; null: none."""
    gate: GateConfig = GateConfig()
    width: Annotated[int, Field(ge=1)] = 32
    """Of a ranked label's learned vector."""
    task: dict[str, Any]
    """An `ExplainTask` without its labels, which are the classes."""
    writer: GeneratorConfig
    ranker: dict[str, Any] | None = None
    """A `LikelihoodRankerConfig` without its options, likewise; null: the writer names the labels too."""


class ShotVariant(Config):
    """One way to help a network that has k labelled nodes a class."""

    label: str
    adds: Literal["nothing", "names", "samples", "both"] = "nothing"
    """names: a labelled node a class, whose text is its name.  samples: texts that the language model wrote.  both: these and the names."""
    examples: Annotated[int, Field(ge=0, le=2)] | None = None
    """Real nodes in the prompt; null: as the task says."""
    style: Literal["request", "continue"] | None = None
    """Of the prompt; null: as the task says."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Of the loss of an added node, where that of a real one counts 1."""
    samples: Annotated[int, Field(ge=1)] | None = None
    """Texts a class; null: as the task says."""
    filter: SampleFilterConfig | None = SampleFilterConfig()
    """Of samples; null: all stay."""
    link: LinkConfig | None = LinkConfig()
    """Edges of what is added; null: none."""
    seeds: Annotated[int, Field(ge=1)] | None = None
    """Null: as many as the board; fewer for those that cost a prompt a seed."""


class ShotsConfig(Config):
    """LLM4NG's rows. The examples in the prompts are the nodes of one shot for every k, so that each k has the same texts."""

    ks: tuple[Annotated[int, Field(ge=1)], ...] = (1, 3, 5)
    features: str
    network: NodeClassifierConfig
    validation: Annotated[int, Field(ge=1)] = 500
    test: Annotated[int, Field(ge=1)] = 1000
    task: dict[str, Any] = Field(default_factory=dict)
    """A `WritingTask` without its classes."""
    writer: GeneratorConfig
    list_writer: GeneratorConfig | None = None
    """Of prompts of the style "continue"; null: `writer`."""
    predictor: EdgePredictorConfig = EdgePredictorConfig()
    variants: dict[Name, ShotVariant]
    against: tuple[str, ...] = ()
    """Variants that the others are compared with."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        _require("shots.against", self.against, self.variants)
        return self


class TagBoardConfig(Config):
    dataset: str
    folder: Path
    """Of `TextGraph.read`."""
    classes: dict[str, str]
    """Class of the graph, in its order -> how a reader would say it."""
    seeds: Annotated[int, Field(ge=1)] = 10
    splits: dict[Name, NodeSplitConfig]
    features: dict[Name, FeatureConfig]
    networks: dict[str, dict[Name, NodeClassifierConfig]]
    """Split -> network -> settings."""
    tape: TapeBoardConfig | None = None
    shots: ShotsConfig | None = None
    trials: dict[str, tuple[tuple[str, ...], ...]] = Field(default_factory=dict)
    """Row, such as public-minilm-gcn -> overrides of its network, such as `gnn.dropout=0.8`, judged on validation alone."""
    trial_seeds: Annotated[int, Field(ge=1)] = 2
    notes: tuple[str, ...] = ()
    """What the board's readers should know: cuts, what was left out, what was tried."""
    batch: Annotated[int, Field(ge=1)] = 64
    """Texts that are embedded, and answers that are kept in memory, until they are stored."""

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        _require("networks", self.networks, self.splits)
        if self.tape is not None:
            _require("tape.features", [self.tape.features], self._encoders)
            _require("tape.splits", self.tape.splits, self.networks)
            for split in self.tape.splits:
                _require(f"tape.networks of {split}", self.tape.networks, self.networks[split])
            self.explain_task()
            self.ranker()
        if self.shots is not None:
            _require("shots.features", [self.shots.features], self._encoders)
            self.writing_task()
        return self

    @classmethod
    def of_dataset(cls, dataset: str, overrides: list[str] | None = None, folder: Path = CONFIGS) -> Self:
        """Raises ConfigError: no such file (lists those that exist)."""
        path = folder / dataset / FILE
        if not path.is_file():
            known = sorted(p.parent.name for p in folder.glob(f"*/{FILE}"))
            raise ConfigError(f"{path}: no such file; boards of node classification exist for: {', '.join(known) or 'none'}")
        board = cls.parse(expanded(apply_overrides(read_yaml(path), overrides or []), str(path)), source=str(path))
        if board.dataset != dataset:
            raise ConfigError(f"{path}: dataset is {board.dataset!r}, expected the folder's name, {dataset!r}")
        return board

    @property
    def words(self) -> tuple[str, ...]:
        """The classes in words."""
        return tuple(self.classes.values())

    def explain_task(self) -> ExplainTask:
        assert self.tape is not None
        return ExplainTask.parse({**self.tape.task, "labels": self.words}, source="tape.task")

    def ranker(self) -> LikelihoodRankerConfig | None:
        assert self.tape is not None
        return LikelihoodRankerConfig.parse({**self.tape.ranker, "options": self.words}, source="tape.ranker") if self.tape.ranker is not None else None

    def writing_task(self, variant: ShotVariant | None = None) -> WritingTask:
        """What is asked for a variant; None: what the variants begin with."""
        assert self.shots is not None
        stated = {} if variant is None else {"examples": variant.examples, "style": variant.style, "samples": variant.samples}
        own = {name: value for name, value in stated.items() if value is not None}
        return WritingTask.parse({**self.shots.task, "classes": self.words, **own}, source="shots.task")

    @property
    def _encoders(self) -> list[str]:
        return [name for name, features in self.features.items() if isinstance(features, EncoderFeatures)]


def _require(what: str, names: Any, known: Any) -> None:
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"{what}: no {', '.join(unknown)}; there are: {', '.join(known)}")
