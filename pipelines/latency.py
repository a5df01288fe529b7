"""How long a published model takes to score a request, in process."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from recsys.serving.recommender import Recommender

ROUNDS = 3
"""The best of them counts: whatever else the machine does only ever adds time."""


def measure_latency(recommender: Recommender, users: Sequence[str], requests: int, candidates: int) -> float:
    """Milliseconds, the 99th percentile over `requests` requests, each of one of `users` and `candidates` items."""
    items = recommender.catalog.items.ids
    generator = np.random.default_rng(0)
    asked = [[items[num] for num in generator.choice(len(items), min(candidates, len(items)), replace=False)] for _ in range(min(requests, 20))]
    recommender.score(users[0], asked[0])
    return min(_round(recommender, users, asked, requests) for _ in range(ROUNDS))


def _round(recommender: Recommender, users: Sequence[str], asked: list[list[str]], requests: int) -> float:
    taken = []
    for number in range(requests):
        started = time.perf_counter()
        recommender.score(users[number % len(users)], asked[number % len(asked)])
        taken.append(1000 * (time.perf_counter() - started))
    return float(np.quantile(taken, 0.99))
