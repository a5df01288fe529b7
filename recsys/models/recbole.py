"""Adapter of RecBole 1.2.1 (Zhao et al. 2021, arXiv 2011.01731; 2022, arXiv 2206.07351): any of its general or
sequential models by name, trained on exactly `split.train` in a subprocess, scored by our evaluator.

A general model knows users by row: it scores a user as training left them, whatever history a query brings, and has
nothing to say of a user whom it never saw. A sequential model reads the history. docs/recbole.md lists what runs.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import importlib.util
import re
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Self

import numpy as np
import torch
import yaml
from pydantic import Field, JsonValue, field_validator, model_validator
from safetensors.numpy import load_file
from safetensors.torch import save_file

from recsys.artifacts.atomic import read_json, write_bytes, write_json
from recsys.config import Config, digest_of
from recsys.data.sequences import Sequences
from recsys.data.split import Split
from recsys.data.vocabulary import Vocabulary
from recsys.errors import ArtifactError, ConfigError, DataError, NonFiniteError
from recsys.models._recbole_process import NotFiniteAnswerError, RecBoleProcess
from recsys.rng import derive_seed
from recsys.training.checkpoint import require_own
from recsys.training.loop import Progress
from recsys.types import UNKNOWN_NUM, BoolArray, FloatArray, IntArray, Queries

OWNED = {
    "epochs": "epochs",
    "stopping_step": "patience",
    "seed": "the argument `seed` of fit",
    "device": "nothing: the CPU is used",
    "use_gpu": "nothing: the CPU is used",
    "gpu_id": "nothing: the CPU is used",
    "worker": "threads",
    "model": "model",
}
"""Settings of RecBole that are ours, and the field to use instead. Those of `OWNED_PATTERN` are ours too."""
OWNED_PATTERN = re.compile(
    r"data_path|dataset.*|.*_FIELD|.*_SUFFIX|NEG_PREFIX|load_col|unload_col|unused_col|additional_feat_suffix|rm_dup_inter|val_interval|filter_.*|"
    r".*_num_interval|alias_of_.*|preload_weight|benchmark_filename|field_separator|seq_separator|seq_len|eval_.*|repeatable|metrics|topk|valid_metric.*|"
    r"metric_.*|checkpoint_dir|save_.*|dataloaders_save_path|show_progress|state|log_wandb|wandb_project|encoding|reproducibility"
)
SCORE_ROWS = 512
"""Users that are asked for at once: bounds the memory to this many rows of the item table."""
FILES = ("settings.json", "facts.json", "ids.json", "rows.json", "train/train.inter", "weights.safetensors", "vectors.safetensors")


class RecBoleConfig(Config):
    model: str
    """Name of a general or sequential model, as RecBole spells it: BPR, LightGCN, SASRec, ..."""
    parameters: dict[str, JsonValue] = Field(default_factory=dict)
    """RecBole's own settings of the model and its training, e.g. learning_rate, embedding_size. Unknown ones are errors."""
    epochs: Annotated[int, Field(ge=1)] = 100
    patience: Annotated[int, Field(ge=1)] = 10
    """Epochs without a new best validation NDCG@10 before the training ends. The best epoch's weights are kept."""
    max_seconds: Annotated[float, Field(gt=0)] | None = None
    """Cap: training stops after the epoch that passes it, and the fit says so."""
    silence_seconds: Annotated[float, Field(gt=0)] = 7200.0
    """The subprocess is killed when it says nothing for so long; longer than its longest epoch."""
    threads: Annotated[int, Field(ge=1)] = 2

    @field_validator("model")
    @classmethod
    def _model_is_offered(cls, model: str) -> str:
        offered = [name for names in offered_models().values() for name in names]
        if model not in offered:
            by_lower = {name.lower(): name for name in offered}
            close = [by_lower[name] for name in difflib.get_close_matches(model.lower(), by_lower, n=3)]
            hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
            raise ConfigError(f"RecBole has no general or sequential model {model!r}; {hint}It offers: {', '.join(sorted(offered))}")
        return model

    @field_validator("parameters")
    @classmethod
    def _yaml_numbers(cls, parameters: dict[str, JsonValue]) -> dict[str, JsonValue]:
        """YAML 1.1 reads 1e-3 as a string; no setting of RecBole is a string of that form."""
        return {
            name: float(value) if isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d+)?[eE][+-]?\d+", value) else value
            for name, value in parameters.items()
        }

    @model_validator(mode="after")
    def _parameters_are_known(self) -> Self:
        known = _defaults(self.model)
        for name in self.parameters:
            if name in OWNED or OWNED_PATTERN.fullmatch(name):
                raise ConfigError(
                    f"parameters of {self.model}: {name!r} is set by the adapter; use {OWNED.get(name, 'the split, which decides data and evaluation')}"
                )
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f", did you mean {close[0]!r}?" if close else "."
                own = ", ".join(sorted(_model_defaults(self.model)))
                raise ConfigError(f"parameters of {self.model}: RecBole knows no setting {name!r}{hint} The model's own: {own}")
        return self


@dataclass(frozen=True)
class RecBoleFit:
    """history: one mapping an epoch (epoch, loss, ndcg@10 on validation, seconds so far).  seconds: of the training.
    settings: RecBole's settings of model and training, defaults included.  capped: what the cap cut, or None.
    parameters: trained numbers.  peak_mb: highest memory of the subprocess that trained, in MiB; 0 where the system does not tell.
    Close the scorer, or use it as a context manager, when it is not needed any more."""

    scorer: RecBoleScorer
    history: tuple[Mapping[str, float], ...]
    seconds: float
    settings: Mapping[str, Any]
    capped: str | None
    best_epoch: int
    parameters: int
    peak_mb: float


class RecBoleScorer:
    """A fitted RecBole model that lives in `folder` and answers through a subprocess, which starts at the first need.

    A score of -inf, a model's word for "never this item", comes as the lowest float32: below every score, above what is masked.

    Raises (from `score`):
        NonFiniteError: NaN or +inf for an item; names the model, the user and the item.
        DataError: a query of a user (general models) or a history (sequential models) that training never saw.
        RecsysError: the subprocess died; with its last lines.
    """

    def __init__(self, folder: Path, *, threads: int = 2, silence_seconds: float = 7200.0, process: RecBoleProcess | None = None) -> None:
        self._folder, self._threads, self._silence, self._process = folder, threads, silence_seconds, process
        self._lock = threading.Lock()
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        facts, ids, rows = (read_json(folder / f"{name}.json") for name in ("facts", "ids", "rows"))
        self.name: str = facts["model"]
        self._sequential, self._needs_user = bool(facts["sequential"]), bool(facts["needs_user"])
        self._users, self._items = Vocabulary(ids["users"]), Vocabulary(ids["items"])
        # RecBole's row 0 is padding: also the row of what it does not know.
        self._user_rows, self._item_rows = _rows_of(self._users, rows["users"], "user_id"), _rows_of(self._items, rows["items"], "item_id")

    @classmethod
    def load(cls, folder: Path, *, threads: int = 2, silence_seconds: float = 7200.0) -> RecBoleScorer:
        """What `save` wrote; a `RecBoleBackbone` where the model has vectors. The folder is read for as long as the scorer lives."""
        if not (folder / "facts.json").is_file():
            raise ArtifactError(f"{folder}: no saved RecBole model (facts.json is missing); write one with RecBoleScorer.save")
        kind = RecBoleBackbone if read_json(folder / "facts.json")["vectors"] else RecBoleScorer
        return kind(folder, threads=threads, silence_seconds=silence_seconds)

    def save(self, folder: Path) -> None:
        """JSON, safetensors and the training interactions as an atomic file: what RecBole needs to build the model again."""
        for name in FILES:
            if (self._folder / name).is_file():
                write_bytes(folder / name, (self._folder / name).read_bytes())

    @property
    def users(self) -> Vocabulary:
        return self._users

    @property
    def item_ids(self) -> Vocabulary:
        return self._items

    @property
    def item_digest(self) -> str:
        return self._items.digest

    @property
    def n_items(self) -> int:
        return len(self._items)

    def scorable_items(self) -> BoolArray:
        return self._item_rows > 0

    def score(self, queries: Queries, item_nums: IntArray) -> FloatArray:
        """float32 (B, C). Columns of items without training interactions are 0 and mean nothing."""
        columns = self._item_rows[item_nums]
        scores = np.zeros((len(queries), len(item_nums)), dtype=np.float32)
        for start in range(0, len(queries), SCORE_ROWS):
            part = queries.slice(start, start + SCORE_ROWS)
            scores[start : start + SCORE_ROWS] = self._ask("scores", part)[:, columns]
        scores[:, columns == 0] = 0.0
        return scores

    def close(self) -> None:
        """End the subprocess; the next query starts another."""
        if self._process is not None:
            self._process.close()
            self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _ask(self, what: str, queries: Queries) -> FloatArray:
        users = self._known_users(queries) if self._needs_user else np.zeros(len(queries), dtype=np.int64)
        histories = self._known_histories(queries) if self._sequential else Sequences.of_rows([np.zeros(0, dtype=np.int64)] * len(queries))
        offsets, items = (torch.from_numpy(array.copy()) for array in (histories.offsets, histories.item_nums))
        with self._lock:
            if self._process is None:
                process = RecBoleProcess(self._folder, threads=self._threads, silence_seconds=self._silence)
                process.ask({"do": "open"})
                self._process = process
            try:
                values = self._process.compute(what, torch.from_numpy(users), offsets, items)
            except NotFiniteAnswerError as found:
                self.close()
                raise self._not_finite(found, queries) from None
            except BaseException:
                self.close()
                raise
        answered: FloatArray = values.numpy()
        return answered

    def _not_finite(self, found: NotFiniteAnswerError, queries: Queries) -> NonFiniteError:
        user_num, item_num = int(queries.user_nums[found.row]), int(np.flatnonzero(self._item_rows == found.item)[0])
        known = 0 <= user_num < len(self._users)
        user = f"user_num {user_num} (user_id {self._users.ids[user_num]!r})" if known else f"a user outside the vocabulary (query {found.row})"
        return NonFiniteError(
            f"RecBole's {self.name} scored {found.value} for {user}, item_num {item_num} (item_id {self._items.ids[item_num]!r}): "
            "scores are finite, or -inf for an item that is never to be recommended; train again with a lower learning rate"
        )

    def _known_users(self, queries: Queries) -> IntArray:
        """int64 (B,) RecBole rows."""
        nums = np.asarray(queries.user_nums, dtype=np.int64)
        inside = (nums >= 0) & (nums < len(self._users))
        rows = np.where(inside, self._user_rows[np.where(inside, nums, 0)], 0)
        if (rows == 0).any():
            first = int(nums[int((rows == 0).argmax())])
            who = "a user outside the vocabulary" if first == UNKNOWN_NUM else f"user_num {first}"
            raise DataError(
                f"RecBole's {self.name} knows users by row, and {int((rows == 0).sum())} of {len(rows)} had no training interactions (first: {who}); "
                "fit again with them, or use a model that reads histories (SASRec, GRU4Rec, our EASE)"
            )
        return rows

    def _known_histories(self, queries: Queries) -> Sequences:
        """RecBole rows of the history's items; items that training never saw are left out."""
        rows = Sequences.of_rows([np.asarray(history, dtype=np.int64) for history in queries.histories])
        if len(rows.item_nums) and (rows.item_nums.min() < 0 or rows.item_nums.max() >= self.n_items):
            raise DataError(f"a history holds a number that is no item_num of this model (0..{self.n_items - 1}); leave unknown items out")
        known = [self._item_rows[row][self._item_rows[row] > 0] for row in rows]
        empty = [at for at, row in enumerate(known) if not len(row)]
        if empty:
            raise DataError(
                f"RecBole's {self.name} reads histories, and {len(empty)} of {len(known)} hold no item that training saw (first: query {empty[0]}); "
                "score such users by popularity or by text"
            )
        return Sequences.of_rows(known)


class RecBoleBackbone(RecBoleScorer):
    """A RecBole model whose score is a product of vectors: score = represent @ items.T. A general one needs no subprocess."""

    def __init__(self, folder: Path, *, threads: int = 2, silence_seconds: float = 7200.0, process: RecBoleProcess | None = None) -> None:
        super().__init__(folder, threads=threads, silence_seconds=silence_seconds, process=process)
        tables = load_file(folder / "vectors.safetensors")
        self._item_vectors = _by_num(tables["items"], self._item_rows)
        self._user_table = None if self._sequential else tables["users"]

    def items(self) -> FloatArray:
        """float32 (n_items, d); zero for items without training interactions."""
        return self._item_vectors

    def represent(self, queries: Queries) -> FloatArray:
        """float32 (B, d): of a general model the user's vector, of a sequential one the state after the history."""
        if self._user_table is not None:
            return self._user_table[self._known_users(queries)]
        parts = [self._ask("states", queries.slice(start, start + SCORE_ROWS)) for start in range(0, len(queries), SCORE_ROWS)]
        return np.concatenate(parts) if parts else np.zeros((0, self._item_vectors.shape[1]), dtype=np.float32)

    def score(self, queries: Queries, item_nums: IntArray) -> FloatArray:
        scores: FloatArray = self.represent(queries) @ self._item_vectors[item_nums].T
        return scores


def fit(
    config: RecBoleConfig,
    split: Split,
    *,
    seed: int,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
    checkpoint_seconds: float = 10.0,
) -> RecBoleFit:
    """Train on `split.train` alone; early stopping on NDCG@10 of `split.validation`, computed in the subprocess as our
    evaluator defines it. No test case leaves this process.

    checkpoint: folder; a training found there goes on from its last saved epoch (a finished one is only loaded).

    Raises:
        ArtifactError: the checkpoint is damaged or belongs to another training.
        DataError: an id that an atomic file cannot hold.
        NonFiniteError: the model scored NaN or +inf for a validation case; names the model, the epoch and the user.
        RecsysError: RecBole failed; with its last lines.
    """
    fingerprint = digest_of([config.digest(), split.digest, seed, torch.__version__, importlib.metadata.version("recbole")])
    if checkpoint is not None:
        checkpoint.mkdir(parents=True, exist_ok=True)
        require_own(checkpoint, fingerprint)  # before a process starts
    temporary = tempfile.TemporaryDirectory(prefix="recsys-recbole-fit-")
    folder = Path(temporary.name)
    write_atomic_file(split, folder / "train" / "train.inter")
    _write_validation(split, folder)
    write_json(folder / "settings.json", _settings(config, seed))
    process = RecBoleProcess(folder, threads=config.threads, silence_seconds=config.silence_seconds)

    def hear(message: dict[str, Any]) -> None:
        if progress is not None:
            progress(message["epoch"], message["epochs"], message["numbers"])

    try:
        place = None if checkpoint is None else str(checkpoint.absolute())
        found = process.ask({"do": "train", "checkpoint": place, "fingerprint": fingerprint, "every": checkpoint_seconds}, hear)
    except NotFiniteAnswerError as wrong:
        user_num = int(split.validation.user_nums[wrong.row])
        raise NonFiniteError(
            f"RecBole's {config.model} scored {wrong.value} after epoch {wrong.epoch} for user_num {user_num} (user_id {split.users.ids[user_num]!r}), "
            "a validation case: scores are finite, or -inf for an item that is never to be recommended; lower the learning rate"
        ) from None
    (folder / "validation.safetensors").unlink()
    write_json(folder / "facts.json", {"model": config.model} | {name: found[name] for name in ("sequential", "needs_user", "vectors")})
    in_process = found["vectors"] and not found["sequential"]
    if in_process:
        process.close()
    kind = RecBoleBackbone if found["vectors"] else RecBoleScorer
    scorer = kind(folder, threads=config.threads, silence_seconds=config.silence_seconds, process=None if in_process else process)
    scorer._temporary = temporary  # lives as long as the scorer
    facts = {name: found[name] for name in ("seconds", "settings", "capped", "best_epoch", "parameters", "peak_mb")}
    return RecBoleFit(scorer, tuple(found["history"]), **facts)


@cache
def offered_models() -> Mapping[str, tuple[str, ...]]:
    """Names by kind ("general", "sequential"), read from the installed package without importing it."""
    offered = {}
    for kind in ("general", "sequential"):
        text = (_package() / "model" / f"{kind}_recommender" / "__init__.py").read_text(encoding="utf-8")
        offered[kind] = tuple(re.findall(rf"^from recbole\.model\.{kind}_recommender\.\w+ import (\w+)", text, re.MULTILINE))
    return offered


def write_atomic_file(split: Split, path: Path) -> None:
    """The training interactions, and nothing else: user_id, item_id and the position in the user's history as time."""
    for vocabulary, noun in ((split.users, "user_id"), (split.items, "item_id")):
        bad = [i for i in vocabulary.ids if not i or i == "[PAD]" or any(c in i for c in "\t\r\n\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029")]
        if bad:
            raise DataError(f"RecBole's atomic files cannot hold the {noun} {bad[0]!r} ({len(bad)} such ids): no tab or line break, not empty, not '[PAD]'")
    lines = ["user_id:token\titem_id:token\ttimestamp:float"]
    for user_num, row in enumerate(split.train):
        user_id = split.users.ids[user_num]
        lines += [f"{user_id}\t{item_id}\t{position}" for position, item_id in enumerate(split.items.ids_of(row))]
    write_bytes(path, ("\n".join(lines) + "\n").encode())


def _write_validation(split: Split, folder: Path) -> None:
    cases = split.validation
    arrays = {
        "users": cases.user_nums,
        "targets": cases.targets,
        "offsets": cases.inputs.offsets,
        "items": cases.inputs.item_nums,
        "seen_offsets": cases.seen.offsets,
        "seen": cases.seen.item_nums,
    }
    save_file({name: torch.from_numpy(array.copy()) for name, array in arrays.items()}, folder / "validation.safetensors")
    write_json(folder / "ids.json", {"users": split.users.ids, "items": split.items.ids})


def _settings(config: RecBoleConfig, seed: int) -> dict[str, Any]:
    sequential = config.model in offered_models()["sequential"]
    columns = ["user_id", "item_id", "timestamp"] if sequential else ["user_id", "item_id"]
    settings: dict[str, Any] = {**config.parameters}
    if sequential and "train_neg_sample_args" not in settings and settings.get("loss_type", _model_defaults(config.model).get("loss_type")) == "CE":
        settings["train_neg_sample_args"] = None  # RecBole refuses negatives beside a full softmax
    settings |= {
        "load_col": {"inter": columns},
        "epochs": config.epochs,
        "stopping_step": config.epochs,
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
        "metrics": ["NDCG"],
        "topk": [10],
        "valid_metric": "NDCG@10",
        "eval_step": 1,
        "repeatable": sequential,
        "use_gpu": False,
        "gpu_id": "",
        "show_progress": False,
    }
    return {
        "model": config.model,
        "recbole": settings,
        "report": sorted({*_model_defaults(config.model), *config.parameters, "learner", "learning_rate", "train_batch_size", "weight_decay"}),
        "patience": config.patience,
        "max_seconds": config.max_seconds,
        "threads": config.threads,
        # RecBole hands it to numpy, which takes 32 bits.
        "seed": derive_seed(seed, "recbole", config.model) % 2**31,
    }


def _defaults(model: str) -> dict[str, Any]:
    shared = [_yaml("properties/overall.yaml"), _yaml("properties/dataset/sample.yaml")]
    return {name: value for part in (*shared, _model_defaults(model)) for name, value in part.items()}


def _model_defaults(model: str) -> dict[str, Any]:
    name = f"properties/model/{model}.yaml"
    return _yaml(name) if (_package() / name).is_file() else {}  # Random has no settings


@cache
def _yaml(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((_package() / name).read_text(encoding="utf-8")) or {}
    return found


def _package() -> Path:
    spec = importlib.util.find_spec("recbole")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("the recbole package is not installed: `make setup` installs it")
    return Path(spec.submodule_search_locations[0])


def _rows_of(vocabulary: Vocabulary, tokens: Sequence[str], noun: str) -> IntArray:
    """int64 (len(vocabulary),): RecBole's row of each number, 0 where it has none."""
    rows = np.zeros(len(vocabulary), dtype=np.int64)
    rows[vocabulary.nums(tokens, noun=noun)] = np.arange(1, len(tokens) + 1)
    return rows


def _by_num(table: FloatArray, rows: IntArray) -> FloatArray:
    """RecBole's table in the order of our numbers; zero where it has no row."""
    values: FloatArray = np.where((rows > 0)[:, None], table[rows], np.float32(0.0)).astype(np.float32)
    values.flags.writeable = False
    return values
