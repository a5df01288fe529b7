"""What a new version must pass before it answers anybody."""

from __future__ import annotations

import numpy as np

from recsys.errors import ArtifactError
from recsys.serving.recommender import Recommender
from recsys.types import Queries

WARM_UP = 3


def examine(model: Recommender, serving: Recommender | None = None) -> None:
    """Warm `model` up and test it. The loader has checked hashes and spaces already.

    serving: the model that answers now, whose callers must not lose anything.

    Raises:
        ArtifactError: another model's name, a catalogue without columns that callers may send, golden requests that are answered otherwise
            than when it was published, or scores that are all the same.
        NonFiniteError: NaN or infinity.
    """
    if serving is not None:
        _check_signature(model, serving)
    bundle = model.bundle
    for golden in bundle.golden:
        golden.check(bundle.ranker)
    histories = [np.array(golden.history, dtype=np.int64) for golden in bundle.golden] or [np.zeros(0, dtype=np.int64)]
    for _ in range(WARM_UP):
        for history in histories:
            states = model.represent(Queries.of_history(history))
            _, best, kept = model.best(model.scores(states), 10)
            model.shares(states, best[kept])
    longest = max(histories, key=len)
    scores = model.scores(model.represent(Queries.of_history(longest)))
    finite = scores[np.isfinite(scores)]
    if len(finite) > 1 and float(finite.min()) == float(finite.max()):
        raise ArtifactError(f"model {model.name} {model.version} gives each of {len(finite)} items the score {float(finite[0]):.4g}; publish it again")


def _check_signature(model: Recommender, serving: Recommender) -> None:
    if model.name != serving.name:
        raise ArtifactError(f"version {model.version} is of the model {model.name!r}, this service answers for {serving.name!r}")
    # Items that were added have the columns of the bundle's catalogue.
    old, new = serving.bundle.catalog.table.schema, model.bundle.catalog.table.schema
    lost = {name: str(kind) for name, kind in old.items() if new.get(name) != kind}
    if lost:
        raise ArtifactError(f"the catalogue of version {model.version} lacks columns that callers may send: {lost}; it has: {dict(new)}")
