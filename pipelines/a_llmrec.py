"""A-LLMRec and its ablations: a frozen recommender, its items aligned with their texts, and both as tokens of a frozen language model. Each run
trains one model with one seed in a process of its own.

Data, split and recommender are those of the board (`baselines.yaml`); the models stand in `a_llmrec.yaml` beside it. A run of equal settings is
left alone; a killed one resumes, each of its three trainings from its own checkpoint.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from pipelines.a_llmrec_config import AlignmentFile
from pipelines.a_llmrec_users import FILE, UserList, cut_down, nums_of, trained_on_few
from pipelines.board_folders import BOARDS, STATE
from pipelines.board_training import Loaded, Provenance, checkpoint_of, fit_model, load_board, signal_tables
from pipelines.child import run_module
from pipelines.lite_llm import item_texts
from pipelines.progress import RichReporter, epochs_told
from recsys.config import digest_of
from recsys.errors import ArtifactError

if TYPE_CHECKING:
    from recsys.alignment.a_llmrec import ALLMRec
    from recsys.alignment.aligned import Aligned
    from recsys.alignment.stage1 import AlignedFit
    from recsys.alignment.stage2 import ProjectedFit
    from recsys.data.split import Cases, Split
    from recsys.evaluation.alignment_board import Ranks
    from recsys.types import BoolArray, FloatArray, Queries, Scorer

FOLDER = "a_llmrec"
"""Below the board: the runs."""
CUTOFF = 10


@dataclass(frozen=True)
class Prepared:
    """split: with the cases of the list alone, and the training that the model is given.  seconds: of the recommender's training."""

    loaded: Loaded
    split: Split
    users: UserList
    scorer: Scorer
    seconds: float
    titles: list[str]
    key: str


def run_models(
    path: Path, models: Sequence[str], console: Console, *, seeds: int | None = None, threads: int = 1, folder: Path | None = None,
    overrides: Sequence[str] = (), force: bool = False,
) -> list[Path]:  # fmt: skip
    """Run each of `models` (empty: all that are measured) with its seeds, one after the other. Returns the paths of the runs.

    Raises:
        ConfigError: an unknown data set or model.  RetryableError: a run was killed; the same command resumes.
    """
    file = AlignmentFile.of_file(path, overrides)
    names = models or [name for name, model in file.models.items() if model.ranked]
    for name in names:
        file.board(name)
    folder = folder or BOARDS / file.dataset
    done = []
    for name in names:
        for seed in range(seeds or file.model(name).seeds):
            run = folder / FOLDER / f"{name}-seed{seed}.json"
            if not force and _is_done(run, file, name):
                console.print(f"[dim]· {name} seed {seed}: done already[/]")
            else:
                console.print(f"[bold]{name}[/] seed {seed}")
                _child([str(path), name, str(seed), str(folder), str(threads), json.dumps(list(overrides))])
            done.append(run)
    return done


def render_board(path: Path, *, folder: Path | None = None, overrides: Sequence[str] = ()) -> tuple[dict[str, Any], str]:
    """Write `a_llmrec.json` and `a_llmrec.md` from the runs that are there. Returns their contents."""
    from recsys.artifacts.atomic import write_bytes, write_json
    from recsys.evaluation.alignment_board import board_document, markdown, read_alignment_board

    file = AlignmentFile.of_file(path, overrides)
    folder = folder or BOARDS / file.dataset
    document = board_document(read_alignment_board(folder / FOLDER), list(file.models))
    page = markdown(file.dataset, document, f"recsys a-llmrec {path}")
    write_json(folder / "a_llmrec.json", document)
    write_bytes(folder / "a_llmrec.md", page.encode())
    return document, page


def _is_done(run: Path, file: AlignmentFile, name: str) -> bool:
    from recsys.evaluation.alignment_board import read_alignment_run

    try:
        return file.is_of(name, read_alignment_run(run).document["config"])
    except ArtifactError:
        return False


def _child(arguments: list[str]) -> None:
    run_module("pipelines.a_llmrec", arguments, named=3)


def prepare(file: AlignmentFile, path: Path, name: str, threads: int) -> Prepared:
    """Data, list and the frozen recommender, which is trained where no checkpoint of it is found."""
    model, board = file.model(name), file.board(name)
    loaded = load_board(board)
    users = UserList.stored(path.with_name(FILE), file, loaded.split)
    split = loaded.split if model.few_users is None else trained_on_few(loaded.split, users, model.few_users)
    baseline = board.model(file.backbone)
    checkpoint = checkpoint_of(board, baseline, file.backbone, split, file.backbone_seed, {})
    Provenance.of(checkpoint, threads)
    fitted = fit_model(baseline, file.backbone, replace(loaded, split=split), file.backbone_seed, checkpoint, {})
    titles = item_texts(loaded.catalog, split.items, file.text)
    listed = cut_down(split, users)
    if model.few_users is not None:
        # Whoever did not train does not choose the epochs either.
        listed = replace(listed, validation=split.validation)
    return Prepared(loaded, listed, users, fitted.scorer, fitted.seconds, titles, digest_of([file.settings(name), loaded.split.digest, users.digest]))


def fit(file: AlignmentFile, name: str, seed: int, prepared: Prepared) -> tuple[AlignedFit, ProjectedFit]:
    """Both stages; what is finished is only loaded."""
    from recsys.alignment.frozen import FrozenBackbone
    from recsys.alignment.stage1 import fit_alignment
    from recsys.alignment.stage2 import fit_projection
    from recsys.evaluation.evaluate import evaluate
    from recsys.types import Backbone

    model, split = file.model(name), prepared.split
    if not isinstance(prepared.scorer, Backbone):
        raise ArtifactError(f"{file.backbone} has no vectors to align; name a model such as sasrec or lightgcn as `backbone`")
    table = signal_tables(file.board(name), {"texts": file.texts}, split)["texts"]
    texts_key = digest_of([file.backbone, file.backbone_seed, table.space_id, split.digest, model.matching.model_dump(mode="json")])
    frozen = FrozenBackbone(prepared.scorer, model.matching.users_by)

    def judged(scorer: Scorer) -> float:
        return evaluate(scorer, split.validation, ks=(CUTOFF,), metrics=("ndcg",), lists=False, split=split).mean(f"ndcg@{CUTOFF}")

    def judged_as_new(scorer: Scorer) -> float:
        # Warm items may keep the recommender's own scores, which no epoch moves: what is learned shows in the text side.
        aligned: Any = scorer
        return judged(aligned.all_new())

    checkpoint = _state(file, f"stage1-{texts_key[:12]}", seed)
    with epochs_told(f"{name} seed {seed}, stage 1") as progress:
        stage1 = fit_alignment(model.matching, split, frozen, table, seed=seed, checkpoint=checkpoint, validate=judged_as_new, progress=progress)

    def judged_model(found: ALLMRec) -> float:
        cases = split.validation
        return judged(found) if model.projection.catalogue_weight else -found.title_loss(cases.queries(), cases.targets)

    trained = prepared.users.train[: model.few_users or model.stage2_users]
    with _batches_told(f"{name} seed {seed}, stage 2", model.projection.training.epochs) as (on_batch, progress):
        stage2 = fit_projection(
            model.projection, split, stage1.aligned, prepared.titles, seed=seed, users=nums_of(split, trained), validate=judged_model,
            progress=progress, on_batch=on_batch, checkpoint=_state(file, f"{name}-{prepared.key[:12]}", seed),
        )  # fmt: skip
    return stage1, stage2


def _state(file: AlignmentFile, name: str, seed: int) -> Path:
    return STATE / file.dataset / f"a_llmrec-{name}-seed{seed}"


@contextmanager
def _batches_told(label: str, epochs: int) -> Iterator[tuple[Callable[[int, int], None], Callable[[int, int, Mapping[str, float]], None]]]:
    """A bar of users, for an epoch takes minutes; lines a epoch where the output is a file."""
    console = Console(stderr=True)
    state = {"epoch": 0, "note": ""}
    with RichReporter(console).task(label, "users") as advance:

        def on_batch(done: int, of: int) -> None:
            advance(int(state["epoch"]) * of + min(done, of), epochs * of, str(state["note"]))

        def progress(done: int, total: int, numbers: Mapping[str, float]) -> None:
            state["epoch"], state["note"] = done, " ".join(f"{key} {value:.4f}" for key, value in numbers.items() if key != "epoch")
            if not console.is_terminal:
                console.print(f"  {label} epoch {done}/{total} {state['note']}", soft_wrap=True)

        yield on_batch, progress


def _measured(prepared: Prepared, aligned: Aligned, model: ALLMRec, negatives: int) -> tuple[dict[str, Ranks], dict[str, float]]:
    """("part/way/protocol" -> ranks, way -> milliseconds a user). Ways: the recommender, stage 1, the catalogue by the language model's state, titles."""
    import numpy as np

    from recsys.evaluation.alignment_board import Ranks
    from recsys.evaluation.evaluate import evaluate
    from recsys.evaluation.offered import evaluate_offered
    from recsys.evaluation.sampled import Negatives, evaluate_sampled
    from recsys.heads.dot import HeadedScorer

    split = prepared.split
    ranks: dict[str, Ranks] = {}
    seconds: dict[str, list[float]] = {}
    scorers: dict[str, Any] = {"backbone": prepared.scorer, "stage1": aligned}
    if model.config.catalogue_weight:
        scorers["catalogue"] = HeadedScorer(_Remembered(model))
    parts: list[tuple[str, Cases]] = [("test", split.test), *([("cold", split.cold)] if len(split.cold) else [])]
    for part, cases in parts:
        drawn = Negatives.draw(split, "test" if part == "test" else "cold", count=negatives)
        for way, scorer in scorers.items():
            started = time.perf_counter()
            full = evaluate(scorer, cases, ks=(CUTOFF,), lists=False, split=split)
            seconds.setdefault(way, []).append((time.perf_counter() - started) / len(cases))
            sampled = evaluate_sampled(scorer, split, drawn)
            ranks |= {f"{part}/{way}/full": Ranks(full.better, full.tied), f"{part}/{way}/sampled": Ranks(sampled.better, sampled.tied)}
        started = time.perf_counter()
        offered = np.concatenate([cases.targets[:, None], drawn.item_nums], axis=1)
        titles = evaluate_offered("titles", cases, model.title_scores(cases.queries(), offered))
        seconds.setdefault("titles", []).append((time.perf_counter() - started) / len(cases))
        ranks[f"{part}/titles/sampled"] = Ranks(titles.better, titles.tied)
    return ranks, {way: 1000 * sum(each) / len(each) for way, each in seconds.items()}


class _Remembered:
    """A Backbone that reads the prompt of a history once, however often it is asked."""

    def __init__(self, model: ALLMRec) -> None:
        self._model = model
        self._states: dict[bytes, FloatArray] = {}

    @property
    def n_items(self) -> int:
        return self._model.n_items

    def scorable_items(self) -> BoolArray:
        return self._model.scorable_items()

    def items(self) -> FloatArray:
        return self._model.items()

    def represent(self, queries: Queries) -> FloatArray:
        import numpy as np

        keys = [history.tobytes() for history in queries.histories]
        missing = [row for row, key in enumerate(keys) if key not in self._states]
        if missing:
            asked = type(queries)(queries.user_nums[missing], [queries.histories[row] for row in missing])
            self._states |= dict(zip((keys[row] for row in missing), self._model.represent(asked), strict=True))
        return np.stack([self._states[key] for key in keys])


def _run(path: Path, name: str, seed: int, folder: Path, overrides: Sequence[str], threads: int) -> None:
    from recsys.artifacts.artifact import Manifest, write_artifact
    from recsys.evaluation.alignment_board import Slicing, figures_of, item_borders, write_alignment_run
    from recsys.evaluation.sampled import Negatives
    from recsys.training.memory import peak_mb

    file = AlignmentFile.of_file(path, overrides)
    model = file.model(name)
    prepared = prepare(file, path, name, threads)
    split = prepared.split
    state = _state(file, f"{name}-{prepared.key[:12]}", seed)
    provenance = Provenance.of(state, threads)
    stage1, stage2 = fit(file, name, seed, prepared)
    saved = Manifest(
        kind="a_llmrec", key=prepared.key, config_hash=digest_of(file.settings(name)), inputs={"split": split.digest}, code_version=provenance.commit
    )

    def save(target: Path) -> None:
        stage1.aligned.save(target / "stage1")
        stage2.model.save(target / "stage2")

    if not (state / "model").exists():
        write_artifact(state / "model", saved, save)
    if not model.ranked:
        Console(stderr=True).print(f"  trained -> {state / 'model'}", soft_wrap=True)
        return
    ranks, milliseconds = _measured(prepared, stage1.aligned, stage2.model, file.negatives)
    counts = split.item_counts()
    kinds = {"test": split.test, **({"cold": split.cold} if len(split.cold) else {})}
    slicings = {kind: Slicing(counts[cases.targets], cases.inputs.lengths) for kind, cases in kinds.items()}
    capped = [
        f"cap of {config.max_seconds:g} s"
        for config, fit_ in ((model.matching.training, stage1), (model.projection.training, stage2))
        if fit_.capped and config.max_seconds
    ]
    told = {name: len(cases) for name, cases in kinds.items()}
    negatives = {kind: Negatives.draw(split, "test" if kind == "test" else "cold", count=file.negatives).digest for kind in kinds}
    document = {
        "dataset": file.dataset, "model": name, "label": model.label, "seed": seed, "protocol": split.protocol, "split_hash": split.digest,
        "config": file.settings(name), "command": f"recsys a-llmrec {path} --model {name} --seeds {seed + 1}",
        "commit": provenance.commit, "threads": provenance.threads, "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "users": {"list": prepared.users.digest, "stage 2": stage2.examples, "validation": len(split.validation), **told}, "negatives": negatives,
        "seconds": {"backbone": round(prepared.seconds, 1), "stage 1": round(stage1.seconds, 1), "stage 2": round(stage2.seconds, 1)},
        "milliseconds": {way: round(value, 3) for way, value in milliseconds.items()},
        "parameters": {"stage 1": stage1.parameters, "stage 2": stage2.parameters},
        "epochs": {"stage 1": [len(stage1.history), stage1.best_epoch], "stage 2": [len(stage2.history), stage2.best_epoch]},
        "curves": {"stage 1": stage1.history, "stage 2": stage2.history}, "capped": capped, "peak_mb": round(max(peak_mb(), stage2.peak_mb), 1),
        "item_borders": item_borders(counts), "figures": {kind: figures_of(kind, ranks, slicings[kind], item_borders(counts)) for kind in kinds},
    }  # fmt: skip
    target = folder / FOLDER / f"{name}-seed{seed}.json"
    write_alignment_run(target, document, ranks, slicings)
    for kind in kinds:
        for way, slices in figures_of(kind, ranks, slicings[kind], item_borders(counts)).items():
            figures = " ".join(f"{metric} {value:.4f}" for metric, value in slices["all"].items() if metric != "count" and value is not None)
            Console(stderr=True).print(f"  {kind} {way:<10} {figures}", soft_wrap=True)
    Console(stderr=True).print(f"  -> {target}", soft_wrap=True)


def main(arguments: list[str]) -> None:
    """CONFIG MODEL SEED FOLDER THREADS OVERRIDES: what `_child` starts."""
    import torch

    path, name, seed, folder, threads, overrides = arguments
    torch.set_num_threads(int(threads))
    _run(Path(path), name, int(seed), Path(folder), json.loads(overrides), int(threads))


if __name__ == "__main__":
    main(sys.argv[1:])
