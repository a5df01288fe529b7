"""RecBole's own evaluation of given vectors, in a process of its own. Started by benchmarks.evaluation."""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._meter import metered, peak_mb

METRICS = {"recall": "Recall", "ndcg": "NDCG", "mrr": "MRR", "hit": "Hit", "map": "MAP", "precision": "Precision"}


def evaluate(folder: str, threads: int, users: int | None) -> Iterator[dict[str, Any]]:
    """users: evaluated at once; None leaves RecBole's default of 4096 (user, item) pairs."""
    from recsys.models._recbole_worker import _patch

    _patch()
    import torch
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.model.general_recommender import BPR
    from recbole.trainer import Trainer

    sys.argv = sys.argv[:1]  # RecBole reads the arguments of whatever program imported it
    torch.set_num_threads(threads)
    logging.disable(logging.INFO)
    arrays = {name: np.load(Path(folder) / f"{name}.npy", allow_pickle=False) for name in ("items", "states", "targets", "seen_offsets", "seen_items")}
    with tempfile.TemporaryDirectory() as temporary:
        _write(Path(temporary) / "vectors", arrays)
        settings: dict[str, Any] = {
            "data_path": temporary,
            "checkpoint_dir": temporary,
            "benchmark_filename": ["train", "valid", "test"],
            "load_col": {"inter": ["user_id", "item_id"]},
            "eval_args": {"split": None, "order": "RO", "group_by": None, "mode": "full"},
            "embedding_size": arrays["items"].shape[1],
            "metrics": list(METRICS.values()),
            "topk": [10],
            "valid_metric": "NDCG@10",
            "metric_decimal_place": 10,
            "use_gpu": False,
            "gpu_id": "",
            "show_progress": False,
            "seed": 0,
        }
        if users is not None:
            settings["eval_batch_size"] = users * (len(arrays["items"]) + 1)
        config = Config(model="BPR", dataset="vectors", config_dict=settings)
        dataset = create_dataset(config)
        train, _, test = data_preparation(config, dataset)
        model = BPR(config, train.dataset)
        for table, rows, noun in ((model.user_embedding, arrays["states"], "user_id"), (model.item_embedding, arrays["items"], "item_id")):
            # Row 0 is padding; RecBole numbers the rest in the order in which it meets them.
            nums = train.dataset.field2id_token[noun][1:].astype(np.int64)
            table.weight.data[1:] = torch.from_numpy(rows[nums])
        trainer = Trainer(config, model)
        before = peak_mb()
        with metered() as cost:
            found = trainer.evaluate(test, load_best_model=False)
    yield {"seconds": cost["seconds"], "peak_mb": max(before, cost["peak_mb"]), "metrics": {name: float(found[f"{name}@10"]) for name in METRICS}}


def _write(folder: Path, arrays: dict[str, Any]) -> None:
    """Seen items as training (all but each user's last) and validation, targets as test."""
    folder.mkdir()
    offsets = arrays["seen_offsets"]
    users = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    is_last = np.zeros(len(users), dtype=np.bool_)
    is_last[offsets[1:] - 1] = True
    parts = {
        "train": (users[~is_last], arrays["seen_items"][~is_last]),
        "valid": (users[is_last], arrays["seen_items"][is_last]),
        "test": (np.arange(len(arrays["targets"])), arrays["targets"]),
    }
    for name, (user_nums, item_nums) in parts.items():
        lines = ["user_id:token\titem_id:token", *(f"{user}\t{item}" for user, item in zip(user_nums.tolist(), item_nums.tolist(), strict=True))]
        (folder / f"vectors.{name}.inter").write_text("\n".join(lines) + "\n", encoding="utf-8")
