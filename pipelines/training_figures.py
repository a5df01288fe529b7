"""Figures of a training on pairs, for manifests and the tracking server."""

from __future__ import annotations

from typing import Any

import numpy as np

from recsys.embeddings.pair_training import PairTraining


def training_figures(training: PairTraining) -> dict[str, Any]:
    """Plain numbers; what is not known is None."""
    return {
        "pairs": training.pairs,
        "parameters": training.parameters,
        "epochs": len(training.history),
        "best_epoch": training.best_epoch,
        "capped": training.capped,
        "train_seconds": round(training.seconds, 1),
        "pairs_per_second": None if np.isnan(training.pairs_per_second) else round(training.pairs_per_second, 2),
        "lower_items": training.lower_items,
        "lower_seconds": round(training.lower_seconds, 1),
        "peak_mb": round(training.peak_mb, 1),
        "validation_before": round(training.validation_before, 6),
        "validation": round(max(row["validation"] for row in training.history if "validation" in row), 6),
    }
