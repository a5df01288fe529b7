"""RecBole's SASRec on ml-100k, in a process of its own: prints one JSON line an epoch. Started by benchmarks.training.

RecBole 1.2.1 calls names that numpy 2 and scipy removed; they are put back here, in this process only.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import types
from typing import Any


def _patch() -> None:
    import numpy as np
    import scipy.sparse as sp

    for name, value in {"float_": np.float64, "complex_": np.complex128, "unicode_": np.str_, "bool8": np.bool_}.items():
        if not hasattr(np, name):
            setattr(np, name, value)
    if not hasattr(sp.dok_matrix, "_update"):
        sp.dok_matrix._update = lambda self, values: [self.__setitem__(k, v) for k, v in values.items()]
    for name in ("ray", "ray.tune"):
        sys.modules.setdefault(name, types.ModuleType(name))


def main(settings: dict[str, Any]) -> None:
    _patch()
    import torch
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.model.sequential_recommender import SASRec
    from recbole.trainer import Trainer

    sys.argv = sys.argv[:1]  # RecBole reads the arguments of whatever program imported it
    torch.set_num_threads(settings["threads"])
    logging.disable(logging.INFO)
    config = Config(
        model="SASRec",
        dataset="ml-100k",
        config_dict={
            "data_path": settings["data"],
            "checkpoint_dir": settings["checkpoints"],
            "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
            "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full", "group_by": "user"},
            "loss_type": "CE",
            "train_neg_sample_args": None,
            "hidden_size": 64,
            "inner_size": 64,
            "n_layers": 2,
            "n_heads": 1,
            "hidden_dropout_prob": 0.2,
            "attn_dropout_prob": 0.2,
            "MAX_ITEM_LIST_LENGTH": 50,
            "train_batch_size": 2048,
            "learning_rate": 1e-3,
            "metrics": ["NDCG"],
            "topk": [10],
            "valid_metric": "NDCG@10",
            "use_gpu": False,
            "show_progress": False,
            "seed": 0,
        },
    )
    dataset = create_dataset(config)
    train_data, valid_data, _ = data_preparation(config, dataset)
    model = SASRec(config, train_data.dataset)
    trainer = Trainer(config, model)
    spent = 0.0
    for epoch in range(settings["epochs"]):
        started = time.perf_counter()
        trainer._train_epoch(train_data, epoch, show_progress=False)
        seconds = time.perf_counter() - started
        spent += seconds
        ndcg = float(trainer._valid_epoch(valid_data, show_progress=False)[1]["ndcg@10"])
        print(json.dumps({"epoch": epoch + 1, "seconds": seconds, "ndcg@10": ndcg}), flush=True)
        if spent > settings["cap"]:
            break


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
