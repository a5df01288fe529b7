"""Our SASRec against RecBole's on ml-100k: seconds a pass over the training interactions, and seconds to the same quality.

Both: d = 64, 2 blocks, 1 head, last 50 items, dropout 0.2, Adam 1e-3, full softmax. RecBole makes one sample of each
position (batches of 2048, its default) where ours predicts all positions of a window at once. Validation NDCG@10 is taken
over the whole catalogue without masking what the user has seen, because RecBole does not mask it for sequential models.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recsys.data.sequences import Sequences
from recsys.data.sources.recbole import RecBoleSource
from recsys.data.split import Cases, Split, SplitConfig, make_split
from recsys.data.validation import ValidationConfig, clean
from recsys.evaluation.evaluate import evaluate
from recsys.heads.config import FusionConfig
from recsys.heads.fusion import fit_ranker
from recsys.models.sasrec import SasRecConfig
from recsys.training.config import TrainingConfig
from recsys.types import Scorer

EPOCHS, RECBOLE_EPOCHS, RECBOLE_CAP = 60, 30, 150.0


def run(threads: int = 2) -> dict[str, Any]:
    """One after the other, on equal threads."""
    torch.set_num_threads(threads)
    source = RecBoleSource()
    data = clean(source.read_interactions(), source.read_items(), ValidationConfig())
    split = make_split(SplitConfig(), data.interactions)
    ours = _ours(split)
    theirs = _recbole(threads)
    target = max(epoch["ndcg@10"] for epoch in theirs)
    mine, other = statistics.median(e["seconds"] for e in ours), statistics.median(e["seconds"] for e in theirs)
    return {
        "training_interactions": len(split.train.item_nums),
        "threads": threads,
        "ours_seconds_per_pass": round(mine, 3),
        "recbole_seconds_per_pass": round(other, 3),
        "times_faster_per_pass": round(other / mine, 1),
        "target_validation_ndcg@10": round(target, 4),
        "recbole_seconds_to_target": round(_seconds_to(theirs, target) or 0.0, 1),
        "recbole_passes": len(theirs),
        "recbole_capped_at_seconds": RECBOLE_CAP,
        "ours_seconds_to_target": None if (seconds := _seconds_to(ours, target)) is None else round(seconds, 1),
        "ours_best_validation_ndcg@10": round(max(e["ndcg@10"] for e in ours), 4),
        "ours_passes": len(ours),
    }


def _ours(split: Split) -> list[dict[str, float]]:
    """Seconds an epoch hold the training alone; validation is timed apart and left out, as with RecBole."""
    import time

    cases = split.validation
    unmasked = Cases(cases.user_nums, cases.inputs, Sequences.of_rows([np.zeros(0, dtype=np.int64)] * len(cases)), cases.targets)
    epochs: list[dict[str, float]] = []
    clock = [time.perf_counter()]

    def validate(scorer: Scorer) -> float:
        seconds = time.perf_counter() - clock[0]
        ndcg = evaluate(scorer, unmasked, ks=(10,)).mean("ndcg@10")
        epochs.append({"epoch": len(epochs) + 1, "seconds": seconds, "ndcg@10": ndcg})
        clock[0] = time.perf_counter()
        return ndcg

    config = FusionConfig(encoder=SasRecConfig(dropout=0.2), training=TrainingConfig(epochs=EPOCHS, patience=10), projection=False)
    fit_ranker(config, split, {}, seed=0, validate=validate)
    return epochs


def _recbole(threads: int) -> list[dict[str, float]]:
    folder = RecBoleSource().files()[0].parent.parent
    with tempfile.TemporaryDirectory() as temporary:
        settings = {"threads": threads, "data": str(folder), "checkpoints": temporary, "epochs": RECBOLE_EPOCHS, "cap": RECBOLE_CAP}
        script = Path(__file__).with_name("_recbole_sasrec.py")
        done = subprocess.run([sys.executable, str(script), json.dumps(settings)], capture_output=True, text=True, cwd=temporary, timeout=900)
    epochs = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"epoch"')]
    if not epochs:
        raise RuntimeError(f"RecBole did not train: {done.stderr[-2000:]}")
    return epochs


def _seconds_to(epochs: list[dict[str, float]], target: float) -> float | None:
    spent = 0.0
    for epoch in epochs:
        spent += epoch["seconds"]
        if epoch["ndcg@10"] >= target:
            return spent
    return None
