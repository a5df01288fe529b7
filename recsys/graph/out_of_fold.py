"""`out_of_fold`: what a head fitted on labels says of each node, where no node is told by a head that learned its own label.

TAPE lets one language model learn from the labels of the very nodes whose vectors then train the graph network: there its
vectors are surer than on any other node, and the network learns to trust them too much.
"""

from __future__ import annotations

import warnings
from typing import Annotated

import numpy as np
from pydantic import Field

from recsys.config import Config
from recsys.errors import DataError
from recsys.rng import derive_seed
from recsys.types import FloatArray, IntArray


class HeadConfig(Config):
    folds: Annotated[int, Field(ge=2)] = 5
    """At most: a class with fewer labelled nodes takes its number."""
    strength: Annotated[float, Field(gt=0)] = 10.0
    """Inverse of the penalty of a logistic regression on unit vectors."""


def out_of_fold(config: HeadConfig, values: FloatArray, labels: IntArray, train: IntArray, n_classes: int, *, seed: int) -> FloatArray:
    """float32 (n, C) probabilities. Of a node in `train`: by the head of the fold that left it out; of the others: the mean of all heads.

    values: float32 (n, d).  labels: int64 (n,), read at `train` alone.  train: int64, ascending.

    Raises:
        DataError: fewer than two labelled nodes of a class, so that none can be left out.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    counts = np.bincount(labels[train], minlength=n_classes)
    folds = int(min(config.folds, counts.min()))
    if folds < 2:
        raise DataError(f"out-of-fold features need two labelled nodes a class or more, class {int(counts.argmin())} has {int(counts.min())}")
    splitter = StratifiedKFold(folds, shuffle=True, random_state=derive_seed(seed, "folds") % 2**32)
    found = np.zeros((len(values), n_classes))
    others = np.setdiff1d(np.arange(len(values)), train)
    for fitted, held in splitter.split(train, labels[train]):
        head = LogisticRegression(C=config.strength, max_iter=300)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the last digits of a feature do not matter
            head.fit(values[train[fitted]], labels[train[fitted]])
        told = np.concatenate([train[held], others])
        shares = head.predict_proba(values[told])
        found[train[held]] = shares[: len(held)]
        found[others] += shares[len(held) :] / folds
    return found.astype(np.float32)
