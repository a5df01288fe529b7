"""Lite-LLM4Rec and its ablations on the board of a data set: each run trains one model with one seed in a process of its own.

Data, split and encoders' limits are those of the board (`baselines.yaml`); the models stand in `lite_llm.yaml` beside it. A record of
equal settings is left alone and a killed training resumes from its checkpoint.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, model_validator
from rich.console import Console

from pipelines.board_config import BoardConfig, expanded
from pipelines.board_folders import BOARDS, STATE
from pipelines.board_training import Provenance, load_board, signal_tables
from pipelines.child import run_module
from pipelines.progress import epochs_told
from pipelines.run_records import Identity, is_recorded, record_run
from pipelines.signal_config import Signal
from recsys.config import Config, apply_overrides, digest_of, read_yaml
from recsys.errors import ConfigError
from recsys.heads.lite_config import LiteConfig

if TYPE_CHECKING:
    from recsys.data.catalog import ItemCatalog
    from recsys.data.split import Cases
    from recsys.data.vocabulary import Vocabulary
    from recsys.types import Scorer


class LiteModel(Config):
    label: str
    vectors: Signal | None = None
    """The item LLM: where the vectors of the items come from, as a signal of a fused ranker. Null where none are read."""
    text: str = "{title}"
    """What is read or generated of an item in words."""
    settings: LiteConfig = LiteConfig()
    seeds: Annotated[int, Field(ge=1)] = 1
    """Runs with seeds 0 to this number less one."""
    validation_cases: Annotated[int, Field(ge=1)] | None = None
    """Epochs are judged on so many validation cases, evenly spread; null: all. For the costly ones."""

    @model_validator(mode="after")
    def _vectors_are_read(self) -> Self:
        if self.settings.needs_vectors != (self.vectors is not None):
            raise ValueError(
                f"reader: {self.settings.reader} with head: {self.settings.head} {'needs' if self.settings.needs_vectors else 'reads no'} `vectors`"
            )
        return self

    def is_of(self, config: Mapping[str, Any]) -> bool:
        """Whether a record of `config` is of this model. Raises ConfigError: settings that this code does not know."""
        # How many seeds there are is not what one of them is.
        return type(self).parse({**config["model"], "seeds": self.seeds}) == self


class LiteFile(Config):
    dataset: str
    vectors: dict[str, Signal] = Field(default_factory=dict)
    """For the anchors of YAML."""
    models: dict[str, LiteModel]

    @classmethod
    def of_file(cls, path: Path, overrides: Sequence[str] = ()) -> Self:
        """Raises ConfigError."""
        return cls.parse(expanded(apply_overrides(read_yaml(path), list(overrides)), str(path)), source=str(path))

    def model(self, name: str) -> LiteModel:
        if name not in self.models:
            raise ConfigError(f"no model {name!r} of {self.dataset}; there are: {', '.join(self.models)}")
        return self.models[name]


def run_models(
    path: Path, models: Sequence[str], console: Console, *, seeds: int | None = None, threads: int = 2, folder: Path | None = None,
    overrides: Sequence[str] = (), force: bool = False,
) -> list[Path]:  # fmt: skip
    """Run each of `models` (empty: all) with its seeds, one after the other. Returns the records' paths.

    Raises:
        ConfigError: an unknown data set or model.  RetryableError: a run was killed; the same command resumes.
    """
    file = LiteFile.of_file(path, overrides)
    board = BoardConfig.of_dataset(file.dataset)
    for name in models:
        file.model(name)
    folder = folder or BOARDS / file.dataset
    split_hash = load_board(board).split.digest
    records = []
    for name in models or file.models:
        for seed in range(seeds or file.model(name).seeds):
            identity = identity_of(file, board, name, seed, path)
            record = folder / f"{identity.stem}.json"
            if not force and is_recorded(record, split_hash, file.model(name).is_of):
                console.print(f"[dim]· {name} seed {seed}: done already[/]")
            else:
                console.print(f"[bold]{name}[/] seed {seed}")
                _child([str(path), name, str(seed), str(folder), str(threads), json.dumps(list(overrides))])
            records.append(record)
    return records


def identity_of(file: LiteFile, board: BoardConfig, name: str, seed: int, path: Path) -> Identity:
    model = file.model(name)
    config = {"model": model.model_dump(mode="json", exclude={"seeds"}), "split": board.split.model_dump(mode="json")}
    return Identity(file.dataset, name, model.label, seed, config, f"recsys lite-llm {path} --model {name} --seeds {seed + 1}")


def item_texts(catalog: ItemCatalog, items: Vocabulary, template: str) -> list[str]:
    """One text an item_num, its title or item_id where the template has nothing."""
    found = dict(zip(catalog.items.ids, zip(catalog.texts(template), catalog.titles(), strict=True), strict=True))
    return [text or title for text, title in (found[item_id] for item_id in items.ids)]


def some_cases(cases: Cases, count: int | None) -> Cases:
    """Evenly spread over the cases; None: all."""
    import numpy as np

    if count is None or count >= len(cases):
        return cases
    rows = np.linspace(0, len(cases) - 1, count).astype(np.int64).tolist()
    return type(cases).of_rows([(int(cases.user_nums[row]), cases.inputs[row], cases.seen[row], int(cases.targets[row])) for row in rows])


def _child(arguments: list[str]) -> None:
    run_module("pipelines.lite_llm", arguments, named=3)


def _run(path: Path, name: str, seed: int, folder: Path, overrides: Sequence[str], threads: int) -> None:
    from pipelines.baselines import Fitted
    from recsys.artifacts.artifact import Manifest, write_artifact
    from recsys.evaluation.evaluate import evaluate
    from recsys.heads.lite_fitting import fit_lite

    file = LiteFile.of_file(path, overrides)
    board = BoardConfig.of_dataset(file.dataset)
    model, loaded = file.model(name), load_board(board)
    split = loaded.split
    table = signal_tables(board, {"vectors": model.vectors}, split)["vectors"] if model.vectors is not None else None
    texts = item_texts(loaded.catalog, split.items, model.text) if model.settings.needs_titles else None
    identity = identity_of(file, board, name, seed, path)
    key = digest_of([identity.config, split.digest, table.space_id if table else "", seed])
    checkpoint = STATE / file.dataset / f"{name}-{key[:12]}-seed{seed}"
    provenance = Provenance.of(checkpoint, threads)
    judged = some_cases(split.validation, model.validation_cases)

    def validate(scorer: Scorer) -> float:
        return evaluate(scorer, judged, ks=(10,), metrics=("ndcg",), lists=False, split=split).mean("ndcg@10")

    with epochs_told(f"{name} seed {seed}") as progress:
        fit = fit_lite(model.settings, split, table=table, titles=texts, seed=seed, checkpoint=checkpoint, validate=validate, progress=progress)
    spaces = {"vectors": table.space_id} if table is not None else {}
    capped = f"cap of {model.settings.training.max_seconds:g} s" if fit.capped and model.settings.training.max_seconds else None
    fitted = Fitted(fit.scorer, fit.seconds, fit.history, fit.best_epoch, capped, fit.parameters, fit.peak_mb, spaces)
    record = record_run(folder, identity, loaded, fitted, provenance, costly=model.settings.head == "generative")
    inputs = {"split": split.digest, **spaces}
    artifact = Manifest(kind="lite_llm", key=key, config_hash=digest_of(identity.config), inputs=inputs, code_version=provenance.commit)
    saved = checkpoint / "model"
    if not saved.exists():
        write_artifact(saved, artifact, fit.scorer.save)
    Console().print(
        f"  test recall@10 {record.metrics['recall@10']:.4f}  ndcg@10 {record.metrics['ndcg@10']:.4f}  "
        f"{record.inference_ms_per_user:.2f} ms a user  -> {folder / record.stem}.json, {saved}",
        soft_wrap=True,
    )


def main(arguments: list[str]) -> None:
    """CONFIG MODEL SEED FOLDER THREADS OVERRIDES: what `_child` starts."""
    import torch

    path, name, seed, folder, threads, overrides = arguments
    torch.set_num_threads(int(threads))
    _run(Path(path), name, int(seed), Path(folder), json.loads(overrides), int(threads))


if __name__ == "__main__":
    main(sys.argv[1:])
