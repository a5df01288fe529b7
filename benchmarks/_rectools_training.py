"""RecTools' SASRecModel in the peers' environment. Started by benchmarks.training, which judges each pass and says whether to go on.

After each pass `items.npy` (known items, d), `known.npy` (their item_nums) and `states.npy` (users of `users.npy`, d) stand
in the folder, and one JSON line tells the pass's seconds, which hold the training alone.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel
from rectools.models.nn.item_net import IdEmbeddingsItemNet
from rectools.models.nn.transformers.ligr import LiGRLayers


class HandOver(pl.Callback):
    """Stops the clock, writes the vectors, waits for the answer."""

    def __init__(self, folder: Path, users: np.ndarray) -> None:
        self.folder, self.users = folder, users
        self.recommend: Any = None
        self.started = 0.0

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        self.started = time.perf_counter()

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        seconds = time.perf_counter() - self.started
        # The order of the states is that of the users in the recommend data set, which holds no other ones.
        dataset, loader = self.recommend
        states, items = module._get_user_item_embeddings(loader, "cpu")
        module.train()
        order = dataset.user_id_map.convert_to_internal(self.users)
        np.save(self.folder / "states.npy", states.numpy()[order], allow_pickle=False)
        extra = module.data_preparator.n_item_extra_tokens
        np.save(self.folder / "items.npy", items.numpy()[extra:], allow_pickle=False)
        np.save(self.folder / "known.npy", module.data_preparator.get_known_item_ids().astype(np.int64), allow_pickle=False)
        print(json.dumps({"seconds": seconds}), flush=True)
        if sys.stdin.readline().strip() != "go":
            trainer.should_stop = True


class Module(SASRecModel):
    """Prepares, once and before the clock runs, the histories whose states are handed over."""

    hand_over: HandOver

    def _init_lightning_model(self, *args: Any, **options: Any) -> None:
        super()._init_lightning_model(*args, **options)
        dataset = self.data_preparator.transform_dataset_u2i(self.whole, self.hand_over.users)
        self.hand_over.recommend = dataset, self.data_preparator.get_dataloader_recommend(dataset, self.recommend_batch_size)


def main(settings: dict[str, Any]) -> None:
    warnings.filterwarnings("ignore")
    torch.set_num_threads(settings["threads"])
    pl.seed_everything(0)
    folder = Path(settings["folder"])
    frame = pd.read_parquet(folder / "train.parquet")
    frame = frame.rename(columns={"user": Columns.User, "item": Columns.Item})
    frame[Columns.Datetime] = pd.to_datetime(frame.pop("position"), unit="s")
    frame[Columns.Weight] = 1.0
    dataset = Dataset.construct(frame)
    hand_over = HandOver(folder, np.load(folder / "users.npy", allow_pickle=False))

    def trainer() -> Any:
        return pl.Trainer(
            max_epochs=settings["epochs"],
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[hand_over],
        )

    ligr = {"transformer_layers_type": LiGRLayers, "loss": "sampled_softmax", "n_negatives": settings["negatives"]}
    model = Module(
        n_blocks=settings["blocks"],
        n_heads=settings["heads"],
        n_factors=settings["dim"],
        dropout_rate=settings["dropout"],
        session_max_len=settings["length"],
        batch_size=settings["batch"],
        lr=settings["learning_rate"],
        item_net_block_types=(IdEmbeddingsItemNet,),
        get_trainer_func=trainer,
        **(ligr if settings["ligr"] else {"loss": "softmax"}),
    )
    model.whole, model.hand_over = dataset, hand_over
    model.fit(dataset)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
