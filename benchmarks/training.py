"""SASRec and eSASRec against RecTools' and RecBole's: seconds a pass, and seconds to the same validation NDCG@10.

All: leave-last-out of one split, d = 64, 2 blocks, 1 head, last 50 items, dropout 0.2, Adam 1e-3, equal threads, early
stopping with equal patience. Ours and RecTools': batches of 128 histories, SASRec with the softmax over all items, eSASRec
with LiGR layers and a softmax over 256 sampled negatives. One evaluator judges all, ours: every item ranked, history
masked. RecTools hands vectors over after each pass; neither that nor the judging is counted. Preparing the data is not counted
for RecTools, and is for us.

A pass is not the same work everywhere. Ours predicts every item of every history once, RecTools the last 50 of each
history, RecBole too every item of every history, but as one sample of its own each (batches of 2048, its default).
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks import _synthetic
from benchmarks._child import PEERS, Child, peer
from benchmarks._data import real, split_of
from benchmarks._progress import say
from benchmarks._torch import ready
from benchmarks._vectors import VectorScorer
from recsys.data.sources.recbole import RecBoleSource
from recsys.data.split import Split
from recsys.evaluation.evaluate import evaluate
from recsys.heads.config import FusionConfig
from recsys.heads.fusion import fit_ranker
from recsys.losses import SampledSoftmaxLoss, SoftmaxLoss
from recsys.models.ligr import LigrConfig
from recsys.models.recbole import RecBoleConfig
from recsys.models.recbole import fit as fit_recbole
from recsys.models.sasrec import SasRecConfig
from recsys.training.config import TrainingConfig
from recsys.types import Scorer

NEGATIVES, BATCH = 256, 128
MODELS = {
    "SASRec": FusionConfig(encoder=SasRecConfig(blocks=2), loss=SoftmaxLoss(), projection=False),
    "eSASRec": FusionConfig(encoder=LigrConfig(blocks=2), loss=SampledSoftmaxLoss(negatives=NEGATIVES), projection=False),
}


@dataclass(frozen=True)
class Limits:
    """A training ends after `epochs` passes, `patience` passes without a new best, or the pass that ends after `cap` seconds."""

    epochs: int
    patience: int
    cap: float


@dataclass(frozen=True)
class Pass:
    """One pass over the training data: its seconds alone, and the validation NDCG@10 after it."""

    seconds: float
    ndcg: float


def run(*, small: bool = False, threads: int = 2) -> dict[str, Any]:
    ready(threads)
    rows: list[dict[str, Any]] = []
    pairs: list[dict[str, Any]] = []
    for data, split, limits in _plan(small):
        longer = Limits(limits.epochs, limits.patience, 2 * limits.cap)
        for model in MODELS:
            curves = {"ours": _ours(model, split, limits)}
            if PEERS.is_file():
                curves["RecTools"] = _rectools(model, split, limits, threads)
            # Its pass over ml-100k takes minutes, over Beauty longer than everything else here together.
            if model == "SASRec" and data != "amazon_beauty":
                curves["RecBole"] = _recbole(split, longer, threads)
            rows += [_row(data, model, by, curve, longer if by == "RecBole" else limits) for by, curve in curves.items()]
            pairs += [_pair(data, model, curves["ours"], by, curve) for by, curve in curves.items() if by != "ours" and curve]
    return {
        "threads": threads,
        "rectools": "0.19.0" if PEERS.is_file() else "not installed: make bench-peers",
        "trainings": rows,
        "to_the_same_validation_ndcg@10": pairs,
        "notes": [" ".join(part.split()) for part in (__doc__ or "").split("\n\n")[1:]],
    }


def _plan(small: bool) -> Iterator[tuple[str, Split, Limits]]:
    if small:
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / "events.parquet"
            _synthetic.write(path, 4_000, 200, 150, least=5)
            yield "synthetic", split_of(_synthetic.source(path)), Limits(2, 10, 20.0)
        return
    yield "ml-100k", split_of(RecBoleSource()), Limits(60, 10, 60.0)
    beauty = real("amazon_beauty")
    if beauty is not None:
        yield "amazon_beauty", split_of(beauty), Limits(60, 4, 60.0)


def seconds_to(curve: list[Pass], target: float) -> float | None:
    """Training seconds until the validation reaches `target`; None if it never does."""
    spent = 0.0
    for one in curve:
        spent += one.seconds
        if one.ndcg >= target:
            return spent
    return None


def _row(data: str, model: str, by: str, curve: list[Pass], limits: Limits) -> dict[str, Any]:
    if not curve:
        return {"data": data, "model": model, "by": by, "passes": 0, "ended_by": "killed within its first pass"}
    best = max(range(len(curve)), key=lambda number: curve[number].ndcg)
    spent = sum(one.seconds for one in curve)
    stale = len(curve) - 1 - best
    return {
        "data": data,
        "model": model,
        "by": by,
        "seconds_per_pass": round(statistics.median(one.seconds for one in curve), 3),
        "passes": len(curve),
        "best_validation_ndcg@10": round(curve[best].ndcg, 4),
        "best_pass": best + 1,
        "seconds": round(spent, 1),
        "ended_by": "patience" if stale >= limits.patience else "passes" if len(curve) >= limits.epochs else f"cap of {limits.cap:g} s",
    }


def _pair(data: str, model: str, ours: list[Pass], by: str, theirs: list[Pass]) -> dict[str, Any]:
    """The target is the lower of both bests, so that both reach it."""
    target = min(max(one.ndcg for one in curve) for curve in (ours, theirs))
    mine, other = seconds_to(ours, target), seconds_to(theirs, target)
    assert mine is not None and other is not None
    return {
        "data": data,
        "model": model,
        "peer": by,
        "target": round(target, 4),
        "ours_seconds": round(mine, 2),
        "peer_seconds": round(other, 2),
        "times_faster": round(other / mine, 2),
    }


def _ndcg(scorer: Scorer, split: Split) -> float:
    return evaluate(scorer, split.validation, ks=(10,), metrics=("ndcg",), lists=False).mean("ndcg@10")


def _ours(model: str, split: Split, limits: Limits) -> list[Pass]:
    curve: list[Pass] = []
    clock = [time.perf_counter()]

    def validate(scorer: Scorer) -> float:
        seconds = time.perf_counter() - clock[0]
        curve.append(Pass(seconds, _ndcg(scorer, split)))
        say(f"{model}, ours, pass {len(curve)}: {seconds:.2f} s, validation {curve[-1].ndcg:.4f}")
        clock[0] = time.perf_counter()
        return curve[-1].ndcg

    # The loop's own cap counts validation too; the last pass beyond the cap of training alone is left in.
    training = TrainingConfig(epochs=limits.epochs, patience=limits.patience, batch_size=BATCH, max_seconds=limits.cap)
    fit_ranker(MODELS[model].model_copy(update={"training": training}), split, {}, seed=0, validate=validate)
    return curve


def _rectools(model: str, split: Split, limits: Limits, threads: int) -> list[Pass]:
    encoder = MODELS[model].encoder
    curve: list[Pass] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        users = split.train.row_nums()
        pl.DataFrame({"user": users, "item": split.train.item_nums, "position": np.arange(len(users))}).write_parquet(folder / "train.parquet")
        np.save(folder / "users.npy", split.validation.user_nums, allow_pickle=False)
        settings = {"folder": str(folder), "threads": threads, "epochs": limits.epochs, "batch": BATCH, "ligr": model == "eSASRec"}
        settings |= {"dim": encoder.dim, "blocks": encoder.blocks, "heads": encoder.heads, "dropout": encoder.dropout, "length": encoder.max_length}
        settings |= {"negatives": NEGATIVES, "learning_rate": 1e-3}
        # The kill is for a pass that never ends; starting the process and our judging are within it.
        with Child(peer("_rectools_training.py", settings), cap=300.0 + 2 * limits.cap, threads=threads) as child:
            for message in child:
                states = np.zeros((len(split.users), encoder.dim), dtype=np.float32)
                states[split.validation.user_nums] = np.load(folder / "states.npy", allow_pickle=False)
                items, known = np.zeros((split.n_items, encoder.dim), dtype=np.float32), np.load(folder / "known.npy", allow_pickle=False)
                items[known] = np.load(folder / "items.npy", allow_pickle=False)
                scorable = np.isin(np.arange(split.n_items), known)
                curve.append(Pass(message["seconds"], _ndcg(VectorScorer(states, items, scorable), split)))
                say(f"{model}, RecTools, pass {len(curve)}: {curve[-1].seconds:.2f} s, validation {curve[-1].ndcg:.4f}")
                child.answer("stop" if _is_over(curve, limits) else "go")
    return curve


def _is_over(curve: list[Pass], limits: Limits) -> bool:
    best = max(range(len(curve)), key=lambda number: curve[number].ndcg)
    return len(curve) >= limits.epochs or len(curve) - 1 - best >= limits.patience or sum(one.seconds for one in curve) >= limits.cap


def _recbole(split: Split, limits: Limits, threads: int) -> list[Pass]:
    """Through the adapter: trained on our split and validated by our definition in RecBole's own process. Its seconds hold
    that validation, below one in a hundred of its pass."""
    parameters: dict[str, Any] = {
        "loss_type": "CE",
        "hidden_size": 64,
        "inner_size": 64,
        "n_layers": 2,
        "n_heads": 1,
        "hidden_dropout_prob": 0.2,
        "attn_dropout_prob": 0.2,
        "MAX_ITEM_LIST_LENGTH": 50,
        "learning_rate": 1e-3,
    }
    config = RecBoleConfig(
        model="SASRec", parameters=parameters, epochs=limits.epochs, patience=limits.patience, max_seconds=limits.cap, threads=threads, silence_seconds=900.0
    )
    fit = fit_recbole(config, split, seed=0, progress=lambda done, _, numbers: say(f"SASRec, RecBole, pass {done}: validation {numbers['ndcg@10']:.4f}"))
    fit.scorer.close()
    until = [0.0, *(epoch["seconds"] for epoch in fit.history)]
    return [Pass(until[number + 1] - until[number], epoch["ndcg@10"]) for number, epoch in enumerate(fit.history)]
