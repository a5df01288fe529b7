"""RecTools' own evaluation of given vectors, in the peers' environment. Started by benchmarks.evaluation."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from _meter import metered, peak_mb
from rectools import Columns
from rectools.metrics import MAP, MRR, NDCG, HitRate, Precision, Recall, calc_metrics
from rectools.models.rank import Distance, ImplicitRanker, TorchRanker
from scipy import sparse

K = 10


def main(settings: dict[str, Any]) -> None:
    torch.set_num_threads(settings["threads"])
    folder = Path(settings["folder"])
    arrays = {name: np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("items", "states", "targets", "seen_offsets", "seen_items")}
    users = np.arange(len(arrays["targets"]))
    ones = np.ones(len(arrays["seen_items"]), dtype=np.float32)
    seen = sparse.csr_matrix((ones, arrays["seen_items"], arrays["seen_offsets"]), shape=(len(users), len(arrays["items"])))
    targets = pd.DataFrame({Columns.User: users, Columns.Item: arrays["targets"]})
    metrics = {
        "recall": Recall(K),
        # The ideal of one target is 1, not that of ten.
        "ndcg": NDCG(K, divide_by_achievable=True),
        "mrr": MRR(K),
        "hit": HitRate(K),
        "map": MAP(K),
        "precision": Precision(K),
    }
    before = peak_mb()
    with metered() as cost:
        if settings["ranker"] == "TorchRanker":
            ranker: Any = TorchRanker(distance=Distance.DOT, device="cpu", subjects_factors=arrays["states"], objects_factors=arrays["items"])
        else:
            ranker = ImplicitRanker(Distance.DOT, arrays["states"], arrays["items"], num_threads=settings["threads"])
        user_nums, item_nums, scores = ranker.rank(users, k=K, filter_pairs_csr=seen)
        table = pd.DataFrame({Columns.User: user_nums, Columns.Item: item_nums, Columns.Score: scores})
        table[Columns.Rank] = table.groupby(Columns.User, sort=False).cumcount() + 1
        found = calc_metrics(metrics, table, interactions=targets)
    values = {name: float(found[name]) for name in metrics}
    print(json.dumps({"seconds": cost["seconds"], "peak_mb": max(before, cost["peak_mb"]), "metrics": values}), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
