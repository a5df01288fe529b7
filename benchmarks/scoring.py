"""Milliseconds of one request: 1 user against all items of the size of Beauty, and against 500 candidates.

One thread, as in the service: the pools of threads of torch and of numpy would wait for each other. Weights are random: the time does not
depend on them. The history is full (50 items, or what the model reads). The best ten are picked; median and 95th percentile over the
requests. The fused ranker holds one vector an item, whatever signals it was made of.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from benchmarks._progress import say
from recsys.data.sequences import Sequences
from recsys.data.split import Cases, Split
from recsys.data.vocabulary import Vocabulary
from recsys.heads.config import FusionConfig
from recsys.heads.network import FusionNetwork
from recsys.heads.ranker import FusedRanker
from recsys.heads.signals import SignalTransform
from recsys.models.ease import Ease, EaseConfig
from recsys.models.itemknn import ItemKNN, ItemKNNConfig
from recsys.models.ligr import LigrConfig
from recsys.models.sasrec import SasRecConfig
from recsys.models.text_nearest import TextNearest
from recsys.ranking.topk import top_k
from recsys.types import Queries, Scorer

ITEMS, CANDIDATES, HISTORY, REQUESTS = 12_101, 500, 50, 300
SMALL_ITEMS, SMALL_REQUESTS = 600, 10
USERS = 2_000
SIGNALS = {"minilm": 384, "smollm2": 576, "graph": 64}


def run(*, small: bool = False, threads: int = 2) -> dict[str, Any]:
    torch.set_num_threads(1)
    n_items, requests = (SMALL_ITEMS, SMALL_REQUESTS) if small else (ITEMS, REQUESTS)
    rows = []
    for name, make in models(n_items).items():
        scorer = make()
        everything, some = np.arange(n_items), np.sort(np.random.default_rng(1).permutation(n_items)[:CANDIDATES])
        row: dict[str, Any] = {"model": name}
        for what, item_nums in ((f"{n_items}_items", everything), (f"{len(some)}_candidates", some)):
            with threadpool_limits(limits=1):
                taken = milliseconds(scorer, item_nums, requests)
            row |= {f"{what}_ms": round(float(np.median(taken)), 3), f"{what}_p95_ms": round(float(np.quantile(taken, 0.95)), 3)}
        rows.append(row)
        say(f"{name}: {row}")
    return {"threads": 1, "requests": requests, "history": HISTORY, "models": rows, "notes": [" ".join((__doc__ or "").split("\n\n")[1].split())]}


def milliseconds(scorer: Scorer, item_nums: np.ndarray, requests: int) -> list[float]:
    """Of each request: state of the user, scores, the ten best."""
    rng = np.random.default_rng(0)
    taken = []
    for number in range(requests + 5):
        query = Queries(np.array([number % USERS]), (rng.integers(0, scorer.n_items, HISTORY),))
        started = time.perf_counter()
        top_k(scorer.score(query, item_nums), 10)
        taken.append(1000 * (time.perf_counter() - started))
    # The first few load code and caches.
    return taken[5:]


def models(n_items: int) -> dict[str, Callable[[], Scorer]]:
    sasrec = SasRecConfig(dim=64, blocks=2, max_length=HISTORY)
    ligr = LigrConfig(dim=64, blocks=1, max_length=HISTORY)
    plain = FusionConfig(encoder=sasrec, projection=False, gate=False)
    return {
        "ItemKNN": lambda: ItemKNN.fit(ItemKNNConfig(), _split(n_items)),
        "EASE": lambda: Ease.fit(EaseConfig(), _split(n_items)),
        "nearest in 384 dimensions": lambda: TextNearest(np.random.default_rng(0).normal(size=(n_items, 384)).astype(np.float32), "text"),
        "SASRec": lambda: ranker(plain, n_items, {}),
        "eSASRec": lambda: ranker(plain.model_copy(update={"encoder": ligr}), n_items, {}),
        "fused, ID + MiniLM": lambda: ranker(plain, n_items, {"minilm": 384}),
        "fused, ID + MiniLM + SmolLM2 + graph, gated": lambda: ranker(FusionConfig(encoder=sasrec), n_items, SIGNALS),
    }


def ranker(config: FusionConfig, n_items: int, signals: dict[str, int]) -> FusedRanker:
    """Of random weights."""
    torch.manual_seed(0)
    network = FusionNetwork(config, n_items, signals)
    vectors = {name: torch.randn(n_items, k) for name, k in signals.items()}
    present = torch.ones(n_items, 1 + len(signals), dtype=torch.bool)
    with torch.no_grad():
        components = network.all_components(vectors, present, torch.ones(n_items))
    transforms = {name: SignalTransform(torch.zeros(k), None) for name, k in signals.items()}
    return FusedRanker(config, network, components, np.ones(n_items, dtype=np.bool_), transforms, dict.fromkeys(signals, "random"))


def _split(n_items: int) -> Split:
    rng = np.random.default_rng(0)
    rows = Sequences.of_rows([rng.integers(0, n_items, 10) for _ in range(USERS)])
    none, users, items = Cases.of_rows([]), Vocabulary(str(n) for n in range(USERS)), Vocabulary(str(n) for n in range(n_items))
    return Split("leave_last_out", users, items, rows, none, none, none, np.zeros(n_items, dtype=np.bool_), "random")
