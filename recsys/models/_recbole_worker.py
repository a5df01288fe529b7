"""RecBole in a process of its own: started by path by `recsys.models._recbole_process`, never imported by the library.

RecBole 1.2.1 calls names that numpy 2 and scipy removed, and evaluates strings of its settings as Python. What it needs
is put back, and what it must not do is taken away, in this process only. Requests come as JSON lines on stdin, answers
go as JSON lines to stdout; arrays travel as safetensors files. Nothing here reads or writes a pickle. Of this library it
imports what is light, for RecBole's process starts with each fit.

Row 0 of every RecBole table is its padding; rows follow `rows.json`.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import logging
import os
import sys
import threading
import time
import types
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import scipy.sparse as sp
import torch
from safetensors.torch import load_file, save_file

from recsys.models._recbole_checkpoint import Checkpoint, Training
from recsys.training.memory import peak_mb

PAIRS = 1 << 16
"""(user, item) pairs that a model without a full sort scores at once."""
ROWS = 256
"""Users that are scored at once."""
K = 10
"""Validation is NDCG@10."""


class _Stop(Exception):  # noqa: N818 (leaves the training loop; no error)
    """Training ends here."""


class _NotFinite(Exception):  # noqa: N818 (the parent knows the names, and raises the error)
    """row: of the users that were asked for.  item: row of the item table.  epoch: 0 after training."""

    def __init__(self, row: int, item: int, value: float) -> None:
        super().__init__(row, item, value)
        self.row, self.item, self.value, self.epoch = row, item, value, 0


def _patch() -> None:
    for name, value in {"float_": np.float64, "complex_": np.complex128, "unicode_": np.str_, "bool8": np.bool_}.items():
        if not hasattr(np, name):
            setattr(np, name, value)
    if not hasattr(sp.dok_matrix, "_update"):
        sp.dok_matrix._update = lambda self, values: self._dict.update(values)  # type: ignore[attr-defined]
    # Hyper-parameter search and its own logs: neither is used here, and each is slow or impossible to import.
    for name in ("ray", "ray.tune"):
        sys.modules.setdefault(name, types.ModuleType(name))
    board = types.ModuleType("torch.utils.tensorboard")
    board.SummaryWriter = _NoBoard  # type: ignore[attr-defined]
    sys.modules["torch.utils.tensorboard"] = board

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("torch.load and torch.save are pickle, which is not used here; leave the pre-trained files out of the parameters")

    torch.load = torch.save = refuse
    import csv

    import pandas as pd

    read_csv = pd.read_csv
    # An id may be called NA or hold a quotation mark.
    pd.read_csv = lambda *args, **options: read_csv(*args, **{**options, "keep_default_na": False, "quoting": csv.QUOTE_NONE})
    from recbole.config import Config

    # It runs eval() on every string; our settings are typed already.
    Config._convert_config_dict = lambda self, values: values


class _NoBoard:
    def __init__(self, *_: object, **__: object) -> None: ...

    def add_scalar(self, *_: object, **__: object) -> None: ...

    def add_hparams(self, *_: object, **__: object) -> None: ...


class Session:
    """One model on one folder: `train/train.inter`, `settings.json`, and what training writes beside them."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        from recbole.config import Config
        from recbole.data import create_dataset
        from recbole.utils import ModelType, get_model, init_seed

        self.folder = folder
        self.settings: dict[str, Any] = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        torch.set_num_threads(self.settings["threads"])
        own = {"data_path": str(folder), "checkpoint_dir": str(scratch), "seed": self.settings["seed"]}
        self.config = Config(model=self.settings["model"], dataset="train", config_dict={**self.settings["recbole"], **own})
        init_seed(self.config["seed"], self.config["reproducibility"])
        self.dataset = create_dataset(self.config)
        # All of the file is for training: RecBole's own split is passed by.
        self.dataset._change_feat_format()
        self.sequential = self.config["MODEL_TYPE"] == ModelType.SEQUENTIAL
        self.loader = self._train_loader()
        self.model = get_model(self.config["model"])(self.config, self.loader.dataset).to("cpu")
        self.n_users, self.n_items = self.dataset.user_num, self.dataset.item_num

    def _train_loader(self) -> Any:
        from recbole.data.utils import get_dataloader
        from recbole.sampler import RepeatableSampler, Sampler

        options = self.config["train_neg_sample_args"]
        sampler = None
        if options["distribution"] != "none":
            kind = RepeatableSampler if self.config["repeatable"] else Sampler
            sampler = kind(["train"], self.dataset, options["distribution"], options["alpha"]).set_phase("train")
        return get_dataloader(self.config, "train")(self.config, self.dataset, sampler, shuffle=self.config["shuffle"])

    # --- training ---------------------------------------------------------------------------------------------------

    def train(self, say: Any, checkpoint: Checkpoint) -> dict[str, Any]:
        """Fit with early stopping on validation NDCG@10; writes rows, weights and, where they exist, vectors. What the
        checkpoint holds is gone on with; a finished training is only loaded."""
        from recbole.utils import get_trainer

        trainer = get_trainer(self.config["MODEL_TYPE"], self.config["model"])(self.config, self.model)
        tokens = {name: self.dataset.field2id_token[f"{name}_id"].tolist() for name in ("user", "item")}
        (self.folder / "rows.json").write_text(json.dumps({"users": tokens["user"][1:], "items": tokens["item"][1:]}, ensure_ascii=False), encoding="utf-8")
        validation = _Validation(self.folder, tokens)
        done = Training()
        found = checkpoint.load(self, trainer)
        if found is not None:
            done, trainer.start_epoch = found, len(found.history)
        before, started = done.seconds, time.perf_counter()
        cap, patience = self.settings["max_seconds"], self.settings["patience"]

        def valid_epoch(*_: object, **__: object) -> tuple[float, dict[str, float]]:
            epoch = len(done.history) + 1
            try:
                ndcg = validation.ndcg(self)
            except _NotFinite as found:
                found.epoch = epoch
                raise
            done.seconds = spent = before + time.perf_counter() - started
            done.history.append({"epoch": epoch, "loss": float(trainer.train_loss_dict[epoch - 1]), "ndcg@10": ndcg, "seconds": spent})
            if ndcg > done.best:
                done.best, done.best_epoch, done.weights = ndcg, epoch, self.state()
            patient = epoch - done.best_epoch < patience
            if patient and cap is not None and spent > cap and epoch < trainer.epochs:
                done.capped = f"stopped after epoch {epoch} of {trainer.epochs}: {spent:.1f} s passed the cap of {cap:g} s"
            done.finished = not patient or done.capped is not None or epoch >= trainer.epochs
            done.peak_mb = max(done.peak_mb, peak_mb())
            checkpoint.save(self, trainer, done)
            say({"epoch": epoch, "epochs": trainer.epochs, "numbers": done.history[-1]})
            if done.finished:
                raise _Stop
            return ndcg, {"ndcg@10": ndcg}

        trainer._valid_epoch = valid_epoch
        if not done.finished:
            with contextlib.suppress(_Stop):
                trainer.fit(self.loader, valid_data=True, verbose=False, saved=False, show_progress=False)
        if not done.history:
            raise RuntimeError(f"{self.config['model']} was never validated: its trainer has stages of its own, which this adapter does not run")
        self.set_state(done.weights)
        save_file(done.weights, self.folder / "weights.safetensors")
        vectors = self._vectors()
        if vectors is not None:
            save_file({name: table.detach().float().clone().contiguous() for name, table in vectors.items()}, self.folder / "vectors.safetensors")
        return {
            "sequential": self.sequential,
            "needs_user": self._needs_user(),
            "vectors": vectors is not None,
            "history": done.history,
            "best_epoch": done.best_epoch,
            "capped": done.capped,
            "seconds": done.seconds,
            "settings": {name: self.config[name] for name in self.settings["report"]},
            "parameters": self._parameters(),
            "peak_mb": done.peak_mb,
        }

    def _parameters(self) -> int:
        """Trained numbers. RecBole's models without gradients hold one that is never used."""
        from recbole.utils import ModelType

        return 0 if self.model.type == ModelType.TRADITIONAL else sum(p.numel() for p in self.model.parameters() if p.requires_grad)

    def state(self) -> dict[str, torch.Tensor]:
        """All that decides a score as dense tensors: weights, and what RecBole calls other parameters."""
        state = {f"weight/{name}": value.detach().clone().contiguous() for name, value in self.model.state_dict().items() if not value.is_sparse}
        for name, value in self.model.other_parameter().items():
            if value is None or name.startswith("restore_"):
                continue  # a cache: made again from the weights
            key = f"other/{name}"
            if sp.issparse(value):
                matrix = value.tocsr()  # type: ignore[attr-defined]
                state |= {f"{key}.{part}": torch.from_numpy(np.array(getattr(matrix, part))) for part in ("data", "indices", "indptr")}
                state[f"{key}.shape"] = torch.tensor(matrix.shape)
            elif isinstance(value, torch.Tensor) and not value.is_sparse:
                state[key] = value.detach().clone().contiguous()
            elif isinstance(value, np.ndarray | float | int):
                state[key] = torch.from_numpy(np.array(value))
            elif not isinstance(value, torch.nn.Module):  # whose weights are in state_dict
                raise RuntimeError(f"{self.config['model']} keeps {name!r} as {type(value).__name__}, which cannot be saved as a tensor")
        return state

    def set_state(self, state: dict[str, torch.Tensor]) -> None:
        weights = {name.removeprefix("weight/"): value for name, value in state.items() if name.startswith("weight/")}
        # Sparse buffers are graphs, which the model builds from the interactions.
        sparse = {name for name, value in self.model.state_dict().items() if value.is_sparse}
        missing, unexpected = self.model.load_state_dict(weights, strict=False)
        if unexpected or set(missing) - sparse:
            raise RuntimeError(f"the weights are of another {self.config['model']}: missing {missing}, unexpected {unexpected}")
        for name, now in self.model.other_parameter().items():
            key = f"other/{name}"
            if name.startswith("restore_"):
                setattr(self.model, name, None)
            elif f"{key}.shape" in state:
                parts = tuple(state[f"{key}.{part}"].numpy() for part in ("data", "indices", "indptr"))
                setattr(self.model, name, sp.csr_matrix(parts, shape=tuple(state[f"{key}.shape"].tolist())))
            elif key in state:
                value = state[key]
                if isinstance(now, np.matrix):
                    setattr(self.model, name, np.asmatrix(value.numpy()))
                elif isinstance(now, torch.Tensor):
                    setattr(self.model, name, value)
                else:
                    setattr(self.model, name, value.numpy() if value.ndim else value.item())

    def open(self) -> None:
        """Load the fitted weights."""
        self.set_state(load_file(self.folder / "weights.safetensors"))

    # --- scores -----------------------------------------------------------------------------------------------------

    def scores(self, users: torch.Tensor, offsets: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """float32 (B, n_items): the model's own score of every row of its item table for each user row; see `_finite`.

        Raises:
            _NotFinite: NaN or +inf for an item.
        """
        parts = self._by_rows(self._full_sort, users, offsets, items)
        return _finite(torch.cat(parts).float()) if parts else torch.zeros(0, self.n_items)

    def states(self, users: torch.Tensor, offsets: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """float32 (B, d) of a sequential model."""
        return torch.cat(self._by_rows(self._forward, users, offsets, items)).float()

    def _by_rows(self, compute: Any, users: torch.Tensor, offsets: torch.Tensor, items: torch.Tensor) -> list[torch.Tensor]:
        self.model.eval()
        with torch.no_grad():
            starts = range(0, len(users), ROWS)
            return [compute(self._interaction(users[start : start + ROWS], offsets[start : start + ROWS + 1], items)) for start in starts]

    def _forward(self, inputs: Any) -> torch.Tensor:
        states: torch.Tensor = self.model.forward(inputs[self.model.ITEM_SEQ], inputs[self.model.ITEM_SEQ_LEN])
        return states

    def _full_sort(self, inputs: Any) -> torch.Tensor:
        try:
            found = self.model.full_sort_predict(inputs)
        except NotImplementedError:
            found = self._by_pairs(inputs)
        return torch.as_tensor(found).reshape(len(inputs), self.n_items)

    def _by_pairs(self, inputs: Any) -> torch.Tensor:
        from recbole.data.interaction import Interaction

        parts = []
        step = max(1, PAIRS // self.n_items)
        for start in range(0, len(inputs), step):
            some = inputs[start : start + step]
            pairs = some.repeat_interleave(self.n_items)
            pairs.update(Interaction({self.model.ITEM_ID: torch.arange(self.n_items).repeat(len(some))}))
            parts.append(self.model.predict(pairs).reshape(-1))
        return torch.cat(parts)

    def _interaction(self, users: torch.Tensor, offsets: torch.Tensor, items: torch.Tensor) -> Any:
        from recbole.data.interaction import Interaction

        columns = {self.config["USER_ID_FIELD"]: users}
        if self.sequential:
            length = self.config["MAX_ITEM_LIST_LENGTH"]
            padded = torch.zeros(len(users), length, dtype=torch.int64)
            for row, (start, stop) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
                last = items[max(start, stop - length) : stop]
                padded[row, : len(last)] = last
            columns |= {self.model.ITEM_SEQ: padded, self.model.ITEM_SEQ_LEN: (offsets[1:] - offsets[:-1]).clamp(max=length)}
        return Interaction(columns)

    # --- vectors ----------------------------------------------------------------------------------------------------

    def _needs_user(self) -> bool:
        return not self.sequential or "interaction[self.USER_ID]" in inspect.getsource(inspect.getmodule(type(self.model)) or type(self.model))

    def _vectors(self) -> dict[str, torch.Tensor] | None:
        """The tables whose product is the model's own score, or None. Found by trying, not by a list of names: a table
        that only looks like user or item vectors never passes."""
        if self.sequential:
            if self._needs_user() or len(inspect.signature(self.model.forward).parameters) != 2:
                return None
            some = self.dataset.inter_feat[:64]
            with torch.no_grad():
                self.model.eval()
                full, states = self._full_sort(some), self._forward(some)
            if states.ndim != 2:
                return None
            found = self._table_of(self.n_items, states, full)
            return None if found is None else {"items": found}
        users = torch.arange(1, min(self.n_users, 65))
        try:
            full = self.scores(users, torch.zeros(len(users) + 1, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
        except _NotFinite:
            return None  # an error where somebody asks for these scores
        for table in self._tables(self.n_users):
            found = self._table_of(self.n_items, table[users], full)
            if found is not None:
                return {"users": table, "items": found}
        return None

    def _table_of(self, rows: int, states: torch.Tensor, full: torch.Tensor) -> torch.Tensor | None:
        expected = full[:, 1:].float()
        for table in self._tables(rows):
            if table.shape[1] == states.shape[1]:
                product = states.float() @ table.float()[1:].T
                if torch.allclose(product, expected, rtol=1e-4, atol=1e-5 * max(1.0, float(expected.abs().max()))):
                    return table
        return None

    def _tables(self, rows: int) -> list[torch.Tensor]:
        plain = [value for value in vars(self.model).values() if isinstance(value, torch.Tensor)]
        return [t.detach() for t in (*plain, *self.model.parameters()) if not t.is_sparse and t.ndim == 2 and t.shape[0] == rows and t.is_floating_point()]


class _Validation:
    """NDCG@10 over the cases of `validation.safetensors`, as `recsys.evaluation` defines it: every item that training
    saw is ranked, seen items but the target are masked, ties count as the mean over their orders."""

    def __init__(self, folder: Path, tokens: dict[str, list[str]]) -> None:
        arrays = load_file(folder / "validation.safetensors")
        ids = json.loads((folder / "ids.json").read_text(encoding="utf-8"))
        rows = {name: {token: row for row, token in enumerate(tokens[name])} for name in tokens}
        user_rows = torch.tensor([rows["user"].get(user_id, 0) for user_id in ids["users"]])
        item_rows = torch.tensor([rows["item"].get(item_id, 0) for item_id in ids["items"]])
        self.users, self.targets = user_rows[arrays["users"]], item_rows[arrays["targets"]]
        self.offsets, self.items = _known(arrays["offsets"], item_rows[arrays["items"]])
        self.seen_offsets, self.seen = arrays["seen_offsets"], item_rows[arrays["seen"]]

    def ndcg(self, session: Session) -> float:
        gains = torch.cat([torch.zeros(1, dtype=torch.float64), (1.0 / torch.log2(torch.arange(2, K + 2, dtype=torch.float64))).cumsum(0)])
        total = 0.0
        for start in range(0, len(self.users), ROWS):
            stop = min(start + ROWS, len(self.users))
            try:
                scores = session.scores(self.users[start:stop], self.offsets[start : stop + 1], self.items)
            except _NotFinite as found:
                found.row += start
                raise
            targets = self.targets[start:stop]
            of_target = scores.gather(1, targets[:, None]).clone()
            seen = self.seen_offsets[start : stop + 1]
            rows = torch.repeat_interleave(torch.arange(stop - start), seen[1:] - seen[:-1])
            scores[rows, self.seen[seen[0] : seen[-1]]] = -torch.inf
            scores[:, 0] = -torch.inf
            better = (scores > of_target).sum(1)
            others_tied = (scores == of_target).sum(1) - (scores.gather(1, targets[:, None]) == of_target)[:, 0].long()
            mean = (gains[(better + others_tied + 1).clamp(max=K)] - gains[better.clamp(max=K)]) / (others_tied + 1)
            total += float(mean[targets > 0].sum())
        return total / len(self.users) if len(self.users) else 0.0


def _finite(scores: torch.Tensor) -> torch.Tensor:
    """(B, n_items). -inf is how a model says "never this item": it becomes the lowest float32, below every score and equal
    among its like. NaN and +inf are no scores. Column 0 is padding and may hold anything."""
    items = scores[:, 1:]
    if bool(torch.isfinite(items).all()):
        return scores
    bad = torch.isnan(items) | torch.isposinf(items)
    if bool(bad.any()):
        row, column = bad.nonzero()[0].tolist()
        raise _NotFinite(row, column + 1, float(items[row, column]))
    return scores.masked_fill(torch.isneginf(scores), torch.finfo(scores.dtype).min)


def _known(offsets: torch.Tensor, items: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Ragged rows without the items that training never saw (row 0)."""
    kept = items > 0
    before = torch.cat([torch.zeros(1, dtype=torch.int64), kept.cumsum(0)])
    return before[offsets], items[kept]


def _end_with_parent(parent: int) -> None:
    """A killed parent leaves no orphan, whatever RecBole is computing; also one killed while this process was starting."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _own_stdout() -> TextIO:
    """The channel to the parent; whatever RecBole prints goes to stderr."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return channel


def main(folder: Path, scratch: Path, parent: int) -> None:
    channel = _own_stdout()
    _end_with_parent(parent)
    _patch()
    sys.argv = sys.argv[:1]  # RecBole reads the arguments of whatever program imported it
    logging.disable(logging.INFO)

    def say(message: dict[str, Any]) -> None:
        channel.write(json.dumps(message) + "\n")
        channel.flush()

    session = Session(folder, scratch)
    for line in sys.stdin:
        try:
            say({"done": _answer(session, json.loads(line), say)})
        except _NotFinite as found:
            say({"not_finite": {"row": found.row, "item": found.item, "value": str(found.value), "epoch": found.epoch}})


def _answer(session: Session, request: dict[str, Any], say: Any) -> dict[str, Any]:
    if request["do"] == "train":
        return session.train(say, Checkpoint(Path(request["checkpoint"]) if request["checkpoint"] else None, request["fingerprint"], request["every"]))
    if request["do"] == "open":
        session.open()
        return {}
    asked = load_file(request["question"])
    compute = {"scores": session.scores, "states": session.states}[request["do"]]
    save_file({"values": compute(asked["users"], asked["offsets"], asked["items"]).contiguous()}, request["answer"])
    return {}


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
